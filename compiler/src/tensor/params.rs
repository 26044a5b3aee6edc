//! Named parameters in one flat buffer, so that gradients, optimiser state and averages are flat buffers too.
//!
//! Matrices may be stored in 16 bits; an operation widens what it needs of one for as long as it runs. Vectors and small tables stay
//! `f32`: they are few, and gains near one would have steps of a 128th.

use super::Buffer;
use super::bf16::{Dtype, bf16, narrow, widen};
use std::ops::Range;

/// Which parameter of a [`ParamLayout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamId(usize);

impl ParamId {
    /// Its place among [`ParamLayout::specs`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// One named matrix, `(rows, cols)`, row-major; a vector has one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamSpec {
    /// Hugging Face name.
    pub name: String,
    /// Rows; 1 for a vector.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Where its numbers lie in a flat buffer.
    pub range: Range<usize>,
    /// Whether it is a vector (a norm's gain), which optimisers may leave out of weight decay.
    pub is_vector: bool,
    /// Whether it is `f32` where matrices are stored in 16 bits, as vectors are and small tables.
    pub keeps_f32: bool,
    /// Where its numbers lie among those that are stored alike, where matrices are in 16 bits.
    pub place: Range<usize>,
    /// Where its gradient lies among those of all trained parameters; none where it is frozen.
    pub grad: Option<Range<usize>>,
}

/// The names, shapes and places of all parameters of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParamLayout {
    specs: Vec<ParamSpec>,
    len: usize,
    /// Numbers of parameters that keep `f32`.
    n_kept: usize,
    /// Numbers of parameters that are trained.
    n_trained: usize,
}

impl ParamLayout {
    /// Adds a matrix, `(rows, cols)`.
    pub fn matrix(&mut self, name: impl Into<String>, rows: usize, cols: usize) -> ParamId {
        self.push(name.into(), rows, cols, (false, false))
    }

    /// Adds a matrix, `(rows, cols)`, that is too small to gain anything by 16 bits.
    pub fn small_table(&mut self, name: impl Into<String>, rows: usize, cols: usize) -> ParamId {
        self.push(name.into(), rows, cols, (false, true))
    }

    /// Adds a vector of `len` numbers.
    pub fn vector(&mut self, name: impl Into<String>, len: usize) -> ParamId {
        self.push(name.into(), 1, len, (true, true))
    }

    fn push(&mut self, name: String, rows: usize, cols: usize, (is_vector, keeps_f32): (bool, bool)) -> ParamId {
        let n = rows * cols;
        let first = if keeps_f32 { self.n_kept } else { self.len - self.n_kept };
        let (range, place) = (self.len..self.len + n, first..first + n);
        self.len += n;
        self.n_kept += if keeps_f32 { n } else { 0 };
        let grad = Some(self.n_trained..self.n_trained + n);
        self.n_trained += n;
        self.specs.push(ParamSpec { name, rows, cols, range, is_vector, keeps_f32, place, grad });
        ParamId(self.specs.len() - 1)
    }

    /// Trains those of the parameters so far for which `is_trained` says so, in their order; the others keep their values, and have neither
    /// gradients nor an optimiser's state.
    ///
    /// # Panics
    /// If there are not as many answers as parameters.
    pub fn freeze_listed(&mut self, is_trained: &[bool]) {
        assert_eq!(is_trained.len(), self.specs.len(), "an answer for each parameter");
        self.n_trained = 0;
        for (spec, is_trained) in self.specs.iter_mut().zip(is_trained) {
            let n = if *is_trained { spec.range.len() } else { 0 };
            spec.grad = is_trained.then_some(self.n_trained..self.n_trained + n);
            self.n_trained += n;
        }
    }

    /// Numbers in the gradients of all trained parameters.
    pub fn n_trained(&self) -> usize {
        self.n_trained
    }

    /// Whether a parameter is trained.
    pub fn is_trained(&self, id: ParamId) -> bool {
        self.specs[id.0].grad.is_some()
    }

    /// The parameter of a name.
    pub fn find(&self, name: &str) -> Option<ParamId> {
        self.specs.iter().position(|spec| spec.name == name).map(ParamId)
    }

    /// Numbers in a flat buffer.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no parameter.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All parameters, in the order of their places.
    pub fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    /// One parameter.
    pub fn spec(&self, id: ParamId) -> &ParamSpec {
        &self.specs[id.0]
    }
}

/// The numbers of a layout.
#[derive(Clone, Debug)]
pub struct Params {
    /// What lies where.
    pub layout: ParamLayout,
    /// All numbers, `layout.len()` of them; where matrices are stored in 16 bits, those that are not, one parameter after the other.
    pub values: Buffer,
    /// The matrices, one after the other, where they are stored in 16 bits.
    matrices: Option<Vec<bf16>>,
}

/// The numbers of one parameter.
#[derive(Clone, Copy, Debug)]
pub enum Weight<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// bfloat16.
    Bf16(&'a [bf16]),
}

/// The numbers of one parameter, for writing.
#[derive(Debug)]
pub enum WeightMut<'a> {
    /// Single precision.
    F32(&'a mut [f32]),
    /// bfloat16.
    Bf16(&'a mut [bf16]),
}

impl Params {
    /// The numbers of a layout in `f32`.
    ///
    /// # Panics
    /// If there are not as many as the layout has.
    pub fn new(layout: ParamLayout, values: Buffer) -> Self {
        assert_eq!(values.len(), layout.len(), "numbers of another layout");
        Self { layout, values, matrices: None }
    }

    /// All zeros.
    pub fn zeros(layout: ParamLayout) -> Self {
        let values = Buffer::zeros(layout.len());
        Self::new(layout, values)
    }

    /// The same numbers with matrices stored as `dtype`, rounded to the nearest.
    #[must_use]
    pub fn stored_as(self, dtype: Dtype) -> Self {
        if self.dtype() == dtype {
            return self;
        }
        let layout = self.layout.clone();
        match dtype {
            Dtype::F32 => {
                let mut whole = Self::zeros(layout);
                for spec in self.layout.specs() {
                    self.weight_of(spec).widen_into(&mut whole.values[spec.range.clone()]);
                }
                whole
            }
            Dtype::Bf16 => {
                let mut values = Buffer::zeros(layout.n_kept);
                let mut matrices = vec![bf16::ZERO; layout.len() - layout.n_kept];
                for spec in layout.specs() {
                    let from = &self.values[spec.range.clone()];
                    match spec.keeps_f32 {
                        true => values[spec.place.clone()].copy_from_slice(from),
                        false => narrow(from, &mut matrices[spec.place.clone()]),
                    }
                }
                Self { layout, values, matrices: Some(matrices) }
            }
        }
    }

    /// What matrices are stored as.
    pub fn dtype(&self) -> Dtype {
        if self.matrices.is_some() { Dtype::Bf16 } else { Dtype::F32 }
    }

    /// Bytes of all numbers.
    pub fn n_bytes(&self) -> usize {
        size_of_val(&*self.values) + self.matrices.as_deref().map_or(0, size_of_val)
    }

    /// The numbers of one parameter.
    pub fn weight(&self, id: ParamId) -> Weight<'_> {
        self.weight_of(self.layout.spec(id))
    }

    /// The numbers of one parameter of the layout.
    pub fn weight_of(&self, spec: &ParamSpec) -> Weight<'_> {
        match &self.matrices {
            None => Weight::F32(&self.values[spec.range.clone()]),
            Some(_) if spec.keeps_f32 => Weight::F32(&self.values[spec.place.clone()]),
            Some(matrices) => Weight::Bf16(&matrices[spec.place.clone()]),
        }
    }

    /// The numbers of all parameters, for writing, in the order of the layout.
    pub fn weights_mut(&mut self) -> Vec<WeightMut<'_>> {
        let Self { layout, values, matrices } = self;
        let (mut values, mut matrices) = (&mut **values, matrices.as_deref_mut());
        let weight = |spec: &ParamSpec| {
            let len = spec.range.len();
            let of_matrices = matrices.as_mut().filter(|_| !spec.keeps_f32);
            let weight = match of_matrices {
                Some(matrices) => matrices.split_off_mut(..len).map(WeightMut::Bf16),
                None => values.split_off_mut(..len).map(WeightMut::F32),
            };
            weight.unwrap_or(WeightMut::F32(&mut []))
        };
        layout.specs().iter().map(weight).collect()
    }

    /// The numbers of the trained parameters, for writing, in the order of the layout.
    pub fn trained_mut(&mut self) -> Vec<WeightMut<'_>> {
        let is_trained: Vec<bool> = self.layout.specs().iter().map(|spec| spec.grad.is_some()).collect();
        self.weights_mut().into_iter().zip(is_trained).filter_map(|(weight, is)| is.then_some(weight)).collect()
    }

    /// The numbers of a parameter in `f32`.
    ///
    /// # Panics
    /// If it is a matrix and matrices are stored in 16 bits: [`Params::weight`] has them.
    pub fn get(&self, id: ParamId) -> &[f32] {
        match self.weight(id) {
            Weight::F32(numbers) => numbers,
            Weight::Bf16(_) => panic!("{} is stored in 16 bits", self.layout.spec(id).name),
        }
    }

    /// The numbers of a parameter in `f32`, for writing.
    ///
    /// # Panics
    /// As [`Params::get`].
    pub fn get_mut(&mut self, id: ParamId) -> &mut [f32] {
        let spec = self.layout.spec(id);
        let range = match &self.matrices {
            None => spec.range.clone(),
            Some(_) if spec.keeps_f32 => spec.place.clone(),
            Some(_) => panic!("{} is stored in 16 bits", spec.name),
        };
        &mut self.values[range]
    }
}

impl<'a> Weight<'a> {
    /// Some of the numbers.
    ///
    /// # Panics
    /// If there are none at `range`.
    #[must_use]
    pub fn part(self, range: Range<usize>) -> Self {
        match self {
            Self::F32(numbers) => Self::F32(&numbers[range]),
            Self::Bf16(numbers) => Self::Bf16(&numbers[range]),
        }
    }

    /// Writes their values.
    ///
    /// # Panics
    /// If `to` has another length.
    pub fn widen_into(self, to: &mut [f32]) {
        match self {
            Self::F32(numbers) => to.copy_from_slice(numbers),
            Self::Bf16(numbers) => widen(numbers, to),
        }
    }
}

impl<'a> WeightMut<'a> {
    /// Bytes of the numbers.
    pub fn n_bytes(&self) -> usize {
        match self {
            Self::F32(numbers) => size_of_val(*numbers),
            Self::Bf16(numbers) => size_of_val(*numbers),
        }
    }

    /// Takes the first `len` numbers off.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn split_off(&mut self, len: usize) -> Self {
        match self {
            Self::F32(numbers) => Self::F32(numbers.split_off_mut(..len).expect("as many numbers")),
            Self::Bf16(numbers) => Self::Bf16(numbers.split_off_mut(..len).expect("as many numbers")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_are_narrowed_and_the_rest_stays() {
        let mut layout = ParamLayout::default();
        let ids =
            [layout.matrix("a", 3, 5), layout.vector("b", 4), layout.small_table("c", 2, 2), layout.matrix("d", 2, 3)];
        let values: Vec<f32> = (0..layout.len()).map(|i| (i as f32 * 0.7).sin()).collect();
        let whole = Params::new(layout.clone(), values.as_slice().into());
        let mut narrowed = whole.clone().stored_as(Dtype::Bf16);
        assert_eq!((whole.n_bytes(), narrowed.n_bytes()), (29 * 4, 21 * 2 + 8 * 4));
        for (id, is_narrowed) in ids.into_iter().zip([true, false, false, true]) {
            let mut got = vec![0.0; whole.get(id).len()];
            narrowed.weight(id).widen_into(&mut got);
            let round = |x: &f32| if is_narrowed { bf16::from_f32(*x).to_f32() } else { *x };
            assert_eq!(got, whole.get(id).iter().map(round).collect::<Vec<f32>>());
        }
        for (weight, spec) in narrowed.weights_mut().into_iter().zip(layout.specs()) {
            match weight {
                WeightMut::F32(numbers) => assert_eq!((numbers.len(), spec.keeps_f32), (spec.range.len(), true)),
                WeightMut::Bf16(numbers) => numbers.fill(bf16::from_f32(spec.rows as f32)),
            }
        }
        narrowed.get_mut(ids[1]).fill(7.0);
        let widened = narrowed.stored_as(Dtype::F32);
        assert!(widened.get(ids[0]).iter().all(|x| *x == 3.0) && widened.get(ids[3]).iter().all(|x| *x == 2.0));
        assert!(widened.get(ids[1]) == [7.0; 4] && widened.get(ids[2]) == whole.get(ids[2]));
    }
}
