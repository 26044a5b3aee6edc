//! Pins that a model sets: what it writes keeps to a grammar of commands, so each line is one that this can carry out.
//!
//! The packed file of `SISKIN_MODEL` holds the grammar of `leds.gbnf`.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use semihosting::{println, process};
use siskin_device::{Error, Options, Sampling, model};
use siskin_examples as _;

model! {
    static COMMANDER = env!("SISKIN_MODEL"),
}

/// The two LEDs of the board, a bit each, in the block of registers that its image calls FPGAIO.
const LEDS: *mut u32 = 0x4002_8000 as *mut u32;

#[entry]
fn main() -> ! {
    if let Err(error) = obey("PAGE:") {
        println!("{error}");
        process::exit(1)
    }
    process::exit(0)
}

fn obey(prompt: &str) -> Result<(), Error> {
    let mut writer = COMMANDER.writer()?;
    let sampling = Sampling::random(1.0).unwrap_or(Sampling::greedy());
    for seed in 0..8 {
        let mut text = writer.begin_in_grammar(prompt, &Options::random(16, sampling, seed))?;
        let (mut line, mut len) = ([0; 16], 0);
        while text
            .step(|piece| {
                for byte in piece.bytes() {
                    if let Some(place) = line.get_mut(len) {
                        *place = byte;
                        len += 1;
                    }
                }
            })
            .is_some()
        {}
        let command = line.get(..len).and_then(|line| core::str::from_utf8(line).ok()).unwrap_or_default();
        let is_known = set(command);
        println!("{command}{} {:02b}", if is_known { ":" } else { "?" }, read());
    }
    Ok(())
}

/// Carries out `on 0`, `off 1` and the like; false where it is no command, which the grammar rules out.
fn set(command: &str) -> bool {
    let Some((what, pin)) = command.split_once(' ') else { return false };
    let Some(mask) = pin.parse().ok().filter(|&pin: &u32| pin < 2).map(|pin| 1 << pin) else { return false };
    let leds = match what {
        "on" => read() | mask,
        "off" => read() & !mask,
        _ => return false,
    };
    // SAFETY: the register exists on this board, and nothing else writes to it.
    unsafe { LEDS.write_volatile(leds) };
    true
}

/// What the LEDs show, from the register that drives them.
fn read() -> u32 {
    // SAFETY: the register exists on this board, and reading it changes nothing.
    unsafe { LEDS.read_volatile() }
}
