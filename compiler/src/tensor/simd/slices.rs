//! Sums of whole slices.

use super::{Kernel, SIXTEEN, Sixteen, dispatch, load_part, store_part};

/// `to += from`, number by number.
///
/// # Panics
/// If the lengths differ.
pub fn add_assign(to: &mut [f32], from: &[f32]) {
    assert_eq!(to.len(), from.len(), "lengths of a sum");
    dispatch(AddAssign { to, from });
}

/// `to = a + b`, number by number.
///
/// # Panics
/// If the lengths differ.
pub fn add(to: &mut [f32], a: &[f32], b: &[f32]) {
    assert!(to.len() == a.len() && a.len() == b.len(), "lengths of a sum");
    dispatch(Add { to, a, b });
}

struct AddAssign<'a> {
    to: &'a mut [f32],
    from: &'a [f32],
}

impl Kernel for AddAssign<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Sixteen>(self) {
        for (to, from) in self.to.chunks_mut(SIXTEEN).zip(self.from.chunks(SIXTEEN)) {
            store_part(load_part::<V>(to).add(load_part(from)), to);
        }
    }
}

struct Add<'a> {
    to: &'a mut [f32],
    a: &'a [f32],
    b: &'a [f32],
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Sixteen>(self) {
        for ((to, a), b) in self.to.chunks_mut(SIXTEEN).zip(self.a.chunks(SIXTEEN)).zip(self.b.chunks(SIXTEEN)) {
            store_part(load_part::<V>(a).add(load_part(b)), to);
        }
    }
}
