//! Instructions by function, from counts by address and the symbols of the ELF.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use object::{Object as _, ObjectSymbol as _, SymbolKind};

/// Writes a line for each function, the most costly first: instructions, their share of all in per cent, the name.
pub(crate) fn by_function(elf: &Path, addresses: &Path, out: &Path) -> Result<()> {
    let functions = functions(elf)?;
    let counts = fs::read_to_string(addresses).with_context(|| format!("failed to read {}", addresses.display()))?;
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for line in counts.lines() {
        let parsed = line
            .split_once(' ')
            .and_then(|(address, count)| Some((u64::from_str_radix(address, 16).ok()?, count.parse::<u64>().ok()?)));
        let (address, count) = parsed.with_context(|| format!("{} is damaged at {line:?}", addresses.display()))?;
        let function = functions.range(..=address).next_back().map_or("?", |(_, name)| name);
        *totals.entry(function).or_default() += count;
    }
    let all: u64 = totals.values().sum();
    let mut totals: Vec<_> = totals.into_iter().collect();
    totals.sort_by_key(|&(name, count)| (std::cmp::Reverse(count), name));
    let mut text = String::new();
    for (name, count) in totals {
        let share = count as f64 * 100.0 / all as f64;
        writeln!(text, "{count:>12} {share:5.1} {name}").context("a string takes any text")?;
    }
    fs::write(out, text).with_context(|| format!("failed to write {}", out.display()))
}

/// The names of functions by their first address.
fn functions(elf: &Path) -> Result<BTreeMap<u64, String>> {
    let bytes = fs::read(elf).with_context(|| format!("failed to read {}", elf.display()))?;
    let file = object::File::parse(&*bytes).with_context(|| format!("{} is not an ELF", elf.display()))?;
    let is_arm = file.architecture() == object::Architecture::Arm;
    let functions = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text);
    let named = functions.filter_map(|symbol| {
        // Bit 0 of a Thumb function's address marks the instruction set.
        let address = if is_arm { symbol.address() & !1 } else { symbol.address() };
        Some((address, format!("{:#}", rustc_demangle::demangle(symbol.name().ok()?))))
    });
    // Names that start with `$` mark code and data, not functions.
    Ok(named.filter(|(_, name)| !name.starts_with('$')).collect())
}
