//! A request for a beam search: the best text, all at once when it is found.

use siskin_runtime::format::SectionKind;
use siskin_runtime::tokenizer::TextStream;
use siskin_runtime::{BeamOptions, BeamSearch, LogitsHash, Session, TokenId};

use crate::failure::Failure;
use crate::generation::{Piece, end_record, prefix};
use crate::host::Console;
use crate::record::Record;
use crate::request::{Beams, Request};
use crate::{arch, linked};

/// Searches and sends what was found. Marked for counting: the reading of the prompt; then of each step the pass over the model, in a piece
/// more than there are predictions, whose hash is not counted, and the choice. A record tells how many regions a step has.
#[inline(never)]
pub fn search(
    console: &mut Console,
    request: &Request<'_>,
    beams: Beams,
    session: &mut Session<'_>,
    prompt: &[TokenId],
) -> Result<(), Failure> {
    if !(linked::HAS_ROOM || linked::SHAPE.n_beams != 0) {
        return Err(Failure::new("the model has no room for a beam search: compile it with --beams"));
    }
    if session.model().section(SectionKind::Grammar).is_some() {
        return Err(Failure::new("the model's text keeps to its grammar, which a beam search does not"));
    }
    let tokenizer = session.model().tokenizer();
    let start = session.model().config().parts().start_token;
    let Beams { n_beams, length_penalty, early_stopping } = beams;
    let end_token = tokenizer.as_ref().and_then(|tokenizer| tokenizer.eos());
    let max_new_tokens = request.max_new_tokens;
    let options = BeamOptions { n_beams, length_penalty, early_stopping, end_token, max_new_tokens };
    if let Some(prefix) = prefix(request, session.model()) {
        session.restore(prefix).map_err(|error| Failure::new(error.as_str()))?;
    }
    arch::count_start();
    if start.is_some() {
        session.read_source(prompt)?;
    }
    let search = BeamSearch::start(session, start.as_ref().map_or(prompt, core::slice::from_ref), options);
    arch::count_stop();
    let mut search = search?;
    let mut hash = LogitsHash::EMPTY;
    loop {
        let mut n_regions = 2;
        arch::count_start();
        let goes_on = search.compute(|logits| {
            arch::count_stop();
            hash.add(logits);
            n_regions += 1;
            arch::count_start();
        });
        arch::count_stop();
        if !goes_on {
            break;
        }
        arch::count_start();
        search.choose();
        arch::count_stop();
        Record::new(console, "regions").number(n_regions).send();
    }
    let best = search.finish();
    let mut text = TextStream::new();
    for &token in best.tokens {
        Record::new(console, "token").number(token.into()).send();
        if let Some(tokenizer) = &tokenizer
            && end_token != Some(token)
            && !tokenizer.is_control(token)
        {
            let mut piece = Piece::new(console);
            text.push(tokenizer.piece(token), |text| piece.push(text));
            piece.send();
        }
    }
    let mut piece = Piece::new(console);
    text.finish(|text| piece.push(text));
    piece.send();
    Record::new(console, "score").hex(best.score.to_bits().into(), 8).send();
    Record::new(console, end_record(Some(best.end))).send();
    Record::new(console, "hash").hex(hash.0, 16).send();
    Ok(())
}
