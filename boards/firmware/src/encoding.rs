//! What an encoder alone finds in the request's text, as records.

use siskin_runtime::encoder::Finding;
use siskin_runtime::{Encoder, Kernels, TokenId};

use crate::arch;
use crate::failure::Failure;
use crate::generation::{checked_model, prompt_tokens};
use crate::host::Console;
use crate::record::Record;
use crate::request::Request;

/// Reads the request's text and sends what was found. Regions are marked for counting: the reading, then the work for each finding.
#[inline(never)]
pub fn respond(
    console: &mut Console,
    request: &Request<'_>,
    arena: &mut [u8],
    prompt: &mut [TokenId],
) -> Result<(), Failure> {
    let mut model = None;
    let model = checked_model(&mut model)?;
    let tokens = prompt_tokens(request, model, arena, prompt)?;
    Record::new(console, "prompt").number(tokens.len() as u64).send();
    let mut encoder = Encoder::new(model, arena, Kernels::detect())?;
    arch::count_start();
    let read = encoder.read(tokens);
    arch::count_stop();
    read?;
    arch::count_start();
    let hash = encoder.findings(tokens, |finding| {
        // Sending is no work of the model's.
        arch::count_stop();
        send(console, finding);
        arch::count_start();
    });
    arch::count_stop();
    Record::new(console, "hash").hex(hash.0, 16).send();
    Ok(())
}

fn send(console: &mut Console, finding: Finding<'_>) {
    match finding {
        Finding::Vector(vector) => send_numbers(console, "vector", vector),
        Finding::Label { label, scores } => {
            Record::new(console, "label").number(label as u64).send();
            send_numbers(console, "scores", scores);
        }
        Finding::Tag { token_idx, label } => {
            Record::new(console, "tag").number(token_idx as u64).number(label as u64).send();
        }
        Finding::Fill { token_idx, token } => {
            Record::new(console, "fill").number(token_idx as u64).number(token.into()).send();
        }
    }
}

/// Sends numbers as the hexadecimal digits of their bits.
fn send_numbers(console: &mut Console, keyword: &str, numbers: &[f32]) {
    let mut record = Record::new(console, keyword);
    for number in numbers {
        record.hex(number.to_bits().into(), 8);
    }
    record.send();
}
