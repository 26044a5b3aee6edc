//! Products of fixed shapes, each a counted region: quantising the activations, the product, the outputs' scales.
//!
//! A `gemv` record says what each region was: the weights' format, rows and columns. Where kernels have the exact sums before they scale
//! them, there follow regions without the scales, to `int32`.

use siskin_device::Once;
use siskin_runtime::kernels::matmul_f32_q8_q8;
use siskin_runtime::tensor::{self, ActivationsQ8, activation_stride};
use siskin_runtime::{Kernels, Serial, WeightFormat};

use crate::failure::{Failure, report};
use crate::host::Console;
use crate::record::Record;
use crate::{Memory, arch};
use linked::{COLS_MAX, ROWS_MAX};

/// The matrices, in the order of bytes that the board's core reads, as the build script made them.
mod linked {
    use siskin_runtime::tensor::{MatrixQ8, Scales};
    use siskin_runtime::{Aligned, WeightFormat, WeightLayout};

    use crate::failure::Failure;

    /// One matrix.
    pub struct Product {
        /// Outputs.
        pub rows: usize,
        /// Inputs.
        pub cols: usize,
        /// How it is quantised.
        pub format: WeightFormat,
        /// The values.
        pub data: &'static [u8],
        /// Their scales.
        pub scales: Scales<'static>,
    }

    impl Product {
        /// The matrix.
        pub fn matrix(&self) -> Result<MatrixQ8<'static>, Failure> {
            MatrixQ8::new(self.rows, self.cols, LAYOUT, self.format, self.data, self.scales)
                .ok_or(Failure::new("a product has another shape than its matrix"))
        }
    }

    include!(concat!(env!("OUT_DIR"), "/products.rs"));
}

/// What the products work in.
struct Buffers {
    x: [f32; COLS_MAX],
    values: [i16; COLS_MAX],
    value_scales: [f32; COLS_MAX.div_ceil(tensor::GROUP_SIZE)],
    out: [f32; ROWS_MAX],
}

/// Computes each product once.
pub fn serve(console: &mut Console, _: &str, _: Memory) -> bool {
    let outcome = respond(console);
    report(console, outcome)
}

fn respond(console: &mut Console) -> Result<(), Failure> {
    static BUFFERS: Once<Buffers> = Once::new(Buffers {
        x: [0.0; COLS_MAX],
        values: [0; COLS_MAX],
        value_scales: [0.0; COLS_MAX.div_ceil(tensor::GROUP_SIZE)],
        out: [0.0; ROWS_MAX],
    });
    let buffers = BUFFERS.take().ok_or(Failure::new("the products are computed once"))?;
    let kernels = Kernels::detect();
    for (idx, x) in buffers.x.iter_mut().enumerate() {
        *x = (idx * 37 % 101) as f32 / 50.0 - 1.0;
    }
    to_floats(console, kernels, buffers, linked::PRODUCTS)?;
    if kernels.has_sums() {
        to_int32(console, kernels, buffers)?;
    }
    to_floats(console, kernels, buffers, linked::INT4_PRODUCTS)
}

/// Each product from floats to floats.
fn to_floats(
    console: &mut Console,
    kernels: Kernels,
    buffers: &mut Buffers,
    products: &[linked::Product],
) -> Result<(), Failure> {
    for product in products {
        let &linked::Product { rows, cols, format, .. } = product;
        let w = product.matrix()?;
        let x = &buffers.x[..cols];
        let values = &mut buffers.values[..activation_stride(cols)];
        let value_scales = &mut buffers.value_scales[..format.groups(cols)];
        let out = &mut buffers.out[..rows];
        arch::count_start();
        tensor::quantize(kernels, format, x, values, value_scales);
        let activations = ActivationsQ8::new(1, cols, format, kernels.lanes(format), values, value_scales);
        if let Some(activations) = activations {
            matmul_f32_q8_q8(kernels, &Serial, out, &w, &activations);
        }
        arch::count_stop();
        record(console, format.name(), product, out);
    }
    Ok(())
}

/// The same without the scales of the outputs, in the format that has one a row.
fn to_int32(console: &mut Console, kernels: Kernels, buffers: &mut Buffers) -> Result<(), Failure> {
    let format = WeightFormat::Int8;
    for product in linked::PRODUCTS.iter().filter(|product| product.format == format) {
        let &linked::Product { rows, cols, .. } = product;
        let w = product.matrix()?;
        let (values, scale) = (&mut buffers.values[..activation_stride(cols)], &mut buffers.value_scales[..1]);
        let (x, sums) = (&buffers.x[..cols], &mut buffers.out[..rows]);
        arch::count_start();
        tensor::quantize(kernels, format, x, values, scale);
        if let Some(activations) = ActivationsQ8::new(1, cols, format, kernels.lanes(format), values, scale) {
            kernels.sum_rows(sums, &w, &activations);
        }
        arch::count_stop();
        record(console, "int32", product, sums);
    }
    Ok(())
}

/// Says what the last region was.
fn record(console: &mut Console, format: &str, product: &linked::Product, out: &[f32]) {
    let sum = out.iter().fold(0, |sum: u32, out| sum.wrapping_add(out.to_bits()));
    let mut record = Record::new(console, "gemv ");
    record.text(format).number(product.rows as u64).number(product.cols as u64).hex(sum.into(), 8).send();
}
