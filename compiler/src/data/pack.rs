//! Documents packed into rows of a fixed length.

use super::Example;
use siskin_runtime::TokenId;
use std::collections::BTreeSet;
use std::ops::Range;

/// A stretch of a document's positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which document.
    pub document: usize,
    /// Its positions.
    pub positions: Range<usize>,
}

/// Where each position of many documents lies in rows of at most `capacity` positions.
///
/// A document that is longer than a row is cut into whole rows and a rest; what fits into a row is never cut. The pieces are put, the
/// longest first, into the row with the least room that takes them (best-fit decreasing; Ding et al. 2024 for language models): at
/// most 11/9 of the fewest possible rows and four more (Johnson 1974). The pieces of a row become segments, which do not see each
/// other and whose positions start anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packing {
    capacity: usize,
    rows: Vec<Vec<Piece>>,
    n_positions: usize,
    n_cut: usize,
}

impl Packing {
    /// Packs documents of these lengths, in positions. Empty ones have no piece. The same lengths give the same packing.
    ///
    /// # Panics
    /// If `capacity` is 0.
    pub fn best_fit(lens: &[usize], capacity: usize) -> Self {
        assert!(capacity > 0, "rows of no positions");
        let mut pieces: Vec<Piece> = Vec::with_capacity(lens.len());
        for (document, len) in lens.iter().enumerate() {
            let starts = (0..*len).step_by(capacity);
            pieces.extend(starts.map(|at| Piece { document, positions: at..(at + capacity).min(*len) }));
        }
        // Stable: of equal lengths, the first document comes first.
        pieces.sort_by_key(|piece| std::cmp::Reverse(piece.positions.len()));
        let mut rows: Vec<Vec<Piece>> = Vec::new();
        // The room that rows have, and which rows.
        let mut rooms: BTreeSet<(usize, usize)> = BTreeSet::new();
        for piece in pieces {
            let len = piece.positions.len();
            let (room, row) = rooms.range((len, 0)..).next().copied().unwrap_or((capacity, rows.len()));
            rooms.remove(&(room, row));
            if row == rows.len() {
                rows.push(Vec::new());
            }
            rows[row].push(piece);
            if room > len {
                rooms.insert((room - len, row));
            }
        }
        let n_cut = lens.iter().filter(|len| **len > capacity).count();
        Self { capacity, rows, n_positions: lens.iter().sum(), n_cut }
    }

    /// Packs documents of tokens for a causal model: a position reads one token and tells the next, so a document has one less
    /// than tokens.
    ///
    /// # Panics
    /// If `capacity` is 0.
    pub fn causal<'a>(documents: impl IntoIterator<Item = &'a [TokenId]>, capacity: usize) -> Self {
        let lens: Vec<usize> = documents.into_iter().map(|tokens| tokens.len().saturating_sub(1)).collect();
        Self::best_fit(&lens, capacity)
    }

    /// The pieces of each row.
    pub fn rows(&self) -> &[Vec<Piece>] {
        &self.rows
    }

    /// Positions that a row has at most.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Positions of all documents.
    pub fn n_positions(&self) -> usize {
        self.n_positions
    }

    /// Documents that are longer than a row, and therefore cut.
    pub fn n_cut(&self) -> usize {
        self.n_cut
    }

    /// Share of the rows' positions that are used; 1 if there are no rows.
    pub fn utilisation(&self) -> f64 {
        match self.rows.len() {
            0 => 1.0,
            n_rows => self.n_positions as f64 / (n_rows * self.capacity) as f64,
        }
    }

    /// A row of [`Packing::causal`] as sequences to be run in one pass, an example a piece. `tokens_of` gives a document's tokens.
    ///
    /// # Panics
    /// If there is no such row, or a document is shorter than when it was packed.
    pub fn causal_examples<T: AsRef<[TokenId]>>(&self, row: usize, tokens_of: impl Fn(usize) -> T) -> Vec<Example> {
        let example = |piece: &Piece| {
            let tokens = tokens_of(piece.document);
            let (Range { start, end }, tokens) = (piece.positions.clone(), tokens.as_ref());
            Example::causal(&tokens[start..end], &tokens[start + 1..=end])
        };
        self.rows[row].iter().map(example).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// The rows in short: document, start, end.
    fn rows(lens: &[usize], capacity: usize) -> Vec<Vec<(usize, usize, usize)>> {
        let packing = Packing::best_fit(lens, capacity);
        let short = |piece: &Piece| (piece.document, piece.positions.start, piece.positions.end);
        packing.rows().iter().map(|row| row.iter().map(short).collect()).collect()
    }

    #[test]
    fn a_packing_done_by_hand() {
        // 23 is cut into 10, 10 and 3. Then 7, 6, 5, 4, 3, 3, 2: the 4 goes to the 6, the 3 of document 0 to the 7 (room 3, not 5),
        // the 3 of document 4 to the 5, and the 2 after it.
        let lens = [23, 5, 7, 0, 3, 6, 4, 2];
        assert_eq!(
            rows(&lens, 10),
            [
                vec![(0, 0, 10)],
                vec![(0, 10, 20)],
                vec![(2, 0, 7), (0, 20, 23)],
                vec![(5, 0, 6), (6, 0, 4)],
                vec![(1, 0, 5), (4, 0, 3), (7, 0, 2)],
            ]
        );
        let packing = Packing::best_fit(&lens, 10);
        assert_eq!((packing.utilisation(), packing.n_cut(), packing.n_positions()), (1.0, 1, 50));
        assert!(rows(&[], 4).is_empty());
        assert_eq!(Packing::best_fit(&[3, 3], 4).utilisation(), 0.75);
    }

    #[test]
    fn each_token_but_the_first_of_a_document_is_told_once() {
        let documents: Vec<Vec<TokenId>> =
            vec![(0..8).collect(), (10..13).collect(), vec![20], (30..32).collect(), vec![]];
        let packing = Packing::causal(documents.iter().map(Vec::as_slice), 4);
        let row = |row| packing.causal_examples(row, |document| &documents[document]);
        let (first, second, third) = (row(0), row(1), row(2));
        assert_eq!(packing.rows().len(), 3);
        assert_eq!(first, [Example::causal(&[0, 1, 2, 3], &[1, 2, 3, 4])]);
        assert_eq!(second, [Example::causal(&[4, 5, 6], &[5, 6, 7]), Example::causal(&[30], &[31])]);
        assert_eq!(third, [Example::causal(&[10, 11], &[11, 12])]);
    }

    /// Rows that putting each piece into the first row with room takes.
    fn first_fit(lens: &[usize], capacity: usize) -> usize {
        let mut rooms: Vec<usize> = Vec::new();
        for len in lens.iter().flat_map(|len| (0..*len).step_by(capacity).map(move |at| (len - at).min(capacity))) {
            match rooms.iter_mut().find(|room| **room >= len) {
                Some(room) => *room -= len,
                None => rooms.push(capacity - len),
            }
        }
        rooms.len()
    }

    #[test]
    fn it_takes_fewer_rows_than_first_fit() {
        // Lengths as texts have them: many short, few long.
        for seed in 0..40 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let lens: Vec<usize> = (0..500).map(|_| (16.0 / (1.0 - rng.random::<f64>() * 0.99)) as usize).collect();
            let (best, first) = (Packing::best_fit(&lens, 256), first_fit(&lens, 256));
            assert!(best.rows().len() <= first, "{} rows, first-fit {first}", best.rows().len());
            assert!(best.utilisation() > 0.95, "{}", best.utilisation());
        }
    }

    proptest! {
        #[test]
        fn every_position_lies_in_one_row_and_no_row_is_too_long(
            lens in prop::collection::vec(0_usize..60, 0..60),
            capacity in 1_usize..40,
        ) {
            let packing = Packing::best_fit(&lens, capacity);
            let mut seen: Vec<Vec<bool>> = lens.iter().map(|len| vec![false; *len]).collect();
            for row in packing.rows() {
                prop_assert!(!row.is_empty());
                prop_assert!(row.iter().map(|piece| piece.positions.len()).sum::<usize>() <= capacity);
                for piece in row {
                    for position in piece.positions.clone() {
                        prop_assert!(!std::mem::replace(&mut seen[piece.document][position], true));
                    }
                }
            }
            prop_assert!(seen.iter().flatten().all(|seen| *seen));
            let n_pieces: usize = packing.rows().iter().map(Vec::len).sum();
            prop_assert_eq!(n_pieces, lens.iter().map(|len| len.div_ceil(capacity)).sum::<usize>());
        }

        /// Rows that are cut into pieces can be put together again: the bound holds where the best packing is known.
        #[test]
        fn it_is_near_the_best(cuts in prop::collection::vec(prop::collection::btree_set(1_usize..50, 0..6), 1..40)) {
            let mut lens = Vec::new();
            for cuts in &cuts {
                let bounds: Vec<usize> = [0].into_iter().chain(cuts.iter().copied()).chain([50]).collect();
                lens.extend(bounds.windows(2).map(|bounds| bounds[1] - bounds[0]));
            }
            let n_rows = Packing::best_fit(&lens, 50).rows().len();
            prop_assert!(n_rows >= cuts.len() && 9 * n_rows <= 11 * cuts.len() + 36, "{} for {}", n_rows, cuts.len());
        }
    }
}
