//! Documents packed into rows of a fixed length.

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

/// How documents are cut into pieces, and the room that a piece takes.
#[derive(Clone, Copy)]
pub struct Cutting<'a> {
    /// Room of a row.
    pub capacity: usize,
    /// Most positions of a piece.
    pub piece_max: usize,
    /// Fewest positions of a piece: no rest is shorter, and documents that are shorter are left out.
    pub piece_min: usize,
    /// The room that a piece of some positions takes: at most `capacity` for `piece_max`.
    pub room: &'a dyn Fn(usize) -> usize,
}

impl Cutting<'_> {
    /// Pieces of a document of `len` positions: whole ones and a rest. Where the rest would be shorter than `piece_min`, the piece
    /// before it gives it some of its own.
    pub fn pieces(&self, len: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (max, min) = (self.piece_max, self.piece_min);
        let mut start = 0;
        std::iter::from_fn(move || {
            let rest = len - start;
            if rest < min.max(1) {
                return None;
            }
            let end = match rest {
                rest if rest <= max => len,
                rest if rest < max + min => len - min,
                _ => start + max,
            };
            Some(std::mem::replace(&mut start, end)..end)
        })
    }
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
    n_short: usize,
}

impl Packing {
    /// Packs documents of these lengths, in positions. Empty ones have no piece. The same lengths give the same packing.
    ///
    /// # Panics
    /// If `capacity` is 0.
    pub fn best_fit(lens: &[usize], capacity: usize) -> Self {
        let room = |len| len;
        Self::with_cutting(lens, &Cutting { capacity, piece_max: capacity, piece_min: 1, room: &room })
    }

    /// Packs documents of these lengths, in positions, whose pieces take more room than they have positions.
    ///
    /// # Panics
    /// If pieces may have no position, or fewer than twice the fewest at most.
    pub fn with_cutting(lens: &[usize], cutting: &Cutting<'_>) -> Self {
        let Cutting { capacity, piece_max, piece_min, room } = *cutting;
        assert!(piece_max > 0 && (piece_min < 2 || piece_max >= 2 * piece_min), "rows of no positions");
        let mut pieces: Vec<Piece> = Vec::with_capacity(lens.len());
        let (mut n_cut, mut n_short) = (0, 0);
        for (document, len) in lens.iter().enumerate() {
            n_cut += usize::from(*len > piece_max);
            n_short += usize::from((1..piece_min).contains(len));
            pieces.extend(cutting.pieces(*len).map(|positions| Piece { document, positions }));
        }
        // Stable: of equal lengths, the first document comes first.
        pieces.sort_by_key(|piece| std::cmp::Reverse(piece.positions.len()));
        let mut rows: Vec<Vec<Piece>> = Vec::new();
        // The room that rows have, and which rows.
        let mut rooms: BTreeSet<(usize, usize)> = BTreeSet::new();
        let mut n_positions = 0;
        for piece in pieces {
            let taken = room(piece.positions.len());
            n_positions += taken;
            let (free, row) = rooms.range((taken, 0)..).next().copied().unwrap_or((capacity, rows.len()));
            rooms.remove(&(free, row));
            if row == rows.len() {
                rows.push(Vec::new());
            }
            rows[row].push(piece);
            if free > taken {
                rooms.insert((free - taken, row));
            }
        }
        Self { capacity, rows, n_positions, n_cut, n_short }
    }

    /// The pieces of each row.
    pub fn rows(&self) -> &[Vec<Piece>] {
        &self.rows
    }

    /// Positions that a row has at most.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Room that all pieces take; the positions of all documents, where a piece takes no more than it has.
    pub fn n_positions(&self) -> usize {
        self.n_positions
    }

    /// Documents that are longer than a row, and therefore cut.
    pub fn n_cut(&self) -> usize {
        self.n_cut
    }

    /// Documents that are too short for a piece, and therefore left out.
    pub fn n_short(&self) -> usize {
        self.n_short
    }

    /// Share of the rows' room that is taken; 1 if there are no rows.
    pub fn utilisation(&self) -> f64 {
        match self.rows.len() {
            0 => 1.0,
            n_rows => self.n_positions as f64 / (n_rows * self.capacity) as f64,
        }
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
        // TRL's example of both its strategies: documents cut into rows, and cut off.
        let (split, cut_off) = (rows(&[5, 2, 3, 1], 4), rows(&[4, 2, 3, 1], 4));
        assert_eq!(split, [vec![(0, 0, 4)], vec![(2, 0, 3), (0, 4, 5)], vec![(1, 0, 2), (3, 0, 1)]]);
        assert_eq!(cut_off, [vec![(0, 0, 4)], vec![(2, 0, 3), (3, 0, 1)], vec![(1, 0, 2)]]);
        assert_eq!(Packing::best_fit(&[3, 3], 4).utilisation(), 0.75);
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

        #[test]
        fn pieces_of_any_cutting_cover_a_document_and_none_is_short(
            lens in prop::collection::vec(0_usize..90, 0..40),
            (piece_min, piece_max) in (1_usize..5).prop_flat_map(|min| (Just(min), 2 * min..30)),
            frame in 0_usize..4,
        ) {
            let room = |len| len + frame;
            let packing = Packing::with_cutting(
                &lens,
                &Cutting { capacity: piece_max + frame, piece_max, piece_min, room: &room },
            );
            let mut seen: Vec<Vec<bool>> = lens.iter().map(|len| vec![false; *len]).collect();
            let mut taken = 0;
            for row in packing.rows() {
                let rooms: Vec<usize> = row.iter().map(|piece| room(piece.positions.len())).collect();
                prop_assert!(rooms.iter().sum::<usize>() <= piece_max + frame);
                taken += rooms.iter().sum::<usize>();
                for piece in row {
                    prop_assert!((piece_min..=piece_max).contains(&piece.positions.len()));
                    for position in piece.positions.clone() {
                        prop_assert!(!std::mem::replace(&mut seen[piece.document][position], true));
                    }
                }
            }
            let is_short = |len: usize| (1..piece_min).contains(&len);
            for seen in seen {
                prop_assert!(seen.iter().all(|is_seen| *is_seen != is_short(seen.len())));
            }
            prop_assert_eq!(packing.n_short(), lens.iter().filter(|len| is_short(**len)).count());
            prop_assert_eq!(packing.n_positions(), taken);
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
