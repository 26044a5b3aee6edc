//! From a nondeterministic automaton to a deterministic one, by sets of states.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use siskin_runtime::grammar::layout::STATES_MAX;

use super::GrammarError;
use super::nondeterministic::Nfa;

/// An automaton of one rule, whose first state is its start.
pub(super) struct Dfa {
    pub states: Vec<State>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Whether the rule may end here.
    pub accepts: bool,
    /// Lowest and highest byte, ascending and apart, and where to go.
    pub bytes: Vec<(u8, u8, usize)>,
    /// A rule that may begin here, and where to go after it.
    pub calls: Vec<(usize, usize)>,
    /// The state and the byte, or the rule, that first led here.
    pub reached_by: Option<(usize, Step)>,
}

/// What leads from a state to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Byte(u8),
    Rule(usize),
}

/// The sets of states of `nfa` that some text leads to.
pub(super) fn determinise(nfa: &Nfa) -> Result<Dfa, GrammarError> {
    let mut sets = Sets { nfa, known: HashMap::new(), found: Vec::new(), states: Vec::new() };
    sets.state(BTreeSet::from([nfa.start]), None)?;
    let mut idx = 0;
    while let Some(set) = sets.found.get(idx).cloned() {
        sets.follow(idx, &set)?;
        idx += 1;
    }
    Ok(Dfa { states: sets.states })
}

struct Sets<'n> {
    nfa: &'n Nfa,
    known: HashMap<Vec<usize>, usize>,
    found: Vec<Vec<usize>>,
    states: Vec<State>,
}

impl Sets<'_> {
    /// The state of these and all that they reach for nothing.
    fn state(&mut self, from: BTreeSet<usize>, reached_by: Option<(usize, Step)>) -> Result<usize, GrammarError> {
        let mut closed = from;
        let mut waiting: Vec<usize> = closed.iter().copied().collect();
        while let Some(state) = waiting.pop() {
            waiting.extend(self.nfa.states[state].free.iter().filter(|&&next| closed.insert(next)));
        }
        // States that only pass on add nothing.
        let counts = |&state: &usize| {
            let state_of = &self.nfa.states[state];
            state == self.nfa.end || !state_of.bytes.is_empty() || !state_of.calls.is_empty()
        };
        let set: Vec<usize> = closed.into_iter().filter(counts).collect();
        if let Some(&known) = self.known.get(&set) {
            return Ok(known);
        }
        if self.states.len() >= STATES_MAX {
            return Err(GrammarError::TooLarge { what: format!("more than {STATES_MAX} states") });
        }
        let idx = self.states.len();
        let accepts = set.contains(&self.nfa.end);
        self.states.push(State { accepts, reached_by, ..State::default() });
        self.known.insert(set.clone(), idx);
        self.found.push(set);
        Ok(idx)
    }

    fn follow(&mut self, idx: usize, set: &[usize]) -> Result<(), GrammarError> {
        let nfa = self.nfa;
        let edges: Vec<(u8, u8, usize)> =
            set.iter().flat_map(|&state| nfa.states[state].bytes.iter().copied()).collect();
        // Between two neighbouring bounds, every byte leads to the same states.
        let mut bounds: BTreeSet<u16> = edges.iter().map(|&(low, ..)| low.into()).collect();
        bounds.extend(edges.iter().map(|&(_, high, _)| u16::from(high) + 1));
        let bounds: Vec<u16> = bounds.into_iter().collect();
        let mut bytes: Vec<(u8, u8, usize)> = Vec::new();
        for pair in bounds.windows(2) {
            let (low, high) = (pair[0] as u8, (pair[1] - 1) as u8);
            let there = edges.iter().filter(|&&(from, to, _)| from <= low && high <= to);
            let targets: BTreeSet<usize> = there.map(|&(.., target)| target).collect();
            if targets.is_empty() {
                continue;
            }
            let target = self.state(targets, Some((idx, Step::Byte(low))))?;
            match bytes.last_mut() {
                Some((_, last, same)) if *same == target && u16::from(*last) + 1 == u16::from(low) => *last = high,
                _ => bytes.push((low, high, target)),
            }
        }
        let mut by_rule: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for &(rule, target) in set.iter().flat_map(|&state| &nfa.states[state].calls) {
            by_rule.entry(rule).or_default().insert(target);
        }
        let mut calls = Vec::new();
        for (rule, targets) in by_rule {
            calls.push((rule, self.state(targets, Some((idx, Step::Rule(rule))))?));
        }
        (self.states[idx].bytes, self.states[idx].calls) = (bytes, calls);
        Ok(())
    }
}
