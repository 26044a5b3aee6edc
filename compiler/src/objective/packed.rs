//! Examples made of whole documents, packed into rows.

use super::windows::VALIDATION_SEED;
use super::{Frame, Noise};
use crate::data::{Cutting, DataError, Example, ExampleSource, Packing, Shuffle, TokenStore, example_rng};
use std::ops::Range;

/// Rows of documents that do not see each other: all of them in an order of its own each epoch.
#[derive(Debug)]
pub struct PackedRows {
    tokens: TokenStore,
    packing: Packing,
    noise: Noise,
    frame: Frame,
    validation: Vec<Example>,
}

impl PackedRows {
    /// Rows for a model with `context_len` positions, of the documents of a training part and of a validation part; in the latter
    /// each document is an example of its own, or several where it is too long for one.
    ///
    /// # Errors
    /// [`DataError::TooShort`] if no document of the training part is long enough for an example.
    pub fn new(
        (tokens, validation): (TokenStore, &TokenStore),
        context_len: usize,
        noise: Noise,
        frame: Frame,
    ) -> Result<Self, DataError> {
        let overlap = noise.overlap();
        let positions_of = |len: usize| noise.positions(len + overlap);
        let cutting = Cutting {
            capacity: context_len,
            piece_max: noise.window(context_len) - overlap,
            piece_min: noise.window_min() - overlap,
            room: &positions_of,
        };
        let lens = |tokens: &TokenStore| -> Vec<usize> {
            tokens.document_lens().into_iter().map(|len| len.saturating_sub(overlap)).collect()
        };
        let packing = Packing::with_cutting(&lens(&tokens), &cutting);
        if packing.rows().is_empty() {
            let n_tokens = tokens.n_tokens();
            return Err(DataError::TooShort { part: "training", n_tokens, needed: noise.window_min() });
        }
        let lens = lens(validation);
        let pieces = lens.iter().enumerate().flat_map(|(i, len)| cutting.pieces(*len).map(move |piece| (i, piece)));
        let validation = pieces.zip(0..).map(|((document, piece), idx)| {
            let window = validation.tokens(window_of(validation, document, piece, overlap));
            noise.example(&window, frame, &mut example_rng(VALIDATION_SEED, idx))
        });
        let validation = validation.collect();
        Ok(Self { tokens, packing, noise, frame, validation })
    }

    /// The row at `idx` of the run that `seed` begins.
    fn row(&self, seed: u64, idx: u64) -> usize {
        let n_rows = self.packing.rows().len() as u64;
        Shuffle::of_epoch(n_rows, seed, idx / n_rows).at(idx % n_rows) as usize
    }
}

/// Where the tokens of a document's piece lie among all.
fn window_of(tokens: &TokenStore, document: usize, piece: Range<usize>, overlap: usize) -> Range<usize> {
    let start = tokens.document_range(document).start;
    start + piece.start..start + piece.end + overlap
}

impl PackedRows {
    /// The training part.
    pub fn tokens(&self) -> &TokenStore {
        &self.tokens
    }
}

impl ExampleSource for PackedRows {
    fn examples(&self, seed: u64, idx: u64) -> Vec<Example> {
        let mut rng = example_rng(seed, idx);
        let pieces = &self.packing.rows()[self.row(seed, idx)];
        let windows = pieces
            .iter()
            .map(|piece| window_of(&self.tokens, piece.document, piece.positions.clone(), self.noise.overlap()));
        windows.map(|window| self.noise.example(&self.tokens.tokens(window), self.frame, &mut rng)).collect()
    }

    fn n_train_tokens(&self) -> usize {
        self.tokens.n_tokens()
    }

    fn validation(&self) -> &[Example] {
        &self.validation
    }

    fn capacity(&self) -> usize {
        self.packing.capacity()
    }

    fn passes(&self, n: u64) -> f64 {
        n as f64 / self.packing.rows().len() as f64
    }

    fn packing(&self) -> Option<&Packing> {
        Some(&self.packing)
    }

    fn document_lens(&self) -> Vec<usize> {
        self.tokens.document_lens()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::IGNORED;
    use crate::objective::{MaskedSection, Masking, SpanCorruption, SpanSection, WordPieces};
    use proptest::prelude::*;
    use siskin_runtime::TokenId;

    const FRAME: Frame = Frame { bos: 0, eos: 1 };
    /// Tokens of documents are from here on, each another one.
    const FIRST: TokenId = 100;

    fn store(lens: &[usize]) -> TokenStore {
        let mut next = FIRST..;
        let documents = lens.iter().map(|len| Ok(next.by_ref().take(*len).collect::<Vec<TokenId>>()));
        TokenStore::held(documents).unwrap()
    }

    fn noises() -> [Noise; 4] {
        let words = WordPieces::of_single_tokens(100_000);
        let section = MaskedSection { mask_share: 1.0, random_share: 0.0, ..MaskedSection::default() };
        let masking = Masking { section, mask: 2, first_plain: 50, vocab_size: 60, words };
        let corruption = SpanCorruption { section: SpanSection::default(), first_sentinel: 2 };
        [Noise::Causal, Noise::Prefix, Noise::Masked(masking), Noise::SpanCorruption(corruption)]
    }

    /// The document's tokens that an example was made of, in order.
    fn restored(noise: &Noise, example: &Example) -> Vec<TokenId> {
        match noise {
            Noise::Causal | Noise::Prefix => {
                example.inputs.iter().copied().chain(example.targets.last().copied()).collect()
            }
            Noise::Masked(_) => {
                let pairs = example.inputs.iter().zip(&example.targets);
                let tokens = pairs.map(|(input, target)| if *target == IGNORED { *input } else { *target });
                tokens.filter(|token| *token >= FIRST).collect()
            }
            Noise::SpanCorruption(_) => {
                let mut tokens: Vec<TokenId> =
                    example.inputs.iter().chain(&example.targets).copied().filter(|token| *token >= FIRST).collect();
                tokens.sort_unstable();
                tokens
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// An epoch has every token of every document once, in pieces that do not mix documents and fit the model.
        #[test]
        fn packing_loses_and_repeats_no_token(
            lens in prop::collection::vec(2_usize..70, 1..20),
            context_len in 8_usize..24,
            (seed, epoch) in (0_u64..9, 0_u64..3),
        ) {
            for noise in noises() {
                let tokens = store(&lens);
                let ranges: Vec<_> = (0..lens.len()).map(|i| tokens.document_range(i)).collect();
                let rows = PackedRows::new((store(&lens), &store(&[])), context_len, noise.clone(), FRAME).unwrap();
                let n_rows = rows.packing.rows().len() as u64;
                let mut all = Vec::new();
                for idx in epoch * n_rows..(epoch + 1) * n_rows {
                    let row = rows.examples(seed, idx);
                    prop_assert_eq!(&row, &rows.examples(seed, idx));
                    let positions = |example: &Example| example.inputs.len().max(example.decoder_inputs.len());
                    prop_assert!(row.iter().map(positions).sum::<usize>() <= context_len);
                    for example in &row {
                        let piece = restored(&noise, example);
                        prop_assert!(piece.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{:?}", piece);
                        let place = |token: TokenId| (token - FIRST) as usize;
                        let range = ranges.iter().find(|range| range.contains(&place(piece[0]))).unwrap();
                        prop_assert!(range.contains(&place(piece[piece.len() - 1])), "two documents in {:?}", piece);
                        // Pieces of a causal model overlap by one: a target here is an input there.
                        let is_start = place(piece[0]) == range.start;
                        all.extend_from_slice(&piece[usize::from(noise.overlap() == 1 && !is_start)..]);
                    }
                }
                all.sort_unstable();
                prop_assert_eq!(all, tokens.tokens(0..tokens.n_tokens()));
            }
        }
    }

    #[test]
    fn epochs_have_orders_of_their_own_and_validation_is_read_document_by_document() {
        let rows = PackedRows::new((store(&[20; 12]), &store(&[3, 1, 12])), 8, Noise::Causal, FRAME).unwrap();
        let n_rows = rows.packing.rows().len() as u64;
        let epoch = |seed, epoch| {
            (epoch * n_rows..(epoch + 1) * n_rows).flat_map(|idx| rows.examples(seed, idx)).collect::<Vec<Example>>()
        };
        assert!(epoch(1, 0) != epoch(1, 1) && epoch(1, 0) != epoch(2, 0));
        let told: Vec<Vec<TokenId>> = rows.validation().iter().map(|example| example.targets.clone()).collect();
        assert_eq!(told, [vec![101, 102], (105..113).collect(), vec![113, 114, 115]]);
        let short = PackedRows::new((store(&[1, 1]), &store(&[])), 8, Noise::Causal, FRAME);
        assert!(short.expect_err("nothing to tell").to_string().contains("training part"));
    }
}
