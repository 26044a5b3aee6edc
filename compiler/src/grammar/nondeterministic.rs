//! From a rule to a nondeterministic automaton. Rules are written out where they are used; only those that are truly recursive, not
//! just in last place, are called.

use std::collections::{BTreeSet, HashMap};

use regex_syntax::utf8::{Utf8Range, Utf8Sequences};

use super::{Expr, GrammarError, Rules};

/// Most steps of writing out a rule.
const STEPS_MAX: usize = 1 << 20;
/// Most rules written out within each other.
const NESTING_MAX: usize = 128;

/// An automaton of one rule.
#[derive(Default)]
pub(super) struct Nfa {
    pub states: Vec<State>,
    pub start: usize,
    pub end: usize,
}

#[derive(Default)]
pub(super) struct State {
    /// Where to go for nothing.
    pub free: Vec<usize>,
    /// Lowest and highest byte, and where to go.
    pub bytes: Vec<(u8, u8, usize)>,
    /// A rule, taken without its empty text, and where to go after it.
    pub calls: Vec<(usize, usize)>,
}

/// Why writing out stopped.
pub(super) enum Stop {
    /// This rule is recursive, and must be called.
    Recursive(usize),
    Error(GrammarError),
}

/// Writes `rule` out, but for the rules in `called`.
pub(super) fn write_out(rules: &Rules, nullable: &[bool], called: &BTreeSet<usize>, rule: usize) -> Result<Nfa, Stop> {
    let mut writer = Writer { rules, nullable, called, nfa: Nfa::default(), active: Vec::new(), n_steps: 0 };
    let end = writer.state(State::default());
    let start = writer.written_rule(rule, end)?;
    Ok(Nfa { start, end, ..writer.nfa })
}

struct Writer<'r> {
    rules: &'r Rules,
    nullable: &'r [bool],
    called: &'r BTreeSet<usize>,
    nfa: Nfa,
    /// Rules being written out: the rule, its start, and what follows it.
    active: Vec<(usize, usize, usize)>,
    n_steps: usize,
}

impl Writer<'_> {
    fn state(&mut self, state: State) -> usize {
        self.nfa.states.push(state);
        self.nfa.states.len() - 1
    }

    fn written_rule(&mut self, rule: usize, next: usize) -> Result<usize, Stop> {
        if self.active.len() >= NESTING_MAX {
            let what = format!("more than {NESTING_MAX} rules within each other");
            return Err(Stop::Error(GrammarError::TooLarge { what }));
        }
        let start = self.state(State::default());
        self.active.push((rule, start, next));
        let body = self.write(&self.rules.rules[rule].1, next)?;
        self.active.pop();
        self.nfa.states[start].free.push(body);
        Ok(start)
    }

    /// The state from which `expr` leads to `next`.
    fn write(&mut self, expr: &Expr, next: usize) -> Result<usize, Stop> {
        self.n_steps += 1;
        if self.n_steps > STEPS_MAX {
            let what = "its rules, written out, take more than a million steps".to_owned();
            return Err(Stop::Error(GrammarError::TooLarge { what }));
        }
        match expr {
            Expr::Literal(bytes) => Ok(bytes
                .iter()
                .rev()
                .fold(next, |next, &byte| self.state(State { bytes: vec![(byte, byte, next)], ..State::default() }))),
            Expr::Class(ranges) => Ok(self.write_class(ranges, next)),
            Expr::Sequence(exprs) => exprs.iter().rev().try_fold(next, |next, expr| self.write(expr, next)),
            Expr::Choice(exprs) => {
                let free = exprs.iter().map(|expr| self.write(expr, next)).collect::<Result<_, _>>()?;
                Ok(self.state(State { free, ..State::default() }))
            }
            Expr::Repeat { expr, min, max } => self.write_repeat(expr, *min, *max, next),
            Expr::Rule(rule) => self.write_rule(*rule, next),
        }
    }

    fn write_rule(&mut self, rule: usize, next: usize) -> Result<usize, Stop> {
        let active = self.active.iter().rev().find(|(active, ..)| *active == rule);
        // In last place, recursion is repetition.
        if let Some(&(_, start, follower)) = active
            && follower == next
        {
            return Ok(start);
        }
        if self.called.contains(&rule) {
            let free = if self.nullable[rule] { vec![next] } else { Vec::new() };
            return Ok(self.state(State { free, calls: vec![(rule, next)], ..State::default() }));
        }
        if active.is_some() { Err(Stop::Recursive(rule)) } else { self.written_rule(rule, next) }
    }

    fn write_repeat(&mut self, expr: &Expr, min: u32, max: Option<u32>, next: usize) -> Result<usize, Stop> {
        let mut tail = next;
        match max {
            None => {
                let again = self.state(State { free: vec![next], ..State::default() });
                let body = self.write(expr, again)?;
                self.nfa.states[again].free.push(body);
                tail = again;
            }
            Some(max) => {
                for _ in min..max {
                    let body = self.write(expr, tail)?;
                    tail = self.state(State { free: vec![next, body], ..State::default() });
                }
            }
        }
        for _ in 0..min {
            tail = self.write(expr, tail)?;
        }
        Ok(tail)
    }

    /// The UTF-8 of the characters; sequences that end alike share their ends.
    fn write_class(&mut self, ranges: &[(char, char)], next: usize) -> usize {
        let mut ends: HashMap<Vec<(u8, u8)>, usize> = HashMap::new();
        let bounds = |sequence: &[Utf8Range]| sequence.iter().map(|range| (range.start, range.end)).collect();
        let mut bytes = Vec::new();
        for &(low, high) in ranges {
            for sequence in Utf8Sequences::new(low, high) {
                let sequence = sequence.as_slice();
                let mut target = next;
                for at in (1..sequence.len()).rev() {
                    target = *ends.entry(bounds(&sequence[at..])).or_insert_with(|| {
                        let range = sequence[at];
                        self.nfa
                            .states
                            .push(State { bytes: vec![(range.start, range.end, target)], ..State::default() });
                        self.nfa.states.len() - 1
                    });
                }
                bytes.push((sequence[0].start, sequence[0].end, target));
            }
        }
        self.state(State { bytes, ..State::default() })
    }
}

/// Which rules have the empty text.
pub(super) fn nullable(rules: &Rules) -> Vec<bool> {
    fn is_nullable(expr: &Expr, known: &[bool]) -> bool {
        match expr {
            Expr::Literal(bytes) => bytes.is_empty(),
            Expr::Class(_) => false,
            Expr::Sequence(exprs) => exprs.iter().all(|expr| is_nullable(expr, known)),
            Expr::Choice(exprs) => exprs.iter().any(|expr| is_nullable(expr, known)),
            Expr::Repeat { expr, min, .. } => *min == 0 || is_nullable(expr, known),
            Expr::Rule(rule) => known[*rule],
        }
    }
    let mut known = vec![false; rules.rules.len()];
    loop {
        let next: Vec<bool> = rules.rules.iter().map(|(_, expr)| is_nullable(expr, &known)).collect();
        if next == known {
            return known;
        }
        known = next;
    }
}
