//! Firmware in the emulator without `siskin` between: built by xtask, asked in bytes, and what it says read back.

use std::ffi::OsString;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

use crate::Program;
use crate::families::LABELS;

/// Requests that one run of firmware serves.
pub const REQUESTS_MAX: usize = 10;

/// The repository's root.
///
/// # Panics
/// If this package does not lie in it.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the repository's root")
}

/// The folder of the boards.
pub fn boards_dir() -> String {
    root().join("boards").display().to_string()
}

/// The name of every folder of boards/ that describes a board with an emulator, in order.
///
/// # Panics
/// If there is no boards/.
pub fn boards() -> Vec<String> {
    let folders = root().join("boards").read_dir().expect("the boards").flatten();
    let is_emulated = |toml: String| toml.contains("\n[emulator]\n");
    let folders = folders.filter(|folder| fs::read_to_string(folder.path().join("board.toml")).is_ok_and(is_emulated));
    let mut names: Vec<String> = folders.map(|folder| folder.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Runs an automation task, with variables in its environment, however it ends.
///
/// # Panics
/// If cargo cannot be started.
pub fn xtask(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = cargo(&["run", "--quiet", "--package", "xtask", "--"]);
    command.args(args).envs(variables.iter().copied()).output().expect("cargo xtask")
}

fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// The program that runs firmware, where `cargo xtask emulate` builds it.
fn qemu_run() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let tools = root().join("target/tools");
        let packages = ["--package", "qemu-run", "--package", "icount"];
        let mut build = cargo(&["build", "--quiet", "--release"]);
        let built = build.args(packages).arg("--target-dir").arg(&tools).status();
        assert!(built.is_ok_and(|status| status.success()), "qemu-run does not build");
        tools.join("release/qemu-run")
    })
}

/// Every setting of the sampler; the neutral ones are those of [`GREEDY`].
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// 0 is greedy.
    pub temperature: f32,
    /// 0 keeps every token.
    pub top_k: u32,
    /// 1 keeps every token, as for top-p.
    pub typical_p: f32,
    /// See typical-p.
    pub top_p: f32,
    /// 0 keeps every token.
    pub min_p: f32,
    /// 1 penalises nothing.
    pub repetition: f32,
    /// 0 penalises nothing, as for presence.
    pub frequency: f32,
    /// See frequency.
    pub presence: f32,
    /// Mirostat's tau and eta; 0 is none.
    pub mirostat: (f32, f32),
    /// What is added to tokens' logits; minus infinity bans.
    pub biases: &'static [(u32, f32)],
    /// Texts that end the text.
    pub stops: &'static [&'static str],
    /// The name of the adapter that changes the weights; empty is none.
    pub adapter: &'static str,
    /// Beams of a search, its length penalty, and the place of its early stopping in [`STOPPING`]; no beams are none.
    pub beams: (u32, f32, usize),
    /// Where the random numbers start.
    pub seed: u64,
}

/// The likeliest token.
pub const GREEDY: Setting = Setting {
    temperature: 0.0,
    top_k: 0,
    typical_p: 1.0,
    top_p: 1.0,
    min_p: 0.0,
    repetition: 1.0,
    frequency: 0.0,
    presence: 0.0,
    mirostat: (0.0, 0.0),
    biases: &[],
    stops: &[],
    adapter: "",
    beams: (0, 1.0, 0),
    seed: 0,
};

/// When a beam search stops, as flags name it, in the order of a request's codes.
pub const STOPPING: [&str; 3] = ["likely", "full", "never"];

impl Setting {
    /// The flags of `siskin run` that ask for the same.
    pub fn flags(&self) -> Vec<String> {
        let mut flags = match self.beams {
            (0, ..) => vec![format!("--temperature={}", self.temperature), format!("--seed={}", self.seed)],
            (n, penalty, stopping) => vec![
                format!("--beams={n}"),
                format!("--length-penalty={penalty}"),
                format!("--early-stopping={}", STOPPING[stopping]),
            ],
        };
        let mut flag = |name: &str, is_set: bool, value: String| {
            if is_set {
                flags.push(format!("--{name}={value}"));
            }
        };
        flag("top-k", self.top_k != 0, self.top_k.to_string());
        for (name, number, neutral) in [
            ("typical-p", self.typical_p, 1.0),
            ("top-p", self.top_p, 1.0),
            ("min-p", self.min_p, 0.0),
            ("repetition-penalty", self.repetition, 1.0),
            ("frequency-penalty", self.frequency, 0.0),
            ("presence-penalty", self.presence, 0.0),
            ("mirostat-tau", self.mirostat.0, 0.0),
            ("mirostat-eta", self.mirostat.1, 0.0),
        ] {
            flag(name, number != neutral, number.to_string());
        }
        // The host adds bans last; order matters to no sum with minus infinity.
        for &(token, bias) in self.biases {
            flag("logit-bias", bias.is_finite(), format!("{token}={bias}"));
            flag("ban", !bias.is_finite(), token.to_string());
        }
        self.stops.iter().for_each(|stop| flag("stop", true, (*stop).to_owned()));
        flag("adapter", !self.adapter.is_empty(), self.adapter.to_owned());
        flags
    }
}

/// A request's bytes, as boards/firmware/src/request.rs describes them.
pub fn request(prompt: &str, max_new_tokens: u32, setting: &Setting) -> Vec<u8> {
    let mut file = b"SISKINRQ".to_vec();
    let mut put = |word: u32| file.extend(word.to_le_bytes());
    [
        if setting.beams.0 > 0 { 5 } else { 3 },
        0,
        prompt.len() as u32,
        max_new_tokens,
        setting.seed as u32,
        (setting.seed >> 32) as u32,
    ]
    .into_iter()
    .for_each(&mut put);
    [setting.temperature.to_bits(), setting.top_k].into_iter().for_each(&mut put);
    let Setting { typical_p, top_p, min_p, repetition, frequency, presence, mirostat, .. } = *setting;
    let numbers = [typical_p, top_p, min_p, repetition, frequency, presence, mirostat.0, mirostat.1];
    numbers.map(f32::to_bits).into_iter().for_each(&mut put);
    put(setting.biases.len() as u32);
    put(setting.stops.len() as u32);
    put(setting.adapter.len() as u32);
    if let (n @ 1.., penalty, stopping) = setting.beams {
        [0, 0, 0, n, penalty.to_bits(), stopping as u32].into_iter().for_each(&mut put);
    }
    setting.biases.iter().flat_map(|&(token, bias)| [token, bias.to_bits()]).for_each(&mut put);
    file.extend(prompt.bytes());
    for stop in setting.stops {
        file.extend((stop.len() as u32).to_le_bytes());
        file.extend(stop.bytes());
    }
    file.extend(setting.adapter.bytes());
    file
}

/// What came of one request, on a board or on the host: all that must be the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reply {
    /// Tokens of the prompt.
    pub n_prompt_tokens: Option<u64>,
    /// The tokens that were drawn.
    pub tokens: Vec<u64>,
    /// The text that they are.
    pub text: String,
    /// Why no more came.
    pub end: String,
    /// What an encoder found, as records; scores are in the hash alone.
    pub found: Vec<String>,
    /// Of the logits.
    pub hash: String,
    /// The bits of what a beam search's best text scores.
    pub score: String,
    /// Why nothing came.
    pub error: Option<String>,
}

impl Reply {
    /// What `siskin run --format json` replied.
    pub fn of_host(reply: &Value) -> Self {
        let text = |key: &str| reply[key].as_str().unwrap_or_default().to_owned();
        let list = |key: &str| reply[key].as_array().cloned().unwrap_or_default();
        let label = |label: &Value| LABELS.iter().position(|name| label == name).expect("a label of the fixture");
        let mut found = Vec::new();
        found.extend(reply.get("label").map(|name| format!("label {}", label(name))));
        let tags = list("tags");
        found.extend((1..).zip(&tags).map(|(at, tag): (usize, _)| format!("tag {at} {}", label(&tag["label"]))));
        found.extend(list("fills").iter().map(|fill| format!("fill {} {}", fill["token_idx"], fill["token"])));
        let vector: Vec<f64> = list("vector").iter().filter_map(Value::as_f64).collect();
        if !vector.is_empty() {
            let bits: Vec<String> = vector.iter().map(|&x| format!("{:08x}", (x as f32).to_bits())).collect();
            found.push(format!("vector {}", bits.join(" ")));
        }
        Self {
            n_prompt_tokens: reply["n_prompt_tokens"].as_u64(),
            tokens: list("tokens").iter().filter_map(Value::as_u64).collect(),
            text: text("text"),
            end: text("end"),
            found,
            hash: text("logits_hash"),
            score: reply["score"].as_f64().map_or(String::new(), |score| format!("{:08x}", (score as f32).to_bits())),
            error: None,
        }
    }

    /// The replies to each request of a run, from its records.
    pub fn all_of_board(said: &str) -> Vec<Self> {
        let (mut replies, mut reply) = (Vec::new(), Self::default());
        for line in said.lines() {
            let Some((keyword, value)) = line.split_once(' ') else { continue };
            match keyword {
                "prompt" => reply.n_prompt_tokens = value.parse().ok(),
                "token" => reply.tokens.extend(value.parse::<u64>()),
                "text" => reply.text += &unescaped(value),
                "end" => reply.end = value.to_owned(),
                "label" | "tag" | "fill" | "vector" => reply.found.push(line.to_owned()),
                "score" => reply.score = value.to_owned(),
                "hash" => reply.hash = value.to_owned(),
                "error" => reply.error = Some(value.to_owned()),
                _ => {}
            }
            // Either is a request's last record.
            if matches!(keyword, "hash" | "error") {
                replies.push(std::mem::take(&mut reply));
            }
        }
        replies
    }
}

fn unescaped(escaped: &str) -> String {
    let mut characters = escaped.chars();
    let mut text = String::new();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            (_, true) => text.extend(characters.next().map(|next| match next {
                'n' => '\n',
                'r' => '\r',
                other => other,
            })),
            (other, false) => text.push(other),
        }
    }
    text
}

/// The values of the records with this keyword.
pub fn records<'t>(said: &'t str, keyword: &str) -> Vec<&'t str> {
    said.lines().filter_map(|line| line.strip_prefix(keyword)?.strip_prefix(' ')).collect()
}

/// Firmware, with its model.
pub struct Image<'p> {
    program: &'p Program,
    board: String,
    elf: Vec<u8>,
    /// Where the model lies in it.
    room: Range<usize>,
}

impl<'p> Image<'p> {
    /// Builds it around this packed model, which the compiler knows.
    ///
    /// # Panics
    /// If it does not build.
    pub fn linked(program: &'p Program, board: &str, model: &[u8]) -> Self {
        Self::build(program, board, model, &[], &[], model.len())
    }

    /// Builds it around the packed model `first`, with room for any of `room_bytes` that need at most `arena_bytes`.
    ///
    /// # Panics
    /// If it does not build.
    pub fn with_room(program: &'p Program, board: &str, first: &[u8], room_bytes: usize, arena_bytes: usize) -> Self {
        let (room, arena) = (room_bytes.to_string(), arena_bytes.to_string());
        Self::build(program, board, first, &["--room", &room], &[("SISKIN_ARENA_BYTES", &arena)], room_bytes)
    }

    /// Builds the application `selftest` around this packed model, with room for any of `room_bytes` that need at most `arena_bytes`, or for this
    /// one alone; with variables in the build's environment.
    ///
    /// # Panics
    /// If it does not build.
    pub fn that_tests_itself(
        program: &'p Program,
        board: &str,
        model: &[u8],
        room: Option<(usize, usize)>,
        variables: &[(&str, &str)],
    ) -> Self {
        let app = ["--app", "selftest"];
        let Some((room_bytes, arena_bytes)) = room else {
            return Self::build(program, board, model, &app, variables, model.len());
        };
        let (room, arena) = (room_bytes.to_string(), arena_bytes.to_string());
        let variables = [variables, &[("SISKIN_ARENA_BYTES", &arena)]].concat();
        Self::build(program, board, model, &[&app[..], &["--room", &room]].concat(), &variables, room_bytes)
    }

    fn build(
        program: &'p Program,
        board: &str,
        model: &[u8],
        flags: &[&str],
        variables: &[(&str, &str)],
        room_bytes: usize,
    ) -> Self {
        program.write("first.siskin", model);
        let path = |name: &str| program.path(name).display().to_string();
        let (first, elf) = (path("first.siskin"), path("first.elf"));
        let args = ["firmware", "--board", board, "--model", &first, "--out", &elf];
        let built = xtask(&[&args, flags].concat(), variables);
        assert!(built.status.success(), "{board}: {}", String::from_utf8_lossy(&built.stderr));
        let elf = fs::read(&elf).expect("the firmware");
        let start = elf.windows(model.len()).position(|bytes| bytes == model).expect("the model in the firmware");
        Self { program, board: board.to_owned(), elf, room: start..start + room_bytes }
    }

    /// Puts these bytes in the model's place.
    ///
    /// # Panics
    /// If there is no room for them.
    pub fn put(&mut self, model: &[u8]) {
        let room = &mut self.elf[self.room.clone()];
        room.fill(0);
        room[..model.len()].copy_from_slice(model);
    }

    /// Runs it on at most [`REQUESTS_MAX`] requests: what it said, and the exit code.
    ///
    /// # Panics
    /// If the emulator cannot be started.
    pub fn run(&self, requests: &[Vec<u8>]) -> (String, Option<i32>) {
        let program = self.program;
        program.write("run.elf", &self.elf);
        let mut command = Command::new(qemu_run());
        command.args(["--timeout", "300", "--board", &self.board, "--boards-dir", &boards_dir()]);
        command.arg("--run-dir").arg(program.path("run")).arg(program.path("run.elf"));
        for (idx, request) in requests.iter().enumerate() {
            let name = format!("request-{idx}");
            program.write(&name, request);
            command.args([OsString::from("--request"), program.path(&name).into()]);
        }
        let output = command.output().expect("qemu-run");
        (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
    }
}
