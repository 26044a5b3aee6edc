//! The host-side compiler of Siskin.
