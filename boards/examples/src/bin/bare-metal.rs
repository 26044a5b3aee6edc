//! Without an operating system: a prompt is continued, then the program ends.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use semihosting::{print, println, process};
use siskin_device::{Error, Options, model};
use siskin_examples as _;

model! {
    /// Continues plays. Its memory is a `static` as well, of the size that the file's header says.
    static SHAKESPEARE = "../../../../tests/golden/shakespeare-260k.siskin", arena_bytes_max = 128 * 1024;
}

#[entry]
fn main() -> ! {
    if let Err(error) = write("ROMEO:") {
        println!("{error}");
        process::exit(1)
    }
    process::exit(0)
}

fn write(prompt: &str) -> Result<(), Error> {
    let mut writer = SHAKESPEARE.writer()?;
    let mut text = writer.begin(prompt, &Options::greedy(48))?;
    while text.step(|piece| print!("{piece}")).is_some() {}
    Ok(())
}
