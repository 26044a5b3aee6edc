//! Cuts text into pre-tokens: stretches that merges never cross.
//!
//! The models' tokenizers define the cuts by regular expressions. Each function here is one of them, run by hand: the first
//! alternative that matches wins, each as long as it can be. In their notation `L`, `N` and `S` are the classes of
//! [`CharClass`] and `O` is [`CharClass::Other`].

use super::CharClass;

/// How a byte-level tokenizer cuts text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PreTokenizer {
    /// Not at all.
    None,
    /// GPT-2: `'s|'t|'re|'ve|'m|'ll|'d| ?L+| ?N+| ?O+|S+(?!not S)|S+`.
    Gpt2,
    /// SmolLM: every digit on its own, then what lies between as GPT-2 does.
    DigitsGpt2,
    /// Llama 3 and cl100k: `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\nLN]?L+|N{1,3}| ?O+[\r\n]*|S*[\r\n]+|S+(?!not S)|S+`.
    Llama3,
    /// Qwen 2: as Llama 3, with every digit on its own.
    Qwen2,
}

impl PreTokenizer {
    /// Every one, in the order of their codes in the tokenizer section.
    pub const ALL: [Self; 5] = [Self::None, Self::Gpt2, Self::DigitsGpt2, Self::Llama3, Self::Qwen2];

    /// Number that stands for it in the tokenizer section.
    pub fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gpt2 => 1,
            Self::DigitsGpt2 => 2,
            Self::Llama3 => 3,
            Self::Qwen2 => 4,
        }
    }

    /// The pre-tokenizer of a [`PreTokenizer::code`].
    pub const fn from_code(code: u8) -> Option<Self> {
        match Self::ALL.as_slice().split_at_checked(code as usize) {
            Some((_, &[pre_tokenizer, ..])) => Some(pre_tokenizer),
            _ => None,
        }
    }
}

/// The pre-tokens of a text in order; together they are the text.
#[derive(Clone, Debug)]
pub struct PreTokens<'t> {
    pre_tokenizer: PreTokenizer,
    rest: &'t str,
}

impl<'t> PreTokens<'t> {
    /// Cuts `text` as `pre_tokenizer` does.
    pub fn new(pre_tokenizer: PreTokenizer, text: &'t str) -> Self {
        Self { pre_tokenizer, rest: text }
    }
}

impl<'t> Iterator for PreTokens<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        if self.rest.is_empty() {
            return None;
        }
        let n_bytes = match self.pre_tokenizer {
            PreTokenizer::None => self.rest.len(),
            PreTokenizer::Gpt2 => gpt2(Cursor { rest: self.rest, digits_end: false }),
            PreTokenizer::DigitsGpt2 => gpt2(Cursor { rest: self.rest, digits_end: true }),
            PreTokenizer::Llama3 => llama3(self.rest, 3),
            PreTokenizer::Qwen2 => llama3(self.rest, 1),
        };
        // A cut lies between characters.
        let (pre_token, rest) = self.rest.split_at_checked(n_bytes).unwrap_or((self.rest, ""));
        self.rest = rest;
        Some(pre_token)
    }
}

/// Reads characters and their classes; the text may end before a digit.
#[derive(Clone, Copy)]
struct Cursor<'t> {
    rest: &'t str,
    digits_end: bool,
}

impl Cursor<'_> {
    /// The next character with its class, unless the text ends here.
    fn peek(&self) -> Option<(char, CharClass)> {
        let c = self.rest.chars().next()?;
        let class = CharClass::of(c);
        if self.digits_end && class == CharClass::Number { None } else { Some((c, class)) }
    }

    fn advance(&mut self, c: char) {
        self.rest = self.rest.get(c.len_utf8()..).unwrap_or_default();
    }

    /// Skips characters while `wanted`.
    fn skip_while(&mut self, wanted: impl Fn(char, CharClass) -> bool) {
        while let Some((c, class)) = self.peek()
            && wanted(c, class)
        {
            self.advance(c);
        }
    }

    fn skip_class(&mut self, wanted: CharClass) {
        self.skip_while(|_, class| class == wanted);
    }
}

/// Bytes of the first pre-token of a text that is not empty.
fn gpt2(start: Cursor<'_>) -> usize {
    let text = start.rest;
    let mut cursor = start;
    // Only a digit in a text that ends before digits has nothing to peek at.
    let Some((first, class)) = cursor.peek() else { return text.chars().next().map_or(0, char::len_utf8) };
    cursor.advance(first);
    let contraction = contraction_bytes(text, false);
    if contraction > 0 {
        return contraction;
    }
    match cursor.peek() {
        Some((_, next)) if first == ' ' && next != CharClass::Space => cursor.skip_class(next),
        _ if class == CharClass::Space => return spaces_bytes(start),
        _ => cursor.skip_class(class),
    }
    text.len() - cursor.rest.len()
}

/// Bytes of the first pre-token of a text that is not empty; numbers are cut into `digits_max` characters.
fn llama3(text: &str, digits_max: usize) -> usize {
    let start = Cursor { rest: text, digits_end: false };
    let mut cursor = start;
    let Some((first, class)) = cursor.peek() else { return 0 };
    cursor.advance(first);
    let contraction = contraction_bytes(text, true);
    if contraction > 0 {
        return contraction;
    }
    let next = cursor.peek().map(|(_, class)| class);
    let is_newline = |c| matches!(c, '\r' | '\n');
    if class == CharClass::Letter || class != CharClass::Number && !is_newline(first) && next == Some(CharClass::Letter)
    {
        cursor.skip_class(CharClass::Letter);
    } else if class == CharClass::Number {
        for _ in 1..digits_max {
            match cursor.peek() {
                Some((c, CharClass::Number)) => cursor.advance(c),
                _ => break,
            }
        }
    } else if class == CharClass::Other || first == ' ' && next == Some(CharClass::Other) {
        cursor.skip_class(CharClass::Other);
        cursor.skip_while(|c, _| is_newline(c));
    } else {
        let mut spaces = start;
        spaces.skip_class(CharClass::Space);
        let run = text.get(..text.len() - spaces.rest.len()).unwrap_or_default();
        return run.rfind(is_newline).map_or_else(|| spaces_bytes(start), |newline| newline + 1);
    }
    text.len() - cursor.rest.len()
}

/// Bytes of `'s|'t|'re|'ve|'m|'ll|'d` at the start of `text`, or 0.
fn contraction_bytes(text: &str, ignore_case: bool) -> usize {
    let Some(rest) = text.strip_prefix('\'') else { return 0 };
    let letter = |idx: usize| match rest.as_bytes().get(idx) {
        Some(letter) if ignore_case => letter.to_ascii_lowercase(),
        Some(letter) => *letter,
        None => 0,
    };
    match (letter(0), letter(1)) {
        (b's' | b't' | b'm' | b'd', _) => 2,
        (b'r' | b'v', b'e') | (b'l', b'l') => 3,
        // The long s is an s to a regular expression that ignores case.
        _ if ignore_case && rest.starts_with('\u{17f}') => 3,
        _ => 0,
    }
}

/// Bytes of `S+(?!not S)|S+`: a run of spaces, less its last when something follows and it is not the only one.
fn spaces_bytes(start: Cursor<'_>) -> usize {
    let mut cursor = start;
    let mut last = start;
    while let Some((c, CharClass::Space)) = cursor.peek() {
        last = cursor;
        cursor.advance(c);
    }
    let bytes_to = |end: Cursor<'_>| start.rest.len() - end.rest.len();
    if cursor.peek().is_some() && bytes_to(last) > 0 { bytes_to(last) } else { bytes_to(cursor) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pre_tokenizer: PreTokenizer, text: &str, expected: &[&str]) {
        assert!(PreTokens::new(pre_tokenizer, text).eq(expected.iter().copied()), "{pre_tokenizer:?} of {text:?}");
    }

    #[test]
    fn gpt2_keeps_a_space_with_the_word_that_follows() {
        check(PreTokenizer::Gpt2, "it's  a\n\n cat 42!? ", &["it", "'s", " ", " a", "\n\n", " cat", " 42", "!?", " "]);
        check(PreTokenizer::Gpt2, "'ll'x 'd", &["'ll", "'", "x", " '", "d"]);
    }

    #[test]
    fn digits_stand_alone_and_end_what_is_before() {
        check(PreTokenizer::DigitsGpt2, "a  12b ", &["a", "  ", "1", "2", "b", " "]);
    }

    #[test]
    fn llama3_takes_numbers_by_three_and_newlines_with_marks() {
        check(
            PreTokenizer::Llama3,
            "I'LL (go) 12345.\n\n x",
            &["I", "'LL", " (", "go", ")", " ", "123", "45", ".\n\n", " x"],
        );
        check(PreTokenizer::Llama3, "a \n  b\tc '\u{17f}", &["a", " \n", " ", " b", "\tc", " '", "\u{17f}"]);
        check(PreTokenizer::Qwen2, "x12", &["x", "1", "2"]);
    }

    #[test]
    fn every_cut_keeps_the_whole_text() {
        for pre_tokenizer in PreTokenizer::ALL {
            for text in ["", " ", "\r\n 1'9 \u{3000}é\u{301}\u{1f600}'", "'re''ve'l"] {
                let n_bytes: usize = PreTokens::new(pre_tokenizer, text).map(str::len).sum();
                assert_eq!(n_bytes, text.len());
            }
        }
    }
}
