//! What supervised fine-tuning trains on: records read and checked, rendered, encoded with what is to be said.

use super::TrainError;
use super::corpus::{Corpus, fingerprint_with, model_chat_template, with_replay};
use super::record_corpus::parted;
use super::texts::DataSummary;
use super::tokenize::RunTokenizer;
use crate::data::{
    BadRecords, DataError, Document, Example, ExampleSource, Origin, Record, Shuffle, data_files, read_good_records,
};
use crate::objective::sft::{
    Dialogue, FileChecks, FormTemplate, MixingSection, MixtureModel, Rendered, Renderer, SftCounts, SftEncoder,
    SftSection, TaskMixture, TaskPool, TaskShare,
};
use crate::objective::{Noise, Records};
use crate::recipe::{DataSection, PackingRule, Recipe};
use crate::tokenizer::CorpusEncoder;
use std::path::Path;

/// Which examples of a task with too many are trained on does not depend on the run's seed.
const CAP_SEED: u64 = 0;

/// A record and its text in each of its forms; there is one at least.
struct Said {
    record: Record,
    forms: Vec<Rendered>,
}

/// Records that are parted, and drawn, by themselves.
struct Task {
    name: String,
    weight: f64,
    train: Vec<Said>,
    validation: Vec<Said>,
}

/// Reads the records, trains the tokenizer on those of the training part or takes the model's, and makes examples of both parts.
///
/// All that is wrong with records is found before anything is trained, and told at once.
pub(super) fn of_sft(recipe: &Recipe, section: &SftSection, fingerprint: String) -> Result<Corpus, TrainError> {
    let model_template = model_chat_template(recipe)?;
    let specials = (recipe.tokenizer.bos.as_str(), recipe.tokenizer.eos.as_str());
    let renderer = Renderer::new(section, model_template.as_deref(), specials)?;
    let (mut bad, mut summary) = (BadRecords::default(), DataSummary::default());
    let mut tasks = read(&recipe.data, section, &renderer, &mut bad, &mut summary)?;
    if tasks.is_empty() || recipe.model.init_from.is_none() {
        bad.check()?;
    }
    if tasks.is_empty() {
        return Err(DataError::Empty { path: recipe.data.text.clone() }.into());
    }
    let tokenizer = match &recipe.model.init_from {
        Some(folder) => RunTokenizer::of_model(folder)?,
        None => train_tokenizer(recipe, &tasks, specials)?,
    };
    let mut corpus_encoder = tokenizer.encoder();
    let mut encoder = encoder(recipe, section, &mut corpus_encoder, &tokenizer);
    let mut encoded = Encoded::default();
    for task in &mut tasks {
        encoded.add(task, &mut encoder, &mut bad)?;
    }
    bad.check()?;
    summary.sft = Some(encoder.counts);
    (summary.n_train_documents, summary.n_validation_documents) = (encoded.train.len(), encoded.validation.len());
    drop(corpus_encoder);
    let held_out = tasks.iter().flat_map(|task| &task.validation).map(|said| said.record.to_json() + "\n").collect();
    let (source, shares) = source(recipe, section, &tokenizer, tasks, encoded)?;
    let (source, general) = with_replay(recipe, source, &Noise::Causal, &tokenizer)?;
    let of_prompts = || renderer.prompt_template()?.as_chat_template(tokenizer.definition.add_bos);
    Ok(Corpus {
        source,
        labels: Vec::new(),
        n_validation_bytes: None,
        held_out: ("validation.jsonl", held_out),
        baselines: None,
        frame: tokenizer.frame,
        fingerprint: fingerprint_with(&fingerprint, model_template.as_deref().unwrap_or_default()),
        summary,
        general,
        chat_template: section.chat_template.clone().or_else(of_prompts).or(model_template),
        tasks: shares,
        tokenizer: tokenizer.definition,
        tokenizer_json: tokenizer.json,
    })
}

/// The records of all files that can be rendered, a task each if they are mixed; the others are `bad`.
fn read(
    data: &DataSection,
    section: &SftSection,
    renderer: &Renderer,
    bad: &mut BadRecords,
    summary: &mut DataSummary,
) -> Result<Vec<Task>, DataError> {
    let mixing = section.mixing();
    let (files, mut tasks, mut checks) = (data_files(&data.text)?, Vec::new(), FileChecks::default());
    let stem = |file: &Path| file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    if let Some(unknown) = section.task.iter().find(|task| !files.iter().any(|file| stem(file) == task.name)) {
        let names: Vec<String> = files.iter().map(|file| stem(file)).collect();
        let problem = format!("`{}` is no file of data.text; there are: {}", unknown.name, names.join(", "));
        return Err(DataError::BadTemplate { key: "task.name", problem });
    }
    let mut said = Vec::new();
    for file in &files {
        let name = stem(file);
        let settings = section.task.iter().find(|task| task.name == name);
        let templates = settings.map_or(&[][..], |task| &task.templates);
        let templates: Vec<FormTemplate> = templates.iter().map(FormTemplate::new).collect::<Result<_, _>>()?;
        for record in read_good_records(file, bad)? {
            let forms = forms(&record, &templates, renderer, &mut checks);
            said.extend(bad.keep(forms)?.map(|forms| Said { record, forms }));
        }
        if mixing.is_some() || Some(file) == files.last() {
            let weight = settings.map_or(1.0, |task| task.weight);
            tasks.extend(task((name, weight), std::mem::take(&mut said), data, mixing.as_ref(), summary)?);
        }
    }
    Ok(tasks)
}

/// A record in all its forms.
fn forms(
    record: &Record,
    templates: &[FormTemplate],
    renderer: &Renderer,
    checks: &mut FileChecks,
) -> Result<Vec<Rendered>, DataError> {
    if !templates.is_empty() {
        checks.check_id(record)?;
        return templates.iter().map(|template| renderer.render_form(record, template)).collect();
    }
    let dialogue = Dialogue::of(record)?;
    checks.check(record, dialogue.shape())?;
    Ok(vec![renderer.render(record, &dialogue)?])
}

/// Parts the records of a task, and leaves those to train on that a mixture has room for. `None` if there are none.
fn task(
    (name, weight): (String, f64),
    said: Vec<Said>,
    data: &DataSection,
    mixing: Option<&MixingSection>,
    summary: &mut DataSummary,
) -> Result<Option<Task>, DataError> {
    if said.is_empty() {
        return Ok(None);
    }
    let mut own = DataSummary::default();
    let (mut train, validation) = parted(said, data, &mut own, document)?;
    let n_max = mixing.map_or(usize::MAX, |mixing| mixing.max_examples);
    if train.len() > n_max {
        let (len, order) = (train.len() as u64, Shuffle::new(train.len() as u64, CAP_SEED));
        let mut places = (0..len).map(|idx| order.at(idx));
        train.retain(|_| places.next().is_some_and(|place| place < n_max as u64));
    }
    summary.add(&own);
    Ok(Some(Task { name, weight, train, validation }))
}

/// The tokenizer of a new model, trained on each record in one of its forms.
fn train_tokenizer(recipe: &Recipe, tasks: &[Task], (bos, eos): (&str, &str)) -> Result<RunTokenizer, TrainError> {
    let records = tasks.iter().flat_map(|task| &task.train).enumerate();
    // Special tokens are spelled by templates and learnt as tokens, not as text.
    let texts: Vec<String> = records
        .map(|(idx, said)| said.forms[idx % said.forms.len()].text().replace(bos, "").replace(eos, ""))
        .collect();
    RunTokenizer::train(texts.iter(), &recipe.tokenizer, Vec::new())
}

fn encoder<'a, 't>(
    recipe: &Recipe,
    section: &SftSection,
    encoder: &'a mut CorpusEncoder<'t>,
    tokenizer: &RunTokenizer,
) -> SftEncoder<'a, 't> {
    SftEncoder {
        encoder,
        kind: recipe.model.architecture.kind(),
        context_len: recipe.model.context_len,
        frame: tokenizer.frame,
        too_long: section.too_long,
        counts: SftCounts::default(),
    }
}

/// The examples of all records in their first form.
#[derive(Default)]
struct Encoded {
    train: Vec<Example>,
    validation: Vec<Example>,
}

impl Encoded {
    /// Encodes a task's records in all forms; those stay of which no form is left out.
    fn add(
        &mut self,
        task: &mut Task,
        encoder: &mut SftEncoder<'_, '_>,
        bad: &mut BadRecords,
    ) -> Result<(), DataError> {
        for (part, examples) in [(&mut task.train, &mut self.train), (&mut task.validation, &mut self.validation)] {
            let mut kept = Vec::with_capacity(part.len());
            for said in std::mem::take(part) {
                let forms = said.forms.iter().map(|form| encoder.example(&said.record, form));
                let forms: Result<Option<Vec<Example>>, DataError> = forms.collect();
                if let Some(mut forms) = bad.keep(forms)?.flatten() {
                    examples.push(forms.swap_remove(0));
                    kept.push(said);
                }
            }
            *part = kept;
        }
        Ok(())
    }
}

/// Where a run's examples come from, and the tasks' shares of a mixture.
fn source(
    recipe: &Recipe,
    section: &SftSection,
    tokenizer: &RunTokenizer,
    mut tasks: Vec<Task>,
    Encoded { train, validation }: Encoded,
) -> Result<(Box<dyn ExampleSource>, Vec<TaskShare>), TrainError> {
    let Some(mixing) = section.mixing() else {
        let source = Records::new(train, validation)?;
        return Ok(match recipe.data.packing {
            PackingRule::BestFit => (Box::new(source.packed(recipe.model.context_len)), Vec::new()),
            PackingRule::Windows => (Box::new(source), Vec::new()),
        });
    };
    tasks.retain(|task| !task.train.is_empty());
    if tasks.is_empty() {
        return Err(DataError::TooShort { part: "training", n_tokens: 0, needed: 1 }.into());
    }
    let model = MixtureModel {
        tokenizer: tokenizer.definition.compile()?,
        kind: recipe.model.architecture.kind(),
        context_len: recipe.model.context_len,
        frame: tokenizer.frame,
        too_long: section.too_long,
    };
    let mut shares = Vec::new();
    let pools = tasks.into_iter().map(|Task { name, weight, train, validation }| {
        let (n_train_documents, n_validation_documents) = (train.len(), validation.len());
        shares.push(TaskShare { name: name.clone(), n_train_documents, n_validation_documents, share: 0.0 });
        TaskPool { name, weight, records: train.into_iter().map(|said| said.forms).collect() }
    });
    let pools = pools.collect();
    let mixture = TaskMixture::new(model, mixing, pools, train.iter().map(Example::n_tokens).collect(), validation);
    shares.iter_mut().enumerate().for_each(|(task, share)| share.share = mixture.share(task));
    Ok((Box::new(mixture), shares))
}

/// A record's fields as one text, by which repeated ones are found and parts are drawn: its id is none of what it says.
fn document(Said { record, .. }: &Said) -> Document {
    let (path, line) = record.origin();
    let mut fields = record.fields().clone();
    fields.remove("id");
    let text = serde_json::Value::Object(fields).to_string();
    Document { text, label: None, target: None, origin: Origin { path: path.into(), line } }
}
