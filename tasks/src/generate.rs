//! Records, drawn for each part.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::draw::{Draw, hash};
use crate::grammar::{Form, Kind, Task};
use crate::slot::{Entry, Slot, Value};
use crate::template::{self, Chosen, Piece};

/// Of a hundred combinations of slot values, so many are held out.
const N_HELD_OUT_OF_100: u64 = 12;
/// Records of a part that is not trained on, at most.
const N_EVALUATED_MAX: usize = 1000;
/// Draws for a record or a value that is not there yet, before it is taken that there is none.
const N_TRIES: usize = 400;

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Trained on.
    Train,
    /// Other draws of what is trained on: templates and combinations are the same, texts are not.
    Validation,
    /// Templates that are in no other part.
    UnseenPhrasings,
    /// Combinations of slot values that are in no other part.
    UnseenCombinations,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Train, Self::Validation, Self::UnseenPhrasings, Self::UnseenCombinations];

    /// The name, as files have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::UnseenPhrasings => "unseen-phrasings",
            Self::UnseenCombinations => "unseen-combinations",
        }
    }
}

/// A record: a line of JSONL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// The task, the part and a number from 0.
    pub id: String,
    /// What is asked.
    pub prompt: String,
    /// What is wanted.
    pub completion: String,
    /// What kind of record it is.
    pub kind: String,
    /// The kind's template, from 0; those to hold out come after those to train on.
    pub template: usize,
    /// The values that may be held out together.
    pub combination: String,
}

/// The records of a part, in a random order.
pub struct PartRecords {
    /// The part.
    pub part: Part,
    /// Its records: fewer than were asked for where the task has no more.
    pub records: Vec<Record>,
}

impl PartRecords {
    /// The records as JSONL.
    pub fn jsonl(&self) -> String {
        let line = |record: &Record| serde_json::to_string(record).map(|line| line + "\n");
        self.records.iter().flat_map(line).collect()
    }
}

impl Task {
    /// Draws `n` records to train on, and a tenth as many, at most 1,000, for each other part. No prompt comes twice.
    ///
    /// The other parts are drawn first, so that what is trained on gives way to them.
    pub fn generate(&self, seed: u64, n: usize) -> Vec<PartRecords> {
        let mut prompts = BTreeSet::new();
        let mut parts: Vec<PartRecords> = Part::ALL
            .into_iter()
            .rev()
            .map(|part| {
                let n = if part == Part::Train { n } else { (n / 10).min(N_EVALUATED_MAX) };
                let mut draw = Draw::new(seed, &format!("{}/{}", self.name, part.name()));
                let mut records = Vec::with_capacity(n);
                while records.len() < n {
                    let tried = (0..N_TRIES).filter_map(|_| self.record(part, &mut draw));
                    let Some(mut record) = tried.into_iter().find(|record| !prompts.contains(&record.prompt)) else {
                        break;
                    };
                    prompts.insert(record.prompt.clone());
                    record.id = format!("{}-{}-{:06}", self.name, part.name(), records.len());
                    records.push(record);
                }
                PartRecords { part, records }
            })
            .collect();
        parts.reverse();
        parts
    }

    /// A record of the part, unless the draw belongs to another.
    fn record(&self, part: Part, draw: &mut Draw) -> Option<Record> {
        let kind = draw.choice(&self.kinds);
        let (templates, first) = match part {
            Part::UnseenPhrasings => (&kind.held_out, kind.train.len()),
            _ => (&kind.train, 0),
        };
        let template = draw.below(templates.len());
        let mut chosen = Vec::new();
        template::choose(&templates[template], &self.fragments, draw, &mut chosen);
        let mut values = Values { task: self, drawn: BTreeMap::new() };
        let prompt = clean(&values.said(&chosen, draw));
        let completion = match self.form {
            Form::Json => self.object(kind, &values),
            Form::Text => values.completed(&kind.completion, draw),
            Form::Values => clean(&values.valued(&chosen)),
        };
        let combination = values.combination(kind, self.form);
        let is_held_out = self.is_held_out(kind, &values, &combination);
        if is_held_out != (part == Part::UnseenCombinations) {
            return None;
        }
        let (kind, template) = (kind.name.clone(), first + template);
        Some(Record { id: String::new(), prompt, completion, kind, template, combination })
    }

    /// Whether a combination is held out: by its hash, whatever the seed. A value that could be seen nowhere else is
    /// not: one slot by itself is held out where its values are made of parts, or where other kinds have it too, one of
    /// which always keeps it.
    fn is_held_out(&self, kind: &Kind, values: &Values<'_>, combination: &str) -> bool {
        let slots: Vec<(&str, &Slot, &Entry)> = values.combined(kind, self.form).collect();
        let may_be = match slots[..] {
            [] => false,
            [(name, slot, entry)] if !slot.is_compositional => self.keeper(name, entry) != Some(&kind.name),
            _ => true,
        };
        may_be && hash(combination) % 100 < N_HELD_OUT_OF_100
    }

    /// The kind that is trained on with a value whatever happens.
    fn keeper(&self, slot: &str, entry: &Entry) -> Option<&String> {
        let kinds: Vec<&Kind> =
            self.kinds.iter().filter(|kind| kind.combine.iter().any(|other| other == slot)).collect();
        let place = hash(&format!("{slot}={}", text_of(entry))) % (kinds.len() as u64).max(1);
        kinds.get(place as usize).map(|kind| &kind.name)
    }

    fn object(&self, kind: &Kind, values: &Values<'_>) -> String {
        let mut members = vec![("intent", serde_json::Value::from(kind.name.as_str()))];
        for (name, _) in &kind.object_slots {
            let Some((_, entry)) = values.drawn.get(name.as_str()) else { continue };
            for (field, value) in &entry.fields {
                members.push((if field.is_empty() { name } else { field }, value.json()));
            }
        }
        let members: Vec<String> =
            members.iter().map(|(key, value)| format!("{}:{value}", serde_json::Value::from(*key))).collect();
        format!("{{{}}}", members.join(","))
    }
}

/// The values that a record's slots have got so far.
struct Values<'t> {
    task: &'t Task,
    /// By what the slot is called: its own name, and the value.
    drawn: BTreeMap<&'t str, (&'t str, &'t Entry)>,
}

impl<'t> Values<'t> {
    /// Two slots of one kind have different values, so that a question about one has one answer.
    fn entry(&mut self, called: &'t str, name: &'t str, draw: &mut Draw) -> &'t Entry {
        if let Some((_, entry)) = self.drawn.get(called) {
            return entry;
        }
        let slot = &self.task.slots[name];
        let others: Vec<String> =
            self.drawn.values().filter(|(other, _)| *other == name).map(|(_, e)| text_of(e)).collect();
        let is_free = |entry: &&Entry| !others.contains(&text_of(entry));
        let entry = (0..N_TRIES).map(|_| draw.choice(&slot.entries)).find(is_free).unwrap_or(&slot.entries[0]);
        self.drawn.insert(called, (name, entry));
        entry
    }

    /// The text as it is said.
    fn said(&mut self, chosen: &[Chosen<'t>], draw: &mut Draw) -> String {
        let mut text = String::new();
        for part in chosen {
            match part {
                Chosen::Text(part) => text += part,
                Chosen::Slot { called, name } => {
                    let entry = self.entry(called, name, draw);
                    text += draw.choice(&entry.said[..]).as_str();
                }
            }
        }
        text
    }

    /// The same text with values in place of what is said.
    fn valued(&self, chosen: &[Chosen<'t>]) -> String {
        let part = |part: &Chosen<'t>| match part {
            Chosen::Text(text) => (*text).to_owned(),
            Chosen::Slot { called, .. } => self.drawn.get(called).map_or_else(String::new, |(_, entry)| text_of(entry)),
        };
        chosen.iter().map(part).collect()
    }

    /// A completion's text: choices are not among its parts.
    fn completed(&mut self, pieces: &'t [Piece], draw: &mut Draw) -> String {
        let mut text = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(part) => text += part,
                Piece::Name { called, name } => text += &text_of(self.entry(called, name, draw)),
                Piece::Choice(_) => {}
            }
        }
        text
    }

    /// The slots of the record that are combined: their own names, themselves and their values.
    fn combined<'a>(&'a self, kind: &'a Kind, form: Form) -> impl Iterator<Item = (&'t str, &'t Slot, &'t Entry)> + 'a {
        let is_combined = move |called: &str| form == Form::Values || kind.combine.iter().any(|other| other == called);
        let drawn = self.drawn.iter().filter(move |(called, _)| is_combined(called));
        drawn.map(|(_, (name, entry))| (*name, &self.task.slots[*name], *entry))
    }

    fn combination(&self, kind: &Kind, form: Form) -> String {
        let values = self.combined(kind, form).map(|(name, _, entry)| format!(" {name}={}", text_of(entry)));
        format!("{}{}", kind.name, values.collect::<String>())
    }
}

fn text_of(entry: &Entry) -> String {
    let fields: Vec<String> = entry.fields.iter().map(|(_, value)| Value::text(value)).collect();
    fields.join(":")
}

/// One space between words: choices of nothing leave two.
fn clean(text: &str) -> String {
    text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}
