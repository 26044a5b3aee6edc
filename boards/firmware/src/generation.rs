//! From the request to the generated text.

use siskin_runtime::format::checksum;
use siskin_runtime::tokenizer::Tokenizer;
use siskin_runtime::{End, Generation, Kernels, Limits, PackedModel, Sampler, Session, StopMatcher, TokenId};

use crate::failure::Failure;
use crate::host::{self, Console, ReadError};
use crate::record::Record;
use crate::request::{Prompt, REQUEST_FILE, Request};
use crate::{Memory, arch, linked, u32_le};

/// Reads the request, generates, and sends what comes of it.
pub fn respond(console: &mut Console, memory: Memory) -> Result<(), Failure> {
    let model = &linked::MODEL.0;
    Record::new(console, "model").number(model.len() as u64).hex(checksum(model).into(), 8).send();
    let request_bytes = host::read_file(REQUEST_FILE, memory.request).map_err(|error| match error {
        ReadError::Missing => {
            Failure::new("there is no siskin-request.bin in the folder that the emulator was started in")
        }
        ReadError::Broken => Failure::new("siskin-request.bin cannot be read"),
        ReadError::TooLong => Failure::new("the request is too long for this board: shorten the prompt"),
    })?;
    let request = Request::parse(&memory.request[..request_bytes])?;
    let model = PackedModel::parse(model)?;
    let tokenizer = model.tokenizer();
    let prompt = prompt_tokens(&request, tokenizer.as_ref(), memory.arena, memory.prompt)?;
    Record::new(console, "prompt").number(prompt.len() as u64).send();
    let mut session = Session::new(&model, memory.arena, Kernels::detect())?;
    generate(console, &request, &mut session, tokenizer, prompt)
}

/// The prompt's tokens, in the front of `prompt`. The arena is not at work yet, so encoding borrows it.
fn prompt_tokens<'p>(
    request: &Request<'_>,
    tokenizer: Option<&Tokenizer<'_>>,
    arena: &mut [u8],
    prompt: &'p mut [TokenId],
) -> Result<&'p [TokenId], Failure> {
    let most = prompt.len();
    let too_long = |needed: usize| {
        Failure::new("the prompt has too many tokens for this board")
            .with("tokens", needed as u64)
            .with("most", most as u64)
    };
    let n_tokens = match request.prompt {
        Prompt::Text(text) => {
            let Some(tokenizer) = tokenizer else {
                return Err(Failure::new("the model has no tokenizer, so its prompt must be token ids"));
            };
            let whole_bytes = arena.len() / size_of::<TokenId>() * size_of::<TokenId>();
            let Ok(scratch) = bytemuck::try_cast_slice_mut::<u8, TokenId>(&mut arena[..whole_bytes]) else {
                return Err(Failure::new("the arena does not start at a multiple of 16 bytes"));
            };
            let n_tokens = tokenizer.encode(text, scratch).map_err(|_| too_long(text.len()))?;
            let room = prompt.get_mut(..n_tokens).ok_or(too_long(n_tokens))?;
            room.copy_from_slice(&scratch[..n_tokens]);
            n_tokens
        }
        Prompt::Tokens(ids) => {
            let n_tokens = ids.len() / 4;
            let room = prompt.get_mut(..n_tokens).ok_or(too_long(n_tokens))?;
            room.iter_mut().zip(ids.chunks_exact(4)).for_each(|(slot, id)| *slot = u32_le(id));
            n_tokens
        }
    };
    Ok(&prompt[..n_tokens])
}

/// Continues the prompt. Two kinds of regions are marked for counting: the reading of the prompt, then each token's step.
fn generate<'a>(
    console: &mut Console,
    request: &Request<'_>,
    session: &mut Session<'a>,
    tokenizer: Option<Tokenizer<'a>>,
    prompt: &[TokenId],
) -> Result<(), Failure> {
    let stops = StopMatcher::new(request.stops()).map_err(|_| {
        Failure::new("a stop sequence is empty or too long").with("most_bytes", StopMatcher::STOP_BYTES_MAX as u64)
    })?;
    let eos = tokenizer.and_then(|tokenizer| tokenizer.eos());
    let limits = Limits { max_new_tokens: request.max_new_tokens, end_tokens: eos.as_slice(), slide_to: None };
    let sampler = Sampler::new(request.sampling, request.seed);

    arch::count_start();
    let started = Generation::start(session, tokenizer, prompt, sampler, stops, limits);
    arch::count_stop();
    let mut generation = started?;
    loop {
        // Text is kept until the region is over: sending it is no work of the model's.
        let mut piece = Piece { bytes: [0; PIECE_BYTES], len: 0 };
        arch::count_start();
        let token = generation.step(|text| piece.push(text));
        arch::count_stop();
        let Some(token) = token else {
            piece.send(console);
            break;
        };
        Record::new(console, "token").number(token.into()).send();
        piece.send(console);
    }
    let end = match generation.end() {
        Some(End::EndToken(_)) => "end end_token",
        Some(End::Stop(_)) => "end stop",
        Some(End::ContextFull) => "end context_full",
        Some(End::MaxNewTokens) | None => "end max_new_tokens",
    };
    Record::new(console, end).send();
    Record::new(console, "hash").hex(generation.logits_hash().0, 16).send();
    Ok(())
}

/// Bytes of text that one step may bring: a piece of the vocabulary and what a stop sequence held back.
const PIECE_BYTES: usize = 256;

/// The text of one step.
struct Piece {
    bytes: [u8; PIECE_BYTES],
    len: usize,
}

impl Piece {
    /// Appends what fits, in whole characters.
    fn push(&mut self, text: &str) {
        let fits = text.floor_char_boundary(PIECE_BYTES - self.len);
        self.bytes[self.len..self.len + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
    }

    fn send(&self, console: &mut Console) {
        if let (1.., Ok(text)) = (self.len, core::str::from_utf8(&self.bytes[..self.len])) {
            Record::new(console, "text").escaped(text).send();
        }
    }
}
