//! Links with this folder's memory map and map of sections.

use std::env;

fn main() {
    let dir = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    println!("cargo::rerun-if-changed=memory.x");
    println!("cargo::rerun-if-changed=link.x");
    println!("cargo::rustc-link-arg-bins=-L{dir}");
    println!("cargo::rustc-link-arg-bins=-T{dir}/link.x");
}
