//! Stop sequences over streamed text: what might yet become one is held back, and one that is complete ends the stream.

use core::fmt;

/// Watches a stream of text for any of several stop sequences.
///
/// Text passes through as soon as it can no longer be part of a stop, so a caller never shows half of one. The stop that is
/// complete first wins; of several complete at the same character, the longest.
#[derive(Clone, Debug)]
pub struct StopMatcher<'s> {
    stops: &'s [&'s str],
    /// The longest end of the text so far that begins a stop: whole characters.
    held: [u8; StopMatcher::STOP_BYTES_MAX],
    n_held: usize,
}

impl<'s> StopMatcher<'s> {
    /// The longest stop sequence.
    pub const STOP_BYTES_MAX: usize = 64;

    /// A matcher at the start of a text. No stops let everything pass.
    pub fn new(stops: &'s [&'s str]) -> Result<Self, StopError> {
        for (idx, stop) in stops.iter().enumerate() {
            if stop.is_empty() {
                return Err(StopError::Empty { idx });
            }
            if stop.len() > Self::STOP_BYTES_MAX {
                return Err(StopError::TooLong { idx, bytes: stop.len() });
            }
        }
        Ok(Self { stops, held: [0; Self::STOP_BYTES_MAX], n_held: 0 })
    }

    /// Takes the next piece of `text` and gives `emit` what is safe to show, in order and in whole characters.
    ///
    /// Returns the index of the stop that was completed, if one was; the text from its first character on is dropped, and the
    /// matcher is back at the start of a text.
    pub fn push(&mut self, text: &str, mut emit: impl FnMut(&str)) -> Option<usize> {
        self.push_text(text, &mut emit)
    }

    fn push_text(&mut self, text: &str, emit: &mut dyn FnMut(&str)) -> Option<usize> {
        let mut rest = text;
        loop {
            // What begins no stop passes at once, where nothing is held.
            let is_first = |character: char| self.stops.iter().any(|stop| stop.starts_with(character));
            let passing = if self.n_held > 0 { 0 } else { rest.find(is_first).unwrap_or(rest.len()) };
            let (passed, from_here) = rest.split_at_checked(passing).unwrap_or((rest, ""));
            emit_some(passed, emit);
            let mut characters = from_here.chars();
            let character = characters.next()?;
            if let Some(idx) = self.take(character, emit) {
                return Some(idx);
            }
            rest = characters.as_str();
        }
    }

    /// Ends the text: what was held back was no stop, so `emit` gets it.
    pub fn finish(&mut self, mut emit: impl FnMut(&str)) {
        self.release(self.n_held, &mut emit);
    }

    fn held(&self) -> &[u8] {
        self.held.get(..self.n_held).unwrap_or_default()
    }

    /// Appends one character to what is held, then lets go of what begins no stop.
    fn take(&mut self, character: char, emit: &mut dyn FnMut(&str)) -> Option<usize> {
        let mut encoded = [0; 4];
        let character = character.encode_utf8(&mut encoded).as_bytes();
        // What is held is a proper prefix of a stop. If that and the character exceed the capacity, the character cannot
        // complete that stop (it would fit), so the oldest characters can go until it does fit.
        while self.n_held + character.len() > Self::STOP_BYTES_MAX {
            let first = (1..self.n_held).find(|&at| self.starts_character(at));
            self.release(first.unwrap_or(self.n_held), emit);
        }
        if let Some(room) = self.held.get_mut(self.n_held..self.n_held + character.len()) {
            room.copy_from_slice(character);
            self.n_held += character.len();
        }

        let complete = self.stops.iter().enumerate().filter(|(_, stop)| self.held().ends_with(stop.as_bytes()));
        if let Some((idx, stop)) = complete.max_by_key(|(idx, stop)| (stop.len(), usize::MAX - idx)) {
            self.release(self.n_held - stop.len(), emit);
            self.n_held = 0;
            return Some(idx);
        }
        let begins_stop = |&at: &usize| {
            let end = self.held().get(at..).unwrap_or_default();
            self.stops.iter().any(|stop| stop.as_bytes().starts_with(end))
        };
        let kept_from = (0..self.n_held).filter(|&at| self.starts_character(at)).find(begins_stop);
        self.release(kept_from.unwrap_or(self.n_held), emit);
        None
    }

    fn starts_character(&self, at: usize) -> bool {
        self.held.get(at).is_some_and(|byte| byte & 0xc0 != 0x80)
    }

    /// Emits and forgets the first `bytes` of what is held, whole characters.
    fn release(&mut self, bytes: usize, emit: &mut dyn FnMut(&str)) {
        let Some((released, kept)) = self.held().split_at_checked(bytes) else { return };
        emit_some(core::str::from_utf8(released).unwrap_or_default(), emit);
        self.n_held = kept.len();
        self.held.rotate_left(bytes);
    }
}

fn emit_some(text: &str, emit: &mut dyn FnMut(&str)) {
    if !text.is_empty() {
        emit(text);
    }
}

/// A stop sequence that cannot be watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopError {
    /// It would stop before the first character.
    Empty {
        /// Which of the stops.
        idx: usize,
    },
    /// It is longer than [`StopMatcher::STOP_BYTES_MAX`].
    TooLong {
        /// Which of the stops.
        idx: usize,
        /// Its length.
        bytes: usize,
    },
}

impl fmt::Display for StopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty { idx } => write!(f, "stop sequence {} is empty", idx + 1),
            Self::TooLong { idx, bytes } => {
                let max = StopMatcher::STOP_BYTES_MAX;
                write!(f, "stop sequence {} is {bytes} bytes long, but at most {max} are held back", idx + 1)
            }
        }
    }
}

impl core::error::Error for StopError {}
