//! Embassy in thread mode: a task that writes yields after every token, so another is served in between.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};

use embassy_executor::Spawner;
use embassy_futures::yield_now;
use semihosting::{print, println, process};
use siskin_device::{Error, Options, model};
use siskin_examples as _;

model! {
    static SHAKESPEARE = "../../../../tests/golden/shakespeare-260k.siskin", arena_bytes_max = 128 * 1024;
}

/// How often the other task was served.
static N_TURNS: AtomicU32 = AtomicU32::new(0);

#[embassy_executor::main]
async fn main(spawner: Spawner) {
    let is_well = spawner.spawn(other_work()).is_ok();
    let written = write("ROMEO:").await;
    println!();
    match written {
        Ok(n_tokens) => println!("{n_tokens} tokens, and {} turns of other work", N_TURNS.load(Ordering::Relaxed)),
        Err(error) => println!("{error}"),
    }
    process::exit(i32::from(!is_well || written.is_err()))
}

/// Gives the number of tokens.
async fn write(prompt: &str) -> Result<u32, Error> {
    let mut writer = SHAKESPEARE.writer()?;
    let mut text = writer.begin(prompt, &Options::greedy(48))?;
    let mut n_tokens = 0;
    while text.step(|piece| print!("{piece}")).is_some() {
        n_tokens += 1;
        yield_now().await;
    }
    Ok(n_tokens)
}

/// Stands for a radio, a display, a button.
#[embassy_executor::task]
async fn other_work() {
    loop {
        N_TURNS.fetch_add(1, Ordering::Relaxed);
        yield_now().await;
    }
}
