//! What the references' language, Python, takes for whitespace.

/// Whether Python's `str.split` and `str.strip` take the character for whitespace: what Unicode calls so, and the four
/// separators of ASCII, U+001C to U+001F.
pub(crate) fn is_space(c: char) -> bool {
    matches!(c, '\u{1c}'..='\u{1f}') || c.is_whitespace()
}

/// The words of a text, as `str.split()` gives them.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_end_at_every_whitespace_of_python() {
        let text = "\u{2003}a\u{1c}b\u{85}c\u{a0}\u{200b}d\u{3000}";
        assert_eq!(words(text).collect::<Vec<_>>(), ["a", "b", "c", "\u{200b}d"]);
    }
}
