//! A small corpus from a grammar of our own, for a demo where no package client can fetch one.

use std::fmt::Write as _;

const PLACES: [&str; 6] = ["the harbour", "the mill", "the old bridge", "the orchard", "the lighthouse", "the market"];
const BIRDS: [&str; 6] = ["siskin", "heron", "wren", "magpie", "swallow", "owl"];
const MOODS: [&str; 6] = ["quiet", "merry", "cold", "golden", "windy", "strange"];
const THINGS: [&str; 6] = ["a silver key", "a paper boat", "a broken clock", "a red feather", "a letter", "a lantern"];
const ACTS: [&str; 6] = ["found", "hid", "carried", "dropped", "followed", "kept"];

/// Steps of a linear congruential generator: the same corpus every time.
struct Steps(u64);

impl Steps {
    fn pick<'w>(&mut self, words: &[&'w str; 6]) -> &'w str {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        words[(self.0 >> 33) as usize % words.len()]
    }
}

/// About `n_bytes` of short stories.
pub fn generate(n_bytes: usize) -> String {
    let (mut text, mut steps) = (String::new(), Steps(7));
    while text.len() < n_bytes {
        let (bird, place) = (steps.pick(&BIRDS), steps.pick(&PLACES));
        let (thing, act, mood) = (steps.pick(&THINGS), steps.pick(&ACTS), steps.pick(&MOODS));
        let (other, second_act, second_place) = (steps.pick(&BIRDS), steps.pick(&ACTS), steps.pick(&PLACES));
        writeln!(
            text,
            "On a {mood} morning the {bird} flew to {place}. There it {act} {thing}.\n\
             \"What have you there?\" asked the {other}.\n\
             \"It is {thing},\" said the {bird}, \"and I {second_act} it near {second_place}.\"\n"
        )
        .expect("writing to a string succeeds");
    }
    text
}
