//! The host-side compiler of Siskin.

pub mod artifact;
