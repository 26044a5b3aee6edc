//! What a device can try at boot, before its model is trusted: the file's checksums, the core's kernels, and what the model is known to say.
//!
//! ```
//! siskin_device::model!(static SHAKESPEARE = "../../../tests/golden/shakespeare-260k.siskin");
//!
//! if let Err(fault) = SHAKESPEARE.self_test() {
//!     // This file has no golden tokens: `siskin compile --self-test TEXT` packs some.
//!     assert_eq!(fault.to_string(), "the file has no golden answers: compile the model with --self-test TEXT");
//! }
//! ```
//!
//! It takes as long as the generation of the golden prompt and of at most [`ANSWERS_MAX`] tokens. Code that does not call it has nothing of it.

mod golden;
mod vectors;

use core::fmt;

use siskin_runtime::{Kernels, PackedModel};

use crate::error::Error;

pub use golden::{ANSWERS_MAX, Golden, GoldenError, MAGIC, VERSION, record};

/// What a self-test found wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// The bytes in flash are not those of the packed file, or not for this core: the error names the section.
    File(Error),
    /// A kernel computes something else than its known answer; this is its name.
    Kernel(&'static str),
    /// The model says something else than it is known to say.
    Golden(GoldenError),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Kernel(name) => write!(f, "the kernel {name} computes something else than its known answer"),
            Self::Golden(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Fault {}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::File(error)
    }
}

impl From<GoldenError> for Fault {
    fn from(error: GoldenError) -> Self {
        Self::Golden(error)
    }
}

/// Tries the kernels that a model like this runs, each on a few generated numbers, whose answers are known.
///
/// # Errors
/// The name of the first kernel that computes something else.
pub fn check_kernels(model: &PackedModel<'_>, kernels: Kernels) -> Result<(), &'static str> {
    vectors::check(model, kernels)
}

/// Lets the model answer the prompt of its golden section in `arena`, as large as a session's, and compares.
///
/// # Errors
/// The first [`GoldenError`], also where the file has no such section.
pub fn check_golden(model: &PackedModel<'_>, kernels: Kernels, arena: &mut [u8]) -> Result<(), GoldenError> {
    Golden::of(model)?.check(model, kernels, arena)
}
