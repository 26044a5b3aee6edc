//! Switching a session's adapter while it runs.

use core::fmt;

use super::section::parse_name;
use super::{Adapter, AdapterError};
use crate::decoder::Place;
use crate::format::{SectionKind, SectionTable};
use crate::kernels::Join;
use crate::session::Session;

impl<'a, J: Join + Sync> Session<'a, J> {
    /// Goes on with the model's adapter `name`, or with none: the weights as they are. Empties the cache, whose keys and values were made
    /// otherwise, and forgets a source; a soft prompt goes through the model at once.
    ///
    /// # Errors
    /// [`UnknownAdapter`]; the session is as it was.
    pub fn use_adapter<'n>(&mut self, name: Option<&'n str>) -> Result<(), UnknownAdapter<'n, 'a>> {
        let adapter = match name {
            None => None,
            Some(name) => {
                let model = self.model();
                let unknown = UnknownAdapter { name, sections: model.section_table() };
                Some(model.adapters().named(name).ok_or(unknown)?)
            }
        };
        self.switch(adapter);
        Ok(())
    }

    /// Goes on with an adapter that came by itself, as [`Session::use_adapter`] does. `bytes` must start at a multiple of 16 in memory.
    ///
    /// # Errors
    /// [`AdapterError`]: they are damaged, or for another model or layout. The session is as it was.
    pub fn use_received_adapter(&mut self, bytes: &'a [u8]) -> Result<(), AdapterError> {
        let adapter = Adapter::parse(bytes, self.model())?;
        self.switch(Some(adapter));
        Ok(())
    }

    /// The adapter at work.
    pub fn adapter(&self) -> Option<&Adapter<'a>> {
        self.decoder.adapter.as_ref()
    }

    fn switch(&mut self, adapter: Option<Adapter<'a>>) {
        self.decoder.adapter = adapter;
        self.source_len = 0;
        self.reset();
    }

    /// Rows of the soft prompt, which the cache holds before all tokens.
    pub(crate) fn prompt_len(&self) -> usize {
        self.adapter().and_then(Adapter::prompt).map_or(0, |prompt| prompt.rows())
    }

    /// Runs the soft prompt through the model, into an empty cache.
    pub(crate) fn read_soft_prompt(&mut self) {
        let n_rows = self.prompt_len();
        while self.position < n_rows {
            let n = self.prefill_batch.min(n_rows - self.position);
            self.decoder.embed_prompt(&mut self.buffers, self.position, n);
            self.decoder.layers(&mut self.buffers, Place::sequence(self.position), self.source_len, n);
            self.position += n;
        }
    }
}

/// A model has no adapter of the name that was asked for.
#[derive(Clone, Copy, Debug)]
pub struct UnknownAdapter<'n, 'm> {
    name: &'n str,
    sections: SectionTable<'m>,
}

impl fmt::Display for UnknownAdapter<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the model has no adapter {:?}; ", self.name)?;
        let mut names = self.sections.of_kind(SectionKind::Adapter).filter_map(parse_name);
        let Some(first) = names.next() else { return f.write_str("it has none at all") };
        write!(f, "it has {first}")?;
        names.try_for_each(|name| write!(f, ", {name}"))
    }
}

impl core::error::Error for UnknownAdapter<'_, '_> {}
