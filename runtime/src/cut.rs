//! Parts of slices that are there, as the memory plan and a parsed model have it.
//!
//! The compiler cannot see that, and would add a panic to each. Instead a part that is not there is empty, so that no panic is in
//! firmware; where debug assertions are on, as in every test, it panics, for it is a bug.

use core::slice::SliceIndex;

/// Parts of a slice.
pub(crate) trait Cut<T> {
    /// The part `at`.
    fn cut(&self, at: impl SliceIndex<[T], Output = [T]>) -> &[T];

    /// The part `at`, to be changed.
    fn cut_mut(&mut self, at: impl SliceIndex<[T], Output = [T]>) -> &mut [T];

    /// The first `n` elements and the others.
    fn parts(&self, n: usize) -> (&[T], &[T]);

    /// The same, to be changed.
    fn parts_mut(&mut self, n: usize) -> (&mut [T], &mut [T]);
}

impl<T> Cut<T> for [T] {
    #[inline(always)]
    fn cut(&self, at: impl SliceIndex<[T], Output = [T]>) -> &[T] {
        if cfg!(debug_assertions) { &self[at] } else { self.get(at).unwrap_or_default() }
    }

    #[inline(always)]
    fn cut_mut(&mut self, at: impl SliceIndex<[T], Output = [T]>) -> &mut [T] {
        if cfg!(debug_assertions) { &mut self[at] } else { self.get_mut(at).unwrap_or_default() }
    }

    #[inline(always)]
    fn parts(&self, n: usize) -> (&[T], &[T]) {
        debug_assert!(n <= self.len());
        self.split_at(n.min(self.len()))
    }

    #[inline(always)]
    fn parts_mut(&mut self, n: usize) -> (&mut [T], &mut [T]) {
        debug_assert!(n <= self.len());
        let n = n.min(self.len());
        self.split_at_mut(n)
    }
}

/// Copies `from` to the slice `to`, which is as long.
#[inline(always)]
pub(crate) fn copy<T: Copy>(to: &mut [T], from: &[T]) {
    debug_assert_eq!(to.len(), from.len());
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}

/// Copies `n` elements of `all` from one place to another, which do not overlap.
#[inline(always)]
pub(crate) fn copy_part<T: Copy>(all: &mut [T], from: usize, to: usize, n: usize) {
    if from < to {
        let (front, back) = all.parts_mut(to);
        copy(back.cut_mut(..n), front.cut(from..from + n));
    } else {
        let (front, back) = all.parts_mut(from);
        copy(front.cut_mut(to..to + n), back.cut(..n));
    }
}
