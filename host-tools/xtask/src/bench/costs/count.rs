//! Counts of a model on a board, and the work that `siskin plan` says they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::fit::{Observation, Work};
use super::models::Model;
use crate::bench::device::token_request;
use crate::board::Board;
use crate::emulate::{self, Tools};
use crate::{firmware, random_model, repo};

/// A board, and what counts on it.
pub struct Counter<'a> {
    pub siskin: &'a Path,
    pub board: &'a Board,
    pub tools: &'a Tools,
    /// Where files go.
    pub dir: PathBuf,
}

/// A model packed for the board.
pub struct Packed {
    pub model: Model,
    pub path: PathBuf,
    pub bytes: Vec<u8>,
}

/// How kinds begin of which firmware that is built around its model has nothing.
pub const ROOM: &str = "room-";
/// What takes longer there. Everything else is the same kernels.
const DEARER_WITH_ROOM: [&str; 4] = ["layer", "prompt", "swiglu-element", "token"];

#[derive(Deserialize)]
struct WorkReply {
    reading: Work,
    tokens: Vec<Work>,
}

impl Counter<'_> {
    /// Packs random weights of the model's shape.
    pub fn pack(&self, model: &Model) -> Result<Packed> {
        let folder = repo::root().join("target/random-models").join(model.name());
        let (config, tensors) = model.checkpoint();
        random_model::write_checkpoint(&folder, &config, &tensors)
            .with_context(|| format!("failed to write {}", folder.display()))?;
        let path = self.dir.join(format!("{}.siskin", model.name()));
        let mut compile = Command::new(self.siskin);
        compile.args(["compile", "--quiet", "--board", &self.board.name, "--weights", model.weights]);
        compile.args(["--kv", model.kv, "-o"]).arg(&path).arg(&folder);
        repo::output(compile.current_dir(repo::root()))?;
        let bytes = fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
        Ok(Packed { model: *model, path, bytes })
    }

    /// Builds firmware in which any of `models` can take the first one's place, and counts all of them on it.
    pub fn count_all(&self, models: &[Packed]) -> Result<Vec<Observation>> {
        let Some(first) = models.first() else { return Ok(Vec::new()) };
        let room_bytes = models.iter().map(|model| model.bytes.len()).max().unwrap_or(0).next_multiple_of(1024);
        let arena_bytes = models.iter().map(Packed::arena_bytes).max().unwrap_or(0);
        let path = self.dir.join("room.elf");
        firmware::build_with_room(self.board, &first.path, room_bytes, arena_bytes, &path)?;
        let image = fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let place = image.windows(first.bytes.len()).position(|bytes| bytes == first.bytes);
        let place = place.context("the firmware does not hold its model")?;
        let mut observations = Vec::new();
        for model in models {
            let mut image = image.clone();
            image[place..place + room_bytes].fill(0);
            image[place..place + model.bytes.len()].copy_from_slice(&model.bytes);
            let elf = self.dir.join("patched.elf");
            fs::write(&elf, image).with_context(|| format!("failed to write {}", elf.display()))?;
            observations.extend(self.count(model, &elf)?.into_iter().map(with_room));
        }
        Ok(observations)
    }

    /// The same of one model in firmware that was built around it, as a user's is.
    pub fn count_linked(&self, model: &Packed) -> Result<Vec<Observation>> {
        let elf = self.dir.join("linked.elf");
        firmware::build(self.board, Some(&model.path), None, &elf)?;
        self.count(model, &elf)
    }

    fn count(&self, packed: &Packed, elf: &Path) -> Result<Vec<Observation>> {
        let model = &packed.model;
        // The last of the context's positions stays free.
        let n_tokens = if model.is_encoder() { 1 } else { model.n_new_tokens() };
        let request = self.dir.join("siskin-request.bin");
        let prompt: Vec<u32> = (0..model.prompt_tokens as u32).map(|idx| 2 + idx * 37 % 250).collect();
        fs::write(&request, token_request(&prompt, n_tokens))?;
        emulate::run_with(self.tools, &emulate::Args::new(&self.board.name, elf, Some(&request), &self.dir))?;
        let counts = fs::read_to_string(self.dir.join("counts.txt"))?;
        let regions: Vec<f64> = counts.lines().filter_map(|line| line.strip_prefix("region ")?.parse().ok()).collect();
        let reading = regions.first().copied().context("nothing was counted")?;
        if model.is_encoder() {
            let work = self.work(packed, &[0])?;
            let mut observations = vec![observation(model, "reading", reading, work.reading)];
            let found = regions.get(1).copied().zip(work.tokens.into_iter().next());
            observations.extend(found.map(|(counted, work)| observation(model, "finding", counted, work)));
            return Ok(observations);
        }
        // After the reading: of each token the pass over the model and the draw; the first is drawn from what the reading predicts.
        let steps: Vec<f64> = regions[1..].chunks_exact(2).map(|step| step.iter().sum()).collect();
        let tokens = steps.get(1..).unwrap_or_default();
        ensure!(tokens.len() >= 4, "{} on {} drew {} tokens", model.name(), self.board.name, steps.len());
        let first = model.first_position();
        let work = self.work(packed, &[first, first + tokens.len() - 1])?;
        let [at_first, at_last] = &work.tokens[..] else { anyhow::bail!("siskin plan gave no work") };
        let mut observations = vec![observation(model, "reading", reading, work.reading)];
        let half = tokens.len() / 2;
        for (what, range) in [("early", 0..half), ("late", half..tokens.len())] {
            let middle = (range.start + range.end - 1) as f64 / 2.0 / (tokens.len() - 1) as f64;
            let mean = tokens[range.clone()].iter().sum::<f64>() / range.len() as f64;
            observations.push(observation(model, what, mean, between(at_first, at_last, middle)));
        }
        Ok(observations)
    }

    fn work(&self, packed: &Packed, positions: &[usize]) -> Result<WorkReply> {
        let mut plan = Command::new(self.siskin);
        let positions: Vec<String> = positions.iter().map(usize::to_string).collect();
        plan.args(["plan", "--quiet", "--format", "json", "--board", &self.board.name]);
        plan.args(["--work-at", &positions.join(","), "--prompt-tokens", &packed.model.prompt_tokens.to_string()]);
        let said = repo::output(plan.arg(&packed.path).current_dir(repo::root()))?;
        serde_json::from_str(&said).context("siskin plan printed no such reply")
    }
}

/// Adds what firmware takes besides that has room for any model, as kinds of work of its own: what a compiler that knows its one model leaves out.
fn with_room(mut observation: Observation) -> Observation {
    let in_room = |kind: &&str| Some((format!("{ROOM}{kind}"), *observation.work.get(*kind)?));
    let room: Vec<(String, f64)> = DEARER_WITH_ROOM.iter().filter_map(in_room).collect();
    observation.work.extend(room);
    observation
}

fn observation(model: &Model, what: &str, counted: f64, work: Work) -> Observation {
    Observation { name: format!("{} {what}", model.name()), counted, work }
}

/// The work at `share` of the way from one position to another: it grows evenly.
fn between(first: &Work, last: &Work, share: f64) -> Work {
    let at = |work: &Work, kind: &String| work.get(kind).copied().unwrap_or(0.0);
    last.keys().map(|kind| (kind.clone(), at(first, kind) * (1.0 - share) + at(last, kind) * share)).collect()
}

impl Packed {
    /// What the header says of the arena (runtime/FORMAT.md).
    fn arena_bytes(&self) -> u64 {
        self.bytes.get(80..88).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
    }
}
