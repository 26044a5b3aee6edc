//! What the firmware says: one record a line, a keyword and its value, made without `core::fmt`.

use crate::host::Console;

/// A line under way.
pub struct Record<'c> {
    console: &'c mut Console,
}

impl<'c> Record<'c> {
    /// Starts the line `keyword`.
    pub fn new(console: &'c mut Console, keyword: &str) -> Self {
        let mut record = Self { console };
        record.text(keyword);
        record
    }

    /// Appends text that holds no line end.
    pub fn text(&mut self, text: &str) -> &mut Self {
        text.bytes().for_each(|byte| self.push(byte));
        self
    }

    /// Appends a space and a number.
    pub fn number(&mut self, mut number: u64) -> &mut Self {
        self.push(b' ');
        // Digits from the last on. A division of 64 bits would link a kilobyte of code.
        let (mut digits, mut first) = ([b'0'; 20], 19);
        for at in (0..digits.len()).rev() {
            if let Some(digit) = digits.get_mut(at) {
                let remainder = remainder_of_ten(&mut number);
                *digit += remainder;
                first = if remainder > 0 { at } else { first };
            }
        }
        digits.iter().skip(first).for_each(|&digit| self.push(digit));
        self
    }

    /// Appends a space and the lowest `n_digits` hexadecimal digits of a number.
    pub fn hex(&mut self, number: u64, n_digits: u32) -> &mut Self {
        self.push(b' ');
        for digit in (0..n_digits).rev() {
            let nibble = (number >> (4 * digit)) as u8 & 0xf;
            self.push(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
        }
        self
    }

    /// Appends a space and a text of any content, in which `\n`, `\r` and `\\` stand for the bytes that would end the line.
    #[cfg(generates)]
    pub fn escaped(&mut self, text: &str) -> &mut Self {
        self.push(b' ');
        for byte in text.bytes() {
            let escape = match byte {
                b'\n' => b'n',
                b'\r' => b'r',
                b'\\' => b'\\',
                _ => {
                    self.push(byte);
                    continue;
                }
            };
            self.push(b'\\');
            self.push(escape);
        }
        self
    }

    /// Ends the line and sends it.
    pub fn send(&mut self) {
        self.push(b'\n');
        self.console.flush();
    }

    fn push(&mut self, byte: u8) {
        self.console.push(byte);
    }
}

/// Divides by ten, bit by bit, and gives what is left.
fn remainder_of_ten(number: &mut u64) -> u8 {
    let mut remainder = 0;
    for _ in 0..u64::BITS {
        remainder = remainder << 1 | (*number >> 63) as u8;
        *number <<= 1;
        if remainder >= 10 {
            remainder -= 10;
            *number |= 1;
        }
    }
    remainder
}
