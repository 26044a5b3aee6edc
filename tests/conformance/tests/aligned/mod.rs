//! Memory at a multiple of 16 bytes, which a 32-bit allocator does not give.

/// Bytes at a multiple of 16.
pub struct Aligned {
    memory: Vec<u8>,
    start: usize,
}

impl Aligned {
    /// A copy of `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        let mut memory: Vec<u8> = Vec::with_capacity(bytes.len() + 16);
        let start = memory.as_ptr().align_offset(16);
        memory.resize(start, 0);
        memory.extend_from_slice(bytes);
        Self { memory, start }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..]
    }

    /// The bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..]
    }
}
