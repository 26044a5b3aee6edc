//! Drives the built `siskin` from the outside: nothing of ours is imported, so what is tested is what a user runs.
//!
//! The tests are in `tests/`; here are the [`Program`] that they run, firmware in the emulator ([`device`]) and the models that they run:
//! the [`fixture`] and tiny ones of other [`families`].

pub mod device;
pub mod families;
pub mod fixture;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::{env, fs};

use serde_json::Value;
use tempfile::TempDir;

/// `siskin`, built in the profile of these tests or for another machine, and a folder of its own to run in.
pub struct Program {
    folder: TempDir,
    /// The program, after the emulator that runs it where there is one.
    launcher: Vec<OsString>,
}

/// How a run ended and what it printed.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
}

impl Outcome {
    /// Stdout as the one JSON object that `--format json` promises.
    ///
    /// # Panics
    /// If it is anything else.
    pub fn json(&self) -> Value {
        match serde_json::from_str(&self.stdout) {
            Ok(object @ Value::Object(_)) => object,
            other => panic!("stdout is not one JSON object ({other:?}): {self:#?}"),
        }
    }
}

impl Program {
    /// Builds `siskin` if it is not up to date.
    ///
    /// # Panics
    /// If it does not build.
    pub fn new() -> Self {
        Self::launched_by(vec![siskin_path().into()])
    }

    /// The `siskin` that this command line runs.
    ///
    /// # Panics
    /// If there is no room for a folder.
    pub fn launched_by(launcher: Vec<OsString>) -> Self {
        Self { folder: TempDir::new().expect("a temporary folder"), launcher }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.launcher[0]);
        command.args(&self.launcher[1..]).current_dir(self.folder()).stdin(Stdio::null());
        command
    }

    /// The folder that the program runs in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The path of a file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Writes a file in the folder.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.path(name), contents).expect("a writable file");
    }

    /// Starts `siskin` with `args` and does not wait for it; what it prints is lost.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(&self, args: &[&str]) -> Child {
        let mut command = self.command();
        command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the built siskin")
    }

    /// Runs `siskin` with `args`, however it ends.
    ///
    /// # Panics
    /// If it cannot be started, prints what is not UTF-8, or panics.
    pub fn run(&self, args: &[&str]) -> Outcome {
        outcome(self.command().args(args))
    }

    /// Runs `siskin` with `args` where no file may grow over `file_bytes_max`, as on a disk that is full, however it ends.
    ///
    /// # Panics
    /// As [`Program::run`].
    pub fn run_without_room(&self, args: &[&str], file_bytes_max: u64) -> Outcome {
        // The limit is in blocks of 512 bytes. Left to itself its signal would end the program before it could say anything.
        let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", file_bytes_max / 512);
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh"]).args(&self.launcher).args(args).current_dir(self.folder());
        outcome(command.stdin(Stdio::null()))
    }

    /// Runs `siskin` with `args`, which must end well, and gives stdout.
    ///
    /// # Panics
    /// If it fails.
    pub fn text(&self, args: &[&str]) -> String {
        let outcome = self.run(args);
        assert_eq!(outcome.code, Some(0), "siskin {args:?}: {outcome:#?}");
        outcome.stdout
    }

    /// Runs `siskin` with `args` and `--format json`, which must end well, and gives the reply.
    ///
    /// # Panics
    /// If it fails or prints anything but one JSON object.
    pub fn json(&self, args: &[&str]) -> Value {
        let outcome = self.run(&[args, &["--format", "json"]].concat());
        assert_eq!(outcome.code, Some(0), "siskin {args:?}: {outcome:#?}");
        outcome.json()
    }

    /// Runs `siskin` with `args`, which must fail with `code` and say each of `words` on stderr, and as JSON too.
    ///
    /// # Panics
    /// If it ends otherwise.
    pub fn fails(&self, args: &[&str], code: i32, words: &[&str]) -> Outcome {
        let outcome = self.run(&[args, &["--format", "json"]].concat());
        assert_eq!(outcome.code, Some(code), "siskin {args:?}: {outcome:#?}");
        for word in words {
            assert!(outcome.stderr.contains(word), "siskin {args:?} does not say {word:?}: {outcome:#?}");
        }
        // What is wrong with the command line itself is found before anyone knows that JSON was asked for.
        if !outcome.stdout.is_empty() || code != 2 {
            let object = outcome.json();
            assert_eq!(object["exit_code"], code, "{outcome:#?}");
            assert!(object["error"].is_string(), "{outcome:#?}");
        }
        outcome
    }
}

fn outcome(command: &mut Command) -> Outcome {
    let output = command.output().expect("the built siskin");
    let outcome = Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("stdout in UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("stderr in UTF-8"),
    };
    assert!(!outcome.stderr.contains("panicked"), "{command:?} panicked: {outcome:#?}");
    outcome
}

impl Default for Program {
    fn default() -> Self {
        Self::new()
    }
}

/// What users are told of the replies.
const REPLIES_README: &str = include_str!("../../../host-tools/siskin/README.md");

/// Asserts that `object` has exactly the keys in `keys`, which are separated by spaces, and that each is documented.
///
/// # Panics
/// If it has others, or lacks one.
pub fn assert_keys(object: &Value, keys: &str) {
    let mut expected: Vec<&str> = keys.split_whitespace().collect();
    let mut found: Vec<&str> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected, "in {object}");
    for key in found {
        assert!(REPLIES_README.contains(&format!("`{key}`")), "host-tools/siskin/README.md does not explain `{key}`");
    }
}

/// Where the build for these tests puts `siskin`, once it is up to date.
fn siskin_path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        // A test's own executable is <target>/<profile>/deps/<name>.
        let executable = env::current_exe().expect("the path of this test");
        let profile_dir = executable.ancestors().nth(2).expect("a profile's folder");
        let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--quiet", "--package", "siskin", "--profile", profile, "--target-dir"])
            .arg(profile_dir.parent().expect("the target folder"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(built.is_ok_and(|status| status.success()), "siskin does not build");
        profile_dir.join("siskin").with_extension(env::consts::EXE_EXTENSION)
    })
}
