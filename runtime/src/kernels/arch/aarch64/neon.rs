//! Tiles by widening products of bytes: `SMULL` and `SMLAL` add products of two tiles in 16-bit lanes, where `2 * 127 * 127` fits, and
//! `SADALP` adds neighbours to 32-bit lanes. A vector of weights holds four columns of four rows, so each row ends in two lanes, which
//! `ADDP` adds.

use core::arch::aarch64::*;
use core::arch::asm;
use core::mem::MaybeUninit;

use super::matmul::{self, COLUMNS, Dots, TILE_BYTES, TOKENS};

/// What every core can do.
#[derive(Clone, Copy)]
pub struct Tiles;

impl matmul::Tiles for Tiles {
    const SHARES_WEIGHTS: bool = false;

    #[inline]
    unsafe fn int8_dots(self, data: *const u8, x: *const i8, n_tiles: usize) -> Dots {
        // SAFETY: the caller's promise.
        unsafe { int8_dots(data, x, n_tiles) }
    }

    #[inline]
    unsafe fn int8_dots_of_tokens(
        self,
        data: *const u8,
        x: *const i8,
        stride: usize,
        n_tiles: usize,
    ) -> [Dots; TOKENS] {
        // SAFETY: the caller's promise.
        core::array::from_fn(|t| unsafe { int8_dots(data, x.add(t * stride), n_tiles) })
    }

    #[inline]
    unsafe fn group_dots(self, data: *const u8, x: *const i16) -> Dots {
        // SAFETY: the caller's promise.
        unsafe { group_dots(data, x) }
    }

    #[inline]
    unsafe fn short_group_dots(self, data: *const u8, x: *const i16, n_tiles: usize) -> Dots {
        // SAFETY: the caller's promise.
        unsafe { short_group_dots(data, x, n_tiles) }
    }
}

/// `$op` (smull, smlal or smlsl) of the 16 rows of a tile in v16-v19 or v20-v23 with four bytes, repeated in `$x`, in eight vectors of 16-bit lanes.
macro_rules! products {
    ($op:literal, "even", $x:literal, $($out:literal),*) => {
        products!($op, $x, "v16", "v17", "v18", "v19", $($out),*)
    };
    ($op:literal, "odd", $x:literal, $($out:literal),*) => {
        products!($op, $x, "v20", "v21", "v22", "v23", $($out),*)
    };
    ($op:literal, $x:literal, $p:literal, $q:literal, $r:literal, $s:literal,
     $a:literal, $b:literal, $c:literal, $d:literal, $e:literal, $f:literal, $g:literal, $h:literal) => {
        concat!(
            $op, " ", $a, ".8h, ", $p, ".8b, ", $x, ".8b\n", $op, "2 ", $b, ".8h, ", $p, ".16b, ", $x, ".16b\n",
            $op, " ", $c, ".8h, ", $q, ".8b, ", $x, ".8b\n", $op, "2 ", $d, ".8h, ", $q, ".16b, ", $x, ".16b\n",
            $op, " ", $e, ".8h, ", $r, ".8b, ", $x, ".8b\n", $op, "2 ", $f, ".8h, ", $r, ".16b, ", $x, ".16b\n",
            $op, " ", $g, ".8h, ", $s, ".8b, ", $x, ".8b\n", $op, "2 ", $h, ".8h, ", $s, ".16b, ", $x, ".16b\n"
        )
    };
}

/// Products in v4-v11.
macro_rules! int8_products {
    ($op:literal, $tile:tt, $x:literal) => {
        products!($op, $tile, $x, "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11")
    };
}

/// Carries v4-v11 to the 32-bit sums in v24-v31.
macro_rules! carry {
    () => {
        "sadalp v24.4s, v4.8h\n sadalp v25.4s, v5.8h\n sadalp v26.4s, v6.8h\n sadalp v27.4s, v7.8h\n\
         sadalp v28.4s, v8.8h\n sadalp v29.4s, v9.8h\n sadalp v30.4s, v10.8h\n sadalp v31.4s, v11.8h\n"
    };
}

/// The two lanes of each row, in v24-v31, become one in v24-v27.
macro_rules! fold {
    () => {
        "addp v24.4s, v24.4s, v25.4s\n addp v25.4s, v26.4s, v27.4s\n\
         addp v26.4s, v28.4s, v29.4s\n addp v27.4s, v30.4s, v31.4s\n"
    };
}

/// 16 columns at a time, then 4.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn int8_dots(data: *const u8, x: *const i8, n_tiles: usize) -> Dots {
    let (a, b, c, d): (int32x4_t, int32x4_t, int32x4_t, int32x4_t);
    // SAFETY: it reads `n_tiles` tiles at `data` and as many fours of bytes at `x`, which the caller promises.
    unsafe {
        asm!(
            "movi v24.4s, #0\n movi v25.4s, #0\n movi v26.4s, #0\n movi v27.4s, #0",
            "movi v28.4s, #0\n movi v29.4s, #0\n movi v30.4s, #0\n movi v31.4s, #0",
            "subs {n}, {n}, #4\n b.lo 3f",
            "2: ld4r {{v0.4s-v3.4s}}, [{x}], #16",
            "ld1 {{v16.16b-v19.16b}}, [{data}], #64\n ld1 {{v20.16b-v23.16b}}, [{data}], #64",
            int8_products!("smull", "even", "v0"), int8_products!("smlal", "odd", "v1"),
            "ld1 {{v16.16b-v19.16b}}, [{data}], #64\n ld1 {{v20.16b-v23.16b}}, [{data}], #64",
            carry!(),
            int8_products!("smull", "even", "v2"), int8_products!("smlal", "odd", "v3"),
            carry!(),
            "subs {n}, {n}, #4\n b.hs 2b",
            "3: ands {n}, {n}, #3\n b.eq 5f",
            "4: ld1r {{v0.4s}}, [{x}], #4",
            "ld1 {{v16.16b-v19.16b}}, [{data}], #64",
            int8_products!("smull", "even", "v0"), carry!(),
            "subs {n}, {n}, #1\n b.ne 4b",
            "5:",
            fold!(),
            data = inout(reg) data => _, x = inout(reg) x => _, n = inout(reg) n_tiles => _,
            out("v24") a, out("v25") b, out("v26") c, out("v27") d,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            out("v20") _, out("v21") _, out("v22") _, out("v23") _, out("v28") _, out("v29") _, out("v30") _, out("v31") _,
            options(nostack, readonly),
        );
    }
    [a, b, c, d]
}

/// Products with the activations' low parts, in v4-v11.
macro_rules! low_products {
    ($op:literal, $tile:tt, $x:literal) => {
        int8_products!($op, $tile, $x)
    };
}

/// Products with the activations' high parts, in v24-v31.
macro_rules! high_products {
    ($op:literal, $tile:tt, $x:literal) => {
        products!($op, $tile, $x, "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31")
    };
}

/// Two tiles with eight activations, taken apart, at the scratch memory.
macro_rules! two_tiles {
    ($first:literal) => {
        concat!(
            "ld4r {{v0.4s-v3.4s}}, [{parts}], #16\n",
            "ld1 {{v16.16b-v19.16b}}, [{data}], #64\n ld1 {{v20.16b-v23.16b}}, [{data}], #64\n",
            low_products!($first, "even", "v0"),
            high_products!($first, "even", "v2"),
            low_products!("smlal", "odd", "v1"),
            high_products!("smlal", "odd", "v3")
        )
    };
}

/// An activation of 12 bits is `64 * high + low` with both within -32..=32, so that eight products of either with weights of at most 127
/// fit in 16 bits, as many as a group's 32 columns put into a lane: `8 * 32 * 127 < 2^15`. Nothing is carried before the end.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn group_dots(data: *const u8, x: *const i16) -> Dots {
    let (a, b, c, d): (int32x4_t, int32x4_t, int32x4_t, int32x4_t);
    // Eight activations become 8 low and 8 high bytes.
    let mut parts = MaybeUninit::<[u8; 64]>::uninit();
    // SAFETY: it reads 8 tiles at `data` and 32 activations at `x`, which the caller promises, and uses `parts`.
    unsafe {
        asm!(
            "ld1 {{v4.8h-v7.8h}}, [{x}]",
            "xtn v0.8b, v4.8h\n xtn v1.8b, v5.8h\n xtn v2.8b, v6.8h\n xtn v3.8b, v7.8h",
            "shl v0.8b, v0.8b, #2\n shl v1.8b, v1.8b, #2\n shl v2.8b, v2.8b, #2\n shl v3.8b, v3.8b, #2",
            "sshr v0.8b, v0.8b, #2\n sshr v1.8b, v1.8b, #2\n sshr v2.8b, v2.8b, #2\n sshr v3.8b, v3.8b, #2",
            "rshrn2 v0.16b, v4.8h, #6\n rshrn2 v1.16b, v5.8h, #6",
            "rshrn2 v2.16b, v6.8h, #6\n rshrn2 v3.16b, v7.8h, #6",
            "st1 {{v0.16b-v3.16b}}, [{parts}]",
            two_tiles!("smull"), two_tiles!("smlal"), two_tiles!("smlal"), two_tiles!("smlal"),
            "saddlp v4.4s, v4.8h\n saddlp v5.4s, v5.8h\n saddlp v6.4s, v6.8h\n saddlp v7.4s, v7.8h",
            "saddlp v8.4s, v8.8h\n saddlp v9.4s, v9.8h\n saddlp v10.4s, v10.8h\n saddlp v11.4s, v11.8h",
            "saddlp v24.4s, v24.8h\n saddlp v25.4s, v25.8h\n saddlp v26.4s, v26.8h\n saddlp v27.4s, v27.8h",
            "saddlp v28.4s, v28.8h\n saddlp v29.4s, v29.8h\n saddlp v30.4s, v30.8h\n saddlp v31.4s, v31.8h",
            fold!(),
            "addp v4.4s, v4.4s, v5.4s\n addp v5.4s, v6.4s, v7.4s",
            "addp v6.4s, v8.4s, v9.4s\n addp v7.4s, v10.4s, v11.4s",
            "movi v0.4s, #64",
            "mla v4.4s, v24.4s, v0.4s\n mla v5.4s, v25.4s, v0.4s",
            "mla v6.4s, v26.4s, v0.4s\n mla v7.4s, v27.4s, v0.4s",
            data = inout(reg) data => _, x = in(reg) x, parts = inout(reg) parts.as_mut_ptr() => _,
            out("v4") a, out("v5") b, out("v6") c, out("v7") d,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v8") _, out("v9") _, out("v10") _, out("v11") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _, out("v29") _, out("v30") _, out("v31") _,
            options(nostack),
        );
    }
    [a, b, c, d]
}

/// A tile at a time, in 16-bit lanes: each vector of products holds one row.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn short_group_dots(data: *const u8, x: *const i16, n_tiles: usize) -> Dots {
    let mut dots = [vdupq_n_s32(0); 4];
    for tile in 0..n_tiles {
        // SAFETY: the caller promises `n_tiles` tiles and as many fours of activations.
        let (weights, x) =
            unsafe { (vld1q_s8_x4(data.add(tile * TILE_BYTES).cast()), vld1_s16(x.add(tile * COLUMNS))) };
        for (dots, weights) in dots.iter_mut().zip([weights.0, weights.1, weights.2, weights.3]) {
            let (low, high) = (vmovl_s8(vget_low_s8(weights)), vmovl_high_s8(weights));
            let rows_0_1 = vpaddq_s32(vmull_s16(vget_low_s16(low), x), vmull_s16(vget_high_s16(low), x));
            let rows_2_3 = vpaddq_s32(vmull_s16(vget_low_s16(high), x), vmull_s16(vget_high_s16(high), x));
            *dots = vaddq_s32(*dots, vpaddq_s32(rows_0_1, rows_2_3));
        }
    }
    dots
}
