//! Trains a recipe, printing events.
use siskin_compiler::recipe::Recipe;
use siskin_compiler::train::progress::{Event, Progress};
use siskin_compiler::train::{Options, run};
struct P;
impl Progress for P {
    fn event(&mut self, e: &Event) {
        println!("{e:?}");
    }
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let r = Recipe::load(a[1].as_ref(), &a[3..]).unwrap_or_else(|e| {
        println!("{e}");
        std::process::exit(3)
    });
    let i = std::sync::atomic::AtomicBool::new(false);
    let resume = std::env::var("RESUME").is_ok();
    println!("{:?}", run(&r, &Options { out: a[2].as_ref(), resume, interrupt: &i }, &mut P));
}
