//! Products of fixed shapes, each a counted region: quantising the activations, the product, the outputs' scales.
//!
//! A `gemv` record says what each region was: rows, columns, and the weights' format.

use siskin_runtime::kernels::matmul_f32_q8_q8;
use siskin_runtime::tensor::{self, ActivationsQ8, MatrixQ8, activation_stride};
use siskin_runtime::{Kernels, Serial};

use crate::failure::Failure;
use crate::host::Console;
use crate::record::Record;
use crate::{Memory, arch};

/// The matrices, in the order of bytes that the board's core reads, as the build script made them.
mod linked {
    use siskin_runtime::tensor::Scales;
    use siskin_runtime::{Aligned, WeightFormat, WeightLayout};

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

    include!(concat!(env!("OUT_DIR"), "/products.rs"));
}

/// Most inputs of a product.
const COLS_MAX: usize = 768;
/// Most outputs.
const ROWS_MAX: usize = 288;

/// Computes each product once.
pub fn respond(console: &mut Console, _: Memory) -> Result<(), Failure> {
    let kernels = Kernels::detect();
    let mut x = [0.0; COLS_MAX];
    for (idx, x) in x.iter_mut().enumerate() {
        *x = (idx * 37 % 101) as f32 / 50.0 - 1.0;
    }
    for product in linked::PRODUCTS {
        let &linked::Product { rows, cols, format, data, scales } = product;
        let w = MatrixQ8::new(rows, cols, linked::LAYOUT, data, scales)
            .ok_or(Failure::new("a product has another shape than its matrix"))?;
        let (mut values, mut value_scales) = ([0i16; COLS_MAX], [0.0f32; COLS_MAX.div_ceil(tensor::GROUP_SIZE)]);
        let mut out = [0.0; ROWS_MAX];
        let values = &mut values[..activation_stride(cols)];
        let value_scales = &mut value_scales[..format.groups(cols)];
        arch::count_start();
        tensor::quantize(kernels, format, &x[..cols], values, value_scales);
        let activations = ActivationsQ8::new(1, cols, format, kernels.lanes(format), values, value_scales);
        if let Some(activations) = activations {
            matmul_f32_q8_q8(kernels, &Serial, &mut out[..rows], &w, &activations);
        }
        arch::count_stop();
        // So that nothing of it is left out.
        let sum = core::hint::black_box(out).iter().fold(0, |sum: u32, out| sum.wrapping_add(out.to_bits()));
        Record::new(console, "gemv ")
            .text(format.name())
            .number(rows as u64)
            .number(cols as u64)
            .hex(sum.into(), 8)
            .send();
    }
    Ok(())
}
