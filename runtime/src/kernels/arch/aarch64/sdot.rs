//! Tiles by `SDOT`, which adds four products of bytes to each 32-bit lane: a vector of weights holds four columns of four rows, an element of
//! the activations' vector the same four columns.

use core::arch::aarch64::*;
use core::arch::asm;

use super::Sdot;
use super::matmul::{self, Blocks, COLUMNS, Dots, GROUP_TILES, ROWS, TILE_BYTES, TOKENS, scale_groups, to_floats};

/// The proof that `SDOT` may be executed, as a way to multiply tiles.
#[derive(Clone, Copy)]
pub struct Tiles(());

impl Tiles {
    /// By the proof.
    pub fn new(_: Sdot) -> Self {
        Self(())
    }
}

impl matmul::Tiles for Tiles {
    const SHARES_WEIGHTS: bool = true;

    #[inline]
    unsafe fn int8_blocks(self, blocks: Blocks<f32>, x: *const i8, x_scale: f32, out: *mut f32, n_blocks: usize) {
        // SAFETY: the caller's promise; a value of `Tiles` exists only where the CPU has the extension.
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
        // SAFETY: as above.
        unsafe { int8_block_of_tokens(block, x, x_scales, sums) }
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

/// Loads the next tile into one of three sets of registers, so that a load and its use are a tile apart.
macro_rules! load {
    (0) => {
        "ld1 {{v20.16b-v23.16b}}, [{data}], #64\n"
    };
    (1) => {
        "ld1 {{v24.16b-v27.16b}}, [{data}], #64\n"
    };
    (2) => {
        "ld1 {{v28.16b-v31.16b}}, [{data}], #64\n"
    };
}

/// Adds the products of a set's tile with an element of `$x` to v16-v19.
macro_rules! multiply {
    (0, $x:literal) => {
        multiply!("v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", $x)
    };
    (1, $x:literal) => {
        multiply!("v16", "v17", "v18", "v19", "v24", "v25", "v26", "v27", $x)
    };
    (2, $x:literal) => {
        multiply!("v16", "v17", "v18", "v19", "v28", "v29", "v30", "v31", $x)
    };
    ($a:literal, $b:literal, $c:literal, $d:literal, $p:literal, $q:literal, $r:literal, $s:literal, $x:expr) => {
        concat!(
            "sdot ", $a, ".4s, ", $p, ".16b, ", $x, "\nsdot ", $b, ".4s, ", $q, ".16b, ", $x, "\n", "sdot ", $c,
            ".4s, ", $r, ".16b, ", $x, "\nsdot ", $d, ".4s, ", $s, ".16b, ", $x, "\n"
        )
    };
}

/// The 16 tiles of 64 columns, the activations of which are in v0-v3.
macro_rules! wide_tiles {
    () => {
        concat!(
            load!(0),
            load!(1),
            multiply!(0, "v0.4b[0]"),
            load!(2),
            multiply!(1, "v0.4b[1]"),
            load!(0),
            multiply!(2, "v0.4b[2]"),
            load!(1),
            multiply!(0, "v0.4b[3]"),
            load!(2),
            multiply!(1, "v1.4b[0]"),
            load!(0),
            multiply!(2, "v1.4b[1]"),
            load!(1),
            multiply!(0, "v1.4b[2]"),
            load!(2),
            multiply!(1, "v1.4b[3]"),
            load!(0),
            multiply!(2, "v2.4b[0]"),
            load!(1),
            multiply!(0, "v2.4b[1]"),
            load!(2),
            multiply!(1, "v2.4b[2]"),
            load!(0),
            multiply!(2, "v2.4b[3]"),
            load!(1),
            multiply!(0, "v3.4b[0]"),
            load!(2),
            multiply!(1, "v3.4b[1]"),
            load!(0),
            multiply!(2, "v3.4b[2]"),
            multiply!(0, "v3.4b[3]")
        )
    };
}

/// No products in v16-v19.
macro_rules! zero_block {
    () => {
        "movi v16.4s, #0\n movi v17.4s, #0\n movi v18.4s, #0\n movi v19.4s, #0"
    };
}

/// Scales a block's dot products in v16-v19, and writes them.
macro_rules! scale_block {
    () => {
        "ld1 {{v20.4s-v23.4s}}, [{scales}], #64
         scvtf v16.4s, v16.4s\n scvtf v17.4s, v17.4s\n scvtf v18.4s, v18.4s\n scvtf v19.4s, v19.4s
         fmul v20.4s, v20.4s, v4.s[0]\n fmul v21.4s, v21.4s, v4.s[0]
         fmul v22.4s, v22.4s, v4.s[0]\n fmul v23.4s, v23.4s, v4.s[0]
         fmul v16.4s, v16.4s, v20.4s\n fmul v17.4s, v17.4s, v21.4s
         fmul v18.4s, v18.4s, v22.4s\n fmul v19.4s, v19.4s, v23.4s
         st1 {{v16.4s-v19.4s}}, [{out}], #64"
    };
}

/// Block after block, of each 64 columns at a time, then 16, then 4.
#[target_feature(enable = "dotprod")]
#[inline]
unsafe fn int8_blocks(blocks: Blocks<f32>, x: *const i8, x_scale: f32, out: *mut f32, n_blocks: usize) {
    /// Tiles in 64 columns.
    const WIDE: usize = 16;
    let n_wide = blocks.n_tiles / WIDE;
    // SAFETY: it reads `n_blocks` of tiles and scales and as many fours of bytes at `x` as a block has tiles, and writes 16
    // numbers a block, all of which the caller promises.
    unsafe {
        asm!(
            "cbz {blocks}, 9f",
            "cmp {n_tiles}, #16\n b.eq 7f",
            "2:",
            zero_block!(),
            "mov {xp}, {x}",
            "cbz {n_wide}, 4f",
            "3: ld1 {{v0.16b-v3.16b}}, [{xp}], #64",
            wide_tiles!(),
            "cmp {xp}, {wide_end}\n b.ne 3b",
            "4: ands {n}, {n_tiles}, #15\n b.eq 6f",
            "subs {n}, {n}, #4\n b.lo 4f",
            "3: ldr q0, [{xp}], #16",
            load!(0), load!(1), multiply!(0, "v0.4b[0]"),
            load!(2), multiply!(1, "v0.4b[1]"), load!(0), multiply!(2, "v0.4b[2]"), multiply!(0, "v0.4b[3]"),
            "subs {n}, {n}, #4\n b.hs 3b",
            "4: ands {n}, {n}, #3\n b.eq 6f",
            "5: ldr s0, [{xp}], #4",
            load!(0), multiply!(0, "v0.4b[0]"),
            "subs {n}, {n}, #1\n b.ne 5b",
            "6:",
            scale_block!(),
            "subs {blocks}, {blocks}, #1\n b.ne 2b\n b 9f",
            // A row has 64 columns: its activations stay where they are.
            "7: ld1 {{v0.16b-v3.16b}}, [{x}]",
            "8:",
            zero_block!(),
            wide_tiles!(),
            scale_block!(),
            "subs {blocks}, {blocks}, #1\n b.ne 8b",
            "9:",
            data = inout(reg) blocks.data => _, scales = inout(reg) blocks.scales => _, n_tiles = in(reg) blocks.n_tiles,
            n_wide = in(reg) n_wide, wide_end = in(reg) x.wrapping_add(n_wide * WIDE * COLUMNS),
            x = in(reg) x, xp = out(reg) _, n = out(reg) _, out = inout(reg) out => _, blocks = inout(reg) n_blocks => _,
            in("v4") x_scale,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _, out("v29") _, out("v30") _, out("v31") _,
            options(nostack),
        );
    }
}

/// Adds the products of a tile in `$p` to `$s` with column `$lane` of the vectors v0-v3, one a token, to v16-v31.
macro_rules! multiply_tokens {
    ($p:literal, $q:literal, $r:literal, $s:literal, $lane:literal) => {
        concat!(
            multiply!("v16", "v17", "v18", "v19", $p, $q, $r, $s, concat!("v0.4b[", $lane, "]")),
            multiply!("v20", "v21", "v22", "v23", $p, $q, $r, $s, concat!("v1.4b[", $lane, "]")),
            multiply!("v24", "v25", "v26", "v27", $p, $q, $r, $s, concat!("v2.4b[", $lane, "]")),
            multiply!("v28", "v29", "v30", "v31", $p, $q, $r, $s, concat!("v3.4b[", $lane, "]"))
        )
    };
}

/// Scales a token's dot products, and writes them.
macro_rules! scale_token {
    ($a:literal, $b:literal, $c:literal, $d:literal, $token:literal) => {
        concat!(
            to_floats!($a),
            to_floats!($b),
            to_floats!($c),
            to_floats!($d),
            "fmul v4.4s, v8.4s, v0.s[",
            $token,
            "]\n fmul v5.4s, v9.4s, v0.s[",
            $token,
            "]\n",
            "fmul v6.4s, v10.4s, v0.s[",
            $token,
            "]\n fmul v7.4s, v11.4s, v0.s[",
            $token,
            "]\n",
            "fmul v4.4s, v4.4s, ",
            $a,
            ".4s\n fmul v5.4s, v5.4s, ",
            $b,
            ".4s\n",
            "fmul v6.4s, v6.4s, ",
            $c,
            ".4s\n fmul v7.4s, v7.4s, ",
            $d,
            ".4s\n",
            "st1 {{v4.4s-v7.4s}}, [{sums}], #64\n"
        )
    };
}

/// 16 columns at a time, then 4.
#[target_feature(enable = "dotprod")]
unsafe fn int8_block_of_tokens(
    block: Blocks<f32>,
    x: *const i8,
    x_scales: &[f32; TOKENS],
    sums: &mut [[f32; ROWS]; TOKENS],
) {
    let x_stride = 2 * COLUMNS * block.n_tiles;
    // SAFETY: it reads a block's tiles and scales and as many fours of bytes of each token, all of which the caller promises,
    // and writes `sums`.
    unsafe {
        asm!(
            "movi v16.4s, #0\n movi v17.4s, #0\n movi v18.4s, #0\n movi v19.4s, #0",
            "movi v20.4s, #0\n movi v21.4s, #0\n movi v22.4s, #0\n movi v23.4s, #0",
            "movi v24.4s, #0\n movi v25.4s, #0\n movi v26.4s, #0\n movi v27.4s, #0",
            "movi v28.4s, #0\n movi v29.4s, #0\n movi v30.4s, #0\n movi v31.4s, #0",
            "subs {n}, {n}, #4\n b.lo 3f",
            "2: ldr q0, [{x0}], #16\n ldr q1, [{x1}], #16\n ldr q2, [{x2}], #16\n ldr q3, [{x3}], #16",
            "ld1 {{v8.16b-v11.16b}}, [{data}], #64\n ld1 {{v12.16b-v15.16b}}, [{data}], #64",
            multiply_tokens!("v8", "v9", "v10", "v11", "0"),
            "ld1 {{v8.16b-v11.16b}}, [{data}], #64",
            multiply_tokens!("v12", "v13", "v14", "v15", "1"),
            "ld1 {{v12.16b-v15.16b}}, [{data}], #64",
            multiply_tokens!("v8", "v9", "v10", "v11", "2"),
            multiply_tokens!("v12", "v13", "v14", "v15", "3"),
            "subs {n}, {n}, #4\n b.hs 2b",
            "3: ands {n}, {n}, #3\n b.eq 5f",
            "4: ldr s0, [{x0}], #4\n ldr s1, [{x1}], #4\n ldr s2, [{x2}], #4\n ldr s3, [{x3}], #4",
            "ld1 {{v8.16b-v11.16b}}, [{data}], #64",
            multiply_tokens!("v8", "v9", "v10", "v11", "0"),
            "subs {n}, {n}, #1\n b.ne 4b",
            "5: ld1 {{v8.4s-v11.4s}}, [{scales}]\n ldr q0, [{x_scales}]",
            scale_token!("v16", "v17", "v18", "v19", "0"),
            scale_token!("v20", "v21", "v22", "v23", "1"),
            scale_token!("v24", "v25", "v26", "v27", "2"),
            scale_token!("v28", "v29", "v30", "v31", "3"),
            data = inout(reg) block.data => _, scales = in(reg) block.scales, n = inout(reg) block.n_tiles => _,
            x_scales = in(reg) x_scales, sums = inout(reg) sums => _,
            x0 = inout(reg) x => _, x1 = inout(reg) x.add(x_stride) => _,
            x2 = inout(reg) x.add(2 * x_stride) => _, x3 = inout(reg) x.add(3 * x_stride) => _,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _, out("v8") _, out("v9") _, out("v10") _, out("v11") _,
            out("v12") _, out("v13") _, out("v14") _, out("v15") _, out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            out("v20") _, out("v21") _, out("v22") _, out("v23") _, out("v24") _, out("v25") _, out("v26") _, out("v27") _,
            out("v28") _, out("v29") _, out("v30") _, out("v31") _,
            options(nostack),
        );
    }
}

/// Adds the products of a set's tile with the low bytes `$low` and the high bytes `$high` of the same four activations.
macro_rules! multiply_halves {
    ($p:literal, $q:literal, $r:literal, $s:literal, $low:literal, $high:literal) => {
        concat!(
            multiply!("v20", "v21", "v22", "v23", $p, $q, $r, $s, $low),
            multiply!("v16", "v17", "v18", "v19", $p, $q, $r, $s, $high)
        )
    };
}

/// Of an activation the signed low byte and the rest in units of 256: eight activations become 8 low and 8 high bytes of a vector. The
/// high bytes' products are made whole at a group's end.
#[target_feature(enable = "dotprod")]
unsafe fn whole_groups(blocks: Blocks<u16>, x: *const i16, x_scales: *const f32, out: *mut f32, n_blocks: usize) {
    let (n_groups, n_rest) = (blocks.n_tiles / GROUP_TILES, blocks.n_tiles % GROUP_TILES);
    // SAFETY: it reads `n_blocks` of tiles and scales, as many fours of activations as a block has tiles, and their scales, and
    // writes 16 numbers a block, all of which the caller promises.
    unsafe {
        asm!(
            "cbz {blocks}, 4f",
            // Adding to -0 leaves every first term as it is.
            "1: movi v8.4s, #0x80, lsl #24\n movi v9.4s, #0x80, lsl #24",
            "movi v10.4s, #0x80, lsl #24\n movi v11.4s, #0x80, lsl #24",
            "mov {xp}, {x}\n mov {xs}, {x_scales}\n mov {n}, {n_groups}\n cbz {n}, 3f",
            "2: ld1 {{v4.8h-v7.8h}}, [{xp}], #64",
            "movi v16.4s, #0\n movi v17.4s, #0\n movi v18.4s, #0\n movi v19.4s, #0",
            "ld1 {{v24.16b-v27.16b}}, [{data}], #64",
            "xtn v0.8b, v4.8h\n xtn v1.8b, v5.8h\n xtn v2.8b, v6.8h\n xtn v3.8b, v7.8h",
            "rshrn2 v0.16b, v4.8h, #8\n rshrn2 v1.16b, v5.8h, #8",
            "rshrn2 v2.16b, v6.8h, #8\n rshrn2 v3.16b, v7.8h, #8",
            "movi v20.4s, #0\n movi v21.4s, #0\n movi v22.4s, #0\n movi v23.4s, #0",
            "ld1 {{v28.16b-v31.16b}}, [{data}], #64",
            multiply_halves!("v24", "v25", "v26", "v27", "v0.4b[0]", "v0.4b[2]"),
            "ld1 {{v24.16b-v27.16b}}, [{data}], #64",
            multiply_halves!("v28", "v29", "v30", "v31", "v0.4b[1]", "v0.4b[3]"),
            "ld1 {{v28.16b-v31.16b}}, [{data}], #64",
            multiply_halves!("v24", "v25", "v26", "v27", "v1.4b[0]", "v1.4b[2]"),
            "ld1 {{v24.16b-v27.16b}}, [{data}], #64",
            multiply_halves!("v28", "v29", "v30", "v31", "v1.4b[1]", "v1.4b[3]"),
            "ld1 {{v28.16b-v31.16b}}, [{data}], #64",
            multiply_halves!("v24", "v25", "v26", "v27", "v2.4b[0]", "v2.4b[2]"),
            "ld1 {{v24.16b-v27.16b}}, [{data}], #64",
            multiply_halves!("v28", "v29", "v30", "v31", "v2.4b[1]", "v2.4b[3]"),
            "ld1 {{v28.16b-v31.16b}}, [{data}], #64",
            multiply_halves!("v24", "v25", "v26", "v27", "v3.4b[0]", "v3.4b[2]"),
            "movi v4.4s, #1, lsl #8",
            multiply_halves!("v28", "v29", "v30", "v31", "v3.4b[1]", "v3.4b[3]"),
            "mla v20.4s, v16.4s, v4.4s\n mla v21.4s, v17.4s, v4.4s",
            "mla v22.4s, v18.4s, v4.4s\n mla v23.4s, v19.4s, v4.4s",
            scale_groups!("v20", "v21", "v22", "v23", "v8", "v9", "v10", "v11"),
            "subs {n}, {n}, #1\n b.ne 2b",
            "3: st1 {{v8.4s-v11.4s}}, [{out}], #64",
            "add {data}, {data}, {skip}\n add {scales}, {scales}, {skip_scales}",
            "subs {blocks}, {blocks}, #1\n b.ne 1b",
            "4:",
            data = inout(reg) blocks.data => _, scales = inout(reg) blocks.scales => _, x = in(reg) x, xp = out(reg) _,
            x_scales = in(reg) x_scales, xs = out(reg) _, n_groups = in(reg) n_groups, n = out(reg) _,
            // What a last group takes, which is not whole.
            skip = in(reg) n_rest * TILE_BYTES, skip_scales = in(reg) if n_rest > 0 { 2 * ROWS } else { 0 },
            out = inout(reg) out => _, blocks = inout(reg) n_blocks => _,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            out("v20") _, out("v21") _, out("v22") _, out("v23") _, out("v24") _, out("v25") _, out("v26") _, out("v27") _,
            out("v28") _, out("v29") _, out("v30") _, out("v31") _,
            options(nostack),
        );
    }
}

/// As [`whole_groups`], a tile at a time.
#[target_feature(enable = "dotprod")]
#[inline]
unsafe fn short_group_dots(data: *const u8, x: *const i16, n_tiles: usize) -> Dots {
    let (mut low, mut high) = ([vdupq_n_s32(0); 4], [vdupq_n_s32(0); 4]);
    for tile in 0..n_tiles {
        // SAFETY: the caller promises `n_tiles` tiles and as many fours of activations.
        let (weights, x) =
            unsafe { (vld1q_s8_x4(data.add(tile * TILE_BYTES).cast()), vld1_s16(x.add(tile * COLUMNS))) };
        let x = vcombine_s16(x, x);
        let (x_low, x_high) = (vmovn_s16(x), vrshrn_n_s16::<8>(x));
        for (i, weights) in [weights.0, weights.1, weights.2, weights.3].into_iter().enumerate() {
            low[i] = sdot(low[i], weights, vcombine_s8(x_low, x_low));
            high[i] = sdot(high[i], weights, vcombine_s8(x_high, x_high));
        }
    }
    core::array::from_fn(|i| vaddq_s32(low[i], vshlq_n_s32::<8>(high[i])))
}

/// `sums[i] + sum over 4 of a[4 * i + j] * b[4 * i + j]`.
#[target_feature(enable = "dotprod")]
#[inline]
fn sdot(sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    let mut sums = sums;
    // SAFETY: it computes in registers.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b",
            sums = inout(vreg) sums, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
