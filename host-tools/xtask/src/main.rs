//! Siskin host tool.
fn main() {}
