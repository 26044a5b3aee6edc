//! A sequence-to-sequence corpus of our own: copy, reverse or sort letters.

use std::fmt::Write as _;

/// Records in all.
const N_RECORDS: usize = 60_000;
/// Most letters of a record.
const LETTERS_MAX: usize = 24;

/// Records as JSONL: the source is the task's sign (`=` copy, `<` reverse, `^` sort) and 1 to 24 letters.
pub fn generate() -> String {
    let (mut text, mut state) = (String::new(), 5_u64);
    let mut below = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    for _ in 0..N_RECORDS {
        let len = 1 + below(LETTERS_MAX);
        let letters: Vec<u8> = (0..len).map(|_| b'a' + below(26) as u8).collect();
        let sign = ['=', '<', '^'][below(3)];
        let mut answer = letters.clone();
        match sign {
            '<' => answer.reverse(),
            '^' => answer.sort_unstable(),
            _ => {}
        }
        let (letters, answer) = (String::from_utf8_lossy(&letters), String::from_utf8_lossy(&answer));
        writeln!(text, "{{\"source\": \"{sign}{letters}\", \"target\": \"{answer}\"}}")
            .expect("writing to a string succeeds");
    }
    text
}
