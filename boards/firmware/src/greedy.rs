//! The smallest decoder: the most probable token after a prompt of tokens, again and again. It takes the tokens of one request
//! ([`crate::request`] has the layout), and has neither tokenizer nor sampler.

use siskin_runtime::{Kernels, PackedModel, Session, TokenId};

use crate::failure::{Failure, report};
use crate::host::{self, Console};
use crate::record::Record;
use crate::{Memory, arch, linked, u32_le};

/// Where the prompt begins, without logit biases.
const HEAD_BYTES: usize = 84;

/// Serves the one request; gives whether all went well.
pub fn serve(console: &mut Console, _: &str, memory: Memory) -> bool {
    let outcome = respond(console, memory);
    report(console, outcome)
}

fn respond(console: &mut Console, memory: Memory) -> Result<(), Failure> {
    let Ok(bytes) = host::read_file(b"siskin-request.bin\0", memory.request) else {
        return Err(Failure::new("siskin-request.bin cannot be read"));
    };
    let (prompt, max_new_tokens) = tokens(memory.request.get(..bytes).unwrap_or_default(), memory.prompt)?;
    let model = PackedModel::parse_weights(linked::model())?;
    let kernels = Kernels::detect();
    linked::check_layout(&model, kernels)?;
    let mut session = Session::new(&model, memory.arena, kernels)?;
    let mut last = 0;
    for n_tokens in 0..max_new_tokens {
        arch::count_start();
        let next = session.most_probable_after(if n_tokens == 0 { prompt } else { core::slice::from_ref(&last) });
        arch::count_stop();
        last = next?;
        Record::new(console, "token").number(last.into()).send();
    }
    Ok(())
}

/// The prompt's tokens, in the front of `room`, and how many are to follow.
fn tokens<'p>(request: &[u8], room: &'p mut [TokenId]) -> Result<(&'p [TokenId], u32), Failure> {
    let word = |at: usize| request.get(at..at + 4).map_or(0, u32_le);
    let prompt = request.get(HEAD_BYTES..).and_then(|rest| rest.get(..word(16) as usize)).unwrap_or_default();
    let (is_tokens, is_greedy) = (word(12) == 1, word(32) == 0 && word(72) == 0 && word(80) == 0);
    let room = room.get_mut(..prompt.len() / 4);
    let (Some(room), true, true) = (room, is_tokens, is_greedy) else {
        return Err(Failure::new("this build takes a prompt of tokens, not too long, and is greedy"));
    };
    room.iter_mut().zip(prompt.chunks_exact(4)).for_each(|(token, bytes)| *token = u32_le(bytes));
    Ok((room, word(20)))
}
