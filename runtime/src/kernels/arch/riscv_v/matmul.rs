//! Matrix products: the sixteen rows of a tile are the lanes, and an activation is a scalar for all of them.

use core::arch::asm;

use crate::layout::WeightLayout;
use crate::tensor::{ActivationsQ8, GROUP_SIZE, MatrixQ8, Scales};

/// Rows of a tile.
const ROWS: usize = WeightLayout::Rows16.row_block();
/// Columns of a tile.
const COLUMNS: usize = WeightLayout::Rows16.column_block();

/// See [`crate::kernels::generic::matmul_rows`]; for weights in [`WeightLayout::Rows16`] and activations of 16 bits.
pub fn matmul_rows(out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
    let n_rows = out.len() / x.n_tokens().max(1);
    if n_rows == 0 {
        return;
    }
    let block_bytes = ROWS * w.cols().next_multiple_of(COLUMNS);
    let first_block = first_row / ROWS;
    for (token_idx, out) in out.chunks_mut(n_rows).enumerate() {
        let (values, x_scales) = (x.values(token_idx), x.scales(token_idx));
        for (idx, out) in out.chunks_mut(ROWS).enumerate() {
            let block = first_block + idx;
            let data = &w.data()[block * block_bytes..][..block_bytes];
            match w.scales() {
                Scales::PerRow(scales) => {
                    let scales = &scales[block * ROWS..][..ROWS];
                    let x_scale = x_scales.first().copied().unwrap_or(0.0);
                    // SAFETY: `data` is a block of as many columns as there are values, and each row has a scale.
                    unsafe { block_per_row(out, data.as_ptr(), values, scales.as_ptr(), x_scale) };
                }
                Scales::PerGroup(scales) => {
                    let scales = &scales[block * ROWS * x_scales.len()..][..ROWS * x_scales.len()];
                    require!(x_scales.len() == values.len().div_ceil(GROUP_SIZE));
                    // SAFETY: the same, with a scale for each row and group.
                    unsafe { block_per_group(out, data.as_ptr(), values, scales.as_ptr(), x_scales) };
                }
            }
        }
    }
}

/// The exact sums of one stretch of columns: from `{x}` to `{stop}`, weights from `{w}` on, into `v8` to `v11`.
macro_rules! dots {
    ($again:literal, $done:literal) => {
        concat!(
            "vsetivli zero, 16, e32, m4, ta, ma\n vmv.v.i v8, 0\n",
            "beq {x}, {stop}, ",
            $done,
            "f\n",
            // A field of a segment is a column of the tile.
            "vsetivli zero, 16, e16, m2, ta, ma\n",
            $again,
            ": vlseg4e8.v v0, ({w})\n addi {w}, {w}, 64\n",
            "lh {x0}, 0({x})\n lh {x1}, 2({x})\n vsext.vf2 v12, v0\n vsext.vf2 v14, v1\n",
            "vwmacc.vx v8, {x0}, v12\n vwmacc.vx v8, {x1}, v14\n",
            "lh {x0}, 4({x})\n lh {x1}, 6({x})\n vsext.vf2 v12, v2\n vsext.vf2 v14, v3\n",
            "vwmacc.vx v8, {x0}, v12\n vwmacc.vx v8, {x1}, v14\n",
            "addi {x}, {x}, 8\n bne {x}, {stop}, ",
            $again,
            "b\n",
            $done,
            ":\n",
        )
    };
}

/// One token's outputs of one block of rows, of which the last may lack some.
///
/// # Safety
/// `w` is valid for reads of `16 * x.len()` bytes, `x` is whole tiles, `scales` is valid for 16 reads; `out` has at most 16 elements.
unsafe fn block_per_row(out: &mut [f32], w: *const u8, x: &[i16], scales: *const f32, x_scale: f32) {
    // SAFETY: it reads what the caller vouches for, and writes `out`.
    unsafe {
        asm!(
            ".option push\n .option arch, +v",
            dots!("2", "3"),
            "vsetvli zero, {n}, e32, m4, ta, ma",
            "vle32.v v12, ({scales})\n vfmul.vf v12, v12, {x_scale}",
            "vfcvt.f.x.v v8, v8\n vfmul.vv v8, v8, v12\n vse32.v v8, ({out})",
            ".option pop",
            w = inout(reg) w => _,
            x = inout(reg) x.as_ptr() => _,
            stop = in(reg) x.as_ptr_range().end,
            x0 = out(reg) _,
            x1 = out(reg) _,
            n = in(reg) out.len(),
            out = in(reg) out.as_mut_ptr(),
            scales = in(reg) scales,
            x_scale = in(freg) x_scale,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v8") _, out("v9") _, out("v10") _, out("v11") _,
            out("v12") _, out("v13") _, out("v14") _, out("v15") _,
            options(nostack),
        );
    }
}

/// The same with a bfloat16 scale for each row and group of columns: the groups' products, scaled, are added in order, from -0 on.
///
/// # Safety
/// As for [`block_per_row`], but `scales` is valid for 16 reads, and `x_scales` for one, for each group of [`GROUP_SIZE`] columns begun.
unsafe fn block_per_group(out: &mut [f32], w: *const u8, x: &[i16], scales: *const u16, x_scales: &[f32]) {
    // SAFETY: it reads what the caller vouches for, and writes `out`.
    unsafe {
        asm!(
            ".option push\n .option arch, +v",
            "vsetivli zero, 16, e32, m4, ta, ma\n lui {x0}, 0x80000\n vmv.v.x v20, {x0}",
            "beq {x}, {end}, 6f",
            "4: addi {stop}, {x}, 64\n bleu {stop}, {end}, 5f\n mv {stop}, {end}",
            "5:",
            dots!("2", "3"),
            "vsetivli zero, 16, e32, m4, ta, ma",
            "vle16.v v4, ({scales})\n addi {scales}, {scales}, 32",
            "vzext.vf2 v12, v4\n vsll.vi v12, v12, 16",
            "flw {x_scale}, 0({x_scales})\n addi {x_scales}, {x_scales}, 4",
            "vfmul.vf v12, v12, {x_scale}\n vfcvt.f.x.v v8, v8\n vfmul.vv v8, v8, v12\n vfadd.vv v20, v20, v8",
            "bne {x}, {end}, 4b",
            "6: vsetvli zero, {n}, e32, m4, ta, ma\n vse32.v v20, ({out})",
            ".option pop",
            w = inout(reg) w => _,
            x = inout(reg) x.as_ptr() => _,
            end = in(reg) x.as_ptr_range().end,
            stop = out(reg) _,
            x0 = out(reg) _,
            x1 = out(reg) _,
            n = in(reg) out.len(),
            out = in(reg) out.as_mut_ptr(),
            scales = inout(reg) scales => _,
            x_scales = inout(reg) x_scales.as_ptr() => _,
            x_scale = out(freg) _,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _, out("v15") _,
            out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            options(nostack),
        );
    }
}
