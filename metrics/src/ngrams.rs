//! N-grams of a segment counted and matched, of all orders in one walk.
//!
//! The references' n-grams are a tree whose edges are symbols, a node for each n-gram. Counting is a walk down from
//! every place of a sequence; an n-gram of the hypothesis that leaves the tree ends its walk, since no longer one can
//! match. Keys are compared whole, so no two n-grams are taken for each other.

use rustc_hash::FxHashMap;

/// The node of the empty n-gram.
const ROOT: u32 = 0;

/// Counts of one segment's n-grams. Its memory is used again for the next.
#[derive(Default)]
pub(crate) struct NgramTree {
    /// From a node, in the upper half, and the symbol that follows to the longer n-gram's node.
    children: FxHashMap<u64, u32>,
    /// By node, from 1.
    nodes: Vec<Node>,
}

struct Node {
    /// Symbols of the n-gram, less one.
    order_idx: usize,
    /// The most that a reference has.
    in_reference: u32,
    /// How often the sequence that is being counted has it.
    here: u32,
}

impl NgramTree {
    /// Forgets a segment.
    pub(crate) fn clear(&mut self) {
        self.children.clear();
        self.nodes.clear();
    }

    /// Adds a reference: of each n-gram, the most that any reference has is kept.
    pub(crate) fn add_reference(&mut self, symbols: &[u32], max_order: usize) {
        for start in 0..symbols.len() {
            let mut node = ROOT;
            for (order_idx, &symbol) in symbols[start..].iter().take(max_order).enumerate() {
                let nodes = &mut self.nodes;
                node = *self.children.entry(key(node, symbol)).or_insert_with(|| {
                    nodes.push(Node { order_idx, in_reference: 0, here: 0 });
                    nodes.len() as u32
                });
                nodes[node as usize - 1].here += 1;
            }
        }
        for node in &mut self.nodes {
            node.in_reference = node.in_reference.max(node.here);
            node.here = 0;
        }
    }

    /// Of each order, from 1, how many n-grams of `symbols` the references have, each no more often than they.
    pub(crate) fn matches(&mut self, symbols: &[u32], matches: &mut [u64]) {
        matches.fill(0);
        for start in 0..symbols.len() {
            let mut node = ROOT;
            for &symbol in symbols[start..].iter().take(matches.len()) {
                let Some(&longer) = self.children.get(&key(node, symbol)) else { break };
                node = longer;
                self.nodes[node as usize - 1].here += 1;
            }
        }
        for node in &mut self.nodes {
            if let Some(sum) = matches.get_mut(node.order_idx) {
                *sum += u64::from(node.here.min(node.in_reference));
            }
            node.here = 0;
        }
    }
}

fn key(node: u32, symbol: u32) -> u64 {
    u64::from(node) << 32 | u64::from(symbol)
}

/// How many n-grams of `order` a sequence of `len` symbols has.
pub(crate) fn count(len: usize, order: usize) -> u64 {
    (len + 1).saturating_sub(order) as u64
}

/// Words that a numbering has room for at first: those of most segments.
const N_WORDS_USUAL: usize = 96;

/// Numbers for words, the same for the same word.
pub(crate) struct Numbering<'text> {
    numbers: FxHashMap<&'text str, u32>,
}

impl Default for Numbering<'_> {
    fn default() -> Self {
        Self { numbers: FxHashMap::with_capacity_and_hasher(N_WORDS_USUAL, Default::default()) }
    }
}

impl<'text> Numbering<'text> {
    /// The words' numbers, in their order.
    pub(crate) fn numbers(&mut self, words: impl Iterator<Item = &'text str>) -> Vec<u32> {
        words.map(|word| self.number(word)).collect()
    }

    fn number(&mut self, word: &'text str) -> u32 {
        let next = self.numbers.len() as u32;
        *self.numbers.entry(word).or_insert(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_are_clipped_by_the_reference_that_has_most() {
        let mut tree = NgramTree::default();
        tree.add_reference(&[1, 2, 1], 3);
        tree.add_reference(&[1, 1, 1, 2], 3);
        let mut matches = [9; 3];
        tree.matches(&[1, 1, 1, 1, 2, 1], &mut matches);
        // 1 thrice of 5, and 2 once; 11 twice of 3, 12 and 21 once; 111 once of 2, 112 and 121 once.
        assert_eq!(matches, [4, 4, 3]);
        tree.clear();
        tree.matches(&[1], &mut matches);
        assert_eq!(matches, [0; 3]);
    }
}
