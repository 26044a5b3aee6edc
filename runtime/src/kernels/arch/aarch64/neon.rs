//! Tiles by widening products of bytes: `SMULL` and `SMLAL` add products of two tiles in 16-bit lanes, where `2 * 127 * 127` fits, and
//! `SADALP` adds neighbours to 32-bit lanes. A vector of weights holds four columns of four rows, so each row ends in two lanes, which
//! `ADDP` adds.

use core::arch::aarch64::*;
use core::arch::asm;
use core::mem::MaybeUninit;

use super::matmul::{self, Blocks, COLUMNS, Dots, GROUP_TILES, ROWS, TILE_BYTES, TOKENS, scale_groups, to_floats};

/// What every core can do.
#[derive(Clone, Copy)]
pub struct Tiles;

impl matmul::Tiles for Tiles {
    const SHARES_WEIGHTS: bool = false;

    #[inline]
    unsafe fn int8_blocks(self, blocks: Blocks<f32>, x: *const i8, x_scale: f32, out: *mut f32, n_blocks: usize) {
        // SAFETY: the caller's promise.
        unsafe { int8_blocks(blocks, x, x_scale, out, n_blocks) }
    }

    #[inline]
    unsafe fn int8_block_of_tokens(
        self,
        block: Blocks<f32>,
        x: *const i8,
        x_scales: &[f32; TOKENS],
        sums: &mut [[f32; ROWS]; TOKENS],
    ) {
        let x_stride = 2 * COLUMNS * block.n_tiles;
        for (token, (&x_scale, sums)) in x_scales.iter().zip(sums).enumerate() {
            // SAFETY: as above, for each token.
            unsafe { int8_blocks(block, x.add(token * x_stride), x_scale, sums.as_mut_ptr(), 1) }
        }
    }

    #[inline]
    unsafe fn whole_groups(
        self,
        blocks: Blocks<u16>,
        x: *const i16,
        x_scales: *const f32,
        out: *mut f32,
        n_blocks: usize,
    ) {
        // SAFETY: as above.
        unsafe { whole_groups(blocks, x, x_scales, out, n_blocks) }
    }

    #[inline]
    unsafe fn short_group_dots(self, data: *const u8, x: *const i16, n_tiles: usize) -> Dots {
        // SAFETY: as above.
        unsafe { short_group_dots(data, x, n_tiles) }
    }
}

/// `$op` (smull or smlal) of the 16 rows of a tile in v16-v19 or v20-v23 with four bytes, repeated in `$x`, in eight vectors of 16-bit lanes.
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

/// Products in v4-v11, with the activations or their low parts.
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

/// Block after block, of each 16 columns at a time, then 4.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn int8_blocks(blocks: Blocks<f32>, x: *const i8, x_scale: f32, out: *mut f32, n_blocks: usize) {
    // SAFETY: it reads `n_blocks` of tiles and scales and as many fours of bytes at `x` as a block has tiles, and writes 16
    // numbers a block, all of which the caller promises.
    unsafe {
        asm!(
            "cbz {blocks}, 8f",
            "1: movi v24.4s, #0\n movi v25.4s, #0\n movi v26.4s, #0\n movi v27.4s, #0",
            "movi v28.4s, #0\n movi v29.4s, #0\n movi v30.4s, #0\n movi v31.4s, #0",
            "mov {xp}, {x}",
            "subs {n}, {n_tiles}, #4\n b.lo 3f",
            "2: ld4r {{v0.4s-v3.4s}}, [{xp}], #16",
            "ld1 {{v16.16b-v19.16b}}, [{data}], #64\n ld1 {{v20.16b-v23.16b}}, [{data}], #64",
            int8_products!("smull", "even", "v0"), int8_products!("smlal", "odd", "v1"),
            "ld1 {{v16.16b-v19.16b}}, [{data}], #64\n ld1 {{v20.16b-v23.16b}}, [{data}], #64",
            carry!(),
            int8_products!("smull", "even", "v2"), int8_products!("smlal", "odd", "v3"),
            carry!(),
            "subs {n}, {n}, #4\n b.hs 2b",
            "3: ands {n}, {n}, #3\n b.eq 5f",
            "4: ld1r {{v0.4s}}, [{xp}], #4",
            "ld1 {{v16.16b-v19.16b}}, [{data}], #64",
            int8_products!("smull", "even", "v0"), carry!(),
            "subs {n}, {n}, #1\n b.ne 4b",
            "5: ld1 {{v0.4s-v3.4s}}, [{scales}], #64",
            fold!(),
            to_floats!("v24"),
            to_floats!("v25"),
            to_floats!("v26"),
            to_floats!("v27"),
            "fmul v0.4s, v0.4s, v12.s[0]\n fmul v1.4s, v1.4s, v12.s[0]",
            "fmul v2.4s, v2.4s, v12.s[0]\n fmul v3.4s, v3.4s, v12.s[0]",
            "fmul v24.4s, v24.4s, v0.4s\n fmul v25.4s, v25.4s, v1.4s",
            "fmul v26.4s, v26.4s, v2.4s\n fmul v27.4s, v27.4s, v3.4s",
            "st1 {{v24.4s-v27.4s}}, [{out}], #64",
            "subs {blocks}, {blocks}, #1\n b.ne 1b",
            "8:",
            data = inout(reg) blocks.data => _, scales = inout(reg) blocks.scales => _, n_tiles = in(reg) blocks.n_tiles,
            x = in(reg) x, xp = out(reg) _, n = out(reg) _, out = inout(reg) out => _, blocks = inout(reg) n_blocks => _,
            in("v12") x_scale,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            out("v20") _, out("v21") _, out("v22") _, out("v23") _, out("v24") _, out("v25") _, out("v26") _, out("v27") _,
            out("v28") _, out("v29") _, out("v30") _, out("v31") _,
            options(nostack),
        );
    }
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
            "ld4r {{v0.4s-v3.4s}}, [{p}], #16\n",
            "ld1 {{v16.16b-v19.16b}}, [{data}], #64\n ld1 {{v20.16b-v23.16b}}, [{data}], #64\n",
            int8_products!($first, "even", "v0"),
            high_products!($first, "even", "v2"),
            int8_products!("smlal", "odd", "v1"),
            high_products!("smlal", "odd", "v3")
        )
    };
}

/// An activation of 12 bits is `64 * high + low` with both within -32..=32, so that eight products of either with weights of at most 127
/// fit in 16 bits, as many as a group's 32 columns put into a lane: `8 * 32 * 127 < 2^15`. Nothing is carried before the end.
#[target_feature(enable = "neon")]
unsafe fn whole_groups(blocks: Blocks<u16>, x: *const i16, x_scales: *const f32, out: *mut f32, n_blocks: usize) {
    let (n_groups, n_rest) = (blocks.n_tiles / GROUP_TILES, blocks.n_tiles % GROUP_TILES);
    // Eight activations become 8 low and 8 high bytes.
    let mut parts = MaybeUninit::<[u8; 64]>::uninit();
    // SAFETY: it reads `n_blocks` of tiles and scales, as many fours of activations as a block has tiles, and their scales, and
    // writes 16 numbers a block, all of which the caller promises, and `parts`.
    unsafe {
        asm!(
            "cbz {blocks}, 4f",
            // Adding to -0 leaves every first term as it is.
            "1: movi v12.4s, #0x80, lsl #24\n movi v13.4s, #0x80, lsl #24",
            "movi v14.4s, #0x80, lsl #24\n movi v15.4s, #0x80, lsl #24",
            "mov {xp}, {x}\n mov {xs}, {x_scales}\n mov {n}, {n_groups}\n cbz {n}, 3f",
            "2: ld1 {{v4.8h-v7.8h}}, [{xp}], #64",
            "xtn v0.8b, v4.8h\n xtn v1.8b, v5.8h\n xtn v2.8b, v6.8h\n xtn v3.8b, v7.8h",
            "shl v0.8b, v0.8b, #2\n shl v1.8b, v1.8b, #2\n shl v2.8b, v2.8b, #2\n shl v3.8b, v3.8b, #2",
            "sshr v0.8b, v0.8b, #2\n sshr v1.8b, v1.8b, #2\n sshr v2.8b, v2.8b, #2\n sshr v3.8b, v3.8b, #2",
            "rshrn2 v0.16b, v4.8h, #6\n rshrn2 v1.16b, v5.8h, #6",
            "rshrn2 v2.16b, v6.8h, #6\n rshrn2 v3.16b, v7.8h, #6",
            "mov {p}, {parts}\n st1 {{v0.16b-v3.16b}}, [{parts}]",
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
            scale_groups!("v4", "v5", "v6", "v7", "v12", "v13", "v14", "v15"),
            "subs {n}, {n}, #1\n b.ne 2b",
            "3: st1 {{v12.4s-v15.4s}}, [{out}], #64",
            "add {data}, {data}, {skip}\n add {scales}, {scales}, {skip_scales}",
            "subs {blocks}, {blocks}, #1\n b.ne 1b",
            "4:",
            data = inout(reg) blocks.data => _, scales = inout(reg) blocks.scales => _, x = in(reg) x, xp = out(reg) _,
            x_scales = in(reg) x_scales, xs = out(reg) _, n_groups = in(reg) n_groups, n = out(reg) _,
            // What a last group takes, which is not whole.
            skip = in(reg) n_rest * TILE_BYTES, skip_scales = in(reg) if n_rest > 0 { 2 * ROWS } else { 0 },
            out = inout(reg) out => _, blocks = inout(reg) n_blocks => _,
            parts = in(reg) parts.as_mut_ptr(), p = out(reg) _,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _, out("v15") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _, out("v29") _, out("v30") _, out("v31") _,
            options(nostack),
        );
    }
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
