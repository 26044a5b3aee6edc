//! Texts that try tokenizers: scripts, numbers, spaces, code, emoji, marks, controls, special tokens, long words.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What texts are put together from.
const PARTS: &[&str] = &[
    "the",
    " quick",
    " Brown",
    "fox's",
    " I'll",
    "we'VE",
    "'d",
    "'s'S",
    "it\u{2019}s",
    " don't",
    "HTTPServer",
    "snake_case",
    "x",
    " ",
    "  ",
    "   \t",
    "\n",
    "\r\n",
    "\n\n\n",
    "\t",
    "\u{a0}",
    "\u{3000}",
    "\u{2003}\u{2028}",
    "\u{85}",
    "\u{b}\u{c}",
    "0",
    "42",
    " 3.14159",
    "1234567890",
    "\u{663}\u{664}",
    "\u{967}\u{968}\u{969}",
    "\u{2460}\u{bd}\u{b2}",
    "\u{2167}",
    "1,000",
    "caf\u{e9}",
    "na\u{ef}ve",
    "e\u{301}\u{327}",
    "\u{fb01}n",
    "\u{17f}t",
    "'\u{17f}",
    "\u{df}\u{1e9e}",
    "\u{130}i",
    "\u{41f}\u{440}\u{438}\u{432}\u{435}\u{442}",
    " \u{3b3}\u{3b5}\u{3b9}\u{3ac}",
    "\u{5e9}\u{5dc}\u{5d5}\u{5dd}",
    "\u{645}\u{631}\u{62d}\u{628}\u{627}",
    "\u{928}\u{92e}\u{938}\u{94d}\u{924}\u{947}",
    "\u{e2a}\u{e27}\u{e31}\u{e2a}",
    "\u{4f60}\u{597d}\u{4e16}\u{754c}",
    " \u{6771}\u{4eac}",
    "\u{3053}\u{3093}\u{306b}\u{3061}\u{306f}",
    "\u{c548}\u{b155}",
    "\u{12a0}\u{121b}",
    "\u{10a0}",
    "\u{20000}\u{2a6d6}",
    "\u{10330}\u{1d400}\u{1d7d8}",
    "\u{1f600}",
    "\u{1f468}\u{200d}\u{1f469}",
    "\u{1f1eb}\u{1f1f7}",
    "\u{2764}\u{fe0f}",
    "\u{1f44d}\u{1f3fd}",
    "\u{0}",
    "\u{1}\u{7f}\u{9f}",
    "\u{feff}",
    "\u{200b}\u{200e}",
    "\u{ad}",
    "\u{fffd}",
    "\u{e000}",
    "\u{10ffff}",
    "\u{378}",
    "fn main() {\n    let x = vec![1, 2];\n}\n",
    "if (a<=b && c!=d){",
    "def f(self):\n\treturn None  # ok",
    "<div class=\"a\">",
    "https://example.org/?q=1&r=%20#x",
    "{\"k\": [1.5e-9, null]}",
    "!!!",
    "...",
    " --",
    "$",
    "\u{20ac}5",
    "\u{ab}a\u{bb}",
    "(",
    ")",
    "\"",
    "'",
    " '",
    "''",
    "@user",
    "#tag",
    "\\n",
    "|",
    "<",
    ">",
    "\u{2581}",
    "\u{2581}\u{2581}a",
    "<0x0A>",
    "\u{120}",
    "\u{10a}the",
];

/// `n` texts, always the same, some with `specials` inside; the first ones are the extremes.
pub fn generate(n: usize, specials: &[&str]) -> Vec<String> {
    let mut texts: Vec<String> = vec!["".into(), " ".into(), "\n".into(), "a".into(), "\u{1f600}".into()];
    texts.extend(["a".repeat(300), " ".repeat(257), "\u{4e2d}".repeat(120), "ab1 \u{301}".repeat(60), "-=".repeat(90)]);
    texts.extend(PARTS.iter().map(|&part| part.into()));
    texts.extend(PARTS.iter().map(|&part| format!("a {part} {part}b")));
    texts.extend(specials.iter().map(|&special| format!(" {special}{special} a{special}\n")));
    texts.extend(specials.iter().map(|&special| special[..special.len() - 1].into()));
    let mut rng = ChaCha8Rng::seed_from_u64(20);
    while texts.len() < n {
        let mut text = String::new();
        for _ in 0..rng.random_range(1..24) {
            match rng.random_range(0..20) {
                0 if !specials.is_empty() => text += specials[rng.random_range(0..specials.len())],
                1 => text.extend((0..rng.random_range(1..6)).map(|_| random_char(&mut rng))),
                2 => text += &" \n\t "[..rng.random_range(1..4)].repeat(rng.random_range(1..4)),
                _ => text += PARTS[rng.random_range(0..PARTS.len())],
            }
        }
        texts.push(text);
    }
    texts
}

/// Any character, those of small code points more often.
fn random_char(rng: &mut ChaCha8Rng) -> char {
    loop {
        let bits = rng.random_range(7..21);
        if let Some(c) = char::from_u32(rng.random_range(0..1u32 << bits)) {
            return c;
        }
    }
}
