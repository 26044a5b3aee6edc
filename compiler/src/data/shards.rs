//! Tokens of a corpus on disk: written once, then mapped into memory, whatever their number.
//!
//! A folder has the files `00000.tokens`, `00001.tokens` and so on. All numbers are little-endian:
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `SSKTOKEN` |
//! | 4 | version: 1 |
//! | 4 | this shard's index, from 0 on |
//! | 4 | 1 for the last shard, 0 for the others |
//! | 4 | size of the vocabulary |
//! | 8 | number of documents, n |
//! | 8 | number of tokens |
//! | 32 | SHA-256 of the tokenizer's file |
//! | 32 | SHA-256 of all other bytes of this file |
//! | 8 × (n + 1) | where each document starts, in tokens; the last number is that of all tokens |
//! | 2 or 4 × tokens | the tokens: 2 bytes each where the vocabulary has at most 65,536 |
//!
//! A document never lies in two shards.

use super::DataError;
use crate::artifact::{ArtifactError, MappedFile, write_atomic_with, write_folder_atomic};
use sha2::{Digest, Sha256};
use siskin_runtime::TokenId;
use std::io::Write;
use std::ops::Range;
use std::path::Path;

const MAGIC: &[u8; 8] = b"SSKTOKEN";
const VERSION: u32 = 1;
const CHECKSUM: Range<usize> = 72..104;
const HEADER_BYTES: usize = CHECKSUM.end;

/// What is written beside the tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardOptions {
    /// Token ids are below it.
    pub vocab_size: u32,
    /// SHA-256 of the tokenizer's file, by which a change of tokenizer is noticed.
    pub tokenizer_sha256: [u8; 32],
    /// Tokens of a shard, but for one that has a single longer document. A shard is held in memory while it is filled.
    pub shard_tokens_max: usize,
}

/// Writes documents into the folder at `path`, replacing what is there; the folder appears whole or not at all.
///
/// # Errors
/// [`DataError::Artifact`] if it cannot be written, [`DataError::BadShard`] for a token that is not in the vocabulary; the first
/// error among the documents.
pub fn write_shards<T: AsRef<[TokenId]>>(
    path: &Path,
    options: &ShardOptions,
    documents: impl IntoIterator<Item = Result<T, DataError>>,
) -> Result<(), DataError> {
    write_folder_atomic(path, |folder| {
        let (mut tokens, mut bounds, mut shard_idx): (Vec<TokenId>, Vec<u64>, u32) = (Vec::new(), vec![0], 0);
        for (document, new) in documents.into_iter().enumerate() {
            let new = new?;
            let new = new.as_ref();
            if let Some(token) = new.iter().find(|token| **token >= options.vocab_size) {
                let problem =
                    format!("document {document} has token {token}; the vocabulary has {}", options.vocab_size);
                return Err(DataError::BadShard { path: path.to_owned(), problem });
            }
            if !tokens.is_empty() && tokens.len() + new.len() > options.shard_tokens_max {
                write_shard(folder, (shard_idx, false), options, &bounds, &tokens)?;
                tokens.clear();
                bounds.truncate(1);
                shard_idx += 1;
            }
            tokens.extend_from_slice(new);
            bounds.push(tokens.len() as u64);
        }
        Ok(write_shard(folder, (shard_idx, true), options, &bounds, &tokens)?)
    })
}

fn file_name(shard_idx: u32) -> String {
    format!("{shard_idx:05}.tokens")
}

fn write_shard(
    folder: &Path,
    (shard_idx, is_last): (u32, bool),
    options: &ShardOptions,
    bounds: &[u64],
    tokens: &[TokenId],
) -> Result<(), ArtifactError> {
    let mut header = MAGIC.to_vec();
    for number in [VERSION, shard_idx, u32::from(is_last), options.vocab_size] {
        header.extend(number.to_le_bytes());
    }
    for number in [bounds.len() as u64 - 1, tokens.len() as u64] {
        header.extend(number.to_le_bytes());
    }
    header.extend(options.tokenizer_sha256);
    let mut body: Vec<u8> = bounds.iter().flat_map(|bound| bound.to_le_bytes()).collect();
    match TokenWidth::of(options.vocab_size) {
        TokenWidth::Two => tokens.iter().for_each(|token| body.extend((*token as u16).to_le_bytes())),
        TokenWidth::Four => tokens.iter().for_each(|token| body.extend(token.to_le_bytes())),
    }
    let checksum = Sha256::new().chain_update(&header).chain_update(&body).finalize();
    write_atomic_with(&folder.join(file_name(shard_idx)), |file| {
        file.write_all(&header)?;
        file.write_all(&checksum)?;
        file.write_all(&body)
    })
}

/// Bytes of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenWidth {
    Two,
    Four,
}

impl TokenWidth {
    fn of(vocab_size: u32) -> Self {
        if vocab_size <= 1 << 16 { Self::Two } else { Self::Four }
    }

    fn n_bytes(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    fn read(self, bytes: &[u8]) -> impl Iterator<Item = TokenId> + '_ {
        let token = move |bytes: &[u8]| match (self, bytes) {
            (Self::Two, [a, b]) => TokenId::from(u16::from_le_bytes([*a, *b])),
            (_, bytes) => number(bytes) as TokenId,
        };
        bytes.chunks_exact(self.n_bytes()).map(token)
    }
}

/// A little-endian number of at most 8 bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Documents of tokens in mapped files.
pub struct TokenShards {
    shards: Vec<Shard>,
    /// The first document of each shard, and the number of all.
    first_documents: Vec<usize>,
    /// The first token of each shard, and the number of all.
    first_tokens: Vec<usize>,
}

impl TokenShards {
    /// Opens the folder at `path`, and reads it once to check it.
    ///
    /// # Errors
    /// [`DataError::Artifact`] if a file cannot be read, [`DataError::BadShard`] if one is missing, damaged, cut off, of an unknown version
    /// or of another corpus than the first.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let mut shards: Vec<Shard> = Vec::new();
        let (mut first_documents, mut first_tokens) = (vec![0], vec![0]);
        loop {
            let shard_idx = shards.len() as u32;
            let path = path.join(file_name(shard_idx));
            let shard = Shard::open(&path)?;
            let belongs = shards.first().is_none_or(|first| shard.is_of(first)) && shard.shard_idx == shard_idx;
            if !belongs {
                let problem = "it belongs to another corpus: write the folder anew".into();
                return Err(DataError::BadShard { path, problem });
            }
            first_documents.push(first_documents[shards.len()] + shard.n_documents);
            first_tokens.push(first_tokens[shards.len()] + shard.n_tokens);
            let is_last = shard.is_last;
            shards.push(shard);
            if is_last {
                break;
            }
        }
        Ok(Self { shards, first_documents, first_tokens })
    }

    /// Documents of all shards.
    pub fn n_documents(&self) -> usize {
        self.first_documents[self.shards.len()]
    }

    /// Tokens of all documents.
    pub fn n_tokens(&self) -> usize {
        self.first_tokens[self.shards.len()]
    }

    /// Token ids are below it.
    pub fn vocab_size(&self) -> u32 {
        self.shards[0].vocab_size
    }

    /// SHA-256 of the file of the tokenizer that made the tokens.
    pub fn tokenizer_sha256(&self) -> [u8; 32] {
        self.shards[0].tokenizer_sha256
    }

    /// Where a document's tokens lie among all.
    ///
    /// # Panics
    /// If there is no such document.
    pub fn document_range(&self, document: usize) -> Range<usize> {
        assert!(document < self.n_documents(), "document {document} of {}", self.n_documents());
        let shard = self.first_documents.partition_point(|first| *first <= document) - 1;
        let Range { start, end } = self.shards[shard].tokens_of(document - self.first_documents[shard]);
        self.first_tokens[shard] + start..self.first_tokens[shard] + end
    }

    /// Tokens by their places among all, whatever shards they lie in.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn tokens(&self, range: Range<usize>) -> Vec<TokenId> {
        assert!(range.end <= self.n_tokens(), "tokens {range:?} of {}", self.n_tokens());
        let mut tokens = Vec::with_capacity(range.len());
        let first = self.first_tokens.partition_point(|first| *first <= range.start) - 1;
        let shards = self.shards.iter().zip(&self.first_tokens).skip(first);
        for (shard, start) in shards.take_while(|(_, start)| **start < range.end) {
            let (from, to) = (range.start.max(*start), range.end.min(start + shard.n_tokens));
            if from < to {
                tokens.extend(shard.read(from - start..to - start));
            }
        }
        tokens
    }
}

impl std::fmt::Debug for TokenShards {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenShards({} documents, {} tokens)", self.n_documents(), self.n_tokens())
    }
}

/// One file, checked.
struct Shard {
    file: MappedFile,
    shard_idx: u32,
    is_last: bool,
    vocab_size: u32,
    n_documents: usize,
    n_tokens: usize,
    tokenizer_sha256: [u8; 32],
}

impl Shard {
    fn open(path: &Path) -> Result<Self, DataError> {
        let file = MappedFile::open(path)?;
        Self::check(file).map_err(|problem| DataError::BadShard { path: path.to_owned(), problem })
    }

    fn check(file: MappedFile) -> Result<Self, String> {
        let bytes = file.bytes();
        if !bytes.starts_with(MAGIC) {
            return Err("it is no file of tokens".into());
        }
        let header = bytes.get(..HEADER_BYTES).ok_or("it is cut off: write the folder anew")?;
        let [version, shard_idx, last, vocab_size] = [8, 12, 16, 20].map(|at| number(&header[at..at + 4]) as u32);
        let [n_documents, n_tokens] = [24, 32].map(|at| number(&header[at..at + 8]));
        if version != VERSION {
            return Err(format!("it has version {version}, but {VERSION} is known: write the folder anew"));
        }
        let width = TokenWidth::of(vocab_size);
        let n_bytes = n_documents
            .checked_add(1)
            .and_then(|n_bounds| n_bounds.checked_mul(8))
            .zip(n_tokens.checked_mul(width.n_bytes() as u64))
            .and_then(|(bounds, tokens)| bounds.checked_add(tokens)?.checked_add(HEADER_BYTES as u64));
        if n_bytes != Some(bytes.len() as u64) {
            let said = n_bytes.map_or("more".into(), |n_bytes| n_bytes.to_string());
            return Err(format!("it has {} bytes where its header says {said}: write the folder anew", bytes.len()));
        }
        let digest =
            Sha256::new().chain_update(&bytes[..CHECKSUM.start]).chain_update(&bytes[CHECKSUM.end..]).finalize();
        if digest[..] != bytes[CHECKSUM] {
            return Err("it is damaged, its checksum is wrong: write the folder anew".into());
        }
        let mut tokenizer_sha256 = [0; 32];
        tokenizer_sha256.copy_from_slice(&header[40..72]);
        let (n_documents, n_tokens) = (n_documents as usize, n_tokens as usize);
        let shard = Self { shard_idx, is_last: last == 1, vocab_size, n_documents, n_tokens, tokenizer_sha256, file };
        let bounds = (0..=n_documents).map(|document| shard.bound(document));
        let covers = shard.bound(0) == 0 && shard.bound(n_documents) == n_tokens;
        if !covers || !bounds.is_sorted() || shard.read(0..n_tokens).any(|token| token >= vocab_size) {
            return Err("its documents contradict its header: write the folder anew".into());
        }
        Ok(shard)
    }

    /// Whether it belongs to the same corpus.
    fn is_of(&self, other: &Self) -> bool {
        (self.vocab_size, self.tokenizer_sha256) == (other.vocab_size, other.tokenizer_sha256)
    }

    fn bound(&self, document: usize) -> usize {
        let at = HEADER_BYTES + 8 * document;
        number(&self.file.bytes()[at..at + 8]) as usize
    }

    fn tokens_of(&self, document: usize) -> Range<usize> {
        self.bound(document)..self.bound(document + 1)
    }

    fn read(&self, tokens: Range<usize>) -> impl Iterator<Item = TokenId> + '_ {
        let width = TokenWidth::of(self.vocab_size);
        let start = HEADER_BYTES + 8 * (self.n_documents + 1);
        width.read(&self.file.bytes()[start + tokens.start * width.n_bytes()..start + tokens.end * width.n_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::path::PathBuf;

    fn options(vocab_size: u32, shard_tokens_max: usize) -> ShardOptions {
        ShardOptions { vocab_size, tokenizer_sha256: [7; 32], shard_tokens_max }
    }

    fn written(documents: &[Vec<TokenId>], options: &ShardOptions) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        write_shards(&path, options, documents.iter().map(Ok)).unwrap();
        (dir, path)
    }

    #[test]
    fn the_bytes_are_as_described() {
        let (_dir, path) = written(&[vec![1, 258], vec![], vec![3]], &options(65_536, 100));
        let bytes = fs::read(path.join("00000.tokens")).unwrap();
        let mut expected = b"SSKTOKEN\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\x01\0".to_vec();
        expected.extend(b"\x03\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0");
        expected.extend([7; 32]);
        assert_eq!(bytes[..72], expected);
        let mut body = Vec::new();
        for bound in [0_u8, 2, 2, 3] {
            body.extend([bound, 0, 0, 0, 0, 0, 0, 0]);
        }
        body.extend([1, 0, 2, 1, 3, 0]);
        assert_eq!(bytes[104..], body);
        expected.extend(body);
        assert_eq!(bytes[72..104], Sha256::digest(&expected)[..]);
        let (_dir, path) = written(&[vec![70_000]], &options(70_001, 100));
        assert_eq!(fs::read(path.join("00000.tokens")).unwrap()[120..], [0x70, 0x11, 1, 0]);
    }

    #[test]
    fn documents_are_spread_over_shards_and_never_cut() {
        let documents: Vec<Vec<TokenId>> = vec![vec![1; 4], vec![2; 3], vec![3; 12], vec![4; 1], vec![], vec![5; 9]];
        let (_dir, path) = written(&documents, &options(10, 7));
        let shards = TokenShards::open(&path).unwrap();
        assert_eq!(shards.first_documents, [0, 2, 3, 5, 6]);
        assert_eq!((shards.n_documents(), shards.n_tokens(), shards.vocab_size()), (6, 29, 10));
        assert_eq!((0..6).map(|i| shards.tokens(shards.document_range(i))).collect::<Vec<Vec<TokenId>>>(), documents);
        assert_eq!((0..6).map(|i| shards.document_range(i).len()).collect::<Vec<usize>>(), [4, 3, 12, 1, 0, 9]);
        let all = documents.concat();
        for start in 0..=all.len() {
            for end in start..=all.len() {
                assert_eq!(shards.tokens(start..end), all[start..end], "{start}..{end}");
            }
        }
        write_shards(&path, &options(10, 7), [Ok(&documents[0])]).unwrap();
        assert_eq!(TokenShards::open(&path).unwrap().n_documents(), 1, "the old shards are gone");
    }

    #[test]
    fn a_missing_or_foreign_shard_is_told() {
        let documents: Vec<Vec<TokenId>> = vec![vec![1; 4]; 6];
        let (_dir, path) = written(&documents, &options(10, 8));
        let (_other_dir, other) = written(&documents, &options(11, 8));
        let error = || TokenShards::open(&path).expect_err("a bad folder").to_string();
        fs::copy(other.join("00001.tokens"), path.join("00001.tokens")).unwrap();
        assert!(error().contains("00001.tokens") && error().contains("another corpus"), "{}", error());
        fs::copy(path.join("00000.tokens"), path.join("00001.tokens")).unwrap();
        assert!(error().contains("another corpus"), "{}", error());
        fs::remove_file(path.join("00001.tokens")).unwrap();
        assert!(error().contains("cannot read") && error().contains("00001.tokens"), "{}", error());
        let error = write_shards(&path, &options(3, 8), [Ok([1, 3])]).expect_err("no such token").to_string();
        assert!(error.contains("document 0 has token 3"), "{error}");
        assert!(path.join("00002.tokens").exists(), "what was there stays");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Any change of a byte and any cut is noticed; nothing panics.
        #[test]
        fn damage_is_noticed(at in 0_usize..176, flip in 1_u8.., cut in 0_usize..176) {
            let (_dir, path) = written(&[vec![1, 2, 3], vec![4; 17]], &options(5, 100));
            let file = path.join("00000.tokens");
            let mut bytes = fs::read(&file).unwrap();
            prop_assert_eq!(bytes.len(), 168);
            for damaged in [bytes[..cut.min(167)].to_vec(), [&bytes[..], &[0]].concat()] {
                fs::write(&file, damaged).unwrap();
                prop_assert!(TokenShards::open(&path).is_err());
            }
            bytes[at % 168] ^= flip;
            fs::write(&file, &bytes).unwrap();
            prop_assert!(TokenShards::open(&path).is_err());
            // With a checksum that fits, it is noticed or harmless.
            let digest = Sha256::new().chain_update(&bytes[..72]).chain_update(&bytes[104..]).finalize();
            bytes[CHECKSUM].copy_from_slice(&digest);
            fs::write(&file, &bytes).unwrap();
            if let Ok(shards) = TokenShards::open(&path) {
                let tokens: Vec<TokenId> = (0..shards.n_documents()).flat_map(|i| shards.tokens(shards.document_range(i))).collect();
                prop_assert!(tokens.len() == shards.n_tokens() && tokens.iter().all(|token| *token < shards.vocab_size()));
            }
        }
    }
}
