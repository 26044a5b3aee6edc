//! The header of a packed file, read while the firmware is compiled (runtime/FORMAT.md).

/// What a packed file's header says of its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of the packed file.
    pub file_bytes: usize,
    /// Bytes of working memory that the model needs.
    pub arena_bytes: usize,
    /// Positions of the context.
    pub context_len: usize,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub dim: usize,
    /// Layers.
    pub n_layers: usize,
    /// Texts side by side that a beam search has room for; 0 for none.
    pub n_beams: usize,
    /// Whether the model is an encoder alone, which says something about a text and continues none.
    pub is_encoder: bool,
}

/// The first eight bytes.
const MAGIC: [u8; 8] = [0x53, 0x49, 0x53, 0x4b, 0x49, 0x4e, 0x0d, 0x9a];
/// Where what a model is made of begins and ends: all zeros for a Llama.
const PARTS: [usize; 2] = [88, 120];
/// Where the beams are that there is room for.
const BEAMS_AT: usize = 121;

impl Shape {
    /// Reads the header of a packed file.
    ///
    /// # Panics
    /// Where `file` is no packed model of this version, is cut short, or needs the feature `families` and that is off: meant for
    /// constants, where it is a compile error.
    pub const fn read(file: &[u8]) -> Self {
        let mut idx = 0;
        while idx < MAGIC.len() {
            assert!(
                file.len() > idx && file[idx] == MAGIC[idx],
                "this file is no packed model: `siskin compile` makes one"
            );
            idx += 1;
        }
        assert!(word(file, 8) == 1, "the packed model has another format version than this crate reads");
        let shape = Self {
            file_bytes: long(file, 16),
            arena_bytes: long(file, 80),
            context_len: word(file, 60) as usize,
            vocab_size: word(file, 56) as usize,
            dim: word(file, 32) as usize,
            n_layers: word(file, 40) as usize,
            n_beams: file[BEAMS_AT] as usize,
            is_encoder: file[PARTS[0]] == 1,
        };
        assert!(file.len() >= shape.file_bytes, "the packed model is cut short");
        let (mut at, mut is_llama) = (PARTS[0], true);
        while at < PARTS[1] {
            is_llama = is_llama && file[at] == 0;
            at += 1;
        }
        assert!(
            is_llama || cfg!(feature = "families"),
            "this model is not of the Llama family: switch on the feature `families` of siskin-device"
        );
        shape
    }

    /// Nothing, where the arena is small enough.
    ///
    /// # Panics
    /// Where it is not, with both figures: meant for constants, where it is a compile error.
    pub const fn check_arena(&self, arena_bytes_max: usize) {
        if self.arena_bytes > arena_bytes_max {
            let text = Text::new("the model needs an arena of ").number(self.arena_bytes);
            let text = text.then(" bytes, and ").number(arena_bytes_max);
            panic!("{}", text.then(" are allowed: compile the model with a shorter context, or allow more").as_str());
        }
    }
}

const fn word(file: &[u8], at: usize) -> u32 {
    assert!(file.len() >= at + 4, "the packed model is cut short");
    u32::from_le_bytes([file[at], file[at + 1], file[at + 2], file[at + 3]])
}

/// A number of 64 bits that is a size here.
const fn long(file: &[u8], at: usize) -> usize {
    let (low, high) = (word(file, at), word(file, at + 4));
    assert!(high == 0, "the packed model is larger than an address space of 32 bits");
    low as usize
}

/// A text put together while compiling.
struct Text {
    bytes: [u8; 160],
    len: usize,
}

impl Text {
    const fn new(text: &str) -> Self {
        Self { bytes: [0; 160], len: 0 }.then(text)
    }

    const fn then(mut self, text: &str) -> Self {
        let mut idx = 0;
        while idx < text.len() {
            self.bytes[self.len] = text.as_bytes()[idx];
            self.len += 1;
            idx += 1;
        }
        self
    }

    const fn number(mut self, number: usize) -> Self {
        let mut unit = 1;
        while number / unit >= 10 {
            unit *= 10;
        }
        while unit > 0 {
            self.bytes[self.len] = b'0' + (number / unit % 10) as u8;
            self.len += 1;
            unit /= 10;
        }
        self
    }

    const fn as_str(&self) -> &str {
        match core::str::from_utf8(self.bytes.split_at(self.len).0) {
            Ok(text) => text,
            Err(_) => "",
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::panic::catch_unwind;
    use std::string::String;

    const FILE: &[u8] = include_bytes!("../../tests/golden/shakespeare-260k.siskin");

    #[test]
    fn the_shape_is_what_the_runtime_reads() {
        let shape = Shape::read(FILE);
        let aligned = siskin_runtime::Aligned(*include_bytes!("../../tests/golden/shakespeare-260k.siskin"));
        let model = siskin_runtime::PackedModel::parse(&aligned.0).expect("the golden model");
        let (header, config) = (model.header(), model.config());
        assert_eq!(shape.file_bytes as u64, header.file_bytes);
        assert_eq!(shape.arena_bytes as u64, header.arena_bytes);
        let found = [shape.context_len, shape.vocab_size, shape.dim, shape.n_layers];
        assert_eq!(found, [config.context_len, config.vocab_size, config.dim, config.n_layers]);
        assert!(!shape.is_encoder && shape.n_beams == 0);
    }

    fn refusal(check: impl FnOnce() + std::panic::UnwindSafe) -> String {
        let cause = catch_unwind(check).expect_err("it is refused");
        cause
            .downcast_ref::<String>()
            .cloned()
            .or(cause.downcast_ref::<&str>().map(|&text| text.into()))
            .expect("a text")
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(refusal(|| _ = Shape::read(b"GGUF")).contains("no packed model"));
        assert!(refusal(|| _ = Shape::read(&FILE[..8])).contains("cut short"));
        assert!(refusal(|| _ = Shape::read(&FILE[..FILE.len() - 1])).contains("cut short"));
        // Something is set of what a model is made of.
        let mut other = FILE.to_vec();
        other[90] = 1;
        assert_eq!(cfg!(feature = "families"), catch_unwind(|| Shape::read(&other)).is_ok());
        // How keys and values are kept is no part of it; room for beams is.
        let mut kept = FILE.to_vec();
        kept[120] = 1;
        assert_eq!(Shape::read(&kept), Shape::read(FILE));
        kept[121] = 4;
        assert_eq!(Shape::read(&kept), Shape { n_beams: 4, ..Shape::read(FILE) });
        other[8] = 2;
        assert!(refusal(|| _ = Shape::read(&other)).contains("version"));
        let shape = Shape::read(FILE);
        shape.check_arena(shape.arena_bytes);
        let said = refusal(move || shape.check_arena(65536));
        assert!(said.starts_with("the model needs an arena of 115152 bytes, and 65536 are allowed"), "{said}");
    }
}
