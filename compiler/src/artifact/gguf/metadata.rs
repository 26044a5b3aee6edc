//! The header of a GGUF: typed key-value pairs and the list of tensors.

use std::collections::BTreeMap;

use super::block::BlockType;
use crate::artifact::Problem;
use crate::artifact::bytes::ByteReader;

/// Extents a tensor may have.
const DIMS_MAX: u32 = 4;
/// Alignment of tensor data where `general.alignment` is absent.
const ALIGNMENT_DEFAULT: u64 = 32;

/// A metadata value, borrowed from the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// Any unsigned integer.
    Unsigned(u64),
    /// Any signed integer.
    Signed(i64),
    /// Either float.
    Float(f64),
    Bool(bool),
    Text(&'a [u8]),
    Texts(Vec<&'a [u8]>),
    /// An array of fixed-size elements, still encoded.
    Array {
        kind: u32,
        bytes: &'a [u8],
    },
}

/// Where a tensor lies and how.
#[derive(Clone, Debug)]
pub(super) struct TensorInfo<'a> {
    pub name: &'a str,
    /// Extents, slowest first.
    pub shape: Vec<usize>,
    pub block_type: BlockType,
    /// The encoded numbers.
    pub bytes: &'a [u8],
}

/// A parsed header.
pub(super) struct Header<'a> {
    values: BTreeMap<&'a str, Value<'a>>,
    pub tensors: Vec<TensorInfo<'a>>,
}

impl<'a> Header<'a> {
    /// Parses the header of `bytes`, a whole file, and checks that every tensor lies inside it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Problem> {
        let mut reader = ByteReader::new(bytes);
        if reader.array::<4>("the magic number")? != *b"GGUF" {
            return Err(Problem::WrongMagic { expected: "GGUF" });
        }
        let version = reader.u32("the version")?;
        if !matches!(version, 2 | 3) {
            return Err(Problem::UnsupportedVersion { found: version.into(), supported: "2 and 3, little-endian" });
        }
        let n_tensors = reader.count(24, "the number of tensors")?;
        let n_values = reader.count(13, "the number of metadata values")?;
        let mut values = BTreeMap::new();
        for _ in 0..n_values {
            let key = name(&mut reader, "a metadata key")?;
            let value = value(&mut reader, key)?;
            if values.insert(key, value).is_some() {
                return Err(Problem::bad_field(key, "appears twice"));
            }
        }
        let mut header = Self { values, tensors: Vec::new() };
        let entries = (0..n_tensors).map(|_| TensorEntry::read(&mut reader)).collect::<Result<Vec<_>, _>>()?;
        let alignment = header.count("general.alignment")?.unwrap_or(ALIGNMENT_DEFAULT);
        if !alignment.is_power_of_two() || alignment > 1 << 16 {
            return Err(Problem::bad_field("general.alignment", format!("is {alignment}, not a small power of two")));
        }
        let data_start = (reader.pos() as u64).next_multiple_of(alignment).min(bytes.len() as u64);
        let data = &bytes[data_start as usize..];
        header.tensors = entries.into_iter().map(|entry| entry.locate(data)).collect::<Result<_, _>>()?;
        header.refuse_overlap(data.len())?;
        Ok(header)
    }

    /// Tensors that share bytes could make a small file fill any memory.
    fn refuse_overlap(&self, data_bytes: usize) -> Result<(), Problem> {
        let needed_bytes = self.tensors.iter().map(|tensor| tensor.bytes.len() as u64).sum();
        match needed_bytes > data_bytes as u64 {
            true => Err(Problem::Truncated {
                what: "the tensors' data".to_owned(),
                needed_bytes,
                had_bytes: data_bytes as u64,
            }),
            false => Ok(()),
        }
    }

    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.values.get(key)
    }

    /// A whole number that is not negative, if the key is there.
    pub fn count(&self, key: &str) -> Result<Option<u64>, Problem> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Unsigned(value)) => Ok(Some(*value)),
            Some(Value::Signed(value)) if *value >= 0 => Ok(Some(*value as u64)),
            Some(_) => Err(Problem::bad_field(key, "is not a count")),
        }
    }

    /// A number, if the key is there.
    pub fn number(&self, key: &str) -> Result<Option<f32>, Problem> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Float(value)) => Ok(Some(*value as f32)),
            Some(_) => Err(Problem::bad_field(key, "is not a floating-point number")),
        }
    }

    pub fn bool(&self, key: &str) -> Result<Option<bool>, Problem> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(Problem::bad_field(key, "is not true or false")),
        }
    }

    pub fn text(&self, key: &str) -> Result<Option<String>, Problem> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Text(bytes)) => match str::from_utf8(bytes) {
                Ok(text) => Ok(Some(text.to_owned())),
                Err(_) => Err(Problem::bad_field(key, "is not UTF-8")),
            },
            Some(_) => Err(Problem::bad_field(key, "is not text")),
        }
    }

    /// An array of texts; empty if the key is absent.
    pub fn texts(&self, key: &str) -> Result<Vec<Vec<u8>>, Problem> {
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Texts(texts)) => Ok(texts.iter().map(|text| text.to_vec()).collect()),
            Some(_) => Err(Problem::bad_field(key, "is not an array of texts")),
        }
    }

    /// An array of 32-bit elements of type `kind` (5 `i32`, 6 `f32`); empty if the key is absent.
    pub fn words(&self, key: &str, kind: u32) -> Result<&'a [[u8; 4]], Problem> {
        match self.get(key) {
            None => Ok(&[]),
            Some(Value::Array { kind: found, bytes }) if *found == kind => Ok(bytes.as_chunks().0),
            Some(_) => Err(Problem::bad_field(key, format!("is not an array of type {kind}"))),
        }
    }
}

/// A tensor's line in the header.
struct TensorEntry<'a> {
    name: &'a str,
    /// Fastest first, as stored.
    dims: Vec<u64>,
    type_id: u32,
    offset_bytes: u64,
}

impl<'a> TensorEntry<'a> {
    fn read(reader: &mut ByteReader<'a>) -> Result<Self, Problem> {
        let name = name(reader, "a tensor's name")?;
        let n_dims = reader.u32("a tensor's number of extents")?;
        if n_dims > DIMS_MAX {
            let what = format!("the number of extents of tensor `{name}`");
            return Err(Problem::TooLarge { what, count: n_dims.into(), max: DIMS_MAX.into() });
        }
        let dims = (0..n_dims).map(|_| reader.u64("a tensor's extents")).collect::<Result<_, _>>()?;
        let type_id = reader.u32("a tensor's type")?;
        Ok(Self { name, dims, type_id, offset_bytes: reader.u64("a tensor's offset")? })
    }

    /// Finds the tensor's bytes in `data`, the file after its header.
    fn locate(self, data: &'a [u8]) -> Result<TensorInfo<'a>, Problem> {
        let block_type = BlockType::from_id(self.type_id).ok_or_else(|| Problem::UnsupportedDtype {
            name: self.name.to_owned(),
            found: BlockType::name_of(self.type_id),
            supported: BlockType::SUPPORTED,
        })?;
        let row_len = self.dims.first().copied().unwrap_or(1);
        if !row_len.is_multiple_of(block_type.n_elements() as u64) {
            let reason = format!("has rows of {row_len}, not whole blocks of {}", block_type.n_elements());
            return Err(Problem::bad_field(self.name, reason));
        }
        let n_elements = self.dims.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
        let needed = n_elements
            .and_then(|count| (count / block_type.n_elements() as u64).checked_mul(block_type.n_bytes() as u64));
        let end = needed.and_then(|needed| self.offset_bytes.checked_add(needed));
        let bytes = match end {
            Some(end) if end <= data.len() as u64 => &data[self.offset_bytes as usize..end as usize],
            _ => {
                return Err(Problem::Truncated {
                    what: format!("tensor `{}`", self.name),
                    needed_bytes: needed.unwrap_or(u64::MAX),
                    had_bytes: (data.len() as u64).saturating_sub(self.offset_bytes),
                });
            }
        };
        let shape = self.dims.iter().rev().map(|&dim| dim as usize).collect();
        Ok(TensorInfo { name: self.name, shape, block_type, bytes })
    }
}

/// A length and as many bytes of UTF-8.
fn name<'a>(reader: &mut ByteReader<'a>, what: &str) -> Result<&'a str, Problem> {
    str::from_utf8(text(reader, what)?).map_err(|_| Problem::bad_field(what, "is not UTF-8"))
}

fn text<'a>(reader: &mut ByteReader<'a>, what: &str) -> Result<&'a [u8], Problem> {
    let n_bytes = reader.u64(what)?;
    reader.take(n_bytes, what)
}

fn value<'a>(reader: &mut ByteReader<'a>, key: &str) -> Result<Value<'a>, Problem> {
    let kind = reader.u32(key)?;
    Ok(match kind {
        0 => Value::Unsigned(reader.array::<1>(key)?[0].into()),
        1 => Value::Signed(i8::from_le_bytes(reader.array(key)?).into()),
        2 => Value::Unsigned(u16::from_le_bytes(reader.array(key)?).into()),
        3 => Value::Signed(i16::from_le_bytes(reader.array(key)?).into()),
        4 => Value::Unsigned(reader.u32(key)?.into()),
        5 => Value::Signed(reader.i32(key)?.into()),
        6 => Value::Float(f32::from_le_bytes(reader.array(key)?).into()),
        7 => Value::Bool(reader.array::<1>(key)?[0] != 0),
        8 => Value::Text(text(reader, key)?),
        9 => array(reader, key)?,
        10 => Value::Unsigned(reader.u64(key)?),
        11 => Value::Signed(i64::from_le_bytes(reader.array(key)?)),
        12 => Value::Float(f64::from_le_bytes(reader.array(key)?)),
        _ => return Err(Problem::bad_field(key, format!("has the unknown type {kind}"))),
    })
}

fn array<'a>(reader: &mut ByteReader<'a>, key: &str) -> Result<Value<'a>, Problem> {
    let kind = reader.u32(key)?;
    let element_bytes = match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        8 => {
            let n_texts = reader.count(8, key)?;
            return Ok(Value::Texts((0..n_texts).map(|_| text(reader, key)).collect::<Result<_, _>>()?));
        }
        _ => return Err(Problem::bad_field(key, format!("is an array of the unsupported type {kind}"))),
    };
    let n_elements = reader.count(element_bytes, key)?;
    Ok(Value::Array { kind, bytes: reader.take(n_elements * element_bytes, key)? })
}
