//! Proof that a model fits a board before anything is flashed: every byte of flash, RAM and stack, by part; and what a token will take.

mod board;
mod cost;
mod speed;
mod work;

pub use board::{Board, BoardError, FirmwareBudget};
pub use cost::{AtPosition, Costs, Prediction};
pub use speed::{Power, Speed, SpeedEstimate};
pub use work::Work;

use serde::Serialize;
use siskin_runtime::format::{Header, PREFILL_BATCH_MAX, SectionKind};
use siskin_runtime::parts::Positions;
use siskin_runtime::{KvFormat, MemoryPlan, ModelConfig, PackedModel, WeightFormat};

/// What one thing takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// What it is.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
}

impl Part {
    fn new(name: &str, bytes: impl TryInto<u64>) -> Self {
        Self { name: name.to_owned(), bytes: bytes.try_into().unwrap_or(u64::MAX) }
    }
}

/// What a packed model and the board's firmware take together, and what the board has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryReport {
    /// The board's name.
    pub board: String,
    /// Bytes of flash: the firmware and the packed file.
    pub flash_bytes: u64,
    /// Bytes of RAM without the stack: the firmware's statics and the arena.
    pub ram_bytes: u64,
    /// Bytes of the deepest stack of the firmware.
    pub stack_bytes: u64,
    /// Flash of the board; `None` on the host.
    pub flash_limit_bytes: Option<u64>,
    /// RAM of the board, for statics, arena and stack together; `None` on the host.
    pub ram_limit_bytes: Option<u64>,
    /// Whether all of it fits.
    pub fits: bool,
    /// What flash holds.
    pub flash_parts: Vec<Part>,
    /// What RAM holds, the stack aside.
    pub ram_parts: Vec<Part>,
}

impl MemoryReport {
    /// Adds up what `model` takes on `board`.
    pub fn new(model: &PackedModel<'_>, board: &Board) -> Self {
        let firmware = &board.firmware;
        let mut flash_parts = vec![Part::new("firmware", firmware.code_bytes)];
        let mut listed = 0;
        for (entry, bytes) in model.raw_sections() {
            let name = SectionKind::from_code(entry.kind).map_or("other", SectionKind::name);
            flash_parts.push(Part::new(name, bytes.len()));
            listed += bytes.len() as u64;
        }
        flash_parts.push(Part::new("header and padding", model.header().file_bytes.saturating_sub(listed)));
        let plan = model.memory_plan();
        let ram_parts = ram_parts(&plan, firmware);
        Self::of_parts(board, flash_parts, ram_parts)
    }

    fn of_parts(board: &Board, flash_parts: Vec<Part>, ram_parts: Vec<Part>) -> Self {
        let sum = |parts: &[Part]| parts.iter().map(|part| part.bytes).sum::<u64>();
        let (flash_bytes, ram_bytes) = (sum(&flash_parts), sum(&ram_parts));
        let stack_bytes = board.firmware.stack_bytes;
        let within = |bytes: u64, limit: Option<u64>| limit.is_none_or(|limit| bytes <= limit);
        Self {
            board: board.name.clone(),
            flash_bytes,
            ram_bytes,
            stack_bytes,
            flash_limit_bytes: board.flash_bytes,
            ram_limit_bytes: board.ram_bytes,
            fits: within(flash_bytes, board.flash_bytes) && within(ram_bytes + stack_bytes, board.ram_bytes),
            flash_parts,
            ram_parts,
        }
    }

    /// Bytes of flash that are missing.
    pub fn flash_short_bytes(&self) -> u64 {
        self.flash_limit_bytes.map_or(0, |limit| self.flash_bytes.saturating_sub(limit))
    }

    /// Bytes of RAM that are missing, the stack's included.
    pub fn ram_short_bytes(&self) -> u64 {
        self.ram_limit_bytes.map_or(0, |limit| (self.ram_bytes + self.stack_bytes).saturating_sub(limit))
    }
}

fn ram_parts(plan: &MemoryPlan, firmware: &FirmwareBudget) -> Vec<Part> {
    let (cache, cross, state) = (plan.kv_cache_bytes(), plan.cross_cache_bytes(), plan.state.len());
    let working =
        plan.arena_bytes - cache - cross - state - plan.beam_bytes() - plan.logits.len() - plan.residual.len();
    let mut parts = vec![
        Part::new("firmware statics", firmware.static_ram_bytes),
        Part::new("KV cache", cache),
        Part::new("encoder output", cross),
        Part::new("recurrent state", state),
        Part::new("beam search", plan.beam_bytes()),
        Part::new("logits", plan.logits.len()),
        Part::new("residual streams", plan.residual.len()),
        Part::new("activations", working),
    ];
    parts.retain(|part| part.bytes > 0);
    parts
}

/// The largest usual prefill batch that still fits the board; the smallest where none does.
///
/// A batch reads each weight once for all of its tokens; it costs RAM for their activations.
pub fn choose_prefill_batch(
    config: &ModelConfig,
    format: WeightFormat,
    kv: KvFormat,
    n_beams: usize,
    board: &Board,
) -> usize {
    let usual: &[usize] = if board.ram_bytes.is_some() { &[8, 4, 2, 1] } else { &[32] };
    let fits = |&batch: &usize| arena_fits(config, format, kv, n_beams, board, batch);
    usual.iter().copied().find(fits).or(usual.last().copied()).unwrap_or(1).min(PREFILL_BATCH_MAX)
}

fn arena_fits(
    config: &ModelConfig,
    format: WeightFormat,
    kv: KvFormat,
    n_beams: usize,
    board: &Board,
    prefill_batch: usize,
) -> bool {
    let Some(limit) = board.ram_bytes else { return true };
    let taken = board.firmware.static_ram_bytes + board.firmware.stack_bytes;
    let plan = MemoryPlan::for_beams(config, format, kv, prefill_batch, n_beams);
    plan.is_some_and(|plan| plan.arena_bytes as u64 + taken <= limit)
}

/// What would make a model fit that doesn't, each a sentence; the most useful first.
///
/// `header` is that of the file that was too large, `report` its report.
pub fn remedies(header: &Header, report: &MemoryReport, board: &Board) -> Vec<String> {
    let mut remedies = Vec::new();
    let (config, n_beams) = (&header.config, header.n_beams as usize);
    if report.ram_short_bytes() > 0 && n_beams > 0 {
        let fits = |&n: &usize| arena_fits(config, header.format, header.kv, n, board, 1);
        if let Some(n) = (0..n_beams).rev().find(fits) {
            remedies.push(format!("compile with `--beams {n}`: each beam has a cache of its own"));
        }
    }
    if report.ram_short_bytes() > 0 && report.flash_short_bytes() == 0 {
        let smaller = [
            (KvFormat::Int8, "elements of one byte"),
            (KvFormat::Int8Ue5m3, "scales of one byte"),
            (KvFormat::Int4, "four bits an element, less exact,"),
        ];
        let saved = |kv| saved_by(header, kv);
        let helps =
            |&&(kv, _): &&(KvFormat, _)| saved(kv) > 0 && arena_fits(config, header.format, kv, n_beams, board, 1);
        if let Some(&(kv, how)) = smaller.iter().find(helps) {
            remedies.push(format!("compile with `--kv {}`: {how} save {} bytes of RAM", kv.name(), saved(kv)));
        }
    }
    let context = largest_context(header, report, board);
    match context {
        Some(context_len) if context_len < header.config.context_len => {
            remedies.push(format!("compile with `--context {context_len}`, the longest context that fits"));
        }
        _ => {}
    }
    if report.flash_short_bytes() > 0 {
        if header.format == WeightFormat::Int8G32 {
            remedies
                .push("compile with `--weights int8`: scales per row take less flash than scales per group".to_owned());
        }
        if header.format != WeightFormat::Int4G32 {
            remedies.push("compile with `--weights int4-g32`: half the flash, less exact".to_owned());
        }
        let model_bytes = board.flash_bytes.unwrap_or(0).saturating_sub(board.firmware.code_bytes);
        let n_params = model_bytes as f64 / bytes_per_param(header);
        remedies.push(format!(
            "use a model of at most about {:.0} thousand parameters in {}",
            n_params / 1e3,
            header.format.name()
        ));
    }
    if context.is_none() && report.ram_short_bytes() > 0 {
        remedies.push("use a narrower model or one with fewer layers or key heads: no context fits its RAM".to_owned());
    }
    remedies.push("choose a board with more memory: `siskin board list`".to_owned());
    remedies
}

/// Bytes of RAM that another format of the cache saves.
fn saved_by(header: &Header, kv: KvFormat) -> usize {
    let arena_bytes = |header: &Header| header.memory_plan().map_or(0, |plan| plan.arena_bytes);
    arena_bytes(header).saturating_sub(arena_bytes(&Header { kv, ..*header }))
}

fn bytes_per_param(header: &Header) -> f64 {
    header.file_bytes as f64 / header.config.n_params() as f64
}

/// The longest context with which RAM and flash suffice, at the smallest prefill batch.
fn largest_context(header: &Header, report: &MemoryReport, board: &Board) -> Option<usize> {
    let has_rope = header.config.parts.positions == Positions::Rope;
    let position_bytes = if has_rope { header.config.head_dim as u64 * 4 } else { 0 };
    let rope_bytes = |context_len: usize| context_len as u64 * position_bytes;
    let without_rope = report.flash_bytes - rope_bytes(header.config.context_len).min(report.flash_bytes);
    let fits = |context_len: usize| {
        let config = ModelConfig { context_len, ..header.config };
        let flash = without_rope + rope_bytes(context_len);
        arena_fits(&config, header.format, header.kv, header.n_beams as usize, board, 1)
            && board.flash_bytes.is_none_or(|limit| flash <= limit)
    };
    let (mut low, mut high) = (0, header.config.context_len);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    (low > 0).then_some(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(flash_bytes: u64, ram_bytes: u64) -> Board {
        let firmware = FirmwareBudget { code_bytes: 40_000, static_ram_bytes: 1_000, stack_bytes: 3_000 };
        Board {
            name: "tiny".into(),
            flash_bytes: Some(flash_bytes),
            ram_bytes: Some(ram_bytes),
            firmware,
            ..Board::host()
        }
    }

    fn header(context_len: usize) -> Header {
        let config = ModelConfig {
            dim: 64,
            hidden_dim: 172,
            n_layers: 5,
            n_heads: 8,
            n_kv_heads: 4,
            head_dim: 8,
            vocab_size: 512,
            context_len,
            norm_eps: 1e-5,
            rope_theta: 1e4,
            tied_head: true,
            parts: siskin_runtime::Parts::LLAMA,
        };
        let (format, kv) = (WeightFormat::Int8, KvFormat::Int8);
        let layout = siskin_runtime::WeightLayout::RowPairs;
        let (prefill_batch, n_beams) = (8, 0);
        Header {
            file_bytes: 280_000,
            n_sections: 4,
            layout,
            format,
            kv,
            config,
            prefill_batch,
            n_beams,
            arena_bytes: 0,
        }
    }

    #[test]
    fn the_context_that_is_offered_is_the_longest_that_fits() {
        let (board, header) = (board(1 << 20, 64 << 10), header(256));
        let report = MemoryReport::of_parts(
            &board,
            vec![Part::new("all", 320_000)],
            ram_parts(&header.memory_plan().unwrap(), &board.firmware),
        );
        assert!(!report.fits && report.ram_short_bytes() > 0 && report.flash_short_bytes() == 0);
        let longest = largest_context(&header, &report, &board).unwrap();
        for (context_len, fits) in [(longest, true), (longest + 1, false)] {
            let config = ModelConfig { context_len, ..header.config };
            assert_eq!(arena_fits(&config, header.format, header.kv, 0, &board, 1), fits);
        }
        assert!(remedies(&header, &report, &board)[0].contains(&format!("--context {longest}")));
    }

    #[test]
    fn the_prefill_batch_shrinks_to_fit() {
        let config = header(256).config;
        let (format, kv) = (WeightFormat::Int8, KvFormat::Int8);
        let at = |batch| MemoryPlan::new(&config, format, kv, batch).unwrap().arena_bytes as u64;
        let taken = 4_000;
        for batch in [8, 4, 2, 1] {
            let board = board(1 << 20, at(batch) + taken);
            assert_eq!(choose_prefill_batch(&config, format, kv, 0, &board), batch);
        }
        assert_eq!(choose_prefill_batch(&config, format, kv, 0, &board(1 << 20, 1000)), 1);
    }

    #[test]
    fn the_story_model_fits_its_bars_everything_counted() {
        // The board's budgets hold whatever its firmware takes: `cargo xtask sizes` fails above them.
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../boards/netduinoplus2");
        let firmware = Board::load(&dir).expect("the board's description").firmware;
        for (context_len, bar_bytes) in [(128, 65_536), (512, 210_000)] {
            let config = ModelConfig { context_len, hidden_dim: 192, ..header(256).config };
            let plan = MemoryPlan::new(&config, WeightFormat::Int8, KvFormat::Int8Ue5m3, 1).unwrap();
            let counted = plan.arena_bytes as u64 + firmware.static_ram_bytes + firmware.stack_bytes;
            assert!(counted <= bar_bytes, "{counted} bytes at a context of {context_len}");
        }
    }

    #[test]
    fn fewer_beams_are_offered_where_they_make_a_model_fit() {
        let header = Header { n_beams: 4, ..header(256) };
        let arena_bytes = |n_beams| Header { n_beams, ..header }.memory_plan().unwrap().arena_bytes as u64;
        // A beam has a cache and a node for each position.
        assert!(arena_bytes(4) - arena_bytes(3) > (2 * (8 + 2) * 4 * 5 + 4) * 256);
        let board = board(1 << 20, arena_bytes(2) + 4_000);
        let ram_parts = ram_parts(&header.memory_plan().unwrap(), &board.firmware);
        assert_eq!(ram_parts.iter().map(|part| part.bytes).sum::<u64>(), arena_bytes(4) + 1_000);
        let report = MemoryReport::of_parts(&board, vec![Part::new("all", 320_000)], ram_parts);
        assert!(remedies(&header, &report, &board)[0].contains("--beams 2"));
    }

    #[test]
    fn a_smaller_cache_is_offered_where_it_makes_a_model_fit() {
        let header = header(256);
        let plan = |kv| MemoryPlan::new(&header.config, header.format, kv, 1).unwrap().arena_bytes as u64;
        let taken = 4_000;
        for (ram_bytes, kv, helps) in [
            (plan(KvFormat::Int8Ue5m3) + taken, "int8-ue5m3", true),
            (plan(KvFormat::Int8Ue5m3) + taken - 1, "int4", true),
            (plan(KvFormat::Int4) + taken, "int4", true),
            (plan(KvFormat::Int4), "", false),
        ] {
            let board = board(1 << 20, ram_bytes);
            let ram_parts = ram_parts(&header.memory_plan().unwrap(), &board.firmware);
            let report = MemoryReport::of_parts(&board, vec![Part::new("all", 320_000)], ram_parts);
            let remedies = remedies(&header, &report, &board);
            assert_eq!(remedies[0].contains(&format!("--kv {kv}")), helps, "{remedies:?}");
        }
    }
}
