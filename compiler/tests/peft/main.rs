//! Training a part of a model, or something beside it: the rest stays as it is to the bit, and what is made is what PEFT makes.

mod beside;
mod goldens;
mod selective;
mod workshop;
