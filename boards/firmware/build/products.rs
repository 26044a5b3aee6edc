//! Matrices for `gemv`, as source text: the shapes of the small story models' projections.

use std::env;
use std::fmt::Write as _;

use siskin_runtime::math::bf16_at_least;
use siskin_runtime::{WeightFormat, WeightLayout};

use crate::fail;

/// Outputs and inputs.
const SHAPES: [(usize, usize); 4] = [(64, 64), (172, 64), (288, 288), (288, 768)];
/// How many of them a board with little memory has room for.
const N_SMALL: usize = 3;

/// Every shape in every format, in the layout that `SISKIN_LAYOUT` names.
pub fn source(is_small: bool) -> String {
    let shapes = if is_small { &SHAPES[..N_SMALL] } else { &SHAPES };
    let rows_max = shapes.iter().map(|&(rows, _)| rows).max().unwrap_or(0);
    let cols_max = shapes.iter().map(|&(_, cols)| cols).max().unwrap_or(0);
    let name = env::var("SISKIN_LAYOUT").unwrap_or_else(|_| fail("SISKIN_LAYOUT must name a weight layout"));
    let layout = WeightLayout::named(&name)
        .unwrap_or_else(|| fail(&format!("there is no weight layout {name}; set SISKIN_LAYOUT")));
    let mut source = format!("pub const LAYOUT: WeightLayout = WeightLayout::{layout:?};\n");
    writeln!(source, "/// Most outputs.\npub const ROWS_MAX: usize = {rows_max};").unwrap();
    writeln!(source, "/// Most inputs.\npub const COLS_MAX: usize = {cols_max};").unwrap();
    let mut list = String::new();
    for (idx, &(rows, cols)) in shapes.iter().enumerate() {
        let data = values(layout, rows, cols);
        let padded_rows = rows.next_multiple_of(layout.row_block());
        writeln!(source, "static DATA_{idx}: Aligned<[u8; {}]> = Aligned({data:?});", data.len()).unwrap();
        for format in WeightFormat::ALL {
            let n_scales = padded_rows * format.groups(cols);
            let scales: Vec<f32> = (0..n_scales).map(|i| 0.001 * (1 + i % 7) as f32).collect();
            let (kind, element, text) = match format {
                WeightFormat::Int8 => ("PerRow", "f32", format!("{scales:?}")),
                WeightFormat::Int8G32 => {
                    let scales: Vec<u16> = scales.into_iter().map(bf16_at_least).collect();
                    ("PerGroup", "u16", format!("{scales:?}"))
                }
            };
            writeln!(source, "static SCALES_{idx}_{kind}: Aligned<[{element}; {n_scales}]> = Aligned({text});")
                .unwrap();
            write!(
                list,
                "Product {{ rows: {rows}, cols: {cols}, format: WeightFormat::{format:?}, data: &DATA_{idx}.0, "
            )
            .unwrap();
            writeln!(list, "scales: Scales::{kind}(&SCALES_{idx}_{kind}.0) }},").unwrap();
        }
    }
    format!("{source}pub static PRODUCTS: &[Product] = &[{list}];\n")
        .replace("_PerRow", "_ROWS")
        .replace("_PerGroup", "_GROUPS")
}

fn values(layout: WeightLayout, rows: usize, cols: usize) -> Vec<u8> {
    let mut data = vec![0; layout.data_bytes(rows, cols)];
    let mut state = 1u32;
    for row in 0..rows {
        for col in 0..cols {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            layout.set(&mut data, cols, row, col, ((state >> 24) as i32 % 255 - 127) as i8);
        }
    }
    data
}
