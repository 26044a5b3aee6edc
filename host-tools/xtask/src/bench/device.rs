//! `cargo xtask bench device`: instructions per generated token, counted exactly in the emulator and recorded in boards/BENCH.md.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::board::{Board, boards_dir};
use crate::toolchain::Toolchain;
use crate::{emulate, random_model, repo};

/// Positions that count: those before this one.
const POSITIONS: usize = 32;
const PROMPT: [u32; 1] = [1];
/// Most instructions that a token may take.
const BUDGET: u64 = 600_000;
const N_TOKENS: usize = POSITIONS - PROMPT.len();

/// What `siskin board build` prints, as far as it matters here.
#[derive(Deserialize)]
struct Sizes {
    elf: PathBuf,
    code_bytes: u64,
    ram_bytes: u64,
    stack_bytes: u64,
}

/// Measures on every board.
pub fn run() -> Result<()> {
    let siskin = repo::release_siskin()?;
    let mut lines = Vec::new();
    for board in Board::all()? {
        repo::announce(&format!("counting instructions on {}", board.name));
        let line = measure(&siskin, &board)?;
        eprintln!("{line}");
        lines.push(line);
    }
    let path = boards_dir().join("BENCH.md");
    fs::write(&path, page(&lines)).with_context(|| format!("failed to write {}", path.display()))?;
    eprintln!("written to {}", path.display());
    Ok(())
}

/// One row of the table.
fn measure(siskin: &Path, board: &Board) -> Result<String> {
    let packed = random_model::pack(siskin, board)?;
    let mut build = Command::new(siskin);
    build.args(["board", "build", &board.name]).arg(&packed).args(["--format", "json"]).current_dir(repo::root());
    let sizes: Sizes =
        serde_json::from_str(&repo::output(&mut build)?).context("siskin board build printed no such reply")?;
    let run_dir = repo::root().join("runs").join(format!("bench-{}", board.name));
    fs::create_dir_all(&run_dir).with_context(|| format!("failed to create {}", run_dir.display()))?;
    let request_path = run_dir.join("siskin-request.bin");
    fs::write(&request_path, request()).with_context(|| format!("failed to write {}", request_path.display()))?;
    emulate::run(&emulate::Args::new(&board.name, &sizes.elf, &request_path, &run_dir))?;

    let regions = regions(&run_dir.join("counts.txt"))?;
    // In order: the prompt; the first token, which is drawn from the prompt's own prediction; the others; the end.
    let steps = regions.get(2..=N_TOKENS).context("the emulator counted too few regions")?;
    let most = steps.iter().max().copied().unwrap_or(0);
    ensure!(most <= BUDGET, "a token takes {most} instructions on {}, more than {BUDGET}", board.name);
    let mean = steps.iter().sum::<u64>() / steps.len() as u64;
    let toolchain = Toolchain::find(&board.target.triple)?.version()?;
    let Sizes { code_bytes, ram_bytes, stack_bytes, .. } = sizes;
    Ok(format!(
        "| {} | {} | {most} | {mean} | {} | {code_bytes} | {ram_bytes} | {stack_bytes} | {toolchain} |",
        board.name, board.target.cpu, regions[0]
    ))
}

/// A greedy request for the tokens after [`PROMPT`]; boards/firmware/src/request.rs has the layout.
fn request() -> Vec<u8> {
    let (version, token_ids, top_k, n_stops) = (1u32, 1u32, 0u32, 0u32);
    let words = [version, token_ids, 4 * PROMPT.len() as u32, N_TOKENS as u32];
    let (seed, temperature, top_p, min_p, repetition_penalty) = (0u64, 0f32, 1f32, 0f32, 1f32);
    let mut file = b"SISKINRQ".to_vec();
    file.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    file.extend(seed.to_le_bytes());
    file.extend(temperature.to_le_bytes());
    file.extend(top_k.to_le_bytes());
    file.extend([top_p, min_p, repetition_penalty].iter().flat_map(|number| number.to_le_bytes()));
    file.extend(n_stops.to_le_bytes());
    file.extend(PROMPT.iter().flat_map(|id| id.to_le_bytes()));
    file
}

fn regions(counts_path: &Path) -> Result<Vec<u64>> {
    let counts =
        fs::read_to_string(counts_path).with_context(|| format!("failed to read {}", counts_path.display()))?;
    Ok(counts.lines().filter_map(|line| line.strip_prefix("region ")?.parse().ok()).collect())
}

fn page(lines: &[String]) -> String {
    format!(
        "# Instructions per token\n\n\
         Written by `cargo xtask bench device`: a model with random weights in the shape of stories260K (dim 64, hidden 172, 5 layers,\n\
         8 heads, 4 key heads, vocabulary 512, context 256; where board.toml says `tiny`, dim 32 and 2 layers), int8, greedy, at positions {} to {}. A token is one `decode_step`, the\n\
         hash of its logits, and the draw; the counts are exact (host-tools/icount) and do not depend on the host.\n\
         The emulators have no model of time: these are instructions, not cycles.\n\n\
         | board | core | most | mean | prompt of {} | code bytes | RAM bytes | stack bytes | compiler |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n{}\n",
        PROMPT.len(),
        POSITIONS - 1,
        PROMPT.len(),
        lines.join("\n")
    )
}
