//! The grammar section of the packed file: an automaton's tables, and the vocabulary in the order of its bytes.

use siskin_runtime::TokenId;
use siskin_runtime::grammar::layout;
use siskin_runtime::tokenizer::Tokenizer;

use super::GrammarError;
use super::automaton::{Automaton, Bytes, Target};

/// Which bytes have a token of their own.
pub(super) fn spelled_bytes(tokenizer: &Tokenizer<'_>) -> Bytes {
    let mut spelled = [false; 256];
    for token in texts(tokenizer) {
        if let [byte] = tokenizer.piece(token) {
            spelled[usize::from(*byte)] = true;
        }
    }
    spelled
}

/// The tokens that stand for text: neither empty nor control tokens nor the end of text.
fn texts(tokenizer: &Tokenizer<'_>) -> impl Iterator<Item = TokenId> {
    let is_text =
        |&id: &TokenId| !tokenizer.piece(id).is_empty() && !tokenizer.is_control(id) && tokenizer.eos() != Some(id);
    (0..tokenizer.vocab_size() as TokenId).filter(is_text)
}

/// The bytes of the section.
pub(super) fn encode(automaton: &Automaton, tokenizer: &Tokenizer<'_>) -> Result<Vec<u8>, GrammarError> {
    let too_large = |what: String| GrammarError::TooLarge { what };
    let mut calls: Vec<Target> =
        automaton.states.iter().flat_map(|state| &state.edges).map(|edge| edge.target).collect();
    calls.retain(|target| matches!(target, Target::Call { .. }));
    calls.sort_unstable();
    calls.dedup();
    let n_edges: usize = automaton.states.iter().map(|state| state.edges.len()).sum();
    if automaton.states.len() > layout::STATES_MAX || n_edges > layout::EDGES_MAX || calls.len() > layout::STATES_MAX {
        return Err(too_large(format!("{} states with {n_edges} edges", automaton.states.len())));
    }
    let mut texts: Vec<TokenId> = texts(tokenizer).collect();
    texts.sort_by_key(|&id| (tokenizer.piece(id), id));
    let mut tokens = texts.clone();
    let mut is_text = vec![false; tokenizer.vocab_size()];
    texts.iter().for_each(|&id| is_text[id as usize] = true);
    tokens.extend((0..is_text.len()).filter(|&id| !is_text[id]).map(|id| id as TokenId));

    let counts = [automaton.stack_max, automaton.states.len(), n_edges, calls.len(), tokens.len(), texts.len()];
    let mut section = layout::MAGIC.to_vec();
    section.extend(layout::VERSION.to_le_bytes());
    section.extend(counts.iter().flat_map(|&count| (count as u32).to_le_bytes()));
    put_tokens(&mut section, &tokens);
    for edge in automaton.states.iter().flat_map(|state| &state.edges) {
        let target = match edge.target {
            Target::State(state) => state as u16,
            call => calls.binary_search(&call).unwrap_or_default() as u16 | layout::CALL,
        };
        section.extend([edge.low, edge.high]);
        section.extend(target.to_le_bytes());
    }
    for call in &calls {
        let Target::Call { start, back_to } = *call else { continue };
        section.extend((start as u16).to_le_bytes());
        section.extend(back_to.map_or(layout::NOWHERE, |state| state as u16).to_le_bytes());
    }
    for state in &automaton.states {
        let distance = u16::try_from(state.distance);
        let distance = distance.map_err(|_| too_large(format!("its shortest text takes {} bytes", state.distance)))?;
        section.extend(distance.to_le_bytes());
    }
    let mut edge_start = 0u16;
    section.extend(edge_start.to_le_bytes());
    for state in &automaton.states {
        edge_start += state.edges.len() as u16;
        section.extend(edge_start.to_le_bytes());
    }
    // None is above the stack's limit: such states were left out.
    section.extend(automaton.states.iter().map(|state| u8::try_from(state.height).unwrap_or(u8::MAX)));
    let pieces = texts.iter().map(|&id| tokenizer.piece(id));
    let mut before: &[u8] = &[];
    for piece in pieces {
        let shared = piece.iter().zip(before).take_while(|(a, b)| a == b).count();
        section.push(u8::try_from(shared).unwrap_or(u8::MAX));
        before = piece;
    }
    Ok(section)
}

fn put_tokens(section: &mut Vec<u8>, tokens: &[TokenId]) {
    if tokens.len() > 1 << 16 {
        section.extend(tokens.iter().flat_map(|id| id.to_le_bytes()));
        return;
    }
    section.extend(tokens.iter().flat_map(|&id| (id as u16).to_le_bytes()));
    // What follows lies at a multiple of 4.
    section.resize(section.len().next_multiple_of(4), 0);
}
