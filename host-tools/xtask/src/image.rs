//! What a firmware image for Cortex-M is made of, read from its symbols: bytes by part, and the calls that a panic would begin with.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use object::elf::{SHF_ALLOC, SHF_WRITE};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionFlags, SymbolKind};

/// The symbol of the linked model.
const MODEL: &str = "6linked5MODEL";
/// What is in the names of the functions that only a panic calls.
const PANICS: [&str; 6] =
    ["4core9panicking", "slice_error_fail", "slice_index_fail", "expect_failed", "unwrap_failed", "len_mismatch_fail"];
/// What starts the board before `main`.
const START_UP: &str = "start-up and vectors";
/// The parts that are the runtime's.
const RUNTIME: [&str; 5] = [KERNELS, TOKENIZER, SAMPLER, PACKED_FILE, FORWARD_PASS];
const KERNELS: &str = "kernels";
const TOKENIZER: &str = "tokenizer";
const SAMPLER: &str = "sampler and stop sequences";
const PACKED_FILE: &str = "packed file";
const FORWARD_PASS: &str = "forward pass and session";
/// What is in the names of a part's symbols, and what the part is. The first that fits counts.
const PARTS: [(&str, &str); 13] = [
    ("__INTERRUPTS", START_UP),
    ("Reset", START_UP),
    ("15siskin_firmware", "application, with what is inlined into it"),
    ("14siskin_runtime7kernels", KERNELS),
    ("14siskin_runtime9tokenizer", TOKENIZER),
    ("14siskin_runtime7sampler", SAMPLER),
    ("14siskin_runtime6format", PACKED_FILE),
    ("14siskin_runtime6linked", PACKED_FILE),
    ("14siskin_runtime4plan", PACKED_FILE),
    ("14siskin_runtime", FORWARD_PASS),
    ("4core", "core"),
    ("__aeabi", "core"),
    ("mem", "core"),
];

/// What was found.
#[derive(Debug, Default)]
pub struct Image {
    /// Bytes of flash without the model, by part, the largest first.
    pub parts: Vec<(&'static str, u64)>,
    /// Calls of functions that only a panic calls, by the name of the caller.
    pub panic_sites: BTreeMap<String, u32>,
}

impl Image {
    /// Bytes of flash without the model.
    pub fn flash_bytes(&self) -> u64 {
        self.parts.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Bytes of flash without the model and what starts the board: application, runtime and all that they need.
    pub fn engine_bytes(&self) -> u64 {
        self.flash_bytes() - self.bytes_of(&[START_UP])
    }

    /// Bytes of functions and tables of the runtime.
    pub fn runtime_bytes(&self) -> u64 {
        self.bytes_of(&RUNTIME)
    }

    fn bytes_of(&self, parts: &[&str]) -> u64 {
        self.parts.iter().filter(|(part, _)| parts.contains(part)).map(|(_, bytes)| bytes).sum()
    }

    /// Reads the image at `path`.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
        let file = object::File::parse(&*bytes).with_context(|| format!("{} is not an ELF", path.display()))?;
        let functions = symbols(&file);
        let mut parts: BTreeMap<&str, u64> = BTreeMap::new();
        let mut n_named = 0;
        for (name, bytes) in functions.values() {
            n_named += bytes;
            if !name.contains(MODEL) {
                let part = PARTS.iter().find(|(pattern, _)| name.contains(pattern)).map_or("other", |&(_, part)| part);
                *parts.entry(part).or_default() += bytes;
            }
        }
        let in_flash: u64 = file.sections().filter(is_flash).map(|section| section.size()).sum();
        parts.insert("texts and constants without a name", in_flash.saturating_sub(n_named));
        let mut parts: Vec<(&str, u64)> = parts.into_iter().collect();
        parts.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
        Ok(Self { parts, panic_sites: panic_sites(&file, &functions)? })
    }
}

fn is_flash(section: &object::Section<'_, '_>) -> bool {
    let SectionFlags::Elf { sh_flags, .. } = section.flags() else { return false };
    sh_flags.0 & SHF_ALLOC.0 != 0 && sh_flags.0 & SHF_WRITE.0 == 0
}

/// Names and sizes of what lies in flash, by address.
fn symbols(file: &object::File<'_>) -> BTreeMap<u64, (String, u64)> {
    let mut symbols = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.size() > 0) {
        let section = symbol.section_index().and_then(|section| file.section_by_index(section).ok());
        let in_flash = section.is_some_and(|section| is_flash(&section));
        if in_flash && matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Data) {
            let name = symbol.name().unwrap_or_default().to_owned();
            symbols.entry(symbol.address() & !1).or_insert((name, symbol.size()));
        }
    }
    symbols
}

/// Finds `bl` and `b.w` to a function that only a panic calls, in all functions but those.
fn panic_sites(file: &object::File<'_>, symbols: &BTreeMap<u64, (String, u64)>) -> Result<BTreeMap<String, u32>> {
    let is_panic = |name: &str| PANICS.iter().any(|pattern| name.contains(pattern));
    let targets: BTreeSet<u64> =
        symbols.iter().filter(|(_, (name, _))| is_panic(name)).map(|(&address, _)| address).collect();
    let text = file.section_by_name(".text").context("the firmware has no code")?;
    let code = text.data().context("the code cannot be read")?;
    let mut sites = BTreeMap::new();
    for (at, pair) in code.windows(4).enumerate().step_by(2) {
        let address = text.address() + at as u64;
        let (high, low) = (u16::from_le_bytes([pair[0], pair[1]]), u16::from_le_bytes([pair[2], pair[3]]));
        if !branch_target(address, high.into(), low.into()).is_some_and(|target| targets.contains(&target)) {
            continue;
        }
        let caller = symbols.range(..=address).next_back().map_or("", |(_, (name, _))| name);
        if !is_panic(caller) {
            *sites.entry(caller.to_owned()).or_default() += 1;
        }
    }
    Ok(sites)
}

/// Where `bl` or `b.w` goes.
fn branch_target(address: u64, high: u32, low: u32) -> Option<u64> {
    if high >> 11 != 0b11110 || !matches!(low & 0xd000, 0xd000 | 0x9000) {
        return None;
    }
    let (s, j1, j2) = (high >> 10 & 1, low >> 13 & 1, low >> 11 & 1);
    let offset = s << 24 | (1 ^ j1 ^ s) << 23 | (1 ^ j2 ^ s) << 22 | (high & 0x3ff) << 12 | (low & 0x7ff) << 1;
    let offset = (offset << 7) as i32 >> 7;
    Some((address + 4).wrapping_add_signed(offset.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_go_where_a_disassembler_says() {
        assert_eq!(branch_target(0x0800_0400, 0xf000, 0xfe72), Some(0x0800_10e8));
        assert_eq!(branch_target(0x0800_0448, 0xf000, 0xf832), Some(0x0800_04b0));
        assert_eq!(branch_target(0, 0xf00f, 0xc007), None);
    }
}
