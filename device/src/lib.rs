//! Siskin as a library for firmware: a packed model in flash, its memory as statics, and text from it.
//!
//! [`model!`] reads the model's header while the firmware is compiled. The memory that the model needs is then a `static` of that size,
//! seen by the linker like any other; a model that is too large is a compile error that names both figures. No type has a parameter.
//!
//! ```
//! use siskin_device::{Options, model};
//!
//! model! {
//!     /// Continues plays.
//!     static SHAKESPEARE = "../../tests/golden/shakespeare-260k.siskin", arena_bytes_max = 128 * 1024;
//! }
//!
//! fn main() -> Result<(), siskin_device::Error> {
//!     let mut writer = SHAKESPEARE.writer()?; // once: it takes the statics
//!     let mut text = writer.begin("ROMEO:", &Options::greedy(24))?;
//!     let mut line = String::new();
//!     while text.step(|piece| line.push_str(piece)).is_some() {
//!         // Other work goes here: a step is one token.
//!     }
//!     assert_eq!(line, "\nIt is a poor queen, and I'll be already.\n");
//!     Ok(())
//! }
//! ```
//!
//! This model needs more than 64 kB, so this does not compile:
//!
//! ```compile_fail
//! siskin_device::model!(static TOO_LARGE = "../../tests/golden/shakespeare-260k.siskin", arena_bytes_max = 64 * 1024);
//! ```
//!
//! Features name the core's kernels (`cortex-m-dsp`, ...) and what else is to be built. [`runtime`] is all that is below: sessions that
//! take and give tokens, encoders, grammars, samplers.
//!
//! On a core that cannot compare and swap (Cortex-M0, RV32IMC) the firmware needs an implementation of the crate `critical-section`, which
//! hardware abstraction layers have.
#![no_std]

mod error;
mod memory;
mod model;
pub mod self_test;
#[cfg(feature = "serial")]
pub mod serial;
mod shape;
mod writer;

pub use error::Error;
pub use memory::{Memory, Once};
pub use model::Model;
pub use shape::Shape;
pub use siskin_runtime as runtime;
pub use siskin_runtime::{Aligned, End, Sampling, TokenId, Window};
pub use writer::{ConstrainedText, Options, Text, Writer};

/// Defines a `static` [`Model`]: a packed file, and the memory that it works in.
///
/// ```text
/// model! {
///     pub static NAME = "model.siskin", arena_bytes_max = 64 * 1024, arena_section = ".axisram";
/// }
/// ```
/// The path is relative to the source file, and may be an `env!` or a `concat!`. What follows it may be left out: `arena_bytes_max` is the
/// most that the arena may take, `arena_section` the linker's section for it where it is not to lie in `.bss`; what it holds at the start
/// does not matter.
///
/// It does not compile where the file is no packed model, or needs a larger arena than allowed, or is of another family and the
/// feature `families` is off.
#[macro_export]
macro_rules! model {
    (
        $(#[$meta:meta])*
        $vis:vis static $name:ident = $path:expr
        $(, arena_bytes_max = $arena_bytes_max:expr)?
        $(, arena_section = $section:literal)? $(,)? $(;)?
    ) => {
        $(#[$meta])*
        $vis static $name: $crate::Model = {
            const SHAPE: $crate::Shape = $crate::Shape::read(include_bytes!($path));
            $(const _: () = SHAPE.check_arena($arena_bytes_max);)?
            static FILE: $crate::Aligned<[u8; include_bytes!($path).len()]> = $crate::Aligned(*include_bytes!($path));
            $(#[unsafe(link_section = $section)])?
            static ARENA: $crate::Memory<$crate::Aligned<[u8; SHAPE.arena_bytes]>> =
                $crate::Memory::new($crate::Aligned([0; SHAPE.arena_bytes]));
            static PROMPT: $crate::Memory<[$crate::TokenId; SHAPE.context_len]> =
                $crate::Memory::new([0; SHAPE.context_len]);
            $crate::Model::new(&FILE.0, SHAPE, &ARENA, &PROMPT)
        };
    };
}
