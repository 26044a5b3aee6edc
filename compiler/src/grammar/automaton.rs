//! The automaton of a whole grammar: the rules' automata side by side, checked to be told apart by one byte, without dead ends, and
//! with the length of the shortest way to the end of the rule, and the stack that it takes, in every state.

use std::collections::{BTreeMap, BTreeSet};

use super::deterministic::{Dfa, Step, determinise};
use super::nondeterministic::{Stop, nullable, write_out};
use super::{GrammarError, Rules};

/// The bytes that can come at some point.
pub(super) type Bytes = [bool; 256];

/// A pushdown automaton; it starts in state 0 with an empty stack.
#[derive(Debug)]
pub(super) struct Automaton {
    pub states: Vec<State>,
    pub stack_max: usize,
}

/// A state, its edges by the bytes they are for, apart from each other.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Bytes of the shortest way to the end of the rule.
    pub distance: u32,
    /// Calls under way at a time on that way.
    pub height: u32,
    pub edges: Vec<Edge>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    pub low: u8,
    pub high: u8,
    pub target: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// The byte is taken.
    State(usize),
    /// A rule begins; `back_to` is where it goes on, `None` where the caller's rule ends there.
    Call { start: usize, back_to: Option<usize> },
}

const UNREACHABLE: u32 = u32::MAX;

impl Automaton {
    /// Compiles `rules`, leaving out bytes that are not `spelled`, for a stack of `stack_max` calls.
    pub(super) fn new(rules: &Rules, spelled: &Bytes, stack_max: usize) -> Result<Self, GrammarError> {
        let parts = Parts::new(rules)?;
        parts.check_decided(rules)?;
        let mut automaton = parts.joined(stack_max);
        automaton.keep_bytes(spelled);
        automaton.measure();
        automaton.drop_dead_ends()?;
        Ok(automaton)
    }

    fn keep_bytes(&mut self, spelled: &Bytes) {
        for state in &mut self.states {
            let edges = std::mem::take(&mut state.edges);
            state.edges = edges.into_iter().flat_map(|edge| spelled_parts(edge, spelled)).collect();
        }
    }

    /// Bytes and stack that a way over `target` takes.
    fn cost(&self, target: Target) -> (u32, u32) {
        let of = |state: usize| (self.states[state].distance, self.states[state].height);
        match target {
            Target::State(state) => (of(state).0.saturating_add(1), of(state).1),
            Target::Call { start, back_to: None } => of(start),
            Target::Call { start, back_to: Some(back) } => {
                let ((bytes, height), (bytes_after, height_after)) = (of(start), of(back));
                (bytes.saturating_add(bytes_after), height.saturating_add(1).max(height_after))
            }
        }
    }

    /// Finds every state's distance, then the least height of a way of that length.
    fn measure(&mut self) {
        for state in &mut self.states {
            state.height = UNREACHABLE;
        }
        loop {
            let mut changed = false;
            for idx in (0..self.states.len()).rev() {
                let best = self.states[idx].edges.iter().map(|edge| self.cost(edge.target)).min();
                let state = &self.states[idx];
                let ends = (state.distance == 0).then_some((0, 0));
                let found = ends.or(best).unwrap_or((UNREACHABLE, UNREACHABLE));
                if found < (state.distance, state.height) {
                    (self.states[idx].distance, self.states[idx].height) = found;
                    changed = true;
                }
            }
            if !changed {
                return;
            }
        }
    }

    /// Leaves out what leads to no end, or to none that the stack has room for, and states that nothing leads to.
    fn drop_dead_ends(&mut self) -> Result<(), GrammarError> {
        if self.states[0].distance == UNREACHABLE {
            return Err(GrammarError::Empty);
        }
        if self.states[0].height as usize > self.stack_max {
            let what = format!("its shortest text nests deeper than {} calls", self.stack_max);
            return Err(GrammarError::TooLarge { what });
        }
        let is_live = |state: usize| {
            let State { distance, height, .. } = self.states[state];
            distance < UNREACHABLE && height as usize <= self.stack_max
        };
        let is_kept = |edge: &Edge| match edge.target {
            Target::State(state) => is_live(state),
            Target::Call { start, back_to } => is_live(start) && back_to.is_none_or(is_live),
        };
        let edges: Vec<Vec<Edge>> =
            self.states.iter().map(|state| state.edges.iter().copied().filter(is_kept).collect()).collect();
        let mut order = vec![0];
        let mut places = BTreeMap::from([(0, 0)]);
        let mut at = 0;
        while let Some(&state) = order.get(at) {
            for edge in &edges[state] {
                let targets = match edge.target {
                    Target::State(state) => [Some(state), None],
                    Target::Call { start, back_to } => [Some(start), back_to],
                };
                for target in targets.into_iter().flatten() {
                    places.entry(target).or_insert_with(|| {
                        order.push(target);
                        order.len() - 1
                    });
                }
            }
            at += 1;
        }
        let moved = |edge: &Edge| {
            let target = match edge.target {
                Target::State(state) => Target::State(places[&state]),
                Target::Call { start, back_to } => {
                    Target::Call { start: places[&start], back_to: back_to.map(|state| places[&state]) }
                }
            };
            Edge { target, ..*edge }
        };
        let moved_state = |&old: &usize| {
            let State { distance, height, .. } = self.states[old];
            State { distance, height, edges: edges[old].iter().map(moved).collect() }
        };
        self.states = order.iter().map(moved_state).collect();
        Ok(())
    }
}

/// The stretches of `edge` whose bytes are spelled.
fn spelled_parts(edge: Edge, spelled: &Bytes) -> Vec<Edge> {
    let mut parts: Vec<Edge> = Vec::new();
    for byte in (edge.low..=edge.high).filter(|&byte| spelled[usize::from(byte)]) {
        match parts.last_mut() {
            Some(part) if part.high + 1 == byte => part.high = byte,
            _ => parts.push(Edge { low: byte, high: byte, ..edge }),
        }
    }
    parts
}

/// The automata of the whole text and of each rule that is called.
struct Parts {
    /// The first is the whole text.
    dfas: Vec<Dfa>,
    /// The rule of each.
    rules: Vec<usize>,
    /// Which automaton a called rule has; it starts with a byte, never with the rule's end.
    by_rule: BTreeMap<usize, usize>,
    /// The bytes that each may begin with.
    firsts: Vec<Bytes>,
}

impl Parts {
    fn new(rules: &Rules) -> Result<Self, GrammarError> {
        let nullable = nullable(rules);
        let mut called = BTreeSet::new();
        'again: loop {
            let mut dfas = Vec::new();
            let mut parted: Vec<usize> = vec![0];
            parted.extend(&called);
            for &rule in &parted {
                match write_out(rules, &nullable, &called, rule) {
                    Ok(nfa) => dfas.push(determinise(&nfa)?),
                    Err(Stop::Error(error)) => return Err(error),
                    Err(Stop::Recursive(rule)) => {
                        called.insert(rule);
                        continue 'again;
                    }
                }
            }
            for dfa in &mut dfas[1..] {
                // No byte leads back to this start, so that the rule cannot end before it began.
                let start = dfa.states[0].clone();
                dfa.states.push(start);
                dfa.states[0].accepts = false;
                let copy = dfa.states.len() - 1;
                let redirect = |target: &mut usize| *target = if *target == 0 { copy } else { *target };
                for state in &mut dfa.states {
                    state.bytes.iter_mut().for_each(|(.., target)| redirect(target));
                    state.calls.iter_mut().for_each(|(_, target)| redirect(target));
                }
            }
            let by_rule = called.iter().enumerate().map(|(idx, &rule)| (rule, idx + 1)).collect();
            let mut parts = Self { dfas, rules: parted, by_rule, firsts: Vec::new() };
            parts.firsts = parts.find_firsts(rules)?;
            return Ok(parts);
        }
    }

    /// The bytes that each automaton may begin with.
    fn find_firsts(&self, rules: &Rules) -> Result<Vec<Bytes>, GrammarError> {
        fn visit(parts: &Parts, part: usize, found: &mut [Option<Bytes>], under_way: &mut Vec<usize>) -> Option<Bytes> {
            if let Some(bytes) = found[part] {
                return Some(bytes);
            }
            if under_way.contains(&part) {
                return None;
            }
            under_way.push(part);
            let start = &parts.dfas[part].states[0];
            let mut first = bytes_of(&start.bytes);
            for (rule, _) in &start.calls {
                let inner = visit(parts, parts.by_rule[rule], found, under_way)?;
                first.iter_mut().zip(inner).for_each(|(byte, other)| *byte |= other);
            }
            under_way.pop();
            found[part] = Some(first);
            Some(first)
        }
        let mut found = vec![None; self.dfas.len()];
        let firsts = (0..self.dfas.len()).map(|part| {
            let bytes = visit(self, part, &mut found, &mut Vec::new());
            bytes.ok_or_else(|| GrammarError::LeftRecursion { rule: rules.rules[self.rules[part]].0.clone() })
        });
        firsts.collect()
    }

    /// The bytes that may follow a state's rules: what begins its edges and calls.
    fn begins(&self, part: usize, state: usize) -> Bytes {
        let state = &self.dfas[part].states[state];
        let mut bytes = bytes_of(&state.bytes);
        for (rule, _) in &state.calls {
            bytes.iter_mut().zip(self.firsts[self.by_rule[rule]]).for_each(|(byte, other)| *byte |= other);
        }
        bytes
    }

    /// The bytes that may follow each automaton where it was called.
    fn follows(&self) -> Vec<Bytes> {
        let mut follows = vec![[false; 256]; self.dfas.len()];
        loop {
            let before = follows.clone();
            for (part, dfa) in self.dfas.iter().enumerate() {
                for (rule, back) in dfa.states.iter().flat_map(|state| &state.calls) {
                    let mut after = self.begins(part, *back);
                    if dfa.states[*back].accepts {
                        after.iter_mut().zip(follows[part]).for_each(|(byte, other)| *byte |= other);
                    }
                    follows[self.by_rule[rule]].iter_mut().zip(after).for_each(|(byte, other)| *byte |= other);
                }
            }
            if follows == before {
                return follows;
            }
        }
    }

    /// One byte decides what to do in every state: take it, call one rule, or return.
    fn check_decided(&self, rules: &Rules) -> Result<(), GrammarError> {
        let follows = self.follows();
        for (part, dfa) in self.dfas.iter().enumerate() {
            for (idx, state) in dfa.states.iter().enumerate() {
                let name = |rule: usize| format!("the rule {}", rules.rules[rule].0);
                let mut ways = vec![(bytes_of(&state.bytes), "a byte of the rule itself".to_owned())];
                ways.extend(state.calls.iter().map(|&(rule, _)| (self.firsts[self.by_rule[&rule]], name(rule))));
                if state.accepts && part > 0 {
                    ways.push((follows[part], "what follows the rule".to_owned()));
                }
                for byte in 0..=255u8 {
                    let mut open = ways.iter().filter(|(bytes, _)| bytes[usize::from(byte)]);
                    if let (Some((_, one)), Some((_, other))) = (open.next(), open.next()) {
                        return Err(GrammarError::Ambiguous {
                            rule: rules.rules[self.rules[part]].0.clone(),
                            after: way_to(dfa, idx, rules),
                            byte,
                            one: one.clone(),
                            other: other.clone(),
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// All automata in one. A state where the rule may end has the distance 0, all others none yet.
    fn joined(&self, stack_max: usize) -> Automaton {
        let mut starts = vec![0];
        for dfa in &self.dfas {
            starts.push(starts[starts.len() - 1] + dfa.states.len());
        }
        let mut states = Vec::new();
        for (part, dfa) in self.dfas.iter().enumerate() {
            for state in &dfa.states {
                let base = starts[part];
                let mut edges: Vec<Edge> = Vec::new();
                edges.extend(state.bytes.iter().map(|&(low, high, target)| {
                    let target = Target::State(base + target);
                    Edge { low, high, target }
                }));
                for &(rule, back) in &state.calls {
                    let inner = self.by_rule[&rule];
                    let after = &dfa.states[back];
                    let is_last = after.accepts && after.bytes.is_empty() && after.calls.is_empty();
                    let target = Target::Call { start: starts[inner], back_to: (!is_last).then_some(base + back) };
                    edges.extend(spelled_parts(Edge { low: 0, high: 255, target }, &self.firsts[inner]));
                }
                edges.sort_by_key(|edge| edge.low);
                let distance = if state.accepts { 0 } else { UNREACHABLE };
                states.push(State { distance, height: 0, edges });
            }
        }
        Automaton { states, stack_max }
    }
}

fn bytes_of(edges: &[(u8, u8, usize)]) -> Bytes {
    let mut bytes = [false; 256];
    for &(low, high, _) in edges {
        bytes[usize::from(low)..=usize::from(high)].fill(true);
    }
    bytes
}

/// A text that leads to a state; rules on the way are named in angle brackets.
fn way_to(dfa: &Dfa, state: usize, rules: &Rules) -> String {
    let mut steps = Vec::new();
    let mut at = state;
    while let Some((from, step)) = dfa.states[at].reached_by {
        steps.push(step);
        at = from;
    }
    let spelled = steps.iter().rev().map(|step| match *step {
        Step::Byte(byte) if byte.is_ascii() => char::from(byte).to_string(),
        Step::Byte(byte) => format!("\\x{byte:02x}"),
        Step::Rule(rule) => format!("<{}>", rules.rules[rule].0),
    });
    spelled.collect()
}
