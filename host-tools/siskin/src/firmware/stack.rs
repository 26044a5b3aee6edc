//! The deepest stack that any path through a firmware image can take.
//!
//! A function's own frame is what the compiler says (`-Z emit-stack-sizes`), or all that its instructions push where that is more: the
//! compiler knows neither what assembly within a function pushes, nor anything of assembly and of what came compiled. The call graph is read from the machine code. A call through a
//! register may reach every function whose address is taken. Recursion has no bound, so it is an error.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use object::{File, Object as _, ObjectSection as _};

use super::call_graph::CallGraph;

/// Where execution starts on an empty stack: at reset, and in the fault handler, which begins a fresh one.
const ROOTS: [&str; 3] = ["Reset", "HardFault", "Trap"];

/// Calls that are in the code and never happen, by what the names of caller and callee contain, each with its reason.
const IMPOSSIBLE: [(&str, &str); 1] = [
    // Reporting a bad string slice, core cuts the string at boundaries that it has just looked for.
    ("slice_error_fail_rt", "slice_error_fail"),
];

/// The worst case in bytes.
///
/// # Errors
/// The image has no stack sizes or no entry, or a function can call itself.
pub(crate) fn worst_case(file: &File<'_>) -> Result<u64> {
    let section = file.section_by_name(".stack_sizes").context("the firmware was built without stack sizes")?;
    let frames = frames(section.data().context("the stack sizes cannot be read")?, file.is_64())?;
    let graph = CallGraph::read(file)?;
    let mut search = Search { graph: &graph, frames: &frames, depths: BTreeMap::new(), path: Vec::new() };
    let is_root = |name: &str| ROOTS.contains(&name);
    let roots = graph.functions.iter().filter(|(_, function)| is_root(&function.name)).map(|(&address, _)| address);
    let depths: Vec<u64> = roots.map(|root| search.depth(root)).collect::<Result<_>>()?;
    depths.into_iter().max().context("the firmware has no reset handler")
}

/// The compiler's figures: for each function its address, a word of the target, and the bytes of its frame as LEB128. Code lies in the
/// first 4 GB.
fn frames(mut section: &[u8], is_64: bool) -> Result<BTreeMap<u32, u64>> {
    let mut frames = BTreeMap::new();
    while let Some((address, rest)) = section.split_first_chunk::<4>() {
        let rest = if is_64 { rest.get(4..).context("the stack sizes end inside an address")? } else { rest };
        let (mut bytes, mut shift) = (0u64, 0);
        let mut rest = rest.iter();
        loop {
            let byte = *rest.next().context("the stack sizes end inside a number")?;
            bytes |= u64::from(byte & 0x7f).checked_shl(shift).context("a stack size is too large")?;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        section = rest.as_slice();
        frames.insert(u32::from_le_bytes(*address) & !1, bytes);
    }
    Ok(frames)
}

/// A walk over the graph, deepest first.
struct Search<'g> {
    graph: &'g CallGraph,
    frames: &'g BTreeMap<u32, u64>,
    /// Known depths; `None` while a function's callees are being walked.
    depths: BTreeMap<u32, Option<u64>>,
    /// The functions being walked, outermost first.
    path: Vec<u32>,
}

impl Search<'_> {
    /// The deepest stack from `address` on.
    fn depth(&mut self, address: u32) -> Result<u64> {
        // A target without a symbol is the inside of an assembly routine, which its own symbol accounts for.
        let Some(function) = self.graph.functions.get(&address) else { return Ok(0) };
        match self.depths.get(&address) {
            Some(Some(depth)) => return Ok(*depth),
            Some(None) => {
                bail!("the firmware can call itself in a circle, so its stack has no bound: {}", self.circle(address))
            }
            None => {}
        }
        self.depths.insert(address, None);
        self.path.push(address);
        let any = if function.calls_any { Some(&self.graph.address_taken) } else { None };
        let mut deepest = 0;
        for &callee in function.callees.iter().chain(any.into_iter().flatten()) {
            if self.is_impossible(&function.name, callee) {
                continue;
            }
            deepest = deepest.max(self.depth(callee)?);
        }
        self.path.pop();
        let frame = self.frames.get(&address).copied().unwrap_or(0).max(function.pushed_bytes.into());
        self.depths.insert(address, Some(frame + deepest));
        Ok(frame + deepest)
    }

    fn is_impossible(&self, caller: &str, callee: u32) -> bool {
        let Some(callee) = self.graph.functions.get(&callee) else { return false };
        IMPOSSIBLE.iter().any(|(from, to)| caller.contains(from) && callee.name.contains(to))
    }

    /// The names from `address` around to itself.
    fn circle(&self, address: u32) -> String {
        let around = self.path.iter().skip_while(|&&function| function != address).chain([&address]);
        let names = around.filter_map(|function| self.graph.functions.get(function));
        names.map(|function| function.name.as_str()).collect::<Vec<_>>().join(" > ")
    }
}

#[cfg(test)]
mod tests {
    use super::super::call_graph::Function;
    use super::*;

    fn function(callees: &[u32], calls_any: bool, pushed_bytes: u32) -> Function {
        Function { name: "f".to_owned(), callees: callees.iter().copied().collect(), calls_any, pushed_bytes }
    }

    fn depth(functions: Vec<(u32, Function)>, frames: &[(u32, u64)]) -> Result<u64> {
        let graph = CallGraph { functions: functions.into_iter().collect(), address_taken: [30].into() };
        let frames = frames.iter().copied().collect();
        Search { graph: &graph, frames: &frames, depths: BTreeMap::new(), path: Vec::new() }.depth(10)
    }

    #[test]
    fn the_deepest_path_counts_with_what_is_pushed_beyond_the_compilers_frames() {
        let functions = vec![
            (10, function(&[20, 40], true, 12)),
            (20, function(&[], false, 100)),
            (30, function(&[20], false, 60)),
            (40, function(&[], false, 8)),
        ];
        assert_eq!(depth(functions.clone(), &[(10, 16)]).unwrap(), 16 + 60 + 100);
        // The first is a large array that no instruction pushes at once, the second has assembly that pushes.
        assert_eq!(depth(functions, &[(10, 16), (20, 400), (30, 44)]).unwrap(), 16 + 60 + 400);
    }

    #[test]
    fn recursion_is_refused() {
        assert!(depth(vec![(10, function(&[20], false, 0)), (20, function(&[10], false, 0))], &[]).is_err());
    }

    #[test]
    fn stack_sizes_are_read() {
        let section = [0x01, 0x04, 0, 0x08, 0x08, 0x11, 0x05, 0, 0x08, 0xac, 0x02];
        let want: BTreeMap<u32, u64> = [(0x0800_0400, 8), (0x0800_0510, 300)].into();
        assert_eq!(frames(&section, false).unwrap(), want);
        assert!(frames(&section[..10], false).is_err());
        let section = [0x00, 0x04, 0, 0x80, 0, 0, 0, 0, 0x08];
        assert_eq!(frames(&section, true).unwrap(), [(0x8000_0400, 8)].into());
        assert!(frames(&section[..6], true).is_err());
    }
}
