//! Working memory of threads: each that takes part in more than matrix products has a lane of its own.
//!
//! The arena's plan has one lane. Further ones lie behind it where the caller's arena is longer, which a device's never is.

use bytemuck::{AnyBitPattern, NoUninit};

use crate::attention::Scratch;
use crate::kv_cache::Unpacked;
use crate::plan::ARENA_ALIGN;

/// What one thread writes to beside its share of the results.
pub(crate) struct Lane<'a> {
    /// One token's vector before it is quantised, `(widest input,)`.
    pub row: &'a mut [f32],
    /// For a head's keys, and for its values.
    pub unpacked: [Unpacked<'a>; 2],
    /// For one head's attention.
    pub scratch: Scratch<'a>,
}

/// A thread's own lane, and what it may share its work with.
pub(crate) struct Lanes<'a> {
    /// Threads that the work at hand may have, at least 1.
    pub n_threads: usize,
    pub lane: Lane<'a>,
    /// Memory for lanes of other threads.
    pub spare: &'a mut [u8],
}

/// Bytes of a slice as long as `buffer`, filled up for the next.
fn padded_bytes<T>(buffer: &[T]) -> usize {
    size_of_val(buffer).next_multiple_of(ARENA_ALIGN)
}

/// The front of `spare` as a slice as long as `like`.
fn cut<'a, T: AnyBitPattern + NoUninit>(spare: &mut &'a mut [u8], like: &[T]) -> Option<&'a mut [T]> {
    let (front, rest) = core::mem::take(spare).split_at_mut_checked(padded_bytes(like))?;
    *spare = rest;
    bytemuck::try_cast_slice_mut(front.get_mut(..size_of_val(like))?).ok()
}

impl Lane<'_> {
    /// Bytes of a lane like this one.
    fn bytes(&self) -> usize {
        let Scratch { query, scores, value_sums } = &self.scratch;
        let unpacked = |of: &Unpacked<'_>| padded_bytes(of.elements) + padded_bytes(of.scales);
        let unpacked: usize = self.unpacked.iter().map(unpacked).sum();
        unpacked + padded_bytes(self.row) + padded_bytes(query) + padded_bytes(scores) + padded_bytes(value_sums)
    }

    /// A lane like this one in `memory`, where it fits.
    fn like<'b>(&self, mut memory: &'b mut [u8]) -> Option<Lane<'b>> {
        let memory = &mut memory;
        let row = cut(memory, self.row)?;
        let [of_keys, of_values] = &self.unpacked;
        let mut unpacked = |like: &Unpacked<'_>| {
            Some(Unpacked { elements: cut(memory, like.elements)?, scales: cut(memory, like.scales)? })
        };
        let unpacked = [unpacked(of_keys)?, unpacked(of_values)?];
        let Scratch { query, scores, value_sums } = &self.scratch;
        let scratch =
            Scratch { query: cut(memory, query)?, scores: cut(memory, scores)?, value_sums: cut(memory, value_sums)? };
        Some(Lane { row, unpacked, scratch })
    }

    /// The same lane, for as long as this borrow.
    fn reborrow(&mut self) -> Lane<'_> {
        let Scratch { query, scores, value_sums } = &mut self.scratch;
        let unpacked = self.unpacked.each_mut().map(Unpacked::reborrow);
        Lane { row: self.row, unpacked, scratch: Scratch { query, scores, value_sums } }
    }
}

impl Lanes<'_> {
    /// The lanes of two halves of the work, each with half of the threads; `None` where one thread is to do all.
    pub fn halves(&mut self) -> Option<[Lanes<'_>; 2]> {
        if self.n_threads < 2 {
            return None;
        }
        let left_threads = self.n_threads / 2;
        let lane_bytes = self.lane.bytes();
        let (right_lane, spare) = self.spare.split_at_mut_checked(lane_bytes)?;
        let right_lane = self.lane.like(right_lane)?;
        let left_spare_bytes = ((left_threads - 1) * lane_bytes).min(spare.len());
        let (left_spare, right_spare) = spare.split_at_mut(left_spare_bytes);
        let right_threads = self.n_threads - left_threads;
        Some([
            Lanes { n_threads: left_threads, lane: self.lane.reborrow(), spare: left_spare },
            Lanes { n_threads: right_threads, lane: right_lane, spare: right_spare },
        ])
    }

    /// The lanes of two shares of `n` rows or tokens, and how many the first has: whole steps of `step` in proportion to its threads, and
    /// never none. `None` where one thread is to do all.
    pub fn shares(&mut self, n: usize, step: usize) -> Option<([Lanes<'_>; 2], usize)> {
        let n_threads = self.n_threads;
        let halves = self.halves()?;
        let n_left = (n * halves[0].n_threads / n_threads).max(1).next_multiple_of(step).min(n);
        Some((halves, n_left))
    }
}
