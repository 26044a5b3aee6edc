//! Packing a model for a board, and what it takes there: shared by `compile` and `plan`.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::ValueEnum;
use serde::Serialize;
use siskin_compiler::artifact::Checkpoint;
use siskin_compiler::pack::{
    FormatException, PackOptions, PackedFile, pack, pack_trained, packed_config, packed_trained_config, relayout,
    with_beams, with_kv, with_prefix,
};
use siskin_compiler::plan::{Board, MemoryReport, Part, choose_prefill_batch, remedies};
use siskin_compiler::tokenizer::{TextSections, TokenizerDef};
use siskin_device::self_test::{Golden, GoldenError};
use siskin_runtime::format::SectionKind;
use siskin_runtime::{Kernels, ModelConfig, PackedModel, Snapshot, TokenId};

use crate::boards::{BoardArgs, HOST};
use crate::console::Console;
use crate::failure::{Failure, OrFail as _, Status};
use crate::golden;
use crate::input::{self, Unpacked};

/// How a model is quantised and cut to size.
#[derive(clap::Args, Default)]
pub(crate) struct PackingArgs {
    /// How weights are stored [default: int8 for a board, int8-g32 for the host].
    #[arg(long, value_enum)]
    weights: Option<WeightFormat>,
    /// Matrices with another format, such as head=int8-g32, layers.0=int8 or layers.2-3.down=int8-g32; of several the last counts.
    #[arg(long, value_name = "TENSORS=FORMAT", value_delimiter = ',')]
    tensor_weights: Vec<FormatException>,
    /// The longest context, which fixes the size of the KV cache [default: the model's own].
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// How keys and values are cached [default: int8, or as the packed file has it].
    #[arg(long, value_enum)]
    kv: Option<KvFormat>,
    /// Room for a beam search of N: each has a KV cache of its own [default: none, or as the packed file has it].
    #[arg(long, value_name = "N")]
    beams: Option<usize>,
    /// Tokens that share a pass over the weights while a prompt is read; fewer take less RAM [default: as many as fit, at most 8 on a board].
    #[arg(long, value_name = "N")]
    prefill_batch: Option<usize>,
    /// Store blocks of weights that are all zero, as pruning leaves them, like any other [default: they are left out, and the kernels skip
    /// them, in a matrix whose values take an eighth less without them].
    #[arg(long)]
    keep_zero_blocks: bool,
    /// The tokenizer, where the model brings none: a tokenizer.json, a SentencePiece .model or a llama2.c .bin.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
}

/// The names of the weight formats.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum WeightFormat {
    /// 8 bits, and a scale for each output row: the least flash and time.
    Int8,
    /// 8 bits, and a scale for each 32 weights of a row: for models with outliers, as large ones have.
    Int8G32,
    /// 4 bits, and a scale for each 32 weights of a row: half the flash, less exact.
    Int4G32,
}

impl From<WeightFormat> for siskin_runtime::WeightFormat {
    fn from(format: WeightFormat) -> Self {
        match format {
            WeightFormat::Int8 => Self::Int8,
            WeightFormat::Int8G32 => Self::Int8G32,
            WeightFormat::Int4G32 => Self::Int4G32,
        }
    }
}

/// The names of the formats of the KV cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum KvFormat {
    /// 8 bits, and a scale of 16 bits for each position and head.
    Int8,
    /// The same with scales of 8 bits, an unsigned float E5M3: the less RAM the narrower heads are.
    Int8Ue5m3,
    /// 4 bits, and 16 for scale and step: 3/5 of int8's RAM with heads of 8, half with wide ones; less exact.
    Int4,
    /// IEEE half precision: twice the RAM, and the most exact.
    F16,
}

impl From<KvFormat> for siskin_runtime::KvFormat {
    fn from(format: KvFormat) -> Self {
        match format {
            KvFormat::Int8 => Self::Int8,
            KvFormat::Int8Ue5m3 => Self::Int8Ue5m3,
            KvFormat::Int4 => Self::Int4,
            KvFormat::F16 => Self::F16,
        }
    }
}

impl PackingArgs {
    /// Packs the model at `path` for `board`; a file that is packed already is laid out anew for it.
    pub(crate) fn pack(&self, path: &Path, board: &Board, console: &Console) -> Result<PackedFile, Failure> {
        if input::is_packed(path) {
            return self.pack_again(path, board);
        }
        let default_format = if board.name == HOST { WeightFormat::Int8G32 } else { WeightFormat::Int8 };
        let format = self.weights.unwrap_or(default_format).into();
        let kv = self.kv.map_or(siskin_runtime::KvFormat::default(), Into::into);
        let doing = || format!("pack {}", path.display());
        let options = |config: &ModelConfig, sections| PackOptions {
            format,
            exceptions: self.tensor_weights.clone(),
            layout: board.layout,
            context_len: self.context,
            prefill_batch: self.prefill_batch.unwrap_or_else(|| {
                let widest = FormatException::widest(&self.tensor_weights, format);
                choose_prefill_batch(config, widest, kv, self.beams.unwrap_or(0), board)
            }),
            keep_zero_blocks: self.keep_zero_blocks,
            sections,
        };
        let bytes = match input::load_unpacked(path, self.tokenizer.as_deref())? {
            Unpacked::Llama(checkpoint) => {
                let config = packed_config(&checkpoint, self.context).or_invalid_input(doing)?;
                let sections = text_sections(&checkpoint, console).or_invalid_input(doing)?;
                pack(&checkpoint, &options(&config, sections))
            }
            Unpacked::Trained(model) => {
                let tokenizer = TokenizerDef::of_trained(&model).or_invalid_input(doing)?;
                let tokenizer = tokenizer.ok_or_else(input::no_tokenizer).or_invalid_input(doing)?;
                let mask = tokenizer.mask_token();
                let config = packed_trained_config(&model, self.context, mask).or_invalid_input(doing)?;
                let section = tokenizer.compile().or_invalid_input(doing)?.into_section();
                pack_trained(&model, &options(&config, vec![(SectionKind::Tokenizer, section)]), mask)
            }
        };
        let file = PackedFile::from_bytes(bytes.or_invalid_input(doing)?).or_failed(doing)?;
        let file = PackedFile::from_bytes(with_kv(&file, kv).or_invalid_input(doing)?).or_failed(doing)?;
        with_room(file, self.beams)
    }

    fn pack_again(&self, path: &Path, board: &Board) -> Result<PackedFile, Failure> {
        let has_weights = self.weights.is_some() || !self.tensor_weights.is_empty() || self.keep_zero_blocks;
        if has_weights || self.context.is_some() || self.tokenizer.is_some() {
            let cause = anyhow!(
                "{} is packed already: --weights, --tensor-weights, --keep-zero-blocks, --context and --tokenizer are for the model that it was made from",
                path.display()
            );
            return Err(Failure::command_line(cause));
        }
        let file = input::open_packed(path)?;
        let model = file.model();
        let kv = self.kv.map_or(model.header().kv, Into::into);
        let n_beams = self.beams.unwrap_or(model.header().n_beams as usize);
        let chosen = || choose_prefill_batch(model.config(), model.header().format, kv, n_beams, board);
        let prefill_batch = self.prefill_batch.unwrap_or_else(chosen);
        let doing = || format!("lay out {} for {}", path.display(), board.name);
        let bytes = relayout(&model, board.layout, prefill_batch).or_invalid_input(doing)?;
        let file = PackedFile::from_bytes(bytes).or_failed(doing)?;
        let file = with_room(file, self.beams)?;
        if kv == model.header().kv {
            return Ok(file);
        }
        let mut other = PackedFile::from_bytes(with_kv(&file, kv).or_invalid_input(doing)?).or_failed(doing)?;
        // A prefix is kept as the cache is, so another format needs it computed anew; golden answers depend on it as well.
        if let Some(prefix) = model.section(SectionKind::Prefix) {
            let tokens: Vec<TokenId> = Snapshot::parse(prefix, &model).or_invalid_input(doing)?.tokens().collect();
            let bytes = with_prefix(&other, Kernels::detect(), &tokens).or_invalid_input(doing)?;
            other = PackedFile::from_bytes(bytes).or_failed(doing)?;
        }
        match Golden::of(&model) {
            Err(GoldenError::Missing) => Ok(other),
            golden => golden::with_golden(&other, golden.or_invalid_input(doing)?.prompt()),
        }
    }
}

/// The model with room for a beam search, where another than it has was asked for.
pub(crate) fn with_room(file: PackedFile, beams: Option<usize>) -> Result<PackedFile, Failure> {
    let had = file.model().header().n_beams as usize;
    let Some(n_beams) = beams.filter(|&n_beams| n_beams != had) else { return Ok(file) };
    let doing = || "make room for the beams".to_owned();
    PackedFile::from_bytes(with_beams(&file, n_beams).or_invalid_input(doing)?).or_failed(doing)
}

/// The model in the order of bytes that `kernels` read fastest; its results are the same in any.
pub(crate) fn laid_out_for(kernels: Kernels, file: PackedFile) -> Result<PackedFile, Failure> {
    let model = file.model();
    let header = model.header();
    if header.layout == kernels.preferred_layout() {
        return Ok(file);
    }
    let doing = || format!("lay out the model for {} kernels", kernels.name());
    let bytes = relayout(&model, kernels.preferred_layout(), header.prefill_batch as usize).or_failed(doing)?;
    PackedFile::from_bytes(bytes).or_failed(doing)
}

/// The sections that turn text into tokens and back, and a message into its turns.
fn text_sections(checkpoint: &Checkpoint, console: &Console) -> anyhow::Result<Vec<(SectionKind, Vec<u8>)>> {
    let sections = TextSections::of_checkpoint(checkpoint, None)?;
    if sections.tokenizer.is_none() {
        return Err(input::no_tokenizer());
    }
    if let Some(problem) = &sections.chat_problem {
        console.note(format_args!("run --chat will not work with this model: {problem}"));
    }
    Ok(sections.into_sections())
}

impl BoardArgs {
    /// The board's limits and layout.
    pub(crate) fn load(&self) -> Result<Board, Failure> {
        if self.board == HOST {
            return Ok(Board::host());
        }
        let dir = self.dir.find_board(&self.board)?;
        Board::load(&dir).or_invalid_input(|| format!("use the board {}", self.board))
    }
}

/// A [`MemoryReport`] for people.
pub(crate) struct ReportText<'r>(pub(crate) &'r MemoryReport);

impl fmt::Display for ReportText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(report) = self;
        let limit = |bytes: Option<u64>| bytes.map_or(String::new(), |bytes| format!(" of {bytes}"));
        let parts = |f: &mut fmt::Formatter<'_>, parts: &[Part]| {
            parts.iter().try_for_each(|part| writeln!(f, "  {:<20} {:>12}", part.name, part.bytes))
        };
        writeln!(f, "{}", report.board)?;
        writeln!(f, "flash {} bytes{}", report.flash_bytes, limit(report.flash_limit_bytes))?;
        parts(f, &report.flash_parts)?;
        let ram_and_stack = report.ram_bytes + report.stack_bytes;
        writeln!(f, "RAM {ram_and_stack} bytes{}", limit(report.ram_limit_bytes))?;
        parts(f, &report.ram_parts)?;
        writeln!(f, "  {:<20} {:>12}", "stack", report.stack_bytes)?;
        f.write_str(if report.fits { "fits" } else { "does not fit" })
    }
}

/// What scripts see of a model that does not fit.
#[derive(Serialize)]
struct Shortfall<'r> {
    #[serde(flatten)]
    report: &'r MemoryReport,
    flash_short_bytes: u64,
    ram_short_bytes: u64,
    remedies: Vec<String>,
}

/// Fails with exit code 4 if `model` does not fit `board`: what it needs, what there is, what is missing, what would help.
pub(crate) fn check_fits(
    model: &PackedModel<'_>,
    board: &Board,
    report: &MemoryReport,
    console: &Console,
) -> Result<(), Failure> {
    if report.fits {
        return Ok(());
    }
    if !console.is_json() {
        console.stream(&format!("{}\n", ReportText(report)))?;
    }
    let shortfall = Shortfall {
        report,
        flash_short_bytes: report.flash_short_bytes(),
        ram_short_bytes: report.ram_short_bytes(),
        remedies: remedies(model.header(), report, board),
    };
    let memories = [
        ("flash", report.flash_bytes, report.flash_limit_bytes, shortfall.flash_short_bytes),
        ("RAM", report.ram_bytes + report.stack_bytes, report.ram_limit_bytes, shortfall.ram_short_bytes),
    ];
    let short = memories.into_iter().filter(|&(.., short)| short > 0).map(|(memory, needed, limit, short)| {
        format!("{memory} needs {needed} bytes, has {}, is {short} short", limit.unwrap_or_default())
    });
    let short: Vec<String> = short.collect();
    let cause = anyhow!("{}\nwhat would help:\n  - {}", short.join("; "), shortfall.remedies.join("\n  - "));
    Err(Failure::new(Status::DoesNotFit, format!("fit the model on {}", board.name), cause).with_figures(&shortfall))
}
