//! Examples of two sources: of a domain, and of what must not be forgotten for it.

use super::{Example, ExampleSource, Packing};

/// A share of the examples is replayed from another source, evenly spread: which ones, and which of that source's, depends on their
/// numbers alone.
pub struct ReplayedSource {
    own: Box<dyn ExampleSource>,
    replayed: Box<dyn ExampleSource>,
    share: f64,
}

impl ReplayedSource {
    /// `share`, from 0 to below 1, of the examples come from `replayed`, the others from `own`.
    pub fn new(own: Box<dyn ExampleSource>, replayed: Box<dyn ExampleSource>, share: f64) -> Self {
        Self { own, replayed, share }
    }

    /// How many of the first `n` examples are replayed.
    fn n_replayed(&self, n: u64) -> u64 {
        (n as f64 * self.share) as u64
    }
}

impl ExampleSource for ReplayedSource {
    fn examples(&self, seed: u64, idx: u64) -> Vec<Example> {
        let n_replayed = self.n_replayed(idx);
        match self.n_replayed(idx + 1) > n_replayed {
            true => self.replayed.examples(seed, n_replayed),
            false => self.own.examples(seed, idx - n_replayed),
        }
    }

    fn n_train_tokens(&self) -> usize {
        self.own.n_train_tokens()
    }

    fn validation(&self) -> &[Example] {
        self.own.validation()
    }

    fn capacity(&self) -> usize {
        self.own.capacity().max(self.replayed.capacity())
    }

    fn passes(&self, n: u64) -> f64 {
        self.own.passes(n - self.n_replayed(n))
    }

    fn packing(&self) -> Option<&Packing> {
        self.own.packing()
    }

    fn document_lens(&self) -> Vec<usize> {
        self.own.document_lens()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use siskin_runtime::TokenId;

    /// Tells its number and the example's.
    struct Counted(TokenId);

    impl ExampleSource for Counted {
        fn examples(&self, seed: u64, idx: u64) -> Vec<Example> {
            vec![Example::causal(&[self.0], &[(seed + idx) as TokenId])]
        }
        fn n_train_tokens(&self) -> usize {
            100
        }
        fn validation(&self) -> &[Example] {
            &[]
        }
        fn capacity(&self) -> usize {
            self.0 as usize
        }
        fn passes(&self, n: u64) -> f64 {
            n as f64
        }
        fn document_lens(&self) -> Vec<usize> {
            Vec::new()
        }
    }

    #[test]
    fn each_source_is_drawn_in_its_order_and_the_share_is_met() {
        for share in [0.0, 0.1, 0.25, 0.5, 0.9] {
            let source = ReplayedSource::new(Box::new(Counted(1)), Box::new(Counted(2)), share);
            let mut next = [0, 0];
            for idx in 0..1000 {
                let example = source.examples(7, idx).remove(0);
                let from = example.inputs[0] as usize - 1;
                assert_eq!(example.targets, [7 + next[from]]);
                next[from] += 1;
                assert!((f64::from(next[1]) - share * (idx + 1) as f64).abs() < 1.0 + 1e-9, "{share} {idx}");
            }
            assert_eq!((source.passes(1000), source.capacity()), (f64::from(next[0]), 2));
        }
    }
}
