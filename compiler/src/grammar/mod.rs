//! Grammars that generated text must keep to: GBNF and JSON schemas, compiled to the automaton that the runtime walks.
//!
//! ```text
//! GBNF, JSON schema ── Rules ── automaton::Automaton (a pushdown automaton that decides by one byte) ── section (FORMAT.md)
//! ```

mod automaton;
mod deterministic;
mod gbnf;
mod json;
mod nondeterministic;
mod schema;
mod section;

use siskin_runtime::grammar::STACK_MAX;
use siskin_runtime::tokenizer::Tokenizer;

/// What a grammar is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// These bytes.
    Literal(Vec<u8>),
    /// One character of these ranges, which ascend and do not touch.
    Class(Vec<(char, char)>),
    /// One after another.
    Sequence(Vec<Expr>),
    /// One of these.
    Choice(Vec<Expr>),
    /// `min` times or more, at most `max` times.
    Repeat {
        /// What is repeated.
        expr: Box<Expr>,
        /// The least number.
        min: u32,
        /// The greatest; `None` is any.
        max: Option<u32>,
    },
    /// The rule with this index.
    Rule(usize),
}

impl Expr {
    /// The empty text.
    pub fn empty() -> Self {
        Self::Sequence(Vec::new())
    }

    /// These characters.
    pub fn text(text: &str) -> Self {
        Self::Literal(text.as_bytes().to_vec())
    }

    /// This, or nothing.
    pub fn optional(self) -> Self {
        self.repeated(0, Some(1))
    }

    /// This, `min` to `max` times.
    pub fn repeated(self, min: u32, max: Option<u32>) -> Self {
        Self::Repeat { expr: Box::new(self), min, max }
    }
}

/// A grammar: named rules, the first of which is the whole text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    rules: Vec<(String, Expr)>,
}

/// Why a grammar cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GrammarError {
    /// The text is no grammar.
    #[error("line {line}, column {column}: {what}")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What was found or missing.
        what: String,
    },
    /// A rule that is nowhere defined.
    #[error("the rule {name} is used but not defined")]
    UnknownRule {
        /// Its name.
        name: String,
    },
    /// The schema is no JSON.
    #[error("the schema is not JSON: {0}")]
    NotJson(String),
    /// A part of the schema that is not supported.
    #[error("at {path} of the schema: {what}")]
    Schema {
        /// Keys from the root.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// A rule that begins with itself.
    #[error(
        "the rule {rule} can begin with itself, which no left-to-right automaton follows: put the recursion last, or repeat with *"
    )]
    LeftRecursion {
        /// Its name.
        rule: String,
    },
    /// Two ways to go on that one byte does not tell apart.
    #[error(
        "in the rule {rule}, after {after:?}, the byte {byte:#04x} may belong to {one} or to {other}; one byte must decide where rules \
         are recursive: write what they have in common once, before the choice"
    )]
    Ambiguous {
        /// The rule.
        rule: String,
        /// A text that leads there, from the start of the rule.
        after: String,
        /// The byte.
        byte: u8,
        /// One way.
        one: String,
        /// Another.
        other: String,
    },
    /// No text at all.
    #[error("no text keeps to the grammar, or none that the vocabulary can spell byte by byte")]
    Empty,
    /// It does not fit the format.
    #[error("the grammar is too large: {what}")]
    TooLarge {
        /// What there is too much of.
        what: String,
    },
}

impl Rules {
    /// Reads a grammar in GBNF, the notation of llama.cpp. The whole text is the rule `root`.
    ///
    /// # Errors
    /// [`GrammarError`] says where.
    pub fn from_gbnf(text: &str) -> Result<Self, GrammarError> {
        gbnf::parse(text)
    }

    /// Makes a grammar of the JSON texts, without white space between tokens, that a JSON schema describes.
    ///
    /// # Errors
    /// [`GrammarError`]: the schema is no JSON, or has a part that is not supported.
    pub fn from_json_schema(text: &str) -> Result<Self, GrammarError> {
        schema::parse(text)
    }

    /// The rules by name; the first is the whole text.
    pub fn rules(&self) -> &[(String, Expr)] {
        &self.rules
    }

    /// Compiles to a section of the packed file, for the vocabulary of `tokenizer`.
    ///
    /// Bytes for which the vocabulary has no token of their own are left out of the grammar, so that any text can be made whole.
    ///
    /// # Errors
    /// [`GrammarError`]: the grammar is empty, too large, or one byte does not decide where rules are recursive.
    pub fn compile(&self, tokenizer: &Tokenizer<'_>) -> Result<Vec<u8>, GrammarError> {
        let automaton = automaton::Automaton::new(self, &section::spelled_bytes(tokenizer), STACK_MAX)?;
        section::encode(&automaton, tokenizer)
    }
}

#[cfg(test)]
mod tests;
