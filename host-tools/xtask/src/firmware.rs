//! `cargo xtask firmware`: a board's firmware with a packed model inside.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::board::{Board, boards_dir};
use crate::toolchain::Toolchain;
use crate::{example, random_model, repo};

/// What to build.
#[derive(clap::Args)]
pub struct Args {
    /// A folder of boards/.
    #[arg(long)]
    board: String,
    /// The packed model.
    #[arg(long, value_name = "FILE", required_unless_present = "app")]
    model: Option<PathBuf>,
    /// Build this application instead of the one that generates; of them `greedy`, `selftest` and `serial` have a model.
    #[arg(long, value_enum)]
    app: Option<App>,
    /// Link without a panic handler, which fails where a panic can be reached.
    #[arg(long)]
    panic_free: bool,
    /// Leave so much flash for the model and build in the code for all families and for grammars: another model can then be put in
    /// this one's place, filled up with zeros. `SISKIN_ARENA_BYTES` must be enough for each.
    #[arg(long, value_name = "BYTES", requires = "model", conflicts_with = "panic_free")]
    room: Option<u64>,
    /// Where the firmware goes.
    #[arg(long, value_name = "ELF")]
    out: PathBuf,
}

/// What a board can run besides generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum App {
    /// Tries every kernel.
    Conformance,
    /// Products of fixed shapes, for their instructions to be counted.
    Gemv,
    /// Generates without tokenizer and sampler: the most probable tokens after a prompt of tokens.
    Greedy,
    /// Tries the checksums, the kernels, and what the model is known to say.
    Selftest,
    /// Talks over a serial line, on boards that have a driver for theirs.
    Serial,
}

impl App {
    /// The feature that puts it into the firmware.
    fn feature(self) -> &'static str {
        match self {
            Self::Conformance => "conformance",
            Self::Gemv => "gemv",
            Self::Greedy => "greedy",
            Self::Selftest => "selftest",
            Self::Serial => "serial",
        }
    }
}

/// Builds what the command line asks for, and puts it where that says.
pub fn run(args: &Args) -> Result<()> {
    let board = Board::load(&args.board)?;
    let model = args.model.as_deref().map(find_model).transpose()?;
    let has_model = matches!(args.app, None | Some(App::Greedy | App::Selftest | App::Serial));
    ensure!(
        model.is_some() == has_model,
        "this application is built with{} a model",
        if has_model { "" } else { "out" }
    );
    ensure!(
        args.room.is_none() || matches!(args.app, None | Some(App::Selftest)),
        "this application is for the one model that it is built with"
    );
    if args.panic_free {
        return build_panic_free(&board, model.as_deref(), args.app, &args.out);
    }
    build_with(&board, model.as_deref(), args.room, args.app, &[], &[], &args.out)
}

/// Builds an application, or with `None` the one that generates with `model`, into `out`.
pub fn build(board: &Board, model: Option<&Path>, app: Option<App>, out: &Path) -> Result<()> {
    build_with(board, model, None, app, &[], &[], out)
}

/// Builds the application that generates with `model`, in whose place any other model of at most `room_bytes` can be put that needs at most
/// `arena_bytes`.
pub fn build_with_room(board: &Board, model: &Path, room_bytes: usize, arena_bytes: u64, out: &Path) -> Result<()> {
    let variables = [("SISKIN_ARENA_BYTES", arena_bytes.to_string())];
    build_with(board, Some(model), Some(room_bytes as u64), None, &[], &variables, out)
}

/// The same, which fails where a panic can be reached.
pub fn build_panic_free(board: &Board, model: Option<&Path>, app: Option<App>, out: &Path) -> Result<()> {
    build_with(board, model, None, app, &["--features=siskin-firmware/panic-free"], &[], out).context(
        "a link without a panic handler fails: a panic can be reached; `cargo xtask sizes --image` lists where",
    )
}

/// `room` is the flash that is left for other models in this one's place.
fn build_with(
    board: &Board,
    model: Option<&Path>,
    room: Option<u64>,
    app: Option<App>,
    options: &[&str],
    variables: &[(&str, String)],
    out: &Path,
) -> Result<()> {
    let package = &board.name;
    let target_dir = repo::root().join("target/boards");
    fs::create_dir_all(&target_dir).with_context(|| format!("failed to create {}", target_dir.display()))?;
    // Two builds around different models would overwrite each other's result before it is copied.
    let lock_path = target_dir.join("xtask.lock");
    let lock = File::create(&lock_path).with_context(|| format!("failed to create {}", lock_path.display()))?;
    lock.lock().with_context(|| format!("failed to lock {}", lock_path.display()))?;

    let toolchain = Toolchain::find(&board.target.triple)?;
    let mut cargo = toolchain.cargo("build", &board.target.triple, &board.target.cpu);
    cargo.args(["--quiet", "--release", "--package", package, "--target-dir"]).arg(&target_dir);
    cargo.env("SISKIN_LAYOUT", &board.target.layout).envs(model.map(|model| ("SISKIN_MODEL", model)));
    cargo.args(options).envs(variables.iter().map(|(name, value)| (name, value)));
    if let Some(app) = app {
        cargo.arg(format!("--features=siskin-firmware/{}", app.feature()));
    }
    if model.is_some() || app == Some(App::Gemv) {
        cargo.args(generation_features(board, model.is_some() && room.is_none()));
    }
    cargo.envs(room.map(|bytes| ("SISKIN_MODEL_ROOM", bytes.to_string())));
    if room.is_some() || model.map(is_of_other_family).transpose()?.unwrap_or(false) {
        cargo.arg("--features=siskin-firmware/families");
    }
    let has_adapters = model.map(has_adapters).transpose()?.unwrap_or(false);
    let has_room = room.is_some() || env::var_os("SISKIN_ADAPTER_BYTES").is_some();
    if matches!(app, None | Some(App::Serial)) && (has_room || has_adapters) {
        cargo.arg("--features=siskin-firmware/adapters");
    }
    repo::run_quietly(&mut cargo)?;
    let built = target_dir.join(&board.target.triple).join("release").join(package);
    put(&built, out)
}

/// What switches off what applications that generate have no use for; `is_linked` where the model will stay the one that it is.
fn generation_features(board: &Board, is_linked: bool) -> Vec<&'static str> {
    let mut features = Vec::new();
    if is_linked {
        features.push("--features=siskin-firmware/linked-model,siskin-runtime/linked-model");
    }
    // Only a core without kernels of its own reads this layout fastest.
    if board.target.layout != "row-major" {
        features.push("--features=siskin-firmware/sole-backend");
    }
    features
}

/// Whether a packed file says that its model is no Llama (runtime/FORMAT.md): such a one needs the runtime's code for all families.
fn is_of_other_family(model: &Path) -> Result<bool> {
    const PARTS: std::ops::Range<usize> = 88..120;
    let file = fs::read(model).with_context(|| format!("failed to read {}", model.display()))?;
    Ok(file.get(PARTS).is_some_and(|parts| parts.iter().any(|&byte| byte != 0)))
}

/// Whether a packed file has adapters (runtime/FORMAT.md).
fn has_adapters(model: &Path) -> Result<bool> {
    const HEADER_BYTES: usize = 128;
    const ENTRY_BYTES: usize = 32;
    const ADAPTER: u32 = 9;
    let file = fs::read(model).with_context(|| format!("failed to read {}", model.display()))?;
    let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |&word| u32::from_le_bytes(word));
    let n_sections = file.get(12..).map_or(0, word) as usize;
    let entries = file.get(HEADER_BYTES..).unwrap_or_default().chunks(ENTRY_BYTES);
    Ok(entries.take(n_sections).any(|entry| word(entry) == ADAPTER))
}

fn find_model(model: &Path) -> Result<PathBuf> {
    ensure!(model.is_file(), "there is no packed model {}", model.display());
    model.canonicalize().with_context(|| format!("failed to find {}", model.display()))
}

/// Lints the firmware of every board, in the order of the boards.
pub fn lint(siskin: &Path) -> Result<()> {
    repo::run(repo::cargo(["fmt", "--all", "--check"]).current_dir(boards_dir()))?;
    for board in Board::all()? {
        let toolchain = Toolchain::find(&board.target.triple)?;
        toolchain.ensure_clippy()?;
        let mut clippy = toolchain.cargo("clippy", &board.target.triple, &board.target.cpu);
        // The firmware, which it depends on, is linted with it; named beside it, its build script would have the board's features.
        clippy.args(["--quiet", "--release", "--package", &board.name, "--target-dir"]);
        clippy.arg(repo::root().join("target/boards")).args(generation_features(&board, true));
        clippy.args(["--", "-D", "warnings"]);
        repo::run(clippy.env("SISKIN_MODEL", random_model::pack(siskin, &board)?))?;
    }
    // The one example that brings no model takes any: it says at run time that this one has no grammar.
    example::lint(&repo::root().join("tests/golden/shakespeare-260k.siskin"))
}

/// Copies under a temporary name, then renames, so that `out` is never half a file.
pub fn put(built: &Path, out: &Path) -> Result<()> {
    if let Some(dir) = out.parent() {
        fs::create_dir_all(dir).with_context(|| format!("failed to create {}", dir.display()))?;
    }
    let partial = out.with_extension(format!("{}.partial", std::process::id()));
    fs::copy(built, &partial).with_context(|| format!("failed to copy {}", built.display()))?;
    fs::rename(&partial, out).with_context(|| format!("failed to write {}", out.display()))
}
