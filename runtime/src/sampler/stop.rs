//! Stop sequences over streamed text: what might yet become one is held back, and one that is complete ends the stream.

use core::fmt;

use heapless::String;

/// Watches a stream of text for any of several stop sequences.
///
/// Text passes through as soon as it can no longer be part of a stop, so a caller never shows half of one. The stop that is
/// complete first wins; of several complete at the same character, the longest.
#[derive(Clone, Debug)]
pub struct StopMatcher<'s> {
    stops: &'s [&'s str],
    /// The longest end of the text so far that begins a stop.
    held: String<{ StopMatcher::STOP_BYTES_MAX }>,
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
        Ok(Self { stops, held: String::new() })
    }

    /// Takes the next piece of `text` and gives `emit` what is safe to show, in order and in whole characters.
    ///
    /// Returns the index of the stop that was completed, if one was; the text from its first character on is dropped, and the
    /// matcher is back at the start of a text.
    pub fn push(&mut self, text: &str, mut emit: impl FnMut(&str)) -> Option<usize> {
        let mut passed = 0;
        for (at, character) in text.char_indices() {
            if self.held.is_empty() && !self.stops.iter().any(|stop| stop.starts_with(character)) {
                continue;
            }
            emit_some(&text[passed..at], &mut emit);
            passed = at + character.len_utf8();
            if let Some(idx) = self.take(character, &mut emit) {
                return Some(idx);
            }
        }
        emit_some(&text[passed..], &mut emit);
        None
    }

    /// Ends the text: what was held back was no stop, so `emit` gets it.
    pub fn finish(&mut self, mut emit: impl FnMut(&str)) {
        emit_some(&self.held, &mut emit);
        self.held.clear();
    }

    /// Appends one character to what is held, then lets go of what begins no stop.
    fn take(&mut self, character: char, emit: &mut impl FnMut(&str)) -> Option<usize> {
        // What is held is a proper prefix of a stop. If that and the character exceed the capacity, the character cannot
        // complete that stop (it would fit), so the oldest characters can go until it does fit.
        while self.held.len() + character.len_utf8() > self.held.capacity() {
            self.release(self.held.chars().next().map_or(0, char::len_utf8), emit);
        }
        // Cannot fail: the loop above made room.
        let _ = self.held.push(character);

        let complete = self.stops.iter().enumerate().filter(|(_, stop)| self.held.ends_with(**stop));
        if let Some((idx, stop)) = complete.max_by_key(|(idx, stop)| (stop.len(), usize::MAX - idx)) {
            emit_some(&self.held[..self.held.len() - stop.len()], emit);
            self.held.clear();
            return Some(idx);
        }
        let begins_stop = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        let kept_from = self.held.char_indices().map(|(at, _)| at).find(begins_stop);
        self.release(kept_from.unwrap_or(self.held.len()), emit);
        None
    }

    /// Emits and forgets the first `bytes` of what is held.
    fn release(&mut self, bytes: usize, emit: &mut impl FnMut(&str)) {
        emit_some(&self.held[..bytes], emit);
        // Fits: it is an end of a string of the same capacity.
        self.held = String::try_from(&self.held[bytes..]).unwrap_or_default();
    }
}

fn emit_some(text: &str, emit: &mut impl FnMut(&str)) {
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
