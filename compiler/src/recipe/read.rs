//! Reading a recipe: the file, the overrides, the limits.

use super::{
    BatchRamp, DataSection, ObjectiveSection, OptimizerSection, PackingRule, Recipe, TrainSection, checkpoint,
};
use crate::data::Deduplication;
use crate::model::{ArchitectureError, Kind};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Why a recipe cannot be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("cannot read the recipe {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not TOML, or has a key that does not exist, or lacks one.
    #[error("{}: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what, with the keys that exist.
        source: Box<toml::de::Error>,
    },
    /// An override is not of the form `section.key=value`.
    #[error("--set {text}: write section.key=value, as in train.steps=200")]
    OverrideForm {
        /// The override.
        text: String,
    },
    /// An override names a key that does not exist or gives it a value of the wrong kind.
    #[error("--set {text}: {reason}")]
    Override {
        /// The override.
        text: String,
        /// What is wrong, with the keys that exist.
        reason: String,
    },
    /// A value is outside its limits.
    #[error("{key} is {value}, but must be {limits}")]
    OutOfRange {
        /// The key, with its section.
        key: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        limits: &'static str,
    },
    /// The objective is for models of another kind.
    #[error("[objective]: this kind is for {suited}, but model.architecture is {family}")]
    Objective {
        /// What it is for.
        suited: &'static str,
        /// What the model is.
        family: &'static str,
    },
    /// The model to go on from cannot be used.
    #[error("[model] init_from, {}: {problem}", path.display())]
    Checkpoint {
        /// Its folder.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The model's parts do not fit together.
    #[error("[model]: {0}")]
    Model(#[from] ArchitectureError),
}

/// Tokens that virtual ones leave a text at the least.
const TEXT_MIN: usize = 8;

impl Recipe {
    /// Reads the recipe at `path` and applies `overrides`, each `section.key=value` with a TOML value (a bare word is text).
    ///
    /// # Errors
    /// [`RecipeError`]: the file, an override, or a value outside its limits.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, RecipeError> {
        let read = |source| RecipeError::Read { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(read)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut recipe = Self::parse_in(&text, overrides, path, folder)?;
        recipe.data.text = folder.join(&recipe.data.text);
        recipe.data.shards = recipe.data.shards.map(|shards| folder.join(shards));
        if let Some(replay) = &mut recipe.data.replay {
            replay.text = folder.join(&replay.text);
        }
        Ok(recipe)
    }

    /// Reads a recipe's text; `path` is only for the messages, and paths inside the recipe stay as they are.
    ///
    /// # Errors
    /// As [`Recipe::load`].
    pub fn parse(text: &str, overrides: &[String], path: &Path) -> Result<Self, RecipeError> {
        Self::parse_in(text, overrides, path, Path::new(""))
    }

    /// As [`Recipe::parse`]; a model that the recipe goes on from is looked for from `folder` on.
    fn parse_in(text: &str, overrides: &[String], path: &Path, folder: &Path) -> Result<Self, RecipeError> {
        let wrong = |source| RecipeError::Parse { path: path.to_owned(), source: Box::new(source) };
        let mut table: Table = toml::from_str(text).map_err(wrong)?;
        // Read from the text where nothing is filled in: then an error shows its line.
        let mut recipe: Self = match checkpoint::filled(&table, folder)? {
            Some(filled) => Self::deserialize(filled).map_err(wrong)?,
            None => toml::from_str(text).map_err(wrong)?,
        };
        for text in overrides {
            set(&mut table, text)?;
            let filled = checkpoint::filled(&table, folder)?.unwrap_or_else(|| table.clone());
            recipe = Self::deserialize(filled)
                .map_err(|error| RecipeError::Override { text: text.clone(), reason: error.message().to_owned() })?;
        }
        recipe.validate()?;
        Ok(recipe)
    }

    /// Checks every value's limits.
    fn validate(&self) -> Result<(), RecipeError> {
        let family = self.model.architecture;
        if let Some(suited) = self.objective.unsuited(family) {
            return Err(RecipeError::Objective { suited, family: family.name() });
        }
        if let Some((key, value, limits)) = self.objective.out_of_range() {
            return Err(RecipeError::OutOfRange { key, value: value.to_string(), limits });
        }
        self.architecture(2).validate()?;
        let context_len = self.model.context_len;
        let framed = !self.objective.is_causal();
        check("model.context_len", context_len, !framed || context_len >= 8, "at least 8 for this objective")?;
        check_train(&self.train)?;
        check_optimizer(&self.optimizer, self.train.steps)?;
        check_peft(self)?;
        let (takes_records, goes_on) = (self.objective.takes_records(), self.model.init_from.is_some());
        let (kind, is_sft) = (self.objective.name(), matches!(self.objective, ObjectiveSection::Sft(_)));
        let fits = is_sft || !(goes_on && takes_records);
        check("objective.kind", kind, fits, "one of texts, or sft, where model.init_from is set")?;
        let replays_records = takes_records && self.data.replay.is_some() && family.kind() == Kind::EncoderDecoder;
        let mixes = matches!(&self.objective, ObjectiveSection::Sft(sft) if sft.mixing().is_some());
        let is_packed = self.data.packing != PackingRule::default();
        check(
            "data.packing",
            "best_fit",
            !(mixes && is_packed),
            "left out where tasks are mixed, whose forms are drawn",
        )?;
        check("data.replay", "set", !replays_records, "left out where an encoder-decoder learns from records")?;
        check_data(&self.data, takes_records, goes_on)
    }
}

/// Checks that `[peft]` has a model to be about, and that nothing else of the recipe contradicts it.
fn check_peft(recipe: &Recipe) -> Result<(), RecipeError> {
    let Some(peft) = &recipe.peft else { return Ok(()) };
    if let Some((key, value, limits)) = peft.out_of_range() {
        return Err(RecipeError::OutOfRange { key, value, limits });
    }
    let goes_on = recipe.model.init_from.is_some();
    check("peft.kind", peft.name(), goes_on, "left out where model.init_from is not set: there is nothing to freeze")?;
    let n_virtual = peft.n_virtual_tokens();
    let is_room = n_virtual == 0 || recipe.model.context_len >= n_virtual.saturating_add(TEXT_MIN);
    check("peft.num_virtual_tokens", n_virtual, is_room, "at least 8 below model.context_len")?;
    let decay = recipe.optimizer.average_decay;
    check(
        "optimizer.average_decay",
        decay,
        decay == 0.0,
        "0 with [peft]: the average would be a copy of the whole model",
    )
}

/// Checks the limits of `[data]` for an objective that takes records or not, and a model that goes on from another or not.
fn check_data(data: &DataSection, takes_records: bool, goes_on: bool) -> Result<(), RecipeError> {
    let fraction = data.train_fraction;
    check("data.train_fraction", fraction, fraction > 0.0 && fraction <= 1.0, "above 0 and at most 1")?;
    let shards = data.shards.as_ref().filter(|_| takes_records);
    let shown = shards.map(|path| path.display().to_string()).unwrap_or_default();
    check("data.shards", shown, shards.is_none(), "left out for objectives made of records")?;
    for text in std::iter::once(&data.text).chain(data.replay.as_ref().map(|replay| &replay.text)) {
        if let Some(shards) = &data.shards {
            let is_apart = !shards.starts_with(text);
            check("data.shards", shards.display(), is_apart, "outside of what is trained on: tokens are no texts")?;
        }
    }
    let is_near = takes_records && data.deduplicate == Deduplication::Near;
    check("data.deduplicate", "near", !is_near, "true or false for objectives made of records")?;
    let Some(replay) = &data.replay else { return Ok(()) };
    check("data.replay", "set", goes_on, "left out where model.init_from is not set: nothing is to be remembered")?;
    check("data.replay.share", replay.share, (0.0..1.0).contains(&replay.share), "at least 0 and below 1")
}

/// Checks the limits of `[train]`.
fn check_train(train: &TrainSection) -> Result<(), RecipeError> {
    let count =
        |key, value: u64, max: u64| check(key, value, (1..=max).contains(&value), "at least 1 and not absurdly large");
    count("train.steps", train.steps, 1 << 40)?;
    count("train.batch_size", train.batch_size as u64, 1 << 20)?;
    count("train.accumulate", train.accumulate as u64, 1 << 20)?;
    count("train.log_every", train.log_every, 1 << 40)?;
    if let Some(BatchRamp { from, steps }) = train.batch_ramp {
        let fits = (1..=train.accumulate).contains(&from);
        check("train.batch_ramp.from", from, fits, "at least 1 and at most train.accumulate")?;
        let fits = (1..=train.steps).contains(&steps);
        check("train.batch_ramp.steps", steps, fits, "at least 1 and at most train.steps")?;
    }
    let rate = |key, value: f32| check(key, value, (0.0..1.0).contains(&value), "at least 0 and below 1");
    rate("train.dropout", train.dropout)?;
    rate("train.label_smoothing", train.label_smoothing)?;
    let (patience, every) = (train.early_stopping_patience, train.eval_every);
    check("train.eval_every", every, patience == 0 || every > 0, "above 0 with train.early_stopping_patience")?;
    let delta = train.early_stopping_min_delta;
    check("train.early_stopping_min_delta", delta, delta >= 0.0 && delta.is_finite(), "at least 0")?;
    check("train.keep_best", train.keep_best, train.keep_best <= 1 << 10, "at most 1024")?;
    let factor = train.skip_outliers;
    let fits = factor == 0.0 || (factor > 1.0 && factor.is_finite());
    check("train.skip_outliers", factor, fits, "0 for never, or a factor above 1")?;
    let fits = (2..=1 << 16).contains(&train.skip_window);
    check("train.skip_window", train.skip_window, fits, "between 2 and 65536")
}

/// Checks the limits of `[optimizer]` in a run of so many steps.
fn check_optimizer(optimizer: &OptimizerSection, steps: u64) -> Result<(), RecipeError> {
    let warmup = optimizer.warmup_steps;
    check("optimizer.warmup_steps", warmup, warmup <= steps, "at most train.steps")?;
    let share = |key, value: f64| check(key, value, (0.0..=1.0).contains(&value), "between 0 and 1");
    share("optimizer.final_share", optimizer.final_share)?;
    share("optimizer.decay_share", optimizer.decay_share)?;
    let decay = |key, value: f64| check(key, value, (0.0..1.0).contains(&value), "at least 0 and below 1");
    decay("optimizer.beta1", optimizer.beta1)?;
    decay("optimizer.beta2", optimizer.beta2)?;
    decay("optimizer.average_decay", optimizer.average_decay)?;
    let positive = |key, value: f64| check(key, value, value > 0.0 && value.is_finite(), "above 0");
    positive("optimizer.learning_rate", optimizer.learning_rate)?;
    positive("optimizer.muon_learning_rate", optimizer.muon_learning_rate)?;
    decay("optimizer.muon_momentum", optimizer.muon_momentum)?;
    positive("optimizer.eps", optimizer.eps)?;
    let not_negative = |key, value: f64| check(key, value, value >= 0.0 && value.is_finite(), "at least 0");
    not_negative("optimizer.weight_decay", optimizer.weight_decay)?;
    not_negative("optimizer.clip_norm", optimizer.clip_norm)?;
    for group in &optimizer.group {
        check("optimizer.group.params", "empty", !group.params.is_empty(), "names of parameters")?;
        not_negative("optimizer.group.learning_rate_scale", group.learning_rate_scale)?;
        not_negative("optimizer.group.weight_decay", group.weight_decay.unwrap_or(0.0))?;
    }
    Ok(())
}

fn check(key: &'static str, value: impl ToString, holds: bool, limits: &'static str) -> Result<(), RecipeError> {
    match holds {
        true => Ok(()),
        false => Err(RecipeError::OutOfRange { key, value: value.to_string(), limits }),
    }
}

/// Applies one override.
fn set(table: &mut Table, text: &str) -> Result<(), RecipeError> {
    let form = || RecipeError::OverrideForm { text: text.to_owned() };
    let (path, value) = text.split_once('=').ok_or_else(form)?;
    let (section, key) = path.trim().split_once('.').ok_or_else(form)?;
    let section = match table.entry(section).or_insert_with(|| Value::Table(Table::new())) {
        Value::Table(section) => section,
        _ => return Err(form()),
    };
    let parsed: Option<Table> = toml::from_str(&format!("value = {value}")).ok();
    let value = parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(value.to_owned()));
    section.insert(key.trim().to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Schedule;
    use crate::tensor::Dtype;

    const RECIPE: &str = "\
[model]
dim = 64
hidden_dim = 172
n_layers = 5
n_heads = 8
n_kv_heads = 4
head_dim = 8
context_len = 256
[tokenizer]
vocab_size = 512
[data]
text = \"input.txt\"
[train]
steps = 100
batch_size = 16
[optimizer]
learning_rate = 4e-3
";

    fn parse(text: &str, overrides: &[&str]) -> Result<Recipe, RecipeError> {
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        Recipe::parse(text, &overrides, Path::new("recipe.toml"))
    }

    fn error_of(text: &str, overrides: &[&str]) -> String {
        parse(text, overrides).expect_err("a bad recipe").to_string()
    }

    #[test]
    fn an_unknown_key_shows_its_line_and_the_keys_that_exist() {
        let error = error_of(&RECIPE.replace("steps = 100", "stepps = 100"), &[]);
        for part in ["recipe.toml", "line 14", "stepps = 100", "unknown field `stepps`", "`steps`", "`batch_size`"] {
            assert!(error.contains(part), "no {part} in:\n{error}");
        }
        assert!(error_of(&format!("{RECIPE}[extra]\n"), &[]).contains("unknown field `extra`"));
    }

    #[test]
    fn a_missing_key_is_named() {
        assert!(error_of(&RECIPE.replace("steps = 100", ""), &[]).contains("missing field `steps`"));
    }

    #[test]
    fn overrides_replace_values_of_any_kind() {
        let overrides = ["train.steps=7", "optimizer.schedule=wsd", "data.text=a b.txt", "model.tied_head = false"];
        let recipe = parse(RECIPE, &overrides).unwrap();
        assert_eq!((recipe.train.steps, recipe.optimizer.schedule), (7, Schedule::Wsd));
        assert_eq!((recipe.data.text.to_str(), recipe.model.tied_head), (Some("a b.txt"), false));
    }

    #[test]
    fn bad_overrides_say_which_and_why() {
        assert!(error_of(RECIPE, &["train.stepps=7"]).contains("--set train.stepps=7: unknown field `stepps`"));
        assert!(error_of(RECIPE, &["train.steps=many"]).contains("--set train.steps=many: invalid type"));
        assert!(error_of(RECIPE, &["steps=7"]).contains("section.key=value"));
        assert!(error_of(RECIPE, &["train.steps"]).contains("section.key=value"));
    }

    #[test]
    fn values_outside_their_limits_are_refused() {
        for (key, value) in [
            ("train.steps", "0"),
            ("train.batch_size", "0"),
            ("optimizer.learning_rate", "nan"),
            ("optimizer.beta2", "1.0"),
            ("optimizer.warmup_steps", "101"),
            ("data.train_fraction", "1.5"),
            ("train.early_stopping_min_delta", "-1.0"),
            ("train.skip_outliers", "0.5"),
            ("train.skip_window", "1"),
            ("optimizer.muon_momentum", "1.0"),
        ] {
            let error = error_of(RECIPE, &[&format!("{key}={value}")]);
            assert!(error.starts_with(&format!("{key} is ")) && error.contains("but must be"), "{error}");
        }
        for (objective, key) in [
            ("{ kind = 'masked', share = 1.0 }", "objective.share"),
            ("{ kind = 'masked', random_share = 0.3 }", "objective.mask_share plus"),
        ] {
            let error = error_of(&format!("objective = {objective}\n{RECIPE}"), &["model.architecture=bert"]);
            assert!(error.starts_with(key) && error.contains("but must be"), "{error}");
        }
        let ramp = |from, steps| error_of(RECIPE, &[&format!("train.batch_ramp={{ from = {from}, steps = {steps} }}")]);
        assert!(ramp(2, 1).starts_with("train.batch_ramp.from is 2") && ramp(1, 0).contains("batch_ramp.steps is 0"));
        assert!(error_of(RECIPE, &["train.early_stopping_patience=3"]).starts_with("train.eval_every is 0"));
        let group = |group: &str| error_of(RECIPE, &[&format!("optimizer.group=[{{ {group} }}]")]);
        assert!(group("params = []").starts_with("optimizer.group.params is empty"));
        assert!(group("params = ['*'], weight_decay = -1.0").starts_with("optimizer.group.weight_decay is -1"));
        assert!(error_of(RECIPE, &["model.n_kv_heads=3"]).contains("3 key heads do not divide 8"));
    }

    #[test]
    fn types_of_numbers_have_the_names_that_others_give_them() {
        let overrides =
            ["train.weights_dtype=bf16", "train.activations_dtype=float32", "optimizer.state_dtype=bfloat16"];
        let recipe = parse(RECIPE, &overrides).unwrap();
        let (train, rule) = (&recipe.train, &recipe.optimizer);
        let found = [train.weights_dtype, train.activations_dtype, rule.state_dtype];
        assert_eq!(found, [Dtype::Bf16, Dtype::F32, Dtype::Bf16]);
        let error = error_of(RECIPE, &["train.weights_dtype=fp8"]);
        assert!(
            error.contains("train.weights_dtype=fp8") && error.contains("`f32`") && error.contains("`bf16`"),
            "{error}"
        );
    }

    #[test]
    fn an_objective_has_its_own_settings_and_models() {
        let masked = |more: &str| format!("objective = {{ kind = 'masked'{more} }}\n{RECIPE}");
        let recipe = parse(&masked(", whole_words = true"), &["model.architecture=bert"]).unwrap();
        assert!(matches!(recipe.objective, ObjectiveSection::Masked(masked) if masked.whole_words));
        let error = error_of(&masked(""), &[]);
        assert!(error.contains("bert or albert") && error.contains("llama"), "{error}");
        let error = error_of(&masked(", noise_density = 0.1"), &["model.architecture=bert"]);
        assert!(error.contains("noise_density") && error.contains("whole_words"), "{error}");
        let error = error_of(&format!("objective = {{ kind = 'causal', share = 0.1 }}\n{RECIPE}"), &[]);
        assert!(error.contains("share"), "{error}");
    }

    #[test]
    fn paths_start_at_the_recipes_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.toml");
        std::fs::write(&path, RECIPE).unwrap();
        assert_eq!(Recipe::load(&path, &[]).unwrap().data.text, dir.path().join("input.txt"));
        let error = Recipe::load(&dir.path().join("none.toml"), &[]).expect_err("no such file").to_string();
        assert!(error.contains("none.toml"), "{error}");
    }
}
