//! The gradients of all trained parameters of a model, while passes add to them.
//!
//! To fill them with zeros before each step and to read those back takes a small model a 30th of its time. So what is added to a
//! parameter first is written over whatever was there, and only what no pass has reached is filled with zeros, at the end.

use super::Buffer;
use super::gemm::Write;
use super::params::{ParamId, ParamLayout};

/// One gradient for each trained parameter of a layout, all zero at first.
pub struct ParamGrads {
    /// Laid out as the trained parameters; unspecified where `is_zero`.
    values: Buffer,
    /// By parameter: whether nothing has been added since the last [`ParamGrads::clear`].
    is_zero: Vec<bool>,
}

impl ParamGrads {
    /// Gradients of parameters laid out so.
    pub fn new(layout: &ParamLayout) -> Self {
        Self { values: Buffer::zeros(layout.n_trained()), is_zero: vec![true; layout.specs().len()] }
    }

    /// Sets all to zero; takes no time.
    pub fn clear(&mut self) {
        self.is_zero.fill(true);
    }

    /// Numbers of all gradients.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no trained parameter.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Where to write the gradient of a parameter, all of it, and whether to set it or to add to it; `None` where it is frozen.
    pub fn open(&mut self, layout: &ParamLayout, id: ParamId) -> Option<(&mut [f32], Write)> {
        let range = layout.spec(id).grad.clone()?;
        let write = if std::mem::take(&mut self.is_zero[id.index()]) { Write::Set } else { Write::Add };
        Some((&mut self.values[range], write))
    }

    /// Where to add to the gradient of a parameter, for who does not reach all of it; `None` where it is frozen.
    pub fn open_to_add(&mut self, layout: &ParamLayout, id: ParamId) -> Option<&mut [f32]> {
        let (grad, write) = self.open(layout, id)?;
        if write == Write::Set {
            grad.fill(0.0);
        }
        Some(grad)
    }

    /// All gradients in one, laid out as the trained parameters.
    pub fn values(&mut self, layout: &ParamLayout) -> &mut [f32] {
        for (is_zero, spec) in self.is_zero.iter_mut().zip(layout.specs()) {
            if let (true, Some(range)) = (std::mem::take(is_zero), &spec.grad) {
                self.values[range.clone()].fill(0.0);
            }
        }
        &mut self.values
    }
}
