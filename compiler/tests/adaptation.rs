//! Going on from a model on the texts of a domain: what it learns, what it forgets, and what replaying helps.

use siskin_compiler::artifact::hf;
use siskin_compiler::recipe::{Recipe, RecipeError};
use siskin_compiler::train::adaptation::Adaptation;
use siskin_compiler::train::progress::{Event, Progress, Silent};
use siskin_compiler::train::{Options, Outcome, TrainError, run};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const REST: &str = "\
train = { steps = STEPS, batch_size = 4, accumulate = 2, seed = 3, log_every = 1, checkpoint_every = 5, dropout = 0.02 }
optimizer = { learning_rate = 1e-2, warmup_steps = 2 }
";

/// A folder with a general text and one of a domain; both are spelled with the same letters.
fn workshop() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let word = |words: &[&str], at: usize| words[at % words.len()].to_owned();
    let (mut general, mut domain) = (String::new(), String::new());
    for i in 0..500_usize {
        let noun = word(&["bird", "cat", "fish", "dog", "bee"], i * 11);
        let verb = word(&["sees", "likes", "hears"], i * 7);
        general += &format!("the {noun} {verb} the {}.\n\n", word(&["tree", "moon", "sea"], i / 5));
        let dose = word(&["one", "two", "five"], i * 7);
        let salt = word(&["brine", "silica", "lead", "ether"], i * 5);
        domain += &format!("heat {dose} grams of {salt} {}!\n\n", word(&["slowly", "at night", "in air"], i / 4));
    }
    std::fs::write(dir.path().join("general.txt"), general).unwrap();
    std::fs::write(dir.path().join("domain.txt"), domain).unwrap();
    dir
}

fn load(dir: &Path, text: &str, n_steps: usize) -> Result<Recipe, RecipeError> {
    let path = dir.join("recipe.toml");
    std::fs::write(&path, format!("{text}{}", REST.replace("STEPS", &n_steps.to_string()))).unwrap();
    Recipe::load(&path, &[])
}

fn try_train(recipe: &Recipe, out: &Path, n_threads: usize) -> Result<Outcome, TrainError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
    let interrupt = AtomicBool::new(false);
    let resume = out.exists();
    pool.install(|| run(recipe, &Options { out, resume, interrupt: &interrupt }, &mut Silent))
}

/// Trains a model on the general text in the folder `base`.
fn base(dir: &Path, architecture: &str, objective: &str, n_steps: usize) -> Outcome {
    let text = format!(
        "\
model = {{ architecture = '{architecture}', dim = 24, hidden_dim = 44, n_layers = 1, n_heads = 4, context_len = 32 }}
tokenizer = {{ vocab_size = 275, eos = '<end>' }}
data = {{ text = 'general.txt', documents = 'blank_lines', train_fraction = 0.8 }}
objective = {{ kind = '{objective}' }}
"
    );
    try_train(&load(dir, &text, n_steps).unwrap(), &dir.join("base"), 2).unwrap()
}

/// A recipe that goes on from `base`.
fn going_on(dir: &Path, objective: &str, more: &str, share: f64, n_steps: usize) -> Recipe {
    let text = format!(
        "\
model = {{ init_from = 'base' }}
data = {{ text = 'domain.txt', documents = 'blank_lines', train_fraction = 0.8, replay = {{ text = 'general.txt', share = {share} }}{more} }}
objective = {{ kind = '{objective}' }}
"
    );
    load(dir, &text, n_steps).unwrap()
}

#[test]
fn replay_keeps_what_was_known() {
    let dir = workshop();
    let base = base(dir.path(), "llama", "causal", 150).validation.unwrap().validation_bits_per_byte.unwrap();
    let adapted = |name: &str, share: f64| {
        let out = dir.path().join(name);
        let recipe = going_on(dir.path(), "causal", "", share, 60);
        assert_eq!((recipe.model.dim, recipe.tokenizer.vocab_size, recipe.tokenizer.eos.as_str()), (24, 275, "<end>"));
        let outcome = try_train(&recipe, &out, 2).unwrap();
        let adaptation = outcome.adaptation.unwrap();
        let log = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
        let told: Vec<serde_json::Value> = log
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .filter(|line| line.get("adaptation").is_some())
            .collect();
        assert_eq!((told.len(), &told[0]["step"], &told[1]["step"]), (2, &0.into(), &60.into()));
        let last = log.lines().rfind(|line| line.contains("adaptation")).unwrap();
        assert!(last.contains(&serde_json::to_string(&adaptation.after).unwrap()), "{last}");
        assert_eq!(
            adaptation.after.in_domain.unwrap().bits_per_byte,
            outcome.validation.unwrap().validation_bits_per_byte
        );
        let model = hf::load_trained(&out).unwrap();
        assert_eq!(model.specials, hf::load_trained(&dir.path().join("base")).unwrap().specials);
        assert_eq!(
            std::fs::read(out.join("tokenizer.json")).unwrap(),
            std::fs::read(dir.path().join("base/tokenizer.json")).unwrap()
        );
        adaptation
    };
    let (without, with) = (adapted("without", 0.0), adapted("with", 0.3));
    assert_eq!(without.before, with.before);
    let general = |adaptation: &Adaptation| {
        [adaptation.before, adaptation.after].map(|standing| standing.general.unwrap().bits_per_byte.unwrap())
    };
    let in_domain = |adaptation: &Adaptation| {
        [adaptation.before, adaptation.after].map(|standing| standing.in_domain.unwrap().bits_per_byte.unwrap())
    };
    // The same held-out text, in the same tokens, by the same model.
    assert_eq!(general(&without)[0], base);
    for adaptation in [&without, &with] {
        let [before, after] = in_domain(adaptation);
        assert!(after < 0.5 * before, "the domain was not learnt: {before} to {after}");
    }
    let rise = |adaptation| general(adaptation)[1] - general(adaptation)[0];
    assert!(rise(&without) > 0.5, "nothing was forgotten: {without:?}");
    assert!(rise(&with) < 0.5 * rise(&without), "{with:?} after {without:?}");
}

/// Interrupts a run at a step.
struct StopAt<'a>(u64, &'a AtomicBool);

impl Progress for StopAt<'_> {
    fn event(&mut self, event: &Event) {
        if matches!(event, Event::Step(record) if record.step >= self.0) {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn threads_and_interruptions_leave_no_trace() {
    for (i, (architecture, objective, more)) in [
        ("llama", "causal", ", packing = 'best_fit', split = 'document', shards = 'tokens'"),
        ("gpt2", "prefix", ""),
        ("gru", "causal", ", packing = 'best_fit', deduplicate = true"),
        ("albert", "masked", ", packing = 'best_fit'"),
        ("t5", "span_corruption", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let dir = workshop();
        base(dir.path(), architecture, objective, 5);
        let recipe = going_on(dir.path(), objective, more, 0.25, 12);
        let out = |run: &str| dir.path().join(run);
        let files = |run: &str| {
            ["model.safetensors", "config.json", "tokenizer.json", "training_state.safetensors"]
                .map(|name| std::fs::read(out(run).join(name)).unwrap())
        };
        let outcome = try_train(&recipe, &out("one"), 1).unwrap();
        assert!(outcome.adaptation.unwrap().after.general.is_some());
        try_train(&recipe, &out("two"), 2).unwrap();
        assert!(files("one") == files("two"), "{architecture}: threads leave a trace");
        let flag = AtomicBool::new(false);
        let options = Options { out: &out("parts"), resume: false, interrupt: &flag };
        let stopped = run(&recipe, &options, &mut StopAt(2 + i as u64, &flag)).unwrap();
        assert!(stopped.interrupted && stopped.adaptation.is_none());
        let resumed = try_train(&recipe, &out("parts"), 2).unwrap();
        assert!(files("one") == files("parts"), "{architecture}: an interruption leaves a trace");
        assert_eq!(resumed.adaptation, outcome.adaptation);

        // Nothing goes on with another model or another text to be replayed.
        let general = out("general.txt");
        let text = std::fs::read_to_string(&general).unwrap();
        std::fs::write(&general, text.clone() + "one more.\n").unwrap();
        assert!(matches!(try_train(&recipe, &out("one"), 1), Err(TrainError::OtherRecipe { .. })));
        std::fs::write(&general, text).unwrap();
        std::fs::copy(out("one/model.safetensors"), out("base/model.safetensors")).unwrap();
        assert!(matches!(try_train(&recipe, &out("one"), 1), Err(TrainError::OtherRecipe { .. })));
    }
}

#[test]
fn what_does_not_go_together_is_told() {
    let dir = workshop();
    let error = |text: &str| load(dir.path(), text, 5).expect_err("a bad recipe").to_string();
    let data = "data = { text = 'domain.txt' }\n";
    let text = format!("model = {{ init_from = 'base' }}\n{data}");
    assert!(error(&text).contains("base") && error(&text).contains("config.json"), "{}", error(&text));
    base(dir.path(), "bert", "masked", 5);
    for (model, more, expected) in [
        ("init_from = 'base', dim = 32", "", "model.dim is 32, but this model's is 24"),
        (
            "init_from = 'base'",
            "tokenizer = { vocab_size = 300 }\n",
            "tokenizer.vocab_size is 300, but this model's is 275",
        ),
        ("init_from = 'base', n_layer = 1", "objective = { kind = 'masked' }\n", "unknown field `n_layer`"),
        ("init_from = 'base'", "", "this kind is for llama, gpt2 or gru, but model.architecture is bert"),
        (
            "init_from = 'base'",
            "objective = { kind = 'classification' }\n",
            "objective.kind is classification, but must be one of texts",
        ),
    ] {
        let error = error(&format!("model = {{ {model} }}\n{more}{data}"));
        assert!(error.contains(expected), "{error}");
    }
    let plain = "model = { dim = 8, hidden_dim = 8, n_layers = 1, n_heads = 1, context_len = 8 }\ntokenizer = { vocab_size = 258 }\n";
    let replay = |share: f64| {
        format!("data = {{ text = 'domain.txt', replay = {{ text = 'general.txt', share = {share} }} }}\n")
    };
    assert!(error(&format!("{plain}{}", replay(0.1))).contains("data.replay is set"), "{}", error(plain));
    let masked = "model = { init_from = 'base' }\nobjective = { kind = 'masked' }\n";
    assert!(error(&format!("{masked}{}", replay(1.0))).contains("data.replay.share is 1"));

    let shards = "data = { text = 'texts', shards = 'texts/tokens' }\n";
    assert!(error(&format!("{plain}{shards}")).contains("data.shards is texts/tokens, but must be outside"));

    // A model that the run would replace.
    let recipe = load(dir.path(), &format!("{masked}{data}"), 5).unwrap();
    std::fs::remove_file(dir.path().join("base/training_state.safetensors")).unwrap();
    let error = try_train(&recipe, &dir.path().join("base"), 1).expect_err("its own folder");
    assert!(error.is_input() && error.to_string().contains("it is the run folder too"), "{error}");

    // Too little to replay.
    std::fs::write(dir.path().join("short.txt"), "a\n\nb\n\nc").unwrap();
    let short = "data = { text = 'domain.txt', replay = { text = 'short.txt', share = 0.5 } }\n";
    let recipe = load(dir.path(), &format!("{masked}{short}"), 5).unwrap();
    let error = try_train(&recipe, &dir.path().join("run"), 1).expect_err("too short").to_string();
    assert!(error.contains("the replayed part of the text has"), "{error}");

    // A tokenizer without what the objective needs, and a model without weights.
    let recipe = load(dir.path(), &format!("{masked}{data}"), 5).unwrap();
    let tokenizer = dir.path().join("base/tokenizer.json");
    let json = std::fs::read_to_string(&tokenizer).unwrap();
    std::fs::write(&tokenizer, json.replace("<mask>", "<musk>")).unwrap();
    let error = try_train(&recipe, &dir.path().join("run"), 1).expect_err("no mask");
    assert!(error.is_input() && error.to_string().contains("no token `<mask>`"), "{error}");
    std::fs::write(&tokenizer, json).unwrap();
    std::fs::remove_file(dir.path().join("base/model.safetensors")).unwrap();
    let error = try_train(&recipe, &dir.path().join("run"), 1).expect_err("no weights");
    assert!(error.is_input() && error.to_string().contains("model.safetensors"), "{error}");
}
