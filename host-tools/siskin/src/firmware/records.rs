//! What the firmware says, a record a line (boards/README.md), and what the emulator counted.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use siskin_runtime::TokenId;

use crate::encoding::Found;

/// The records of a run so far.
#[derive(Debug, Default)]
pub(crate) struct Records {
    text: String,
    tokens: Vec<TokenId>,
    n_prompt_tokens: Option<usize>,
    end: Option<String>,
    logits_hash: Option<String>,
    stack_used_bytes: Option<u64>,
    /// Regions of each step of a beam search.
    step_regions: Vec<usize>,
    score: Option<f32>,
    found: Vec<Found>,
    failure: Option<String>,
    return_addresses: Option<String>,
}

/// A run that came to its end.
#[derive(Debug, PartialEq)]
pub(crate) struct Transcript {
    /// What an encoder found; there is no text then, and each finding's work stands among the instructions.
    pub(crate) found: Vec<Found>,
    /// The generated text.
    pub(crate) text: String,
    /// The generated tokens.
    pub(crate) tokens: Vec<TokenId>,
    /// Tokens of the prompt.
    pub(crate) n_prompt_tokens: usize,
    /// Why no more tokens came; empty for an encoder.
    pub(crate) end: String,
    /// The hash of the logits, 16 hexadecimal digits.
    pub(crate) logits_hash: String,
    /// The deepest stack, by the paint that was left.
    pub(crate) stack_used_bytes: u64,
    /// Instructions that reading the prompt took.
    pub(crate) prompt_instructions: u64,
    /// Instructions of each token's step, of a beam search's all beams together. The first token is drawn from the prompt's own prediction, so its step is short.
    pub(crate) instructions: Vec<u64>,
    /// What of it choosing a token and telling its text took; empty for an encoder.
    pub(crate) draw_instructions: Vec<u64>,
    /// What a beam search's best text scores.
    pub(crate) score: Option<f32>,
}

impl Records {
    /// Reads a line. Gives the text that it brings, if it is a text record. Lines that are no records are let be.
    pub(crate) fn take_line(&mut self, line: &str) -> Option<String> {
        let (keyword, value) = line.split_once(' ')?;
        match keyword {
            "text" => {
                let text = unescape(value);
                self.text.push_str(&text);
                return Some(text);
            }
            "token" => self.tokens.extend(value.parse::<TokenId>().ok()),
            "prompt" => self.n_prompt_tokens = value.parse().ok(),
            "end" => self.end = Some(value.to_owned()),
            "hash" => self.logits_hash = Some(value.to_owned()),
            "regions" => self.step_regions.extend(value.parse::<usize>().ok()),
            "score" => self.score = u32::from_str_radix(value, 16).ok().map(f32::from_bits),
            "stack" => self.stack_used_bytes = value.parse().ok(),
            "error" | "fault" => self.failure = Some(value.to_owned()),
            "returns" => self.return_addresses = Some(value.to_owned()),
            _ => self.found.extend(Found::from_record(keyword, value)),
        }
        None
    }

    /// Whether an encoder is at work: it tells what it finds, and no tokens.
    fn is_encoders(&self) -> bool {
        self.end.is_none() && self.logits_hash.is_some()
    }

    /// What the firmware said went wrong.
    pub(crate) fn failure(&self) -> Option<String> {
        let failure = self.failure.as_ref()?;
        match &self.return_addresses {
            Some(addresses) => {
                Some(format!("the firmware says: {failure}; return addresses on its stack: {addresses}"))
            }
            None => Some(format!("the firmware says: {failure}")),
        }
    }

    /// Joins the records with the counts, once the firmware has ended well.
    pub(crate) fn finish(self, counts_path: &Path) -> Result<Transcript> {
        let counts =
            fs::read_to_string(counts_path).with_context(|| format!("failed to read {}", counts_path.display()))?;
        let regions: Vec<u64> = regions(&counts);
        let is_encoders = self.is_encoders();
        // A label and its scores are told at once.
        let is_told = |found: &&Found| !matches!(found, Found::Scores(_));
        let n_steps = if is_encoders { self.found.iter().filter(is_told).count() } else { self.tokens.len() };
        // The first region is the prompt's. A token has two, the pass over the model and the draw; a finding has one. What finds the end
        // comes last, if anything does.
        let regions_per_step = if is_encoders { 1 } else { 2 };
        let (prompt_instructions, steps) = regions.split_first().unwrap_or((&0, &[]));
        let (steps, n_steps) = match &self.step_regions[..] {
            [] => (steps.chunks_exact(regions_per_step).take(n_steps).collect(), n_steps),
            counts => (parted(steps, counts), counts.len()),
        };
        ensure!(!regions.is_empty() && steps.len() == n_steps, "the emulator counted {} regions", regions.len());
        let said = "the firmware ended without saying all it should";
        let end = if is_encoders { Some(String::new()) } else { self.end };
        Ok(Transcript {
            found: self.found,
            text: self.text,
            n_prompt_tokens: self.n_prompt_tokens.context(said)?,
            end: end.context(said)?,
            logits_hash: self.logits_hash.context(said)?,
            stack_used_bytes: self.stack_used_bytes.context(said)?,
            prompt_instructions: *prompt_instructions,
            instructions: steps.iter().map(|step| step.iter().sum()).collect(),
            draw_instructions: steps.iter().filter_map(|step| step.get(1..)?.last().copied()).collect(),
            score: self.score,
            tokens: self.tokens,
        })
    }
}

fn regions(counts: &str) -> Vec<u64> {
    counts.lines().filter_map(|line| line.strip_prefix("region ")?.parse().ok()).collect()
}

/// The first `counts[0]` regions, then the next `counts[1]`, and so on, as far as there are any.
fn parted<'r>(mut regions: &'r [u64], counts: &[usize]) -> Vec<&'r [u64]> {
    let mut next = |&count: &usize| {
        let (step, rest) = regions.split_at_checked(count)?;
        regions = rest;
        Some(step)
    };
    counts.iter().map_while(&mut next).collect()
}

fn unescape(escaped: &str) -> String {
    let mut text = String::with_capacity(escaped.len());
    let mut characters = escaped.chars();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            (_, true) => match characters.next() {
                Some('n') => text.push('\n'),
                Some('r') => text.push('\r'),
                Some(other) => text.push(other),
                None => {}
            },
            (character, false) => text.push(character),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(lines: &str) -> Records {
        let mut records = Records::default();
        lines.lines().for_each(|line| drop(records.take_line(line)));
        records
    }

    #[test]
    fn records_and_counts_become_a_transcript() {
        let dir = tempfile::tempdir().unwrap();
        let counts = dir.path().join("counts.txt");
        fs::write(&counts, "region 100\nregion 0\nregion 5\nregion 50\nregion 6\nregion 2\ntotal 1000\n").unwrap();
        let said = "board b\nprompt 3\ntoken 7\ntext a\\nb\ntoken 8\ntext  \\\\n\nend stop\nhash 00ff\nstack 640\n";
        let transcript = records(said).finish(&counts).unwrap();
        assert_eq!(transcript.text, "a\nb \\n");
        assert_eq!(transcript.tokens, [7, 8]);
        assert_eq!((transcript.n_prompt_tokens, transcript.stack_used_bytes), (3, 640));
        assert_eq!((transcript.prompt_instructions, &transcript.instructions[..]), (100, &[5, 56][..]));
        assert_eq!(transcript.draw_instructions, [5, 6]);
        assert!(records(&said.replace("hash 00ff\n", "")).finish(&counts).is_err());
    }

    #[test]
    fn a_search_has_as_many_regions_as_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let counts = dir.path().join("counts.txt");
        fs::write(&counts, "region 100\nregion 1\nregion 5\nregion 50\nregion 6\nregion 7\nregion 0\n").unwrap();
        let said = "prompt 3\nregions 2\nregions 3\ntoken 7\nscore bf000000\nend end_token\nhash 00ff\nstack 640\n";
        let transcript = records(said).finish(&counts).unwrap();
        assert_eq!((transcript.tokens, transcript.score), (vec![7], Some(-0.5)));
        assert_eq!((&transcript.instructions[..], &transcript.draw_instructions[..]), (&[6, 63][..], &[5, 7][..]));
        assert!(records(&said.replace("regions 3", "regions 30")).finish(&counts).is_err());
    }

    #[test]
    fn an_encoders_findings_become_a_transcript() {
        let dir = tempfile::tempdir().unwrap();
        let counts = dir.path().join("counts.txt");
        fs::write(&counts, "region 100\nregion 5\nregion 2\ntotal 1000\n").unwrap();
        let said = "board b\nprompt 3\nlabel 1\nscores 3f800000 40000000\nhash 00ff\nstack 640\n";
        let transcript = records(said).finish(&counts).unwrap();
        assert_eq!(transcript.found, [Found::Label(1), Found::Scores(vec![1.0, 2.0])]);
        assert_eq!((transcript.prompt_instructions, &transcript.instructions[..]), (100, &[5][..]));
    }

    #[test]
    fn a_fault_is_a_failure() {
        assert!(records("token 1\nfault the stack overflowed").failure().is_some_and(|f| f.contains("overflowed")));
        assert!(records("token 1").failure().is_none());
    }
}
