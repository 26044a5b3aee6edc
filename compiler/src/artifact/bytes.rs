//! A cursor over untrusted bytes: every read is checked, every failure says what was being read.

use super::Problem;

/// Reads little-endian values one after the other.
#[derive(Clone)]
pub(super) struct ByteReader<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> ByteReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, pos: 0 }
    }

    /// Bytes read so far.
    pub fn pos(&self) -> usize {
        self.pos
    }

    /// Bytes left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.pos
    }

    /// The next `n_bytes` bytes; `what` names them in the error.
    pub fn take(&mut self, n_bytes: u64, what: &str) -> Result<&'a [u8], Problem> {
        let rest = &self.bytes[self.pos..];
        let taken = usize::try_from(n_bytes).ok().and_then(|n_bytes| rest.get(..n_bytes));
        let Some(taken) = taken else {
            return Err(Problem::Truncated {
                what: what.to_owned(),
                needed_bytes: n_bytes,
                had_bytes: rest.len() as u64,
            });
        };
        self.pos += taken.len();
        Ok(taken)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Problem> {
        let taken = self.take(N as u64, what)?;
        Ok(taken.try_into().expect("`take` gives the length asked for"))
    }

    pub fn u32(&mut self, what: &str) -> Result<u32, Problem> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub fn i32(&mut self, what: &str) -> Result<i32, Problem> {
        Ok(i32::from_le_bytes(self.array(what)?))
    }

    pub fn u64(&mut self, what: &str) -> Result<u64, Problem> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A count of things that take at least `item_bytes_min` bytes each: so no larger than what is left can hold.
    pub fn count(&mut self, item_bytes_min: u64, what: &str) -> Result<u64, Problem> {
        let count = self.u64(what)?;
        let max = self.remaining() as u64 / item_bytes_min;
        match count > max {
            true => Err(Problem::TooLarge { what: what.to_owned(), count, max }),
            false => Ok(count),
        }
    }
}
