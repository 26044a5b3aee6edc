//! Supervised fine-tuning: the tokens and masks that transformers and TRL make, packing, bad records, and runs.

mod interruption;

use interruption::{StopAt, files, try_train};
use serde_json::{Value, json};
use siskin_compiler::artifact::hf;
use siskin_compiler::data::{Example, ExampleSource, IGNORED, Record, read_records};
use siskin_compiler::model::{self, Kind, LossOptions, LossSums};
use siskin_compiler::objective::sft::{Dialogue, Renderer, SftCounts, SftEncoder, SftSection, TooLong};
use siskin_compiler::objective::{Frame, Records};
use siskin_compiler::recipe::Recipe;
use siskin_compiler::tokenizer::{CorpusEncoder, TextSections, TokenizerDef};
use siskin_compiler::train::inspect::{ShownExample, TokenRole, inspect};
use siskin_compiler::train::progress::Silent;
use siskin_compiler::train::step::{DropoutSeed, Stepper};
use siskin_compiler::train::{Options, run};
use siskin_runtime::TokenId;
use siskin_runtime::tokenizer::ChatPrompt;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;

const FRAME: Frame = Frame { bos: 0, eos: 1 };

fn golden() -> Value {
    serde_json::from_str(include_str!("../../tests/golden/sft.json")).unwrap()
}

fn tokenizer(golden: &Value) -> TokenizerDef {
    let mut definition = TokenizerDef::from_hugging_face(&golden["tokenizer"].to_string(), None).unwrap();
    (definition.bos, definition.eos) = (Some(FRAME.bos), Some(FRAME.eos));
    definition
}

fn records(lines: &str) -> Vec<Record> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jsonl");
    std::fs::write(&path, lines).unwrap();
    read_records(&path).unwrap()
}

/// Examples of records by the golden tokenizer, and what became of them.
fn examples(
    section: &SftSection,
    kind: Kind,
    context_len: usize,
    lines: &str,
) -> (Vec<Result<Option<Example>, String>>, SftCounts) {
    let compiled = tokenizer(&golden()).compile().unwrap();
    let mut encoder = CorpusEncoder::new(compiled.view());
    let too_long = section.too_long;
    let counts = SftCounts::default();
    let mut encoder = SftEncoder { encoder: &mut encoder, kind, context_len, frame: FRAME, too_long, counts };
    let renderer = Renderer::new(section, None, ("<s>", "</s>")).unwrap();
    let each = records(lines).into_iter().map(|record| {
        let rendered = Dialogue::of(&record).and_then(|dialogue| renderer.render(&record, &dialogue));
        rendered.and_then(|rendered| encoder.example(&record, &rendered)).map_err(|error| error.to_string())
    });
    let each = each.collect();
    (each, encoder.counts)
}

/// One example of the golden tokenizer for a decoder.
fn example(section: &SftSection, record: &Value) -> (Example, SftCounts) {
    let (mut each, counts) = examples(section, Kind::DecoderOnly, 512, &record.to_string());
    (each.remove(0).unwrap().unwrap(), counts)
}

/// The tokens of an example, and which of them it trains.
fn tokens_and_mask(example: &Example) -> (Vec<TokenId>, Vec<bool>) {
    let mut tokens = example.inputs.clone();
    tokens.push(0);
    let mut mask = vec![false];
    for (i, target) in example.targets.iter().enumerate() {
        mask.push(*target != IGNORED);
        if *target != IGNORED {
            assert!(i + 1 == example.inputs.len() || tokens[i + 1] == *target);
            tokens[i + 1] = *target;
        }
    }
    (tokens, mask)
}

fn numbers(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect()
}

#[test]
fn conversations_have_the_tokens_and_masks_of_transformers() {
    let golden = golden();
    let mut n_compared = 0;
    for chat in golden["chats"].as_array().unwrap() {
        let template = chat["template"].as_str().unwrap();
        let section = SftSection { chat_template: Some(template.to_owned()), ..SftSection::default() };
        for case in chat["cases"].as_array().unwrap() {
            let (example, counts) = example(&section, &json!({ "messages": case["messages"] }));
            assert_eq!(counts, SftCounts::default());
            let (tokens, mask) = tokens_and_mask(&example);
            let (ids, expected) = (numbers(&case["ids"]), numbers(&case["mask"]));
            assert_eq!(mask.iter().map(|is_trained| u64::from(*is_trained)).collect::<Vec<_>>(), expected, "{case}");
            // What follows the last trained token is no one's target.
            for (i, id) in ids.iter().enumerate().take(ids.len() - usize::from(expected[ids.len() - 1] == 0)) {
                assert_eq!(u64::from(tokens[i]), *id, "{case}");
            }
            n_compared += 1;
        }
    }
    assert_eq!(n_compared, 6);
}

#[test]
fn prompts_and_completions_have_the_tokens_and_masks_of_trl() {
    let golden = golden();
    for case in golden["pairs"].as_array().unwrap() {
        let record = json!({ "prompt": case["prompt"], "completion": case["completion"] });
        let (example, counts) = example(&SftSection::default(), &record);
        let (tokens, mask) = tokens_and_mask(&example);
        let is_clean = case["is_clean"] == true;
        assert_eq!(counts.n_parted, usize::from(!is_clean), "{case}");
        let (ids, expected) = (numbers(&case["ids"]), numbers(&case["mask"]));
        let ours: Vec<u64> = tokens.iter().map(|token| u64::from(*token)).collect();
        let mask: Vec<u64> = mask.into_iter().map(u64::from).collect();
        assert_eq!((ours == ids, mask == expected), (is_clean, is_clean), "{case}");
        // With or without a token over the boundary: what is read is the prompt as it is read alone, and all the rest is trained.
        let compiled = tokenizer(&golden).compile().unwrap();
        let prompt = CorpusEncoder::new(compiled.view()).encode(case["prompt"].as_str().unwrap());
        assert!(tokens.starts_with(&prompt) && tokens.last() == Some(&FRAME.eos), "{case}");
        assert!(mask.iter().enumerate().all(|(i, is_trained)| *is_trained == u64::from(i >= prompt.len())), "{case}");
    }
}

#[test]
fn settings_choose_what_is_trained_and_read() {
    let n_trained = |section: &SftSection, record: &Value| example(section, record).0.n_targets();
    let pair = json!({ "prompt": "lamp", "completion": " on", "room": "hall" });
    let all = SftSection { completion_only_loss: false, ..SftSection::default() };
    let (inputs, trained) = (example(&all, &pair).0.inputs.len(), n_trained(&all, &pair));
    assert_eq!(trained, inputs, "all but the first token");
    assert!(n_trained(&SftSection::default(), &pair) < trained);
    let text = json!({ "text": "the lamp is on" });
    assert_eq!(n_trained(&SftSection::default(), &text), example(&all, &text).0.inputs.len());
    let template = Some("{{ room | upper }}: {{ prompt }} =".to_owned());
    let section = SftSection { prompt_template: template, ..SftSection::default() };
    let spelled = example(&section, &pair).0;
    assert_eq!(spelled, example(&SftSection::default(), &json!({ "prompt": "HALL: lamp =", "completion": " on" })).0);
    let (missing, _) = examples(&section, Kind::DecoderOnly, 512, "{\"prompt\": \"a\", \"completion\": \"b\"}");
    assert!(missing[0].as_ref().unwrap_err().contains("line 1: objective.prompt_template does not render"));
    // A template without a token that ends turns: the text's end is learnt all the same.
    let template = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}\
        {% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}";
    let messages =
        json!({ "messages": [{ "role": "user", "content": "hi" }, { "role": "assistant", "content": "ho" }] });
    let section = SftSection { chat_template: Some(template.into()), ..SftSection::default() };
    let ended = example(&section, &messages).0;
    assert_eq!(ended.targets.last(), Some(&FRAME.eos));
    let turns = json!({ "prompt": [messages["messages"][0]], "completion": [messages["messages"][1]] });
    assert_eq!(example(&section, &turns).0, ended, "a pair of messages is that conversation");
    let all = SftSection { assistant_only_loss: false, ..section };
    assert_eq!(n_trained(&all, &messages), ended.inputs.len());
}

#[test]
fn what_is_too_long_is_an_error_left_out_or_cut_off_and_counted() {
    let lines = "{\"prompt\": \"abcdef\", \"completion\": \"xyz\"}\n{\"prompt\": \"a\", \"completion\": \"xyz\"}\n\
        {\"prompt\": \"abcdefghijklmnop\", \"completion\": \"xyz\"}\n";
    let made = |too_long, kind| examples(&SftSection { too_long, ..SftSection::default() }, kind, 8, lines);
    let (each, _) = made(TooLong::Error, Kind::DecoderOnly);
    let error = each[0].as_ref().unwrap_err();
    assert!(error.contains("line 1: 9 positions") && error.contains("objective.too_long"), "{error}");
    assert!(each[1].is_ok() && each[2].is_err());
    let (each, counts) = made(TooLong::Drop, Kind::DecoderOnly);
    assert_eq!(counts, SftCounts { n_dropped: 2, ..SftCounts::default() });
    assert!(matches!(&each[..], [Ok(None), Ok(Some(_)), Ok(None)]));
    let (each, counts) = made(TooLong::Truncate, Kind::DecoderOnly);
    assert_eq!(counts, SftCounts { n_dropped: 1, n_truncated: 1, ..SftCounts::default() });
    let Ok(Some(cut)) = &each[0] else { panic!("{each:?}") };
    assert_eq!((cut.inputs.len(), cut.n_targets()), (8, 3), "the end of text is cut off");
    let (each, counts) = made(TooLong::Truncate, Kind::EncoderDecoder);
    assert_eq!(counts, SftCounts { n_truncated: 1, ..SftCounts::default() });
    let Ok(Some(cut)) = &each[2] else { panic!("{each:?}") };
    assert_eq!((cut.inputs.len(), cut.inputs[7], cut.decoder_inputs[0]), (8, FRAME.eos, FRAME.bos));
    assert_eq!((cut.targets.len(), cut.targets[3]), (4, FRAME.eos));
}

/// No example of a row sees another: the row's loss and gradient are the sums of theirs, each with its own mask.
#[test]
fn packed_examples_are_told_as_they_are_alone() {
    let golden = golden();
    let mut lines = String::new();
    for case in golden["pairs"].as_array().unwrap() {
        writeln!(lines, "{}", json!({ "prompt": case["prompt"], "completion": case["completion"] })).unwrap();
    }
    let (each, _) = examples(&SftSection::default(), Kind::DecoderOnly, 40, &lines);
    let each: Vec<Example> = each.into_iter().map(|example| example.unwrap().unwrap()).collect();
    let source = Records::new(each, Vec::new()).unwrap().packed(40);
    let n_rows = source.packing().unwrap().rows().len() as u64;
    for architecture in ["llama", "gpt2", "gru"] {
        let dir = tempfile::tempdir().unwrap();
        let mut recipe = recipe(dir.path(), &format!("architecture = '{architecture}'"), "kind = 'sft'", "", 10);
        recipe.tokenizer.vocab_size = 330;
        let built = model::build(&recipe.architecture(0)).unwrap();
        let params = built.init(5);
        let mut n_several = 0;
        for idx in 0..n_rows {
            let row = source.examples(3, idx);
            n_several += usize::from(row.len() > 1);
            let gradient = |batch: &[Vec<Example>]| -> (LossSums, Vec<f32>) {
                let mut stepper = Stepper::new(&*built);
                let sums = stepper.accumulate(&params, batch, LossOptions::plain(1.0), DropoutSeed::default());
                (sums, stepper.gradient().to_vec())
            };
            let apart: Vec<Vec<Example>> = row.iter().map(|example| vec![example.clone()]).collect();
            let ((packed, packed_grad), (alone, alone_grad)) = (gradient(std::slice::from_ref(&row)), gradient(&apart));
            assert_eq!(packed.n_targets, alone.n_targets);
            assert!((packed.nats / alone.nats - 1.0).abs() < 1e-5, "{architecture}: {packed:?} and {alone:?}");
            let norm = alone_grad.iter().map(|g| g * g).sum::<f32>().sqrt();
            let apart = packed_grad.iter().zip(&alone_grad).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
            assert!(norm > 0.0 && apart < 1e-5 * norm, "{architecture}: {apart} of {norm}");
        }
        assert!(n_several > 0);
    }
}

/// A recipe over `data.jsonl` in a folder.
fn recipe(dir: &Path, model: &str, objective: &str, data: &str, steps: usize) -> Recipe {
    let init = model.contains("init_from");
    let shape = if init { "" } else { ", dim = 32, hidden_dim = 64, n_layers = 1, n_heads = 4, context_len = 96" };
    let tokenizer = if init { "" } else { "tokenizer = { vocab_size = 300 }\n" };
    let text = format!(
        "\
model = {{ {model}{shape} }}
{tokenizer}data = {{ text = 'data.jsonl', train_fraction = 0.9{data} }}
objective = {{ {objective} }}
train = {{ steps = {steps}, batch_size = 8, seed = 3, log_every = 10 }}
optimizer = {{ learning_rate = 1e-2, warmup_steps = 5, clip_norm = 1.0 }}
"
    );
    let path = dir.join("recipe.toml");
    std::fs::write(&path, text).unwrap();
    Recipe::load(&path, &[]).unwrap()
}

/// Commands to a home and what they mean.
fn commands() -> String {
    let mut lines = String::new();
    for i in 0..400_usize {
        let (verb, state) = [("turn on", "on"), ("switch off", "off"), ("light", "on")][i % 3];
        let (thing, room) = (["lamp", "fan", "heater"][i / 3 % 3], ["hall", "kitchen", "attic"][i / 9 % 3]);
        let record = json!({
            "id": i, "prompt": format!("{verb} the {thing} in the {room}"),
            "completion": format!("{{\"{thing}\":\"{state}\",\"room\":\"{room}\"}}"),
        });
        writeln!(lines, "{record}").unwrap();
    }
    lines
}

fn shown(example: &ShownExample, role: TokenRole) -> String {
    example.reads.iter().filter(|token| token.role == role).map(|token| token.text.as_str()).collect()
}

#[test]
fn a_run_learns_completions_and_keeps_how_to_ask() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("data.jsonl"), commands()).unwrap();
    let objective = "kind = 'sft', prompt_template = \"Q: {{ prompt }}\\n\"";
    let recipe = |data: &str| recipe(dir.path(), "architecture = 'llama'", objective, data, 200);
    let report = inspect(&recipe(", packing = 'best_fit'"), 1).unwrap();
    let first = &report.rows[0][0];
    let (read, said) = (shown(first, TokenRole::Read), shown(first, TokenRole::Trained));
    assert!(read.starts_with("Q: ") && read.ends_with('\n') && !read.contains('{'), "{read}");
    assert!(said.starts_with('{') && said.ends_with("}</s>"), "{said}");
    assert_eq!(report.summary.sft, Some(SftCounts::default()));
    assert_eq!((report.summary.n_train_documents, report.summary.n_validation_documents), (360, 40));
    assert!(report.packing.unwrap().n_rows < 200);
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let outcome = try_train(&recipe(""), &one, 1, &mut Silent).unwrap();
    try_train(&recipe(""), &two, 2, &mut Silent).unwrap();
    assert!(files(&one) == files(&two), "threads leave a trace");
    let exact = outcome.validation.unwrap().validation_exact_match;
    assert!(exact > 0.9, "{exact} of the completions are right");
    // A chat with the packed model puts the user's message where the prompt was.
    let checkpoint = hf::load_folder(&one).unwrap();
    let chat = TextSections::of_checkpoint(&checkpoint, None).unwrap().chat.unwrap();
    let chat = ChatPrompt::parse(&chat).unwrap();
    let mut buffer = [0; 64];
    assert_eq!(chat.first("light the fan", &mut buffer).unwrap().text, "Q: light the fan\n");
}

#[test]
fn a_run_goes_on_from_a_model_with_its_template_and_replays_text() {
    let dir = tempfile::tempdir().unwrap();
    let text: String =
        (0..200).map(|i| format!("the {} sees the {}. ", ["bird", "cat"][i % 2], ["sea", "sky"][i / 7 % 2])).collect();
    std::fs::write(dir.path().join("general.txt"), &text).unwrap();
    let lines: String = commands()
        .lines()
        .map(|line| {
            let record: Value = serde_json::from_str(line).unwrap();
            let message = |role: &str, field: &str| json!({ "role": role, "content": record[field] });
            json!({ "messages": [message("user", "prompt"), message("assistant", "completion")] }).to_string() + "\n"
        })
        .collect();
    std::fs::write(dir.path().join("data.jsonl"), lines).unwrap();
    let template = "{% for m in messages %}{% if m.role == 'user' %}{{ '<' + m.content + '>' }}{% else %}\
        {{ m.content + eos_token }}{% endif %}{% endfor %}";
    let sft = format!("kind = 'sft', chat_template = \"{template}\"");
    let base = dir.path().join("base");
    try_train(&recipe(dir.path(), "architecture = 'llama'", &sft, "", 60), &base, 2, &mut Silent).unwrap();
    let adapted = |name: &str, share: f64| {
        let data = format!(", replay = {{ text = 'general.txt', share = {share} }}");
        let recipe = recipe(dir.path(), "init_from = 'base'", "kind = 'sft'", &data, 60);
        let outcome = try_train(&recipe, &dir.path().join(name), 2, &mut Silent).unwrap();
        let general = outcome.adaptation.unwrap();
        (general.before.general.unwrap().loss, general.after.general.unwrap().loss)
    };
    let ((before, without), (same, with)) = (adapted("without", 0.0), adapted("with", 0.5));
    assert_eq!(before, same);
    assert!(with < 0.5 * without, "{with} with replay, {without} without");
    let kept = hf::load_folder(&dir.path().join("with")).unwrap().chat_template;
    assert_eq!(kept.as_deref(), Some(template));
}

#[test]
fn an_encoder_decoder_reads_the_prompt_and_tells_the_completion() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("data.jsonl"), commands()).unwrap();
    let recipe = recipe(dir.path(), "architecture = 't5'", "kind = 'sft'", "", 10);
    let report = inspect(&recipe, 1).unwrap();
    let text = |tokens: &[siskin_compiler::train::inspect::ShownToken]| -> String {
        tokens.iter().map(|token| token.text.as_str()).collect()
    };
    let (reads, tells) = (text(&report.rows[0][0].reads), text(&report.rows[0][0].tells));
    assert!(reads.ends_with("</s>") && !reads.contains('{'), "{reads}");
    assert!(tells.starts_with('{') && tells.ends_with("}</s>"), "{tells}");
    let outcome = try_train(&recipe, &dir.path().join("t5"), 2, &mut Silent).unwrap();
    assert!(outcome.validation.unwrap().validation_loss.is_finite());
}

#[test]
fn every_bad_line_is_named_before_the_first_step() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = b"{\"prompt\": \"a\", \"completion\": \"b\", \"id\": \"x\"}\n{\"prompt\": \"a\"\n\n".to_vec();
    bytes.extend(b"{\"prompt\": \"a\"}\n{\"prompt\": \"\xff\", \"completion\": \"b\"}\n{\"prompt\": \"a\", \"completion\": \"\"}\n");
    bytes.extend(b"{\"prompt\": \"a\", \"completion\": \"c\", \"id\": \"x\"}\n{\"text\": \"a\"}\n[1]\n");
    std::fs::write(dir.path().join("data.jsonl"), bytes).unwrap();
    let recipe = recipe(dir.path(), "architecture = 'llama'", "kind = 'sft'", "", 10);
    let out = dir.path().join("out");
    let error = try_train(&recipe, &out, 1, &mut Silent).expect_err("bad records").to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines[0], "7 records cannot be trained on:");
    for (line, parts) in lines[1..].iter().zip([
        ["line 2:", "not a JSON object: EOF", "at column"],
        ["line 4:", "no field `completion`", "prompt"],
        ["line 5:", "byte at offset", "UTF-8"],
        ["line 6:", "`completion` is empty", ""],
        ["line 7:", "its id \"x\" is that of line 1", ""],
        ["line 8:", "it has `text`, but line 1 has `prompt`", ""],
        ["line 9:", "not a JSON object", ""],
    ]) {
        assert!(line.contains("data.jsonl, ") && parts.iter().all(|part| line.contains(part)), "{line}");
    }
    assert!(!out.exists(), "nothing was begun");
    assert_eq!(inspect(&recipe, 1).expect_err("bad records").to_string(), error);
}

/// A folder of two tasks, and a recipe that mixes them.
fn mixed(dir: &Path, objective: &str, more: &str) -> Result<Recipe, siskin_compiler::recipe::RecipeError> {
    std::fs::create_dir_all(dir.join("tasks")).unwrap();
    let small: String = (0..10).map(|i| json!({ "name": format!("ann{i}"), "kind": "x" }).to_string() + "\n").collect();
    std::fs::write(dir.join("tasks/names.jsonl"), small).unwrap();
    std::fs::write(dir.join("tasks/home.jsonl"), commands()).unwrap();
    let text = format!(
        "\
model = {{ architecture = 'llama', dim = 8, hidden_dim = 8, n_layers = 1, n_heads = 2, context_len = 96 }}
tokenizer = {{ vocab_size = 270 }}
data = {{ text = 'tasks', train_fraction = 0.8{more} }}
train = {{ steps = 40, batch_size = 8, seed = 3, log_every = 1, checkpoint_every = 5 }}
optimizer = {{ learning_rate = 1e-2 }}
[objective]
kind = 'sft'
{objective}
"
    );
    let path = dir.join("mixed.toml");
    std::fs::write(&path, text).unwrap();
    Recipe::load(&path, &[])
}

const TASKS: &str = "\
mixing = { max_examples = 100, max_rate = 40, shots = 2, few_shot_share = 0.5, shot_separator = '##' }
task = [{ name = 'names', weight = 2.5, templates = [
  { prompt = 'Hello {{ name }}: ', completion = '{{ kind }}!' }, { prompt = '{{ name }} = ', completion = '{{ kind }}' },
] }]";

#[test]
fn tasks_are_mixed_by_their_examples_in_all_forms() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = mixed(dir.path(), TASKS, "").unwrap();
    let report = inspect(&recipe, 320).unwrap();
    // 8 of 10 and 320 of 400 are trained on, of the latter 100, of which 40 count; 8 weigh 20.
    let shares: Vec<(&str, usize, usize, f64)> = report
        .tasks
        .iter()
        .map(|task| (task.name.as_str(), task.n_train_documents, task.n_validation_documents, task.share))
        .collect();
    assert_eq!(shares, [("home", 100, 80, 40.0 / 60.0), ("names", 8, 2, 20.0 / 60.0)]);
    let rows: Vec<&ShownExample> = report.rows.iter().map(|row| &row[0]).collect();
    let is_name = |row: &ShownExample| shown(row, TokenRole::Read).contains("ann");
    for cycle in rows.chunks_exact(60) {
        assert_eq!(cycle.iter().filter(|row| is_name(row)).count(), 20);
    }
    let names: Vec<(String, String)> = rows
        .iter()
        .filter(|row| is_name(row))
        .map(|row| (shown(row, TokenRole::Read), shown(row, TokenRole::Trained)))
        .collect();
    // Of 8 records, each comes 5 times in 40 draws.
    let last = |read: &str| read.rsplit("##").next().unwrap().replace("Hello ", "")[..4].to_owned();
    let mut counts = std::collections::BTreeMap::new();
    names[..40].iter().for_each(|(read, _)| *counts.entry(last(read)).or_insert(0) += 1);
    assert!(counts.len() == 8 && counts.values().all(|n| *n == 5), "{counts:?}");
    for (read, said) in &names {
        let shots: Vec<&str> = read.split("##").collect();
        let is_hello = shots[0].starts_with("Hello");
        assert!(shots.len() == 1 || shots.len() == 3, "{read}");
        assert_eq!(said, if is_hello { "x!</s>" } else { "x</s>" });
        let (prompt, shots) = shots.split_last().unwrap();
        assert!(prompt.starts_with("Hello") == is_hello && prompt.ends_with(if is_hello { ": " } else { "= " }));
        let is_shot = |shot: &&&str| shot.ends_with(if is_hello { ": x!" } else { "= x" });
        assert_eq!(shots.iter().filter(is_shot).count(), shots.len(), "{read}");
        assert!(shots.iter().all(|shot| last(shot) != last(prompt)), "{read}");
    }
    let share =
        |is: &dyn Fn(&str) -> bool| names.iter().filter(|(read, _)| is(read)).count() as f64 / names.len() as f64;
    assert!((share(&|read| read.starts_with("Hello")) - 0.5).abs() < 0.25);
    assert!((share(&|read| read.contains("##")) - 0.5).abs() < 0.25);
    // The same on any number of threads, and after an interruption: an example is its number's.
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    try_train(&recipe, &one, 1, &mut Silent).unwrap();
    try_train(&recipe, &two, 2, &mut Silent).unwrap();
    assert!(files(&one) == files(&two), "threads leave a trace");
    let (parts, flag) = (dir.path().join("parts"), AtomicBool::new(false));
    let options = Options { out: &parts, resume: false, interrupt: &flag };
    assert!(run(&recipe, &options, &mut StopAt(7, &flag)).unwrap().interrupted);
    try_train(&recipe, &parts, 2, &mut Silent).unwrap();
    assert!(files(&one) == files(&parts), "an interruption leaves a trace");
}

#[test]
fn what_a_mixture_cannot_do_is_said_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let error = |objective: &str| inspect(&mixed(dir.path(), objective, "").unwrap(), 1).expect_err("bad").to_string();
    let told = error("mixing = {}\n");
    assert!(told.starts_with("10 records") && told.contains("names.jsonl, line 1: it has neither `prompt`"), "{told}");
    let told = error("task = [{ name = 'name' }]\n");
    assert!(told.contains("objective.task.name: `name`") && told.contains("home, names"), "{told}");
    let told = error(&TASKS.replace("{{ kind }}!", "{{ kid }}"));
    assert!(told.contains("names.jsonl, line 10: the template's completion does not render"), "{told}");
    let told = error(&TASKS.replace("{{ kind }}!", "{{ kind"));
    assert!(told.starts_with("objective.task.templates: "), "{told}");
    let refused = |objective: &str, more| mixed(dir.path(), objective, more).expect_err("refused").to_string();
    assert!(refused(TASKS, ", packing = 'best_fit'").starts_with("data.packing is best_fit"));
    assert!(refused(&TASKS.replace("2.5", "0.0"), "").starts_with("objective.task.weight is 0"));
    assert!(refused("mixing = { max_rate = 0 }", "").starts_with("objective.mixing.max_rate is 0"));
    assert!(refused("mixing = { few_shot_share = 1.5 }", "").starts_with("objective.mixing.few_shot_share is 1.5"));
}
