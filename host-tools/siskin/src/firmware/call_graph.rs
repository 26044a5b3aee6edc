//! Who calls whom in a firmware image, read from its machine code.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use object::{Architecture, File, Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind, SymbolKind};

use super::thumb::{self, Effect};
use super::{a64, riscv};

/// One function.
#[derive(Clone, Debug, Default)]
pub(crate) struct Function {
    /// Its symbol's name.
    pub(crate) name: String,
    /// Functions it calls or ends in, by address.
    pub(crate) callees: BTreeSet<u32>,
    /// Whether it calls through a register, so that any function whose address is taken may follow.
    pub(crate) calls_any: bool,
    /// The sum of all that its instructions take from the stack: no less than it can hold at a time.
    pub(crate) pushed_bytes: u32,
}

/// All functions, by address.
#[derive(Debug)]
pub(crate) struct CallGraph {
    /// The functions.
    pub(crate) functions: BTreeMap<u32, Function>,
    /// Functions whose address is found in data or put together in a register.
    pub(crate) address_taken: BTreeSet<u32>,
}

/// A stretch of bytes in flash.
struct Stretch<'f> {
    address: u32,
    bytes: &'f [u8],
    is_code: bool,
}

impl CallGraph {
    /// Reads the graph from a linked image for Cortex-M, AArch64 or RISC-V.
    pub(crate) fn read(file: &File<'_>) -> Result<Self> {
        // Bit 0 of a Thumb function's address marks the instruction set.
        let mark = if file.architecture() == Architecture::Arm { 1 } else { 0 };
        let mut extents = BTreeMap::new();
        let mut graph = Self { functions: BTreeMap::new(), address_taken: BTreeSet::new() };
        for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
            let name = symbol.name().unwrap_or_default();
            // Mapping symbols ($t, $d) say what bytes are, not where functions start.
            if name.starts_with('$') || name.is_empty() {
                continue;
            }
            let start = symbol.address() as u32 & !mark;
            let end = extents.entry(start).or_insert(start);
            *end = (*end).max(start + symbol.size() as u32);
            graph.functions.entry(start).or_insert_with(|| Function { name: name.to_owned(), ..Function::default() });
        }
        let mut taken = BTreeSet::new();
        for stretch in stretches(file)? {
            match (stretch.is_code, file.architecture()) {
                (false, _) => taken.extend(words(&stretch)),
                (true, Architecture::Arm) => graph.read_thumb(&stretch, &mut taken),
                (true, Architecture::Aarch64) => graph.read_a64(&stretch, &mut taken),
                (true, _) => graph.read_riscv(&stretch, file.is_64(), &mut taken),
            }
        }
        graph.address_taken =
            taken.into_iter().filter(|address| address & mark == mark).map(|address| address & !mark).collect();
        graph.address_taken.retain(|address| extents.contains_key(address));
        // Where RISC-V boards begin is also the sign bit, a constant found everywhere; nothing calls the start.
        let is_start = |address: &u32| graph.functions.get(address).is_some_and(|function| function.name == "Reset");
        graph.address_taken.retain(|address| !is_start(address));
        Ok(graph)
    }

    /// The function that holds `address`.
    fn function_at(&mut self, address: u32) -> Option<(u32, &mut Function)> {
        self.functions.range_mut(..=address).next_back().map(|(&start, function)| (start, function))
    }

    fn read_thumb(&mut self, stretch: &Stretch<'_>, taken: &mut BTreeSet<u32>) {
        let starts: BTreeSet<u32> = self.functions.keys().copied().collect();
        let halfwords = stretch.halfwords();
        let mut low_halves = [None; 16];
        let mut idx = 0;
        while idx < halfwords.len() {
            let address = stretch.address + 2 * idx as u32;
            let first = halfwords[idx];
            let effect = match halfwords.get(idx + 1) {
                Some(&second) if thumb::is_wide(first) => thumb::wide(address, first, second),
                _ => thumb::narrow(address, first),
            };
            idx += if thumb::is_wide(first) { 2 } else { 1 };
            let Some((start, function)) = self.function_at(address) else { continue };
            match effect {
                Effect::None => {}
                Effect::Call(target) => drop(function.callees.insert(target)),
                // A branch to the beginning of another function is a tail call; any other stays inside.
                Effect::Branch(target) if target != start && starts.contains(&target) => {
                    function.callees.insert(target);
                }
                Effect::Branch(_) => {}
                Effect::Indirect => function.calls_any = true,
                Effect::Push(bytes) => function.pushed_bytes += bytes,
                Effect::MoveLow { register, half } => low_halves[usize::from(register & 15)] = Some(half),
                Effect::MoveHigh { register, half } => {
                    taken.extend(low_halves[usize::from(register & 15)].map(|low| half << 16 | low));
                }
            }
        }
    }

    fn read_a64(&mut self, stretch: &Stretch<'_>, taken: &mut BTreeSet<u32>) {
        let starts: BTreeSet<u32> = self.functions.keys().copied().collect();
        let mut pages = [None; 32];
        for (address, code) in (stretch.address..).step_by(4).zip(words(stretch)) {
            let Some((start, function)) = self.function_at(address) else { continue };
            match a64::decode(address, code) {
                a64::Effect::None => {}
                a64::Effect::Call(target) => drop(function.callees.insert(target)),
                a64::Effect::Branch(target) if target != start && starts.contains(&target) => {
                    function.callees.insert(target);
                }
                a64::Effect::Branch(_) => {}
                a64::Effect::Indirect => function.calls_any = true,
                a64::Effect::Push(bytes) => function.pushed_bytes += bytes,
                a64::Effect::Address { register, value } => {
                    pages[register as usize & 31] = Some(value);
                    taken.insert(value);
                }
                a64::Effect::Add { base, offset } => {
                    taken.extend(pages[base as usize & 31].map(|page: u32| page.wrapping_add(offset)));
                }
            }
        }
    }

    fn read_riscv(&mut self, stretch: &Stretch<'_>, is_64: bool, taken: &mut BTreeSet<u32>) {
        let starts: BTreeSet<u32> = self.functions.keys().copied().collect();
        let halfwords = stretch.halfwords();
        let mut uppers = [None; 32];
        // The register that the instruction before put an upper part into: a far call is such a pair.
        let mut fresh = None;
        let mut idx = 0;
        while idx < halfwords.len() {
            let address = stretch.address + 2 * idx as u32;
            let first = halfwords[idx];
            let effect = match halfwords.get(idx + 1) {
                Some(&second) if riscv::is_wide(first) => {
                    riscv::wide(address, u32::from(second) << 16 | u32::from(first))
                }
                _ => riscv::narrow(address, first, is_64),
            };
            idx += if riscv::is_wide(first) { 2 } else { 1 };
            let Some((start, function)) = self.function_at(address) else { continue };
            let upper = |register: u32| uppers.get(register as usize).copied().flatten();
            let before = fresh.take();
            match effect {
                riscv::Effect::None => {}
                riscv::Effect::Call(target) => drop(function.callees.insert(target)),
                riscv::Effect::Branch(target) if target != start && starts.contains(&target) => {
                    function.callees.insert(target);
                }
                riscv::Effect::Branch(_) => {}
                riscv::Effect::Jump { base, offset, .. } if before == Some(base) => {
                    function.callees.extend(upper(base).map(|upper: u32| upper.wrapping_add(offset)));
                }
                riscv::Effect::Jump { .. } => function.calls_any = true,
                riscv::Effect::Push(bytes) => function.pushed_bytes += bytes,
                riscv::Effect::Upper { register, value } => {
                    uppers[register as usize & 31] = Some(value);
                    fresh = Some(register);
                }
                riscv::Effect::Add { base, offset } => {
                    taken.extend(upper(base).map(|upper: u32| upper.wrapping_add(offset)));
                }
            }
        }
    }
}

impl Stretch<'_> {
    fn halfwords(&self) -> Vec<u16> {
        self.bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
    }
}

/// Code and data of the flash, told apart by the mapping symbols. Vector tables are left out: their handlers are roots.
fn stretches<'f>(file: &File<'f>) -> Result<Vec<Stretch<'f>>> {
    let mut marks = BTreeMap::new();
    for symbol in file.symbols() {
        match symbol.name().unwrap_or_default().get(..2) {
            Some("$t") => drop(marks.insert(symbol.address() as u32 & !1, true)),
            Some("$x") => drop(marks.insert(symbol.address() as u32, true)),
            Some("$d") => drop(marks.insert(symbol.address() as u32, false)),
            _ => {}
        }
    }
    let mut stretches = Vec::new();
    for section in file.sections() {
        let is_text = section.kind() == SectionKind::Text;
        let holds_data = matches!(section.kind(), SectionKind::ReadOnlyData | SectionKind::Data);
        if section.name().is_ok_and(|name| name.starts_with(".vector_table")) || !(is_text || holds_data) {
            continue;
        }
        let bytes = section.data().context("a section of the firmware cannot be read")?;
        let start = section.address() as u32;
        let end = start + bytes.len() as u32;
        let mut at = (start, is_text);
        let inside = marks.range(start..end).filter(|_| is_text).map(|(&address, &is_code)| (address, is_code));
        for (address, is_code) in inside.chain([(end, false)]) {
            let bytes = &bytes[(at.0 - start) as usize..(address - start) as usize];
            stretches.push(Stretch { address: at.0, bytes, is_code: at.1 });
            at = (address, is_code);
        }
    }
    Ok(stretches)
}

/// The aligned words of a stretch of data.
fn words(stretch: &Stretch<'_>) -> impl Iterator<Item = u32> {
    let skip = stretch.address.next_multiple_of(4) - stretch.address;
    let aligned = stretch.bytes.get(skip as usize..).unwrap_or_default();
    aligned.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
}
