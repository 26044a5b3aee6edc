//! The cases on this machine, with every backend that it has.

use siskin_conformance::{FAMILIES, Memory};
use siskin_runtime::Kernels;

#[test]
fn every_backend_conforms() {
    for kernels in Kernels::available() {
        for (name, family) in FAMILIES {
            let n_cases = family(kernels, &mut Memory::new());
            assert!(n_cases.is_ok_and(|n| n > 100), "{name} with {}: {n_cases:?}", kernels.name());
        }
    }
}
