//! Which adapter of the model's, or which that the host has sent, generates what a request asks for.

use siskin_runtime::Session;

use crate::failure::Failure;
use crate::request::{Adapter, Request};

/// Puts the request's adapter to work. A soft prompt goes through the model here, before anything is counted. `room` takes an adapter that the
/// host has sent, for as long as the session lasts.
#[cfg(feature = "adapters")]
#[inline(never)]
pub fn choose<'a>(session: &mut Session<'a>, request: &Request<'_>, room: &'a mut [u8]) -> Result<(), Failure> {
    use crate::host::{ReadError, read_file};
    match request.adapter {
        Adapter::None => Ok(()),
        Adapter::Named(name) => {
            let known = session.use_adapter(Some(name));
            known.map_err(|_| Failure::new("the model has no adapter").about(name))
        }
        Adapter::Received => {
            let n_bytes = read_file(b"siskin-adapter.bin\0", room).map_err(|error| {
                Failure::new(match error {
                    ReadError::TooLong => "siskin-adapter.bin is longer than the room that the firmware was built with",
                    ReadError::Missing | ReadError::Broken => "siskin-adapter.bin cannot be read",
                })
            })?;
            let received = session.use_received_adapter(room.get(..n_bytes).unwrap_or_default());
            received.map_err(|error| Failure::new(error.as_str()))
        }
    }
}

/// Refuses all adapters: there is no code for them.
#[cfg(not(feature = "adapters"))]
pub fn choose(_: &mut Session<'_>, request: &Request<'_>, _: &mut [u8]) -> Result<(), Failure> {
    match request.adapter {
        Adapter::None => Ok(()),
        Adapter::Named(_) | Adapter::Received => Err(Failure::new(
            "this firmware has no adapters: build it around a model that has some, or with room for one",
        )),
    }
}
