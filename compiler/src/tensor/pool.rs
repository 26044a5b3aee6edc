//! Memory of passes: buffers that are used again, and what is kept for long in 16 bits.

use super::Buffer;
use super::bf16::{Dtype, narrow, widen};
use super::params::Weight;
use std::collections::HashMap;
use std::ops::Deref;

/// Numbers that are kept until they are wanted again.
#[derive(Debug)]
pub enum Saved {
    /// As they are.
    Whole(Buffer),
    /// Rounded to bfloat16.
    Narrowed(Narrowed),
}

/// Numbers rounded to the nearest bfloat16.
#[derive(Debug)]
pub struct Narrowed {
    /// Two numbers in the place of one.
    pairs: Buffer,
    len: usize,
}

/// The numbers of a parameter for as long as an operation runs.
#[derive(Debug)]
pub enum Widened<'a> {
    /// Where they are.
    InPlace(&'a [f32]),
    /// From 16 bits.
    Copied(Buffer),
}

impl Deref for Widened<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::InPlace(numbers) => numbers,
            Self::Copied(numbers) => numbers,
        }
    }
}

/// Buffers of a class.
#[derive(Default)]
struct Shelf {
    free: Vec<Buffer>,
    n_in_use: isize,
    /// Buffers that would be in use, too, if nothing were narrowed.
    n_spared: isize,
    /// The most of both at a time.
    n_max: isize,
}

impl Shelf {
    fn count(&mut self, in_use: isize, spared: isize) {
        self.n_in_use += in_use;
        self.n_spared += spared;
        self.n_max = self.n_max.max(self.n_in_use + self.n_spared);
    }
}

/// Buffers waiting to be used again, by class: sequences of every length share a few sizes.
#[derive(Default)]
struct Shelves(HashMap<usize, Shelf>);

impl Shelves {
    fn take(&mut self, len: usize) -> Buffer {
        let shelf = self.0.entry(Buffer::class(len)).or_default();
        shelf.count(1, 0);
        let mut buffer = shelf.free.pop().unwrap_or_else(|| Buffer::of_class(len));
        buffer.set_len(len);
        buffer
    }

    /// A buffer that was not taken from a pool, and is empty or of no class, is let go.
    fn give(&mut self, mut buffer: Buffer) {
        let n_lines = buffer.n_lines();
        buffer.set_len(0);
        if n_lines > 0 && buffer.is_of_class() {
            let shelf = self.0.entry(n_lines).or_default();
            shelf.count(-1, 0);
            shelf.free.push(buffer);
        }
    }

    fn spare(&mut self, len: usize, n: isize) {
        self.0.entry(Buffer::class(len)).or_default().count(0, n);
    }
}

/// The memory of a pass. It grows to the most that was in use at a time, and never shrinks.
#[derive(Default)]
pub(super) struct Pool {
    whole: Shelves,
    narrowed: Shelves,
}

impl Pool {
    /// A buffer of `len` numbers with unspecified contents.
    pub fn take(&mut self, len: usize) -> Buffer {
        self.whole.take(len)
    }

    /// Takes a buffer back.
    pub fn give(&mut self, buffer: Buffer) {
        self.whole.give(buffer);
    }

    /// Keeps numbers as `dtype`.
    pub fn save(&mut self, numbers: Buffer, dtype: Dtype) -> Saved {
        if dtype.is_f32() {
            return Saved::Whole(numbers);
        }
        let len = numbers.len();
        let mut pairs = self.narrowed.take(len.div_ceil(2));
        narrow(&numbers, &mut pairs.as_bf16_mut()[..len]);
        self.forget(numbers);
        Saved::Narrowed(Narrowed { pairs, len })
    }

    /// The kept numbers in a buffer of their own.
    pub fn restore(&mut self, saved: Saved) -> Buffer {
        match saved {
            Saved::Whole(numbers) => numbers,
            Saved::Narrowed(Narrowed { pairs, len }) => {
                self.remember(len);
                let mut numbers = self.whole.take(len);
                widen(&pairs.as_bf16()[..len], &mut numbers);
                self.narrowed.give(pairs);
                numbers
            }
        }
    }

    /// Takes back what is not wanted any more.
    pub fn discard(&mut self, saved: Saved) {
        match saved {
            Saved::Whole(numbers) => self.give(numbers),
            Saved::Narrowed(Narrowed { pairs, len }) => {
                self.remember(len);
                self.narrowed.give(pairs);
            }
        }
    }

    /// Takes a buffer back that would still be in use if nothing were narrowed, until [`Pool::remember`] is called.
    pub fn forget(&mut self, numbers: Buffer) {
        let len = numbers.len();
        self.whole.give(numbers);
        self.whole.spare(len, 1);
    }

    /// Ends what [`Pool::forget`] began, for a buffer of `len` numbers.
    pub fn remember(&mut self, len: usize) {
        self.whole.spare(len, -1);
    }

    /// The numbers of a parameter in `f32`.
    pub fn widen<'a>(&mut self, weight: Weight<'a>) -> Widened<'a> {
        match weight {
            Weight::F32(numbers) => Widened::InPlace(numbers),
            Weight::Bf16(numbers) => {
                let mut copied = self.take(numbers.len());
                widen(numbers, &mut copied);
                Widened::Copied(copied)
            }
        }
    }

    /// Takes back what [`Pool::widen`] gave.
    pub fn give_widened(&mut self, widened: Widened<'_>) {
        if let Widened::Copied(copied) = widened {
            self.give(copied);
        }
    }

    /// Bytes of all buffers that wait to be used again.
    pub fn n_free_bytes(&self) -> usize {
        let shelves = self.whole.0.values().chain(self.narrowed.0.values());
        shelves.flat_map(|shelf| &shelf.free).map(Buffer::n_bytes).sum()
    }

    /// Bytes that all buffers, waiting or not, would have come to if nothing had ever been narrowed.
    pub fn n_bytes_unnarrowed(&self) -> usize {
        let bytes = |(n_lines, shelf): (&usize, &Shelf)| shelf.n_max as usize * Buffer::bytes_of_lines(*n_lines);
        self.whole.0.iter().map(bytes).sum()
    }
}

impl Saved {
    /// Bytes that they take up.
    pub(super) fn n_bytes(&self) -> usize {
        match self {
            Self::Whole(numbers) => numbers.n_bytes(),
            Self::Narrowed(narrowed) => narrowed.pairs.n_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_buffers_do_not_pile_up() {
        let mut pool = Pool::default();
        (0..3).for_each(|_| pool.give(Buffer::default()));
        assert_eq!(pool.whole.0.values().map(|shelf| shelf.free.len()).sum::<usize>(), 0);
    }

    #[test]
    fn narrowed_numbers_come_back_rounded_from_half_the_memory() {
        let mut pool = Pool::default();
        let len = 4097;
        let mut numbers = pool.take(len);
        numbers.iter_mut().enumerate().for_each(|(i, x)| *x = (i as f32 * 0.37).sin());
        let want: Vec<f32> = numbers.iter().map(|x| half::bf16::from_f32(*x).to_f32()).collect();
        let n_bytes = pool.n_bytes_unnarrowed();
        let saved = pool.save(numbers, Dtype::Bf16);
        assert!(saved.n_bytes() * 2 <= n_bytes + 256, "{} of {n_bytes} bytes", saved.n_bytes());
        // The buffer serves again while its numbers are kept.
        let other = pool.take(len);
        assert_eq!((pool.n_free_bytes(), pool.n_bytes_unnarrowed()), (0, 2 * n_bytes));
        pool.give(other);
        let numbers = pool.restore(saved);
        assert_eq!(*numbers, *want);
        let saved = pool.save(numbers, Dtype::Bf16);
        pool.discard(saved);
        assert_eq!(pool.n_bytes_unnarrowed(), 2 * n_bytes);
    }
}
