//! A conversation over a serial line: requests in, events out, for as long as there is power (`siskin_device::serial`).

use core::fmt::{self, Write as _};

use siskin_device::serial::{Event, FrameError, Generate, Receiver, Request, STOPS_MAX};
use siskin_device::{Error, Options, Writer};
use siskin_runtime::format::checksum;
use siskin_runtime::sampler::Constraint;
use siskin_runtime::{Generation, Kernels, LogitsHash, PackedModel, Serial, Session, TokenId};

use crate::failure::{Failure, report};
use crate::host::{Console, say};
use crate::{Memory, linked, uart};

/// What is said of a request that comes before a text is over.
const BUSY: &str = "a text is under way: stop it first";

/// Serves request after request. A failure ends its request alone; gives back where the model cannot be run at all.
pub fn serve(console: &mut Console, board: &str, memory: Memory) -> bool {
    let outcome = start(memory.arena, memory.prompt).map(|mut writer| listen(&mut writer, board, memory.request));
    report(console, outcome)
}

/// Checks the model in flash, and sets it up in its memory.
#[inline(never)]
fn start(arena: &'static mut [u8], prompt: &'static mut [TokenId]) -> Result<Writer, Failure> {
    let model = PackedModel::parse(&linked::MODEL.0)?;
    let kernels = Kernels::detect();
    linked::check_layout(&model, kernels)?;
    let tokenizer = model.tokenizer().ok_or(Failure::new("the model has no tokenizer, which a conversation needs"))?;
    Ok(Writer::new(Session::new(&model, arena, kernels)?, tokenizer, prompt))
}

fn listen(writer: &mut Writer, board: &str, buffer: &'static mut [u8]) {
    let model = &linked::MODEL.0;
    let mut receiver = Receiver::new(buffer);
    let hello = Event::Hello {
        board,
        model_bytes: model.len() as u32,
        model_crc: checksum(model),
        context_len: linked::SHAPE.context_len as u32,
        frame_bytes_max: receiver.bytes_max() as u32,
    };
    loop {
        if !uart::read().is_some_and(|byte| receiver.push(byte)) {
            continue;
        }
        match receiver.message() {
            Ok(Request::Hello) => say(&hello),
            Ok(Request::Generate(request)) => {
                if let Err(cause) = answer(writer, &request) {
                    say_error(cause);
                }
            }
            Ok(Request::Stop) => {}
            Err(error) => say(&Event::Error(error.as_str())),
        }
    }
}

/// Says why there is no text.
#[inline(never)]
fn say_error(cause: Cause<'_>) {
    let mut text = Words::new();
    let written = match cause {
        Cause::Text(words) => text.write_str(words),
        Cause::Error(error) => write!(text, "{error}"),
        Cause::NoAdapter(name) => write!(text, "{NO_ADAPTER} {name}"),
    };
    // What does not fit is cut off.
    let _ = written;
    say(&Event::Error(text.as_str()));
}

/// What is said before the name of an adapter that is not there.
const NO_ADAPTER: &str =
    if cfg!(feature = "adapters") { "the model has no adapter" } else { "this firmware has no code for the adapter" };

/// Why there is no text.
enum Cause<'r> {
    Text(&'static str),
    Error(Error),
    /// There is none of this name.
    NoAdapter(&'r str),
}

impl From<Error> for Cause<'_> {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

#[inline(never)]
fn answer<'r>(writer: &mut Writer, request: &Generate<'r>) -> Result<(), Cause<'r>> {
    adapt(writer, request.adapter)?;
    let sampling = request.settings.sampling().map_err(|error| Cause::Text(error.as_str()))?;
    let (mut stops, mut n_stops) = ([""; STOPS_MAX], 0);
    for stop in request.stops.iter().filter(|stop| !stop.is_empty()) {
        stops[n_stops] = stop;
        n_stops += 1;
    }
    let max_new_tokens = request.max_new_tokens as usize;
    let options = Options { stops: &stops[..n_stops], ..Options::random(max_new_tokens, sampling, request.seed) };
    let n_tokens = writer.n_tokens(request.prompt)? as u32;
    say(&Event::Prompt { n_tokens });
    #[cfg(has_grammar)]
    let text = match request.continues {
        true => return Err(Cause::Text("a text within a grammar is a new one: it does not continue another")),
        false => writer.begin_in_grammar(request.prompt, &options)?,
    };
    #[cfg(not(has_grammar))]
    let text = match request.continues {
        true => writer.go_on(request.prompt, &options)?,
        false => writer.begin(request.prompt, &options)?,
    };
    write(text);
    Ok(())
}

/// Has the model's adapter of this name on, or none. A change forgets what was read and written, which a text would otherwise go on from.
#[cfg(feature = "adapters")]
#[inline(never)]
fn adapt<'r>(writer: &mut Writer, name: Option<&'r str>) -> Result<(), Cause<'r>> {
    let session = writer.session();
    if session.adapter().map(|adapter| adapter.name()) == name {
        return Ok(());
    }
    session.use_adapter(name).map_err(|_| Cause::NoAdapter(name.unwrap_or_default()))
}

/// Refuses all adapters: there is no code for them.
#[cfg(not(feature = "adapters"))]
fn adapt<'r>(_: &mut Writer, name: Option<&'r str>) -> Result<(), Cause<'r>> {
    name.map_or(Ok(()), |name| Err(Cause::NoAdapter(name)))
}

/// Sends token after token, and why the text ended: also because the host wants it to.
fn write(mut text: Generation<'_, '_, Serial, impl Constraint>) {
    let mut buffer = [0; 32];
    let mut receiver = Receiver::new(&mut buffer);
    let mut hash = LogitsHash::EMPTY;
    let mut is_wanted = true;
    while is_wanted && text.compute(say_text) {
        hash.add(text.logits());
        let (mut piece, token) = (Words::new(), text.n_tokens());
        let drawn = text.draw(|part| piece.push(part));
        if let Some(drawn) = drawn {
            say(&Event::Token(drawn));
        }
        piece.send();
        if text.n_tokens() == token {
            break;
        }
        while let Some(byte) = uart::read() {
            if receiver.push(byte) {
                is_wanted &= goes_on(receiver.message());
            }
        }
    }
    let n_tokens = text.n_tokens() as u32;
    say(&Event::End { reason: text.end().into(), n_tokens, logits_hash: hash.0 });
}

fn say_text(text: &str) {
    let mut piece = Words::new();
    piece.push(text);
    piece.send();
}

/// Whether the text goes on after a frame that came meanwhile.
fn goes_on(message: Result<Request<'_>, FrameError>) -> bool {
    match message {
        Ok(Request::Stop) => return false,
        Ok(_) | Err(FrameError::TooLong { .. }) => say(&Event::Error(BUSY)),
        Err(error) => say(&Event::Error(error.as_str())),
    }
    true
}

/// Text for an event.
struct Words {
    bytes: [u8; 120],
    len: usize,
}

impl Words {
    fn new() -> Self {
        Self { bytes: [0; 120], len: 0 }
    }

    fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// Appends what there is room for, in whole characters; gives the rest.
    fn take<'t>(&mut self, text: &'t str) -> &'t str {
        let (fits, rest) = text.split_at(text.floor_char_boundary(self.bytes.len() - self.len));
        if let Some(room) = self.bytes.get_mut(self.len..self.len + fits.len()) {
            room.copy_from_slice(fits.as_bytes());
            self.len += fits.len();
        }
        rest
    }

    /// Appends text, and sends what there is no room for.
    fn push(&mut self, mut text: &str) {
        while !text.is_empty() {
            text = self.take(text);
            if !text.is_empty() {
                self.send();
            }
        }
    }

    /// Sends what was gathered, where there is any.
    fn send(&mut self) {
        if self.len > 0 {
            say(&Event::Text(self.as_str()));
        }
        self.len = 0;
    }
}

impl fmt::Write for Words {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.take(text).is_empty() { Ok(()) } else { Err(fmt::Error) }
    }
}
