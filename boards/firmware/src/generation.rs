//! From the request to the generated text, or to what an encoder finds in it.

use siskin_runtime::format::{SectionKind, checksum};
#[cfg(has_grammar)]
use siskin_runtime::grammar::{Grammar, GrammarState};
use siskin_runtime::parts::Kind;
use siskin_runtime::sampler::Constraint;
#[cfg(not(has_grammar))]
use siskin_runtime::sampler::Unconstrained;
use siskin_runtime::tokenizer::{EncodeOptions, Specials};
use siskin_runtime::{
    ArenaError, End, FormatError, Generation, Kernels, Limits, LogitsHash, PackedModel, Sampler, Serial, Session,
    StopMatcher, TokenId,
};

use crate::failure::{Failure, report};
use crate::host::{self, Console, ReadError};
use crate::record::Record;
use crate::request::{Prompt, REQUESTS_MAX, Request, request_file};
use crate::{Memory, adapting, arch, beams, encoding, linked, u32_le};

/// Serves one request after the other, until the host has no more; gives whether all went well. A failure ends its request alone.
pub fn serve(console: &mut Console, _: &str, mut memory: Memory) -> bool {
    let model = linked::model();
    Record::new(console, "model").number(model.len() as u64).hex(checksum(model).into(), 8).send();
    let mut is_well = true;
    for request_idx in 0..REQUESTS_MAX {
        let outcome = match host::read_file(&request_file(request_idx), memory.request) {
            Ok(bytes) => respond(console, &mut memory, bytes),
            Err(ReadError::Missing) if request_idx > 0 => break,
            Err(error) => Err(unreadable(&error)),
        };
        is_well &= report(console, outcome);
    }
    is_well
}

#[cold]
fn unreadable(error: &ReadError) -> Failure {
    Failure::new(match error {
        ReadError::Missing => "there is no siskin-request.bin in the folder that the emulator was started in",
        ReadError::Broken => "siskin-request.bin cannot be read",
        ReadError::TooLong => "the request is too long for this board: shorten the prompt",
    })
}

/// Generates what the request asks for that lies in the first bytes of `memory.request`, and sends what comes of it.
#[inline(never)]
fn respond(console: &mut Console, memory: &mut Memory, request_bytes: usize) -> Result<(), Failure> {
    // Large values stay where they are: moving them would take as much stack again.
    let request = Request::parse(memory.request.get(..request_bytes).unwrap_or_default());
    let request = request.as_ref().map_err(|&failure| failure)?;
    if holds_encoder() {
        return encoding::respond(console, request, memory.arena, memory.prompt);
    }
    let mut slot = None;
    let (session, prompt) = prepare(&mut slot, request, memory.arena, memory.prompt)?;
    adapting::choose(session, request, memory.adapter)?;
    Record::new(console, "prompt").number(prompt.len() as u64).send();
    match request.beams {
        Some(beams) => beams::search(console, request, beams, session, prompt),
        None => generate(console, request, session, prompt),
    }
}

/// Checks the model in flash, encodes the prompt, and starts a session in `slot`. A function of its own, as is [`generate`]: what one
/// takes of the stack is free again when the other begins.
#[inline(never)]
fn prepare<'s, 'a>(
    slot: &'s mut Option<Session<'a>>,
    request: &Request<'_>,
    arena: &'a mut [u8],
    prompt: &'s mut [TokenId],
) -> Result<(&'s mut Session<'a>, &'s [TokenId]), Failure> {
    let mut model = None;
    let model = checked_model(&mut model)?;
    let prompt = prompt_tokens(request, model, arena, prompt)?;
    Ok((start_session(slot, model, arena)?, prompt))
}

/// The model in flash, whose weights must lie in the order that this core's kernels read.
pub fn checked_model<'s>(slot: &'s mut Option<PackedModel<'static>>) -> Result<&'s PackedModel<'static>, Failure> {
    let model = parse_model(slot)?;
    linked::check_layout(model, Kernels::detect())?;
    Ok(model)
}

#[inline(never)]
fn parse_model<'s>(slot: &'s mut Option<PackedModel<'static>>) -> Result<&'s PackedModel<'static>, FormatError> {
    Ok(slot.insert(PackedModel::parse(linked::model())?))
}

/// Whether the model in flash is an encoder alone. A function of its own, so that the model is off the stack again.
#[inline(never)]
fn holds_encoder() -> bool {
    if !linked::HAS_ROOM {
        return linked::SHAPE.is_encoder;
    }
    PackedModel::parse(linked::model()).is_ok_and(|model| model.config().parts().kind == Kind::Encoder)
}

#[inline(never)]
fn start_session<'s, 'a>(
    slot: &'s mut Option<Session<'a>>,
    model: &PackedModel<'static>,
    arena: &'a mut [u8],
) -> Result<&'s mut Session<'a>, ArenaError> {
    Ok(slot.insert(Session::new(model, arena, Kernels::detect())?))
}

/// The prompt's tokens, in the front of `prompt`. The arena is not at work yet, so encoding borrows it.
#[inline(never)]
pub fn prompt_tokens<'p>(
    request: &Request<'_>,
    model: &PackedModel<'_>,
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
            let Some(tokenizer) = model.tokenizer() else {
                return Err(Failure::new("the model has no tokenizer, so its prompt must be token ids"));
            };
            let whole_bytes = arena.len() / size_of::<TokenId>() * size_of::<TokenId>();
            let whole = arena.get_mut(..whole_bytes).unwrap_or_default();
            let Ok(scratch) = bytemuck::try_cast_slice_mut::<u8, TokenId>(whole) else {
                return Err(Failure::new("the arena does not start at a multiple of 16 bytes"));
            };
            let encoded = match prefix(request, model) {
                None => model.encode_input(&tokenizer, text, scratch),
                Some(_) => {
                    let options = EncodeOptions { add_bos: false, specials: Specials::Everywhere };
                    tokenizer.encode_with(text, scratch, options)
                }
            };
            let n_tokens = encoded.map_err(|_| too_long(text.len()))?;
            let room = prompt.get_mut(..n_tokens).ok_or(too_long(n_tokens))?;
            room.iter_mut().zip(scratch).for_each(|(slot, token)| *slot = *token);
            n_tokens
        }
        Prompt::Tokens(ids) => {
            let n_tokens = ids.len() / 4;
            let room = prompt.get_mut(..n_tokens).ok_or(too_long(n_tokens))?;
            room.iter_mut().zip(ids.chunks_exact(4)).for_each(|(slot, id)| *slot = u32_le(id));
            n_tokens
        }
    };
    Ok(prompt.get(..n_tokens).unwrap_or_default())
}

/// What the text begins after.
pub fn prefix<'m>(request: &Request<'_>, model: &PackedModel<'m>) -> Option<&'m [u8]> {
    model.section(SectionKind::Prefix).filter(|_| request.after_prefix)
}

/// Continues the prompt. Marked for counting: the reading of the prompt, then of each token the pass over the model and the draw.
#[inline(never)]
fn generate<'a>(
    console: &mut Console,
    request: &Request<'_>,
    session: &mut Session<'a>,
    prompt: &[TokenId],
) -> Result<(), Failure> {
    let stops = StopMatcher::new(request.stops()).map_err(|_| {
        Failure::new("a stop sequence is empty or too long").with("most_bytes", StopMatcher::STOP_BYTES_MAX as u64)
    })?;
    let tokenizer = session.model().tokenizer();
    let start = session.model().config().parts().start_token;
    let eos = tokenizer.as_ref().and_then(|tokenizer| tokenizer.eos());
    let limits =
        Limits { max_new_tokens: request.max_new_tokens, end_tokens: eos.as_slice(), slide_to: request.window };
    let mut sampler = Sampler::new(request.sampling, request.seed).with_biases(request.biases);
    if let Some(prefix) = prefix(request, session.model()) {
        session.restore(prefix).map_err(|error| Failure::new(error.as_str()))?;
        sampler.observe(session.history());
    }
    #[cfg(has_grammar)]
    let constraint = grammar_state(session.model(), eos.as_slice())?;
    #[cfg(not(has_grammar))]
    let constraint = Unconstrained;
    let mut generation = Generation::new(session, tokenizer, sampler, stops, limits).within(constraint);

    arch::count_start();
    let read = match &start {
        None => generation.read(prompt),
        // The model writes from the prompt.
        Some(start) => generation.read_source(prompt).and_then(|()| generation.read(core::slice::from_ref(start))),
    };
    arch::count_stop();
    read?;
    steps(console, &mut generation);
    Ok(())
}

/// The start of a text within the model's grammar, where it has one.
#[cfg(has_grammar)]
#[inline(never)]
fn grammar_state<'m>(model: &PackedModel<'m>, end_tokens: &'m [TokenId]) -> Result<Option<GrammarState<'m>>, Failure> {
    let Some(section) = model.section(SectionKind::Grammar) else { return Ok(None) };
    let Some(tokenizer) = model.tokenizer() else {
        return Err(Failure::new("the model has no tokenizer for its grammar"));
    };
    let grammar = Grammar::parse(section, &tokenizer).map_err(|error| Failure::new(error.as_str()))?;
    Ok(Some(GrammarState::new(grammar, tokenizer, end_tokens)))
}

/// Sends token after token, then the end.
#[inline(never)]
fn steps(console: &mut Console, generation: &mut Generation<'_, '_, Serial, impl Constraint>) {
    let mut hash = LogitsHash::EMPTY;
    loop {
        // Text is kept until the region is over: sending it is no work of the model's, and neither is the hash, which only the host wants.
        let mut piece = Piece::new(console);
        arch::count_start();
        let goes_on = generation.compute(|text| piece.push(text));
        arch::count_stop();
        let mut token = None;
        if goes_on {
            hash.add(generation.logits());
            arch::count_start();
            token = generation.draw(|text| piece.push(text));
            arch::count_stop();
        }
        if let Some(token) = token {
            Record::new(piece.console, "token").number(token.into()).send();
        }
        piece.send();
        if token.is_none() {
            break;
        }
    }
    Record::new(console, end_record(generation.end())).send();
    Record::new(console, "hash").hex(hash.0, 16).send();
}

/// The record of why a text ended.
pub fn end_record(end: Option<End>) -> &'static str {
    match end {
        Some(End::EndToken(_)) => "end end_token",
        Some(End::Stop(_)) => "end stop",
        Some(End::ContextFull) => "end context_full",
        Some(End::Complete) => "end complete",
        Some(End::Stuck) => "end stuck",
        Some(End::MaxNewTokens) | None => "end max_new_tokens",
    }
}

/// Bytes of text that are gathered before they are sent: more than most steps bring.
const PIECE_BYTES: usize = 64;

/// The text of one step.
pub struct Piece<'c> {
    console: &'c mut Console,
    bytes: [u8; PIECE_BYTES],
    len: usize,
}

impl<'c> Piece<'c> {
    /// No text yet.
    pub fn new(console: &'c mut Console) -> Self {
        Self { console, bytes: [0; PIECE_BYTES], len: 0 }
    }

    /// Appends text, in whole characters, and sends what there is no room for.
    pub fn push(&mut self, mut text: &str) {
        while !text.is_empty() {
            let fits = text.floor_char_boundary(PIECE_BYTES - self.len);
            let (fits, rest) = text.split_at_checked(fits).unwrap_or((text, ""));
            if let Some(room) = self.bytes.get_mut(self.len..self.len + fits.len()) {
                room.copy_from_slice(fits.as_bytes());
                self.len += fits.len();
            }
            text = rest;
            if !text.is_empty() {
                self.send();
            }
        }
    }

    /// Sends what was gathered, where there is any.
    pub fn send(&mut self) {
        if let (1.., Some(Ok(text))) = (self.len, self.bytes.get(..self.len).map(core::str::from_utf8)) {
            Record::new(self.console, "text").escaped(text).send();
        }
        self.len = 0;
    }
}
