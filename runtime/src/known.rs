//! What the compiler knows of a model's shape: nothing, or all of it where a model is linked.
//!
//! Kernels, which see slices alone, ask here whether a case can come at all. So what a model has no use for stays out of its firmware.

use crate::config::ModelConfig;

/// The linked model's shape.
#[inline(always)]
fn config() -> Option<&'static ModelConfig> {
    #[cfg(feature = "linked-model")]
    let config = Some(&crate::linked::CONTENTS.header().config);
    #[cfg(not(feature = "linked-model"))]
    let config = None;
    config
}

/// Most columns of a matrix.
#[cfg(all(target_arch = "arm", feature = "cortex-m-dsp"))]
#[inline(always)]
pub(crate) fn columns_max() -> usize {
    config().map_or(usize::MAX, ModelConfig::widest_in)
}

/// Most positions of a context.
#[inline(always)]
pub(crate) fn context_max() -> usize {
    config().map_or(usize::MAX, |config| config.context_len)
}

/// The width of a head.
#[cfg(all(target_arch = "arm", feature = "cortex-m-dsp"))]
#[inline(always)]
pub(crate) fn head_dim() -> Option<usize> {
    config().map(|config| config.head_dim)
}

/// Whether a beam search may run, which needs room in the arena.
#[inline(always)]
pub(crate) fn has_beams() -> bool {
    #[cfg(feature = "linked-model")]
    return crate::linked::N_BEAMS > 0;
    #[cfg(not(feature = "linked-model"))]
    true
}
