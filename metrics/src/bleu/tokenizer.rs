//! The tokenisers: each puts spaces around what is to be a token by itself.
//!
//! They are defined by substitutions, one after another, each over the whole text from left to right without overlap.
//! The functions below are those substitutions one by one, since a later one sees the spaces of an earlier one.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory as _};

use crate::error::MetricError;
use crate::text;

/// How text becomes tokens. The names are sacrebleu's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tokenizer {
    /// `13a`: as WMT's mteval-v13a, for languages whose words are set apart.
    V13a,
    /// `intl`: every punctuation mark and symbol of Unicode is a token, but not a mark between two digits.
    International,
    /// `char`: every character is a token.
    Char,
    /// `zh`: every Chinese character is a token; the rest is as 13a has it.
    Chinese,
    /// `none`: words as they are spaced.
    None,
}

impl Tokenizer {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::V13a, Self::International, Self::Char, Self::Chinese, Self::None];

    /// The name in signatures.
    pub fn name(self) -> &'static str {
        match self {
            Self::V13a => "13a",
            Self::International => "intl",
            Self::Char => "char",
            Self::Chinese => "zh",
            Self::None => "none",
        }
    }

    /// The text with at least one space between tokens.
    pub fn tokenize(self, text: &str) -> String {
        match self {
            Self::V13a => western(&format!(" {} ", without_markup(text))),
            Self::International => international(text),
            Self::Char => text.chars().flat_map(|c| [c, ' ']).collect(),
            Self::Chinese => western(&chinese(text)),
            Self::None => text.to_owned(),
        }
    }

    /// The tokens of a text.
    pub fn tokens(self, text: &str) -> Vec<String> {
        text::words(&self.tokenize(text.trim_end_matches(text::is_space))).map(str::to_owned).collect()
    }
}

impl fmt::Display for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Tokenizer {
    type Err = MetricError;

    fn from_str(name: &str) -> Result<Self, MetricError> {
        let found = Self::ALL.into_iter().find(|tokenizer| tokenizer.name() == name);
        found.ok_or_else(|| MetricError::setting("the tokeniser", name, "13a, intl, char, zh or none"))
    }
}

/// Joins lines and undoes what SGML had to escape, one replacement after another.
fn without_markup(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    if text.contains('<') {
        text = text.replace("<skipped>", "").into();
    }
    if text.contains('\n') {
        text = text.replace("-\n", "").replace('\n', " ").into();
    }
    if text.contains('&') {
        for (entity, character) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
            text = text.replace(entity, character).into();
        }
    }
    text
}

/// The part of mteval that takes Western languages for granted. It looks at ASCII only, so it works on bytes: it puts
/// spaces next to ASCII characters and never into a longer one. A space is a mark of the first substitution too, which
/// would make three of one; that changes no token, so it stays as it is.
fn western(text: &str) -> String {
    let is_mark = |byte: u8| matches!(byte, b'{'..=b'~' | b'['..=b'`' | b'!'..=b'&' | b'('..=b'+' | b':'..=b'@' | b'/');
    let is_point = |byte: u8| matches!(byte, b'.' | b',');
    let is_digit = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_digit());
    let text = substitute(text.as_bytes(), is_mark, |_, _| Some(Around::Both));
    let text = substitute(&text, is_point, |before, _| (before.is_some() && !is_digit(before)).then_some(Around::Both));
    let text =
        substitute(&text, is_point, |_, after| (after.is_some() && !is_digit(after)).then_some(Around::BothAndNext));
    let text = substitute(&text, |byte| byte == b'-', |before, _| is_digit(before).then_some(Around::Both));
    // Nothing is lost where this is not UTF-8, because it always is.
    String::from_utf8(text).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// What a substitution does at a byte.
enum Around {
    /// Spaces before and after it.
    Both,
    /// The same, and the next byte belongs to the match, so that it begins no other.
    BothAndNext,
}

/// One substitution: at each byte that `is_found`, `decide` gets what is before it, unless a match has taken that, and
/// after it.
fn substitute(
    text: &[u8],
    is_found: impl Fn(u8) -> bool,
    decide: impl Fn(Option<u8>, Option<u8>) -> Option<Around>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 4 + 8);
    let (mut start, mut from) = (0, 0);
    while let Some(place) = text[from..].iter().position(|&byte| is_found(byte)).map(|offset| from + offset) {
        from = place + 1;
        let before = text[start..place].last().copied();
        let Some(around) = decide(before, text.get(place + 1).copied()) else { continue };
        out.extend_from_slice(&text[start..place]);
        out.extend_from_slice(&[b' ', text[place], b' ']);
        if let (Around::BothAndNext, Some(&next)) = (around, text.get(place + 1)) {
            out.push(next);
            from += 1;
        }
        start = from;
    }
    out.extend_from_slice(&text[start..]);
    out
}

/// Punctuation and symbols of all scripts, as mteval-v14 has it with `--international-tokenization`.
fn international(text: &str) -> String {
    let classified: Vec<(char, Class)> = text.chars().map(|c| (c, Class::of(c))).collect();
    let space = (' ', Class::Other);
    let mut after_other = Vec::with_capacity(classified.len() * 3 / 2);
    let mut rest = &classified[..];
    while let [here, after @ ..] = rest {
        after_other.push(*here);
        rest = after;
        if let [next @ (_, Class::Punctuation), after @ ..] = after
            && here.1 != Class::Number
        {
            after_other.extend([space, *next, space]);
            rest = after;
        }
    }
    let mut spaced = String::with_capacity(text.len() * 3 / 2);
    let mut push = |(c, class): (char, Class)| match class {
        Class::Symbol => spaced.extend([' ', c, ' ']),
        _ => spaced.push(c),
    };
    let mut rest = &after_other[..];
    while let [here, after @ ..] = rest {
        rest = after;
        match (here.1, after) {
            (Class::Punctuation, [next, after @ ..]) if next.1 != Class::Number => {
                [space, *here, space, *next].into_iter().for_each(&mut push);
                rest = after;
            }
            _ => push(*here),
        }
    }
    spaced
}

/// What `intl` tells apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Number,
    Punctuation,
    Symbol,
    Other,
}

impl Class {
    fn of(c: char) -> Self {
        match c {
            '0'..='9' => Self::Number,
            'a'..='z' | 'A'..='Z' | ' ' => Self::Other,
            _ => match c.general_category_group() {
                GeneralCategoryGroup::Number => Self::Number,
                GeneralCategoryGroup::Punctuation => Self::Punctuation,
                GeneralCategoryGroup::Symbol => Self::Symbol,
                _ => Self::Other,
            },
        }
    }
}

/// Spaces around every character that the tokeniser takes for Chinese.
fn chinese(text: &str) -> String {
    let mut spaced = String::with_capacity(text.len() * 2);
    for c in text.trim_matches(text::is_space).chars() {
        if is_chinese(c) {
            spaced.extend([' ', c, ' ']);
        } else {
            spaced.push(c);
        }
    }
    spaced
}

/// The reference's ranges. Two of them were meant for planes beyond the first, but are written with four digits and a
/// character: `2000` + `0` to `2a6d` + `6`, and `2f80` + `0` to `2fa1` + `d`. Single characters lie in those from 2001
/// to 2A6D, which are punctuation and symbols, and from 2F81 to 2FA1, and real ideographs beyond the first plane lie in
/// none.
fn is_chinese(c: char) -> bool {
    matches!(u32::from(c),
        0x2001..=0x2a6d
        | 0x2e80..=0x2eff
        | 0x2f00..=0x2fdf
        | 0x2ff0..=0x2fff
        | 0x3000..=0x303f
        | 0x3100..=0x312f
        | 0x31a0..=0x31bf
        | 0x31c0..=0x31ef
        | 0x3200..=0x32ff
        | 0x3300..=0x33ff
        | 0x3400..=0x4db5
        | 0x4e00..=0x9fa5
        | 0x9fa6..=0x9fbb
        | 0xf900..=0xfa2d
        | 0xfa30..=0xfa6a
        | 0xfa70..=0xfad9
        | 0xfe10..=0xfe1f
        | 0xfe30..=0xfe4f
        | 0xff00..=0xffef)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_tokens() {
        let text = "I&amp;lt;3 \"1,000.5\" 中国 3-4… 5$,x.\n";
        let cases = [
            (Tokenizer::V13a, "I < 3 \" 1,000.5 \" 中国 3 - 4… 5 $ , x ."),
            (Tokenizer::International, "I & amp ; lt ; 3 \" 1,000.5 \" 中国 3-4 … 5 $ , x ."),
            (Tokenizer::Chinese, "I & amp ; lt ; 3 \" 1,000.5 \" 中 国 3 - 4 … 5 $ , x ."),
            (Tokenizer::None, "I&amp;lt;3 \"1,000.5\" 中国 3-4… 5$,x."),
        ];
        for (tokenizer, tokens) in cases {
            assert_eq!(tokenizer.tokens(text).join(" "), tokens, "{tokenizer}");
        }
        assert_eq!(Tokenizer::Char.tokens("a 中\u{a0}b"), ["a", "中", "b"]);
    }

    #[test]
    fn names_are_read_back() {
        for tokenizer in Tokenizer::ALL {
            assert_eq!(tokenizer.name().parse(), Ok(tokenizer));
        }
        let error = "ja-mecab".parse::<Tokenizer>().unwrap_err().to_string();
        assert_eq!(error, "the tokeniser cannot be ja-mecab: 13a, intl, char, zh or none");
    }
}
