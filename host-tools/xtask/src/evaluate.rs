//! `cargo xtask evaluate`: recipes trained in full and measured. Their last results are in recipes/RESULTS.md.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{data, repo};

const BOARD: &str = "netduinoplus2";
/// The recipe whose model goes on a board.
const PACKED: &str = "shakespeare-260k";

/// What to train.
#[derive(clap::Args)]
pub struct Args {
    /// Recipes, by name without `.toml`.
    #[arg(default_value = PACKED)]
    recipes: Vec<String>,
}

/// Trains each recipe, which measures it on what was held out; the one for the boards is packed, and measured in both forms.
pub fn run(args: &Args) -> Result<()> {
    let siskin = repo::release_siskin()?;
    for name in &args.recipes {
        let recipe = Path::new("recipes").join(name).with_extension("toml");
        ensure!(repo::root().join(&recipe).exists(), "there is no {}", recipe.display());
        fetch_data_of(&recipe)?;
        let out = train(&siskin, &recipe, name)?;
        if name == PACKED {
            pack_and_compare(&siskin, &out)?;
        }
    }
    Ok(())
}

/// Makes or fetches what a recipe reads.
fn fetch_data_of(recipe: &Path) -> Result<()> {
    let text = std::fs::read_to_string(repo::root().join(recipe)).with_context(|| recipe.display().to_string())?;
    if text.contains("letters.jsonl") { data::letters() } else { data::shakespeare() }?;
    Ok(())
}

fn command(siskin: &Path) -> Command {
    let mut command = Command::new(siskin);
    command.current_dir(repo::root());
    command
}

fn train(siskin: &Path, recipe: &Path, name: &str) -> Result<PathBuf> {
    repo::announce(&format!("training {name}; a run that was interrupted goes on"));
    let out = repo::root().join("runs").join(name);
    let mut train = command(siskin);
    train.arg("train").arg(recipe).arg("--out").arg(&out);
    if out.exists() {
        train.arg("--resume");
    }
    repo::run(&mut train)?;
    Ok(out)
}

fn pack_and_compare(siskin: &Path, out: &Path) -> Result<()> {
    let packed = out.join("model.siskin");
    let mut compile = command(siskin);
    repo::run(compile.arg("compile").arg(out).args(["--board", BOARD, "--weights", "int8", "-o"]).arg(&packed))?;
    repo::announce("bits per byte of the held-out text, packed and in f32");
    let held_out = out.join("validation.txt");
    repo::run(command(siskin).arg("eval").arg(&packed).arg("--against").arg(out).arg("--text").arg(&held_out))
}
