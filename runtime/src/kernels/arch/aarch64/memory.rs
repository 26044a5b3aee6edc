//! Loads and stores of vectors that stay one instruction. Bare-metal targets align strictly: there the compiler takes a vector's access
//! apart into those of its elements, or bytes, which memory with the mapping switched on does not ask for.

use core::arch::aarch64::*;
use core::arch::asm;

/// A load of `$n` elements, in a register of the size `$size`.
macro_rules! load {
    ($name:ident, $vector:ty, [$element:ty; $n:literal], $size:literal) => {
        #[doc = concat!("Loads ", stringify!($n), " elements.")]
        #[inline(always)]
        pub fn $name(from: &[$element; $n]) -> $vector {
            let vector;
            // SAFETY: it reads `from`.
            unsafe {
                asm!(
                    concat!("ldr {vector:", $size, "}, [{from}]"),
                    vector = out(vreg) vector, from = in(reg) from,
                    options(pure, readonly, nostack, preserves_flags),
                );
            }
            vector
        }
    };
}

/// A store of four elements.
macro_rules! store {
    ($name:ident, $vector:ty, $element:ty) => {
        /// Stores four elements.
        #[inline(always)]
        pub fn $name(to: &mut [$element; 4], vector: $vector) {
            // SAFETY: it writes `to`.
            unsafe {
                asm!(
                    "str {vector:q}, [{to}]",
                    vector = in(vreg) vector, to = in(reg) to,
                    options(nostack, preserves_flags),
                );
            }
        }
    };
}

load!(load_f32, float32x4_t, [f32; 4], "q");
load!(load_i32, int32x4_t, [i32; 4], "q");
load!(load_i16, int16x8_t, [i16; 8], "q");
load!(load_u16, uint16x4_t, [u16; 4], "d");
load!(load_i8, int8x8_t, [i8; 8], "d");
store!(store_f32, float32x4_t, f32);
store!(store_i32, int32x4_t, i32);
