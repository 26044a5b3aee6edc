//! A packed model in flash, with the memory that it works in.

use siskin_runtime::{Aligned, Kernels, PackedModel, Session, TokenId};

use crate::error::Error;
use crate::memory::{Key, Memory};
use crate::self_test::{self, Fault, Golden};
use crate::shape::Shape;
use crate::writer::Writer;

/// A packed model in flash and its memory, which is handed out once. [`crate::model!`] makes a `static` of it.
pub struct Model {
    file: &'static [u8],
    shape: Shape,
    arena: &'static Memory<Aligned<[u8]>>,
    prompt: &'static Memory<[TokenId]>,
    key: Key,
}

/// Memory that nobody else has.
pub(crate) struct Taken {
    /// At a multiple of 16.
    pub(crate) arena: &'static mut [u8],
    /// As many as the context has positions.
    pub(crate) prompt: &'static mut [TokenId],
}

impl Model {
    /// A model whose memory nobody else has: what [`crate::model!`] expands to.
    #[doc(hidden)]
    pub const fn new(
        file: &'static [u8],
        shape: Shape,
        arena: &'static Memory<Aligned<[u8]>>,
        prompt: &'static Memory<[TokenId]>,
    ) -> Self {
        Self { file, shape, arena, prompt, key: Key::new() }
    }

    /// What the header says: known when the firmware is compiled.
    pub const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The packed file.
    pub const fn file(&self) -> &'static [u8] {
        self.file
    }

    /// Reads and checks the whole file, its checksums included.
    ///
    /// # Errors
    /// [`Error::Format`] names what is wrong; [`Error::WrongLayout`] on a device whose kernels read another order of weights.
    pub fn parse(&self) -> Result<PackedModel<'static>, Error> {
        let model = PackedModel::parse(self.file)?;
        let (found, wanted) = (model.header().layout, Kernels::detect().preferred_layout());
        // On a host, where firmware is tried out, any order will do.
        if cfg!(target_os = "none") && found != wanted {
            return Err(Error::WrongLayout { found: found.name(), wanted: wanted.name() });
        }
        Ok(model)
    }

    /// A session that takes and gives tokens, in the model's memory.
    ///
    /// # Errors
    /// As [`Model::parse`]; [`Error::Taken`] where it is not the first, [`Error::Arena`] where the model is an encoder alone.
    pub fn session(&'static self) -> Result<Session<'static>, Error> {
        let model = self.parse()?;
        Ok(Session::new(&model, self.take()?.arena, Kernels::detect())?)
    }

    /// A writer of texts, in the model's memory.
    ///
    /// # Errors
    /// As [`Model::session`], and [`Error::NoTokenizer`].
    pub fn writer(&'static self) -> Result<Writer, Error> {
        let model = self.parse()?;
        let tokenizer = model.tokenizer().ok_or(Error::NoTokenizer)?;
        let Taken { arena, prompt } = self.take()?;
        Ok(Writer::new(Session::new(&model, arena, Kernels::detect())?, tokenizer, prompt))
    }

    /// The arena, for who sets up an encoder or a session in it by other means.
    ///
    /// # Errors
    /// [`Error::Taken`] where it is not the first.
    pub fn arena(&'static self) -> Result<&'static mut [u8], Error> {
        Ok(self.take()?.arena)
    }

    /// Tries the file's checksums, the core's kernels, and what the model is known to say (`siskin compile --self-test`), before its memory is
    /// handed out.
    ///
    /// # Errors
    /// The first [`Fault`], which names what failed; [`Error::Taken`] where the memory is in use.
    pub fn self_test(&'static self) -> Result<(), Fault> {
        let (model, kernels) = (self.parse()?, Kernels::detect());
        self_test::check_kernels(&model, kernels).map_err(Fault::Kernel)?;
        let golden = Golden::of(&model)?;
        let outcome = golden.check(&model, kernels, self.take()?.arena);
        // Nothing is left of the session that borrowed it.
        self.key.give_back();
        Ok(outcome?)
    }

    fn take(&'static self) -> Result<Taken, Error> {
        if !self.key.take() {
            return Err(Error::Taken);
        }
        // SAFETY: the key says so to one caller until it is given back, which is done where neither is borrowed any more, and the two are
        // this model's alone.
        let (arena, prompt) = unsafe { (&mut *self.arena.get(), &mut *self.prompt.get()) };
        Ok(Taken { arena: &mut arena.0, prompt })
    }
}
