//! Links with the memory map of mps2-an386.

use std::env;

fn main() {
    let dir = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    println!("cargo::rerun-if-changed=../mps2-an386/memory.x");
    println!("cargo::rustc-link-arg-bins=-L{dir}/../mps2-an386");
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
}
