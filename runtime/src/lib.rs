//! The `no_std`, heap-free runtime of Siskin.
#![no_std]
