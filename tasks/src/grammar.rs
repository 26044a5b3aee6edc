//! A task: its grammar, read and checked once, so that drawing from it cannot fail.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::error::TaskError;
use crate::slot::{Slot, SlotText};
use crate::template::{self, Fragments, Piece};

/// Fragments within fragments, at most.
const NESTING_MAX: usize = 8;

/// A grammar as its file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrammarText {
    /// What the task is, in a sentence.
    about: String,
    form: Form,
    #[serde(default)]
    slots: BTreeMap<String, SlotText>,
    #[serde(default)]
    fragments: BTreeMap<String, Vec<String>>,
    kinds: Vec<KindText>,
}

/// What completions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Form {
    /// An object: `intent`, the kind's name, then its slots.
    Json,
    /// The kind's `completion`, with values for its slots.
    Text,
    /// The prompt again, with values where it says slots.
    Values,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KindText {
    name: String,
    /// Of form text: the completion.
    completion: Option<String>,
    /// Slots of an object, in order; `?` ends the name of one that a prompt may leave out.
    #[serde(default)]
    slots: Vec<String>,
    /// The slots whose values together may be held out: those of the completion, where it is not said.
    combine: Option<Vec<String>>,
    /// Templates that are trained on.
    train: Vec<String>,
    /// Templates that are not.
    held_out: Vec<String>,
}

/// A task that records can be drawn from.
pub struct Task {
    pub(crate) name: String,
    about: String,
    pub(crate) form: Form,
    pub(crate) slots: BTreeMap<String, Slot>,
    pub(crate) fragments: Fragments,
    pub(crate) kinds: Vec<Kind>,
}

/// Records of one kind.
pub(crate) struct Kind {
    pub(crate) name: String,
    /// Of form text.
    pub(crate) completion: Vec<Piece>,
    /// Of an object: the slot, and whether every prompt says it.
    pub(crate) object_slots: Vec<(String, bool)>,
    /// As they are called in templates.
    pub(crate) combine: Vec<String>,
    pub(crate) train: Vec<Vec<Piece>>,
    pub(crate) held_out: Vec<Vec<Piece>>,
}

impl Task {
    /// Reads a grammar.
    ///
    /// # Errors
    /// [`TaskError`] says where it is wrong.
    pub fn parse(name: &str, text: &str) -> Result<Self, TaskError> {
        let text: GrammarText = toml::from_str(text)
            .map_err(|source| TaskError::Toml { task: name.to_owned(), source: Box::new(source) })?;
        let wrong =
            |place: &str, what: String| TaskError::Grammar { task: name.to_owned(), place: place.to_owned(), what };
        let slots = text.slots.iter().map(|(slot, text)| {
            Slot::new(text).map(|made| (slot.clone(), made)).map_err(|what| wrong(&format!("slot {slot}"), what))
        });
        let slots: BTreeMap<String, Slot> = slots.collect::<Result<_, _>>()?;
        let fragments = text.fragments.iter().map(|(fragment, choices)| {
            let place = format!("fragment {fragment}");
            templates(choices).map(|choices| (fragment.clone(), choices)).map_err(|what| wrong(&place, what))
        });
        let fragments: Fragments = fragments.collect::<Result<_, _>>()?;
        let kinds = text.kinds.iter().map(|kind| {
            Kind::new(kind, text.form, &slots, &fragments).map_err(|what| wrong(&format!("kind {}", kind.name), what))
        });
        let kinds = kinds.collect::<Result<Vec<_>, _>>()?;
        let task = Self { name: name.to_owned(), about: text.about, form: text.form, slots, fragments, kinds };
        task.check_names().map_err(|(place, what)| wrong(&place, what))?;
        Ok(task)
    }

    /// The task's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the task is, in a sentence.
    pub fn about(&self) -> &str {
        &self.about
    }

    /// How many templates are trained on, and how many are held out.
    pub fn n_templates(&self) -> (usize, usize) {
        let sum = |templates: fn(&Kind) -> usize| self.kinds.iter().map(templates).sum();
        (sum(|kind| kind.train.len()), sum(|kind| kind.held_out.len()))
    }

    /// Every name must be a slot or a fragment, and fragments must end.
    fn check_names(&self) -> Result<(), (String, String)> {
        for kind in &self.kinds {
            for pieces in kind.train.iter().chain(&kind.held_out).chain([&kind.completion]) {
                self.check_template(pieces, 0).map_err(|what| (format!("kind {}", kind.name), what))?;
            }
        }
        Ok(())
    }

    fn check_template(&self, pieces: &[Piece], depth: usize) -> Result<(), String> {
        if depth > NESTING_MAX {
            return Err(format!("fragments are more than {NESTING_MAX} within each other"));
        }
        for name in template::names(pieces) {
            match self.fragments.get(name) {
                Some(choices) => choices.iter().try_for_each(|pieces| self.check_template(pieces, depth + 1))?,
                None if self.slots.contains_key(name) => {}
                None => return Err(format!("<{name}> is neither a slot nor a fragment")),
            }
        }
        Ok(())
    }
}

impl Kind {
    fn new(text: &KindText, form: Form, slots: &BTreeMap<String, Slot>, fragments: &Fragments) -> Result<Self, String> {
        let completion = match (form, &text.completion) {
            (Form::Text, Some(completion)) => template::parse(completion)?,
            (Form::Text, None) => return Err("completion is missing".to_owned()),
            (Form::Json | Form::Values, None) => Vec::new(),
            (Form::Json | Form::Values, Some(_)) => return Err("completion is only for form text".to_owned()),
        };
        if let Some(name) = template::names(&completion).into_iter().find(|name| fragments.contains_key(*name)) {
            return Err(format!("<{name}> in the completion is a fragment: only slots have one value"));
        }
        let object_slots: Vec<(String, bool)> = text
            .slots
            .iter()
            .map(|name| match name.strip_suffix('?') {
                Some(name) => (name.to_owned(), false),
                None => (name.clone(), true),
            })
            .collect();
        if let Some((name, _)) = object_slots.iter().find(|(name, _)| !slots.contains_key(name)) {
            return Err(format!("there is no slot {name}"));
        }
        if text.train.is_empty() || text.held_out.is_empty() {
            return Err("templates to train on and templates to hold out are wanted, one of each at least".to_owned());
        }
        let of_completion = || match form {
            Form::Json => object_slots.iter().map(|(name, _)| name.clone()).collect(),
            Form::Text | Form::Values => called(&completion),
        };
        let combine = text.combine.clone().unwrap_or_else(of_completion);
        let (train, held_out) = (templates(&text.train)?, templates(&text.held_out)?);
        Ok(Self { name: text.name.clone(), completion, object_slots, combine, train, held_out })
    }
}

fn templates(texts: &[String]) -> Result<Vec<Vec<Piece>>, String> {
    texts.iter().map(|text| template::parse(text)).collect()
}

/// What slots are called in a template without choices.
fn called(pieces: &[Piece]) -> Vec<String> {
    let called = pieces.iter().filter_map(|piece| match piece {
        Piece::Name { called, .. } => Some(called.clone()),
        _ => None,
    });
    called.collect()
}
