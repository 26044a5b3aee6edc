//! Links with this folder's memory map, handlers' defaults, and the map of sections of cortex-m-rt.

use std::env;

fn main() {
    let dir = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    println!("cargo::rerun-if-changed=memory.x");
    println!("cargo::rerun-if-changed=device.x");
    println!("cargo::rerun-if-env-changed=SISKIN_MODEL");
    println!("cargo::rustc-link-arg-bins=-L{dir}");
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
}
