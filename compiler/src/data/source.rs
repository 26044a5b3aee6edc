//! Where the examples of a run come from.

use super::{Example, Packing};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// An endless sequence of training examples, and the fixed ones of the validation part.
///
/// The training example at an index depends on the seed and the index alone. So a batch is a range of indices: it is the same
/// however the steps are cut into batches, on any number of threads, and after a resume, and nothing about past batches needs to be
/// remembered.
pub trait ExampleSource: Send + Sync {
    /// What is trained on at an index: one example, or several short ones that are run together and do not see each other.
    fn examples(&self, seed: u64, idx: u64) -> Vec<Example>;

    /// Tokens that there are to train on, each counted once.
    fn n_train_tokens(&self) -> usize;

    /// The validation part, in order.
    fn validation(&self) -> &[Example];

    /// Positions that an index has room for: of what is read, or of what a decoder tells.
    fn capacity(&self) -> usize;

    /// How often `n` indices go through the training part.
    fn passes(&self, n: u64) -> f64;

    /// Where documents lie in rows, if they were packed.
    fn packing(&self) -> Option<&Packing> {
        None
    }

    /// Tokens of each document, or of each example made of a record, of the training part.
    fn document_lens(&self) -> Vec<usize>;
}

/// The generator for what is random about one example.
pub(crate) fn example_rng(seed: u64, idx: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(idx);
    rng
}
