//! `siskin inspect`: shows the config, sections, sizes and checksums of a packed file.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use siskin_runtime::adapter::Adapter;
use siskin_runtime::format::{SectionKind, VERSION};
use siskin_runtime::parts::Kind;
use siskin_runtime::{ModelConfig, PackedModel};

use crate::console::Console;
use crate::failure::Failure;
use crate::input;

const AFTER_HELP: &str = "\
Examples:
  siskin inspect shakespeare.siskin
  siskin inspect shakespeare.siskin --format json";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The packed .siskin.
    file: PathBuf,
}

#[derive(Serialize)]
struct Reply {
    version: u32,
    file_bytes: u64,
    weights: &'static str,
    layout: &'static str,
    n_params: u64,
    arena_bytes: u64,
    kv: &'static str,
    kv_cache_bytes: usize,
    prefill_batch: u32,
    beams: u32,
    config: Config,
    sections: Vec<Section>,
    adapters: Vec<AdapterLine>,
}

#[derive(Serialize)]
struct Config {
    /// `decoder`, `encoder` or `encoder-decoder`, `recurrent-` before it for GRUs.
    kind: &'static str,
    dim: usize,
    hidden_dim: usize,
    n_layers: usize,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    vocab_size: usize,
    context_len: usize,
    norm_eps: f32,
    rope_theta: f32,
    tied_head: bool,
}

#[derive(Serialize)]
struct Section {
    kind: String,
    offset: u64,
    bytes: u64,
    crc32: String,
}

/// An adapter of a packed file.
#[derive(Serialize)]
pub(crate) struct AdapterLine {
    name: String,
    bytes: usize,
    /// Low-rank pairs.
    n_pairs: usize,
    /// The highest rank of a pair.
    rank: u32,
    /// Rows of the soft prompt.
    n_virtual: usize,
    crc32: String,
}

impl AdapterLine {
    pub(crate) fn new(adapter: &Adapter<'_>) -> Self {
        Self {
            name: adapter.name().to_owned(),
            bytes: adapter.bytes().len(),
            n_pairs: adapter.entries().count(),
            rank: adapter.entries().map(|entry| entry.rank).max().unwrap_or(0),
            n_virtual: adapter.prompt().map_or(0, |prompt| prompt.rows()),
            crc32: format!("{:08x}", adapter.checksum()),
        }
    }
}

impl fmt::Display for AdapterLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "adapter {}, {} bytes", self.name, self.bytes)?;
        if self.n_pairs > 0 {
            write!(f, ", {} pairs of rank up to {}", self.n_pairs, self.rank)?;
        }
        if self.n_virtual > 0 {
            write!(f, ", a soft prompt of {} rows", self.n_virtual)?;
        }
        Ok(())
    }
}

impl From<&ModelConfig> for Config {
    fn from(config: &ModelConfig) -> Self {
        let ModelConfig { dim, hidden_dim, n_layers, n_heads, n_kv_heads, head_dim, .. } = *config;
        let ModelConfig { vocab_size, context_len, norm_eps, rope_theta, tied_head, .. } = *config;
        Self {
            kind: match (config.parts.kind, config.parts.is_recurrent) {
                (Kind::Decoder, false) => "decoder",
                (Kind::Decoder, true) => "recurrent-decoder",
                (Kind::Encoder, _) => "encoder",
                (Kind::EncoderDecoder, false) => "encoder-decoder",
                (Kind::EncoderDecoder, true) => "recurrent-encoder-decoder",
            },
            dim,
            hidden_dim,
            n_layers,
            n_heads,
            n_kv_heads,
            head_dim,
            vocab_size,
            context_len,
            norm_eps,
            rope_theta,
            tied_head,
        }
    }
}

impl Reply {
    fn new(model: &PackedModel<'_>) -> Self {
        let header = model.header();
        let kind_name = |code| SectionKind::from_code(code).map_or(format!("unknown {code}"), |k| k.name().to_owned());
        let sections = model.sections().map(|entry| Section {
            kind: kind_name(entry.kind),
            offset: entry.offset,
            bytes: entry.bytes,
            crc32: format!("{:08x}", entry.crc),
        });
        Self {
            version: VERSION,
            file_bytes: header.file_bytes,
            weights: header.format.name(),
            layout: header.layout.name(),
            n_params: header.config.n_params(),
            arena_bytes: header.arena_bytes,
            kv: header.kv.name(),
            kv_cache_bytes: model.memory_plan().kv_cache_bytes(),
            prefill_batch: header.prefill_batch,
            beams: header.n_beams,
            config: Config::from(&header.config),
            sections: sections.collect(),
            adapters: model.adapters().iter().map(|adapter| AdapterLine::new(&adapter)).collect(),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.config;
        let head = if c.tied_head { "tied" } else { "separate" };
        writeln!(f, "packed model, format version {}, {} bytes", self.version, self.file_bytes)?;
        writeln!(f, "  {} parameters as {}, layout {}", self.n_params, self.weights, self.layout)?;
        writeln!(f, "  {} layers, {} wide, {} hidden, {head} head", c.n_layers, c.dim, c.hidden_dim)?;
        writeln!(f, "  {} heads of {}, {} for keys and values", c.n_heads, c.head_dim, c.n_kv_heads)?;
        writeln!(f, "  {} tokens in the vocabulary, {} in the context", c.vocab_size, c.context_len)?;
        let kv = format!("{} of them the KV cache in {}", self.kv_cache_bytes, self.kv);
        writeln!(f, "  arena {} bytes, {kv}", self.arena_bytes)?;
        write!(f, "\n  {:<12} {:>10} {:>12}  crc32", "section", "offset", "bytes")?;
        for section in &self.sections {
            write!(f, "\n  {:<12} {:>10} {:>12}  {}", section.kind, section.offset, section.bytes, section.crc32)?;
        }
        self.adapters.iter().try_for_each(|adapter| write!(f, "\n  {adapter}"))
    }
}

pub(crate) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let file = input::open_packed(&args.file)?;
    console.reply(&Reply::new(&file.model()))
}
