//! Conformance cases.
#![no_std]
