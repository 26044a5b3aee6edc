//! From the request to the generated tokens.

use siskin_runtime::{Kernels, PackedModel, Sampler, Session};

use crate::failure::Failure;
use crate::host::{self, Console, ReadError};
use crate::record::Record;
use crate::request::{Prompt, REQUEST_FILE, Request};
use crate::{Memory, cortex_m, linked, u32_le};

/// Reads the request, generates, and sends a record for each token.
pub fn respond(console: &mut Console, memory: Memory) -> Result<(), Failure> {
    let request_bytes = host::read_file(REQUEST_FILE, memory.request).map_err(|error| match error {
        ReadError::Missing => {
            Failure::new("there is no siskin-request.bin in the folder that the emulator was started in")
        }
        ReadError::Broken => Failure::new("siskin-request.bin cannot be read"),
        ReadError::TooLong => Failure::new("the request is too long: shorten the prompt"),
    })?;
    let request = Request::parse(&memory.request[..request_bytes])?;
    let model = PackedModel::parse(&linked::MODEL.0)?;
    let mut n_prompt = 0;
    if let Prompt::Tokens(bytes) = request.prompt {
        for (slot, id) in memory.prompt.iter_mut().zip(bytes.chunks_exact(4)) {
            *slot = u32_le(id);
            n_prompt += 1;
        }
    }
    let prompt = &memory.prompt[..n_prompt];
    Record::new(console, "prompt").number(prompt.len() as u64).send();
    let mut session = Session::new(&model, memory.arena, Kernels::detect())?;
    let mut sampler = Sampler::new(request.sampling, request.seed);
    sampler.observe(prompt);
    session.prefill(prompt)?;
    for _ in 0..request.max_new_tokens {
        cortex_m::count_start();
        let token = sampler.next(session.logits());
        let step = session.decode_step(token).map(|_| ());
        cortex_m::count_stop();
        Record::new(console, "token").number(token.into()).send();
        step?;
    }
    Ok(())
}
