//! Matrix products of int4: the sixteen rows of a tile are the lanes, whose sums over a group fit 16 bits.
//!
//! A vector has a column of two tiles in its halves of bytes, `w + 8`: a mask takes the one, a shift the other. Sums start from -8 times the
//! sum of a group's activations; modulo `2^16` they come out exact.

use core::arch::asm;

use crate::layout::WeightLayout;
use crate::tensor::{ActivationsQ8, GROUP_SIZE, MatrixQ8, Scales};

/// Rows of a tile.
const ROWS: usize = WeightLayout::Rows16.row_block();
/// Columns of two tiles, which share bytes.
const COLUMNS: usize = 2 * WeightLayout::Rows16.column_block();
/// Bytes of two tiles.
const PAIR_BYTES: usize = ROWS * COLUMNS / 2;

/// See [`crate::kernels::generic::matmul_rows`]; for weights in [`WeightLayout::Rows16`] and activations of 16 bits.
pub fn matmul_rows(out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
    let n_rows = out.len() / x.n_tokens().max(1);
    let Scales::PerGroup(scales) = w.scales() else { return };
    if n_rows == 0 {
        return;
    }
    let (first_block, n_blocks) = (first_row / ROWS, n_rows.div_ceil(ROWS));
    let (block_bytes, n_groups) = (w.cols().div_ceil(COLUMNS) * PAIR_BYTES, w.cols().div_ceil(GROUP_SIZE));
    let data = w.data().get(first_block * block_bytes..).unwrap_or_default();
    let scales = scales.get(first_block * n_groups * ROWS..).unwrap_or_default();
    require!(data.len() >= n_blocks * block_bytes && scales.len() >= n_blocks * n_groups * ROWS);
    // Adding to -0 leaves every first term as it is.
    out.fill(-0.0);
    for (token_idx, out) in out.chunks_exact_mut(n_rows).enumerate() {
        let groups = x.values(token_idx).chunks(GROUP_SIZE).zip(x.scales(token_idx));
        for (group_idx, (x, &x_scale)) in groups.take(n_groups).enumerate() {
            let data = data.as_ptr().wrapping_add(group_idx * GROUP_SIZE / COLUMNS * PAIR_BYTES);
            let scales = scales.as_ptr().wrapping_add(group_idx * ROWS);
            // SAFETY: each block has its pairs of tiles for these columns, and its scales of the group, so far behind the block's before.
            unsafe { add_group(out, (data, block_bytes), (scales, 2 * ROWS * n_groups), x, x_scale) };
        }
    }
}

/// Adds one group's scaled products to `out`, block after block, of which the last may lack rows.
///
/// # Safety
/// For each block begun in `out`, which is not empty, [`PAIR_BYTES`] for each eight columns begun in `x` are valid for reads at `data.0`, and
/// sixteen scales at `scales.0`; `data.1` and `scales.1` are the bytes from a block's to the next one's. `x` is of whole fours, at most a
/// group's, and not empty.
unsafe fn add_group(out: &mut [f32], data: (*const u8, usize), scales: (*const u16, usize), x: &[i16], x_scale: f32) {
    // SAFETY: it reads what the caller vouches for, and reads and writes `out`.
    unsafe {
        asm!(
            ".option push\n .option arch, +v",
            "vsetvli zero, {offset}, e16, m4, ta, ma\n vle16.v v12, ({start})\n vmv.s.x v8, zero\n vredsum.vs v8, v12, v8",
            "vmv.x.s {offset}, v8\n slli {offset}, {offset}, 3\n neg {offset}, {offset}",
            "1: vsetivli zero, 16, e16, m2, ta, ma\n vmv.v.x v8, {offset}",
            "mv {w}, {data}\n mv {x}, {start}",
            "vsetivli zero, 16, e8, m1, ta, ma",
            // A field of a segment is a column of both tiles.
            "2: vlseg4e8.v v0, ({w})\n addi {w}, {w}, 64",
            "lh {x0}, 0({x})\n lh {x1}, 2({x})\n vand.vi v4, v0, 15\n vand.vi v5, v1, 15",
            "vwmaccsu.vx v8, {x0}, v4\n vwmaccsu.vx v8, {x1}, v5",
            "lh {x0}, 4({x})\n lh {x1}, 6({x})\n vand.vi v6, v2, 15\n vand.vi v7, v3, 15",
            "vwmaccsu.vx v8, {x0}, v6\n vwmaccsu.vx v8, {x1}, v7",
            "addi {x}, {x}, 16\n bgtu {x}, {stop}, 3f",
            "lh {x0}, -8({x})\n lh {x1}, -6({x})\n vsrl.vi v0, v0, 4\n vsrl.vi v1, v1, 4",
            "vwmaccsu.vx v8, {x0}, v0\n vwmaccsu.vx v8, {x1}, v1",
            "lh {x0}, -4({x})\n lh {x1}, -2({x})\n vsrl.vi v2, v2, 4\n vsrl.vi v3, v3, 4",
            "vwmaccsu.vx v8, {x0}, v2\n vwmaccsu.vx v8, {x1}, v3",
            "bne {x}, {stop}, 2b",
            "3: vsetivli zero, 16, e32, m4, ta, ma",
            "vsext.vf2 v12, v8\n vle16.v v4, ({scales})\n vzext.vf2 v16, v4\n vsll.vi v16, v16, 16",
            "vfmul.vf v16, v16, {x_scale}\n vfcvt.f.x.v v12, v12\n vfmul.vv v12, v12, v16",
            "li {x0}, 16\n bleu {x0}, {n}, 4f\n mv {x0}, {n}",
            "4: vsetvli zero, {x0}, e32, m4, ta, ma",
            "vle32.v v20, ({out})\n vfadd.vv v20, v20, v12\n vse32.v v20, ({out})",
            "add {data}, {data}, {data_step}\n add {scales}, {scales}, {scales_step}\n addi {out}, {out}, 64",
            "sub {n}, {n}, {x0}\n bnez {n}, 1b",
            ".option pop",
            data = inout(reg) data.0 => _,
            data_step = in(reg) data.1,
            scales = inout(reg) scales.0 => _,
            scales_step = in(reg) scales.1,
            start = in(reg) x.as_ptr(),
            stop = in(reg) x.as_ptr_range().end,
            w = out(reg) _,
            x = out(reg) _,
            x0 = out(reg) _,
            x1 = out(reg) _,
            n = inout(reg) out.len() => _,
            out = inout(reg) out.as_mut_ptr() => _,
            // First how many activations there are, at most a group's.
            offset = inout(reg) x.len() => _,
            x_scale = in(freg) x_scale,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v12") _, out("v13") _, out("v14") _, out("v15") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            options(nostack),
        );
    }
}
