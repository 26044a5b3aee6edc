//! `cargo xtask evaluate`: recipes trained in full and measured. Their last results are in recipes/RESULTS.md.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{data, exact_match_figure, repo};

const BOARD: &str = "netduinoplus2";
/// Two models of the same task, which share a figure, and what it calls them.
const COMPARED: [(&str, &str); 2] = [("letters-transformer", "Transformer"), ("letters-gru", "GRU encoder-decoder")];
/// The recipe whose model goes on a board.
const PACKED: &str = "shakespeare-260k";

/// What to train.
#[derive(clap::Args)]
pub struct Args {
    /// Recipes, by name without `.toml`.
    #[arg(default_value = PACKED)]
    recipes: Vec<String>,
}

/// Trains each recipe, which measures it on what was held out; the one for the boards is packed, and measured in both forms. Where both
/// of the letters were trained, draws recipes/letters.svg.
pub fn run(args: &Args) -> Result<()> {
    let siskin = repo::release_siskin()?;
    let mut outcomes = BTreeMap::new();
    for name in &args.recipes {
        let recipe = Path::new("recipes").join(name).with_extension("toml");
        ensure!(repo::root().join(&recipe).exists(), "there is no {}", recipe.display());
        fetch_data_of(&recipe)?;
        let out = repo::root().join("runs").join(name);
        let outcome = train(&siskin, &recipe, &out)?;
        println!("{name}: {}", serde_json::to_string_pretty(&outcome)?);
        outcomes.insert(name.as_str(), outcome);
        if name == PACKED {
            pack_and_compare(&siskin, &out)?;
        }
    }
    let [(first, first_shown), (second, second_shown)] = COMPARED;
    if let (Some(first), Some(second)) = (outcomes.get(first), outcomes.get(second)) {
        let figure = exact_match_figure::draw(&[(first_shown, first), (second_shown, second)])?;
        fs::write(repo::root().join("recipes/letters.svg"), figure)?;
    }
    Ok(())
}

/// Makes or fetches what a recipe reads.
fn fetch_data_of(recipe: &Path) -> Result<()> {
    let text = fs::read_to_string(repo::root().join(recipe)).with_context(|| recipe.display().to_string())?;
    if text.contains("letters.jsonl") { data::letters() } else { data::shakespeare() }?;
    Ok(())
}

fn command(siskin: &Path) -> Command {
    let mut command = Command::new(siskin);
    command.current_dir(repo::root());
    command
}

/// Trains, or goes on with a run that was interrupted; gives the reply.
fn train(siskin: &Path, recipe: &Path, out: &Path) -> Result<Value> {
    repo::announce(&format!("training {}; a run that was interrupted goes on", recipe.display()));
    let mut train = command(siskin);
    train.arg("train").arg(recipe).arg("--out").arg(out).args(["--format", "json"]);
    if out.exists() {
        train.arg("--resume");
    }
    Ok(serde_json::from_str(&repo::output(train.stderr(Stdio::inherit()))?)?)
}

fn pack_and_compare(siskin: &Path, out: &Path) -> Result<()> {
    let packed = out.join("model.siskin");
    let mut compile = command(siskin);
    repo::run(compile.arg("compile").arg(out).args(["--board", BOARD, "--weights", "int8", "-o"]).arg(&packed))?;
    repo::announce("bits per byte of the held-out text, packed and in f32");
    let held_out = out.join("validation.txt");
    repo::run(command(siskin).arg("eval").arg(&packed).arg("--against").arg(out).arg("--text").arg(&held_out))
}
