//! GPT-2's spelling of bytes as printable characters, used by vocabulary files.

/// The character that stands for `byte`: itself where Latin-1 prints it, else one from U+0100 on, in order.
pub(super) fn char_of_byte(byte: u8) -> char {
    if is_printable(byte) {
        return char::from(byte);
    }
    let n_before = (0..byte).filter(|&b| !is_printable(b)).count() as u32;
    char::from_u32(0x100 + n_before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that `c` stands for.
fn byte_of_char(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ 0..=0xff => u8::try_from(code).ok().filter(|&byte| is_printable(byte)),
        code => (0..=255u8).filter(|&byte| !is_printable(byte)).nth(usize::try_from(code - 0x100).ok()?),
    }
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// The bytes of a token spelled with byte characters; a token with any other character stands for its own UTF-8 bytes.
pub(super) fn piece_of_token(token: &str) -> Vec<u8> {
    token.chars().map(byte_of_char).collect::<Option<Vec<u8>>>().unwrap_or_else(|| token.as_bytes().to_vec())
}

/// Spells `piece` with byte characters.
pub(super) fn token_of_piece(piece: &[u8]) -> String {
    piece.iter().map(|&byte| char_of_byte(byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(piece_of_token(&token_of_piece(&all)), all);
        assert_eq!(token_of_piece(b" a\n"), "\u{120}a\u{10a}");
    }

    #[test]
    fn other_characters_stand_for_themselves() {
        assert_eq!(piece_of_token("\u{2581}a"), "\u{2581}a".as_bytes());
    }
}
