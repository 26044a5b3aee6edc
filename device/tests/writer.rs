//! Texts from a model whose memory is a `static`.

use siskin_device::runtime::StepError;
use siskin_device::{End, Error, Options, Text, TokenId, model};

model! {
    static SHAKESPEARE = "../../tests/golden/shakespeare-260k.siskin",
}

/// All of a text, its tokens, and why it ended.
fn whole(mut text: Text<'_>) -> (String, Vec<TokenId>, Option<End>) {
    let (mut pieces, mut tokens) = (String::new(), Vec::new());
    while let Some(token) = text.step(|piece| pieces.push_str(piece)) {
        tokens.push(token);
    }
    (pieces, tokens, text.end())
}

#[test]
fn one_writer_writes_text_after_text() -> Result<(), Error> {
    let mut writer = SHAKESPEARE.writer()?;
    assert!(matches!(SHAKESPEARE.writer(), Err(Error::Taken)));
    assert!(matches!(SHAKESPEARE.session(), Err(Error::Taken)));

    let greedy = Options::greedy(8);
    let first = whole(writer.begin("ROMEO:", &greedy)?);
    assert_eq!((first.0.as_str(), first.2), ("\nIt is a poor", Some(End::MaxNewTokens)));
    // Behind what was read and written, without the token that was drawn last, it is as if all of it had been the prompt.
    let rest = whole(writer.go_on(" queen", &greedy)?);
    let mut again = writer.begin("", &greedy);
    assert_eq!(again.as_mut().err(), Some(&mut Error::Step(StepError::EmptyPrompt)));
    drop(again);
    assert_eq!(whole(writer.begin("ROMEO:", &greedy)?), first);
    assert_eq!(whole(writer.go_on(" queen", &greedy)?), rest);

    let stopped = Options { stops: &["poor"], ..greedy };
    let (text, _, end) = whole(writer.begin("ROMEO:", &stopped)?);
    assert_eq!((text.as_str(), end), ("\nIt is a ", Some(End::Stop(0))));
    let refused = writer.begin("ROMEO:", &Options { stops: &[""], ..greedy });
    assert!(matches!(refused, Err(Error::Stop(_))));
    drop(refused);

    let too_long = "O ".repeat(1000);
    let tokens_max = SHAKESPEARE.shape().context_len;
    assert_eq!(writer.begin(&too_long, &greedy).err(), Some(Error::PromptTooLong { tokens_max }));
    assert!(matches!(writer.begin_in_grammar("ROMEO:", &greedy), Err(Error::NoGrammar)));
    // None of them left anything behind.
    assert_eq!(whole(writer.begin("ROMEO:", &greedy)?), first);
    Ok(())
}
