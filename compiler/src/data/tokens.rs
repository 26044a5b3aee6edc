//! Tokens of documents, one after another: held in memory, or mapped from shards.

use super::{DataError, TokenShards};
use siskin_runtime::TokenId;
use std::ops::Range;

/// Documents of tokens, wherever they are.
#[derive(Debug)]
pub enum TokenStore {
    /// In memory.
    Held {
        /// The tokens of all documents.
        tokens: Vec<TokenId>,
        /// Where each document starts, and the number of all tokens.
        bounds: Vec<usize>,
    },
    /// In mapped files.
    Mapped(TokenShards),
}

impl TokenStore {
    /// Holds documents in memory.
    ///
    /// # Errors
    /// The first among the documents.
    pub fn held<T: AsRef<[TokenId]>>(
        documents: impl IntoIterator<Item = Result<T, DataError>>,
    ) -> Result<Self, DataError> {
        let (mut tokens, mut bounds) = (Vec::new(), vec![0]);
        for document in documents {
            tokens.extend_from_slice(document?.as_ref());
            bounds.push(tokens.len());
        }
        Ok(Self::Held { tokens, bounds })
    }

    /// Holds one document.
    pub fn of_one(tokens: Vec<TokenId>) -> Self {
        Self::Held { bounds: vec![0, tokens.len()], tokens }
    }

    /// Tokens of all documents.
    pub fn n_tokens(&self) -> usize {
        match self {
            Self::Held { tokens, .. } => tokens.len(),
            Self::Mapped(shards) => shards.n_tokens(),
        }
    }

    /// Documents.
    pub fn n_documents(&self) -> usize {
        match self {
            Self::Held { bounds, .. } => bounds.len() - 1,
            Self::Mapped(shards) => shards.n_documents(),
        }
    }

    /// Where a document's tokens lie among all.
    ///
    /// # Panics
    /// If there is no such document.
    pub fn document_range(&self, document: usize) -> Range<usize> {
        match self {
            Self::Held { bounds, .. } => bounds[document]..bounds[document + 1],
            Self::Mapped(shards) => shards.document_range(document),
        }
    }

    /// Tokens of each document.
    pub fn document_lens(&self) -> Vec<usize> {
        (0..self.n_documents()).map(|document| self.document_range(document).len()).collect()
    }

    /// Tokens by their places among all.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn tokens(&self, range: Range<usize>) -> Vec<TokenId> {
        match self {
            Self::Held { tokens, .. } => tokens[range].to_vec(),
            Self::Mapped(shards) => shards.tokens(range),
        }
    }

    /// All tokens, document after document.
    pub fn iter(&self) -> impl Iterator<Item = TokenId> + '_ {
        // A few pages at a time, so that mapped ones need not all be in memory.
        const READ_TOKENS: usize = 1 << 14;
        let starts = (0..self.n_tokens()).step_by(READ_TOKENS);
        starts.flat_map(|at| self.tokens(at..(at + READ_TOKENS).min(self.n_tokens())))
    }
}
