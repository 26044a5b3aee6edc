//! What is counted on a board.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::board::Board;
use crate::firmware::{self, App};
use crate::random_model::{self, Shape};
use crate::toolchain::Toolchain;
use crate::{emulate, repo};

/// A token that the conversation starts with.
const PROMPT: [u32; 1] = [1];

/// The counts of one board.
pub struct Measurement {
    /// The board.
    pub board: String,
    /// Its core.
    pub cpu: String,
    /// The compiler, without which counts mean nothing.
    pub compiler: String,
    /// Matrix-vector products.
    pub products: Vec<Product>,
    /// Whole tokens.
    pub tokens: Tokens,
}

/// One matrix-vector product: quantising the activations, the product, the outputs' scales.
pub struct Product {
    /// The weights' format.
    pub format: String,
    /// Outputs.
    pub rows: u64,
    /// Inputs.
    pub cols: u64,
    /// Instructions.
    pub instructions: u64,
}

impl Product {
    /// Instructions a multiply-accumulate.
    pub fn per_mac(&self) -> f64 {
        self.instructions as f64 / (self.rows * self.cols) as f64
    }
}

/// Whole tokens of a random model.
pub struct Tokens {
    /// The model.
    pub model: String,
    /// Instructions of the token at each position.
    pub by_position: Vec<u64>,
    /// Where they go, as far as that was asked for: the share of all in per cent, and the function.
    pub functions: Vec<(f64, String)>,
    /// What the firmware takes.
    pub sizes: Sizes,
    /// Stack that the run used, in bytes.
    pub stack_used_bytes: u64,
}

impl Tokens {
    /// The mean over all positions.
    pub fn mean(&self) -> u64 {
        self.by_position.iter().sum::<u64>() / self.by_position.len().max(1) as u64
    }
}

/// What `siskin board build` prints, as far as it matters here.
#[derive(Deserialize)]
pub struct Sizes {
    elf: PathBuf,
    /// Code and constants without the model.
    pub code_bytes: u64,
    /// All of flash.
    pub flash_bytes: u64,
    /// The arena and the statics.
    pub ram_bytes: u64,
    /// Statics without the arena.
    pub static_ram_bytes: u64,
    /// The most stack that the code can use.
    pub stack_bytes: u64,
}

/// How closely to look.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Sums alone.
    Totals,
    /// Also where they come from, which takes the emulator several times as long.
    Functions,
}

/// Counts everything on `board`.
pub fn measure(siskin: &Path, board: &Board, detail: Detail) -> Result<Measurement> {
    let run_dir = repo::root().join("runs").join(format!("bench-{}", board.name));
    fs::create_dir_all(&run_dir).with_context(|| format!("failed to create {}", run_dir.display()))?;
    Ok(Measurement {
        board: board.name.clone(),
        cpu: board.target.cpu.clone(),
        compiler: Toolchain::find(&board.target.triple)?.version()?,
        products: products(board, &run_dir)?,
        tokens: tokens(siskin, board, &run_dir, detail)?,
    })
}

fn products(board: &Board, run_dir: &Path) -> Result<Vec<Product>> {
    let elf = run_dir.join("gemv.elf");
    firmware::build(board, None, Some(App::Gemv), &elf)?;
    emulate::run(&emulate::Args::new(&board.name, &elf, None, run_dir))?;
    let said = read(&run_dir.join("transcript.txt"))?;
    let products = said.lines().filter_map(|line| {
        let [format, rows, cols, _] = line.strip_prefix("gemv ")?.split(' ').collect::<Vec<_>>()[..] else {
            return None;
        };
        Some((format.to_owned(), rows.parse().ok()?, cols.parse().ok()?))
    });
    let products: Vec<(String, u64, u64)> = products.collect();
    let regions = regions(run_dir)?;
    ensure!(
        !products.is_empty() && products.len() == regions.len(),
        "{} counted other products than it named",
        board.name
    );
    let counted = products.into_iter().zip(regions);
    Ok(counted.map(|((format, rows, cols), instructions)| Product { format, rows, cols, instructions }).collect())
}

fn tokens(siskin: &Path, board: &Board, run_dir: &Path, detail: Detail) -> Result<Tokens> {
    let packed = random_model::pack(siskin, board)?;
    // All but one of the positions of the context, which the last would fill.
    let n_tokens = Shape::named(&board.measured.model)?.context_len - PROMPT.len() - 1;
    let mut build = Command::new(siskin);
    build.args(["board", "build", &board.name]).arg(&packed).args(["--format", "json"]).current_dir(repo::root());
    let sizes: Sizes =
        serde_json::from_str(&repo::output(&mut build)?).context("siskin board build printed no such reply")?;
    let request_path = run_dir.join("siskin-request.bin");
    fs::write(&request_path, token_request(&PROMPT, n_tokens))
        .with_context(|| format!("failed to write {}", request_path.display()))?;
    let arguments = emulate::Args::new(&board.name, &sizes.elf, Some(&request_path), run_dir);
    let functions = match detail {
        Detail::Totals => {
            emulate::run(&arguments)?;
            Vec::new()
        }
        Detail::Functions => {
            emulate::run(&arguments.with_profile())?;
            functions(run_dir)?
        }
    };

    let regions = regions(run_dir)?;
    // In order: the prompt; of each token the pass over the model and the draw; the end. The first is drawn from the prompt's prediction.
    ensure!(regions.len() == 2 * n_tokens + 2, "{} counted {} regions of {n_tokens} tokens", board.name, regions.len());
    let mut by_position: Vec<u64> = regions[1..=2 * n_tokens].chunks(2).map(|step| step.iter().sum()).collect();
    by_position[0] += regions[0];
    let said = read(&run_dir.join("transcript.txt"))?;
    let stack = said.lines().find_map(|line| line.strip_prefix("stack ")?.parse().ok());
    let stack_used_bytes = stack.with_context(|| format!("{} did not say what stack it used", board.name))?;
    let model = board.measured.model.clone();
    Ok(Tokens { model, by_position, functions, sizes, stack_used_bytes })
}

/// A greedy request for `n_tokens` after the tokens `prompt`; boards/firmware/src/request.rs has the layout.
pub fn token_request(prompt: &[u32], n_tokens: usize) -> Vec<u8> {
    let (version, token_ids) = (3u32, 1u32);
    let words = [version, token_ids, 4 * prompt.len() as u32, n_tokens as u32];
    let (seed, temperature, top_k) = (0u64, 0f32, 0u32);
    let (typical_p, top_p, min_p, repetition_penalty) = (1f32, 1f32, 0f32, 1f32);
    // Frequency and presence penalties, mirostat's two numbers; then the counts of biases and of stops, and no adapter.
    let none = [0u32; 7];
    let mut file = b"SISKINRQ".to_vec();
    file.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    file.extend(seed.to_le_bytes());
    file.extend(temperature.to_le_bytes());
    file.extend(top_k.to_le_bytes());
    file.extend([typical_p, top_p, min_p, repetition_penalty].iter().flat_map(|number| number.to_le_bytes()));
    file.extend(none.iter().flat_map(|word| word.to_le_bytes()));
    file.extend(prompt.iter().flat_map(|id| id.to_le_bytes()));
    file
}

fn regions(run_dir: &Path) -> Result<Vec<u64>> {
    let counts = read(&run_dir.join("counts.txt"))?;
    Ok(counts.lines().filter_map(|line| line.strip_prefix("region ")?.parse().ok()).collect())
}

/// The lines of profile.txt: instructions, their share, the function.
fn functions(run_dir: &Path) -> Result<Vec<(f64, String)>> {
    let profile = read(&run_dir.join("profile.txt"))?;
    let parsed = profile.lines().filter_map(|line| {
        let (_, rest) = line.trim_start().split_once(' ')?;
        let (share, name) = rest.trim_start().split_once(' ')?;
        Some((share.parse().ok()?, name.to_owned()))
    });
    Ok(parsed.collect())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))
}
