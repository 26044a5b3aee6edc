//! A device at the other end of a serial line: a board's port, or an emulated one's.

mod line;

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use siskin_device::serial::{Event, Receiver, Request, send};

pub(crate) use line::Line;

/// Bytes of the longest event that is received.
const EVENT_BYTES: usize = 4096;
/// Damaged frames in a row after which there is no use in waiting on.
const DAMAGED_MAX: usize = 100;

/// A device that answers.
pub(crate) struct Device {
    line: Line,
    buffer: Vec<u8>,
    patience: Duration,
}

impl Device {
    /// The device at the end of `line`, which is waited for as long as `patience` lasts each time.
    pub(crate) fn new(line: Line, patience: Duration) -> Self {
        Self { line, buffer: vec![0; EVENT_BYTES], patience }
    }

    /// Sends a request. A zero before it ends whatever noise has come before.
    pub(crate) fn send(&mut self, request: &Request<'_>) -> anyhow::Result<()> {
        let longest = match request {
            Request::Generate(request) => {
                request.prompt.len() + request.stops.iter().map(|stop| stop.len()).sum::<usize>()
            }
            Request::Hello | Request::Stop => 0,
        };
        let mut frame = vec![0];
        send(request, &mut vec![0; longest + 256], |byte| frame.push(byte))
            .map_err(|_| anyhow!("the request is too long to send"))?;
        self.line.write(&frame).context("failed to write to the serial line")
    }

    /// Gives `take` each event, until that gives something. What a device logs, and damaged frames, are told to `note`.
    pub(crate) fn receive<T>(
        &mut self,
        mut note: impl FnMut(&str),
        mut take: impl FnMut(Event<'_>) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut receiver = Receiver::new(&mut self.buffer);
        let mut n_damaged = 0;
        loop {
            let byte = self.line.read(self.patience)?;
            if !receiver.push(byte) {
                continue;
            }
            match receiver.message() {
                Ok(Event::Log(text)) if text.starts_with("fault") => bail!("the device crashed: {text}"),
                Ok(Event::Log(text)) => note(text),
                Ok(event) => {
                    if let Some(taken) = take(event) {
                        return Ok(taken);
                    }
                }
                Err(error) => {
                    n_damaged += 1;
                    note(&format!("from the device: {error}"));
                    if n_damaged == DAMAGED_MAX {
                        bail!("nothing but damaged frames comes: is it the right port, at the right speed?");
                    }
                }
            }
        }
    }
}
