//! Matrices for `gemv`, as source text: the shapes of the small story models' projections.

use std::env;
use std::fmt::Write as _;

use siskin_runtime::math::bf16_at_least;
use siskin_runtime::{WeightFormat, WeightLayout};

use crate::fail;

/// Outputs and inputs.
const SHAPES: [(usize, usize); 4] = [(64, 64), (172, 64), (288, 288), (288, 768)];
/// How many of them a board with little memory has room for: in int8, and in int4 besides.
const N_SMALL: [usize; 2] = [3, 2];

/// Every shape in every format, in the layout that `SISKIN_LAYOUT` names.
pub fn source(is_small: bool) -> String {
    let [shapes, int4_shapes] = N_SMALL.map(|n_small| if is_small { &SHAPES[..n_small] } else { &SHAPES });
    let rows_max = shapes.iter().map(|&(rows, _)| rows).max().unwrap_or(0);
    let cols_max = shapes.iter().map(|&(_, cols)| cols).max().unwrap_or(0);
    let name = env::var("SISKIN_LAYOUT").unwrap_or_else(|_| fail("SISKIN_LAYOUT must name a weight layout"));
    let layout = WeightLayout::named(&name)
        .unwrap_or_else(|| fail(&format!("there is no weight layout {name}; set SISKIN_LAYOUT")));
    let mut source = format!("pub const LAYOUT: WeightLayout = WeightLayout::{layout:?};\n");
    writeln!(source, "/// Most outputs.\npub const ROWS_MAX: usize = {rows_max};").unwrap();
    writeln!(source, "/// Most inputs.\npub const COLS_MAX: usize = {cols_max};").unwrap();
    let [mut list, mut int4_list] = [String::new(), String::new()];
    for (idx, &shape) in shapes.iter().enumerate() {
        let data = format!("INT8_{idx}");
        write_values(&mut source, &data, WeightFormat::Int8, layout, shape);
        for format in [WeightFormat::Int8, WeightFormat::Int8G32] {
            write_product(&mut source, &mut list, &data, format, layout, shape);
        }
    }
    for (idx, &shape) in int4_shapes.iter().enumerate() {
        let data = format!("INT4_{idx}");
        write_values(&mut source, &data, WeightFormat::Int4G32, layout, shape);
        write_product(&mut source, &mut int4_list, &data, WeightFormat::Int4G32, layout, shape);
    }
    writeln!(source, "pub static PRODUCTS: &[Product] = &[{list}];").unwrap();
    writeln!(source, "pub static INT4_PRODUCTS: &[Product] = &[{int4_list}];").unwrap();
    source
}

/// A product with the values of the static `data`, and the static of its scales.
fn write_product(
    source: &mut String,
    list: &mut String,
    data: &str,
    format: WeightFormat,
    layout: WeightLayout,
    (rows, cols): (usize, usize),
) {
    let n_scales = rows.next_multiple_of(layout.row_block()) * format.groups(cols);
    let scales: Vec<f32> = (0..n_scales).map(|i| 0.001 * (1 + i % 7) as f32).collect();
    let (kind, element, text) = if format.is_grouped() {
        let scales: Vec<u16> = scales.into_iter().map(bf16_at_least).collect();
        ("PerGroup", "u16", format!("{scales:?}"))
    } else {
        ("PerRow", "f32", format!("{scales:?}"))
    };
    let name = format!("{data}_{}", if format.is_grouped() { "GROUPS" } else { "ROWS" });
    writeln!(source, "static {name}: Aligned<[{element}; {n_scales}]> = Aligned({text});").unwrap();
    write!(list, "Product {{ rows: {rows}, cols: {cols}, format: WeightFormat::{format:?}, ").unwrap();
    writeln!(list, "data: &{data}.0, scales: Scales::{kind}(&{name}.0) }},").unwrap();
}

/// The static `name`: values that differ.
fn write_values(
    source: &mut String,
    name: &str,
    format: WeightFormat,
    layout: WeightLayout,
    (rows, cols): (usize, usize),
) {
    let mut data = vec![format.zero_byte(layout); format.data_bytes(layout, rows, cols)];
    let (least, greatest) = format.weight_limits();
    let n_values = i32::from(greatest) - i32::from(least) + 1;
    let mut state = 1u32;
    for row in 0..rows {
        for col in 0..cols {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = (state >> 24) as i32 % n_values + i32::from(least);
            format.set(layout, &mut data, cols, row, col, value as i8);
        }
    }
    writeln!(source, "static {name}: Aligned<[u8; {}]> = Aligned({data:?});", data.len()).unwrap();
}
