//! A checkpoint becomes a packed file, and the packed file becomes text.

use siskin_e2e::{Program, fixture};

#[test]
fn keep() {
    let program = Program::new();
    fixture::write_checkpoint(&program.path("model"), 1);
    println!("{}", program.text(&["plan", "model", "--board", "host"]));
    println!("{}", program.text(&["compile", "model", "--board", "host", "-o", "a.siskin"]));
    println!("{}", program.text(&["inspect", "a.siskin"]));
    println!("{}", program.json(&["inspect", "a.siskin"]));
    println!("{}", program.text(&["plan", "a.siskin", "--board", "host"]));
}
