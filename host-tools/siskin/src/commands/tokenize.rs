//! `siskin tokenize`: shows the tokens of a text.

use std::fmt;
use std::path::PathBuf;

use anyhow::anyhow;
use serde::Serialize;
use siskin_compiler::tokenizer::{CorpusEncoder, decode};
use siskin_runtime::format::SectionKind;
use siskin_runtime::{TokenId, Tokenizer};

use crate::console::Console;
use crate::failure::{Failure, OrFail as _};
use crate::input;

const AFTER_HELP: &str = "\
Examples:
  siskin tokenize shakespeare.siskin --text test.txt
  siskin tokenize runs/shakespeare --text test.txt --format json";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// A packed .siskin, or a model that compile takes.
    model: PathBuf,
    /// The text, in UTF-8.
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// The tokenizer of a llama2.c .bin.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
}

#[derive(Serialize)]
struct Reply {
    tokens: Vec<TokenId>,
    pieces: Vec<String>,
    n_tokens: usize,
    n_distinct_tokens: usize,
    n_text_bytes: usize,
    bytes_per_token: f64,
    round_trip: bool,
    vocab_size: usize,
    tokenizer_bytes: usize,
}

impl Reply {
    fn new(tokenizer: Tokenizer<'_>, tokenizer_bytes: usize, text: &str) -> Self {
        let tokens = CorpusEncoder::new(tokenizer).encode(text);
        let mut distinct = tokens.clone();
        distinct.sort_unstable();
        distinct.dedup();
        Self {
            pieces: tokens.iter().map(|&id| String::from_utf8_lossy(tokenizer.piece(id)).into_owned()).collect(),
            n_tokens: tokens.len(),
            n_distinct_tokens: distinct.len(),
            n_text_bytes: text.len(),
            bytes_per_token: if tokens.is_empty() { 0.0 } else { text.len() as f64 / tokens.len() as f64 },
            round_trip: round_trips(&tokenizer, &tokens, text),
            vocab_size: tokenizer.vocab_size(),
            tokenizer_bytes,
            tokens,
        }
    }
}

/// Whether the tokens spell the text. Special tokens in the text are spelled too, the one that encoding added is not.
fn round_trips(tokenizer: &Tokenizer<'_>, tokens: &[TokenId], text: &str) -> bool {
    if decode(tokenizer, tokens) == text {
        return true;
    }
    let added = usize::from(tokenizer.add_bos() && tokens.first().copied() == tokenizer.bos());
    let spelled = tokens[added..].iter().flat_map(|&id| tokenizer.piece(id)).copied();
    spelled.eq(text.bytes())
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, piece) in self.tokens.iter().zip(&self.pieces) {
            writeln!(f, "{id:>7} {piece:?}")?;
        }
        writeln!(f, "{} tokens, {} of them distinct, of {}", self.n_tokens, self.n_distinct_tokens, self.vocab_size)?;
        writeln!(f, "{} bytes of text, {:.3} a token", self.n_text_bytes, self.bytes_per_token)?;
        writeln!(f, "the tokenizer takes {} bytes when packed", self.tokenizer_bytes)?;
        f.write_str(if self.round_trip {
            "decoding gives the text back"
        } else {
            "decoding does not give the text back: the vocabulary lacks some of its characters"
        })
    }
}

pub(crate) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let text = input::read_text(&args.text)?;
    if input::is_packed(&args.model) {
        if args.tokenizer.is_some() {
            return Err(Failure::command_line(anyhow!("a packed model has its own tokenizer: leave out --tokenizer")));
        }
        let file = input::open_packed(&args.model)?;
        let model = file.model();
        let section = model.section(SectionKind::Tokenizer);
        let reply = Reply::new(input::packed_tokenizer(&model)?, section.map_or(0, <[u8]>::len), &text);
        return console.reply(&reply);
    }
    let checkpoint = input::load_checkpoint(&args.model, args.tokenizer.as_deref())?;
    let doing = || format!("use the tokenizer of {}", args.model.display());
    let compiled = input::compiled_tokenizer(&checkpoint).or_invalid_input(doing)?;
    console.reply(&Reply::new(compiled.view(), compiled.section().len(), &text))
}
