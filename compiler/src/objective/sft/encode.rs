//! From rendered records to examples: tokens, and which of them are trained.

use super::{Rendered, TooLong};
use crate::data::{DataError, Example, IGNORED, Record};
use crate::model::Kind;
use crate::objective::Frame;
use crate::tokenizer::CorpusEncoder;
use serde::{Deserialize, Serialize};
use siskin_runtime::TokenId;
use siskin_runtime::tokenizer::{EncodeOptions, Specials};

/// What became of the examples of supervised fine-tuning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SftCounts {
    /// Examples in which a token reached over a boundary between what is read and what is said, so that both were encoded apart.
    pub n_parted: usize,
    /// Examples that were cut off because they are longer than the model's context.
    pub n_truncated: usize,
    /// Examples that were left out because they are longer.
    pub n_dropped: usize,
}

/// Makes examples of rendered records, for one model.
pub struct SftEncoder<'a, 't> {
    /// The tokenizer at work.
    pub encoder: &'a mut CorpusEncoder<'t>,
    /// What the model reads and writes.
    pub kind: Kind,
    /// Positions that it has.
    pub context_len: usize,
    /// First token of what a decoder reads behind an encoder, and last token of a text.
    pub frame: Frame,
    /// What becomes of what is too long.
    pub too_long: TooLong,
    /// What became of all so far.
    pub counts: SftCounts,
}

/// Tokens, each with whether it is trained on.
#[derive(Debug, Default)]
struct Masked {
    tokens: Vec<TokenId>,
    is_trained: Vec<bool>,
}

impl Masked {
    fn extend(&mut self, tokens: &[TokenId], is_trained: bool) {
        self.tokens.extend_from_slice(tokens);
        self.is_trained.resize(self.tokens.len(), is_trained);
    }
}

impl SftEncoder<'_, '_> {
    /// The example of a record, or `None` if it is left out.
    ///
    /// A decoder reads all tokens in a row and tells those that are trained. An encoder reads the prompt and the end of text; its
    /// decoder tells the completion.
    ///
    /// Generating begins after the tokens of what was read. So the text is encoded as a whole, but where the tokens of what is before
    /// a boundary are not the whole's first ones, since a token reaches over it, each side is encoded for itself. No token is lost
    /// to training or trained by halves, and what is read are the tokens that will be read when the model is used.
    ///
    /// # Errors
    /// [`DataError::BadRecord`]: it is too long and that is an error, or it is not for this kind of model.
    pub fn example(&mut self, record: &Record, rendered: &Rendered) -> Result<Option<Example>, DataError> {
        let example = self.unfitted(rendered);
        let example =
            example.ok_or_else(|| record.bad("an encoder-decoder learns from `prompt` and `completion` alone"))?;
        let n_positions = example.n_positions();
        if n_positions <= self.context_len {
            return Ok(Some(example));
        }
        match self.too_long {
            TooLong::Error => {
                let max = self.context_len;
                Err(record.bad(format!(
                    "{n_positions} positions, but model.context_len is {max}: raise it, shorten the record, or set objective.too_long to \
                     \"drop\" or \"truncate\""
                )))
            }
            TooLong::Truncate => {
                let example = self.truncated(example);
                match example.n_targets() {
                    0 => self.counts.n_dropped += 1,
                    _ => self.counts.n_truncated += 1,
                }
                Ok((example.n_targets() > 0).then_some(example))
            }
            TooLong::Drop => {
                self.counts.n_dropped += 1;
                Ok(None)
            }
        }
    }

    /// The example however long it is, or `None` if it is not for this kind of model.
    pub fn unfitted(&mut self, rendered: &Rendered) -> Option<Example> {
        match self.kind {
            Kind::EncoderDecoder => self.pair(rendered),
            Kind::DecoderOnly | Kind::EncoderOnly => Some(self.row(rendered)),
        }
    }

    /// All parts in a row, for a model that continues what it reads.
    fn row(&mut self, rendered: &Rendered) -> Example {
        let mut masked = self.joint(rendered).unwrap_or_else(|| {
            self.counts.n_parted += 1;
            self.apart(rendered)
        });
        if rendered.parts.last().is_some_and(|part| part.is_trained) && !self.is_ended(rendered, &masked.tokens) {
            masked.extend(&[self.frame.eos], true);
        }
        let Masked { tokens, is_trained } = masked;
        let targets = tokens.iter().zip(is_trained).skip(1);
        let targets = targets.map(|(token, is_trained)| if is_trained { *token } else { IGNORED }).collect();
        let inputs = tokens[..tokens.len().saturating_sub(1)].to_vec();
        Example { inputs, targets, ..Example::default() }
    }

    /// The tokens of the text as a whole, if no token reaches over the boundary of a part.
    fn joint(&mut self, rendered: &Rendered) -> Option<Masked> {
        let text = rendered.text();
        let whole = self.encode(&text, rendered);
        let (mut masked, mut end) = (Masked::default(), 0);
        for part in &rendered.parts {
            end += part.text.len();
            let before = self.encode(&text[..end], rendered);
            let new = whole.strip_prefix(&*before).map(|_| &before[masked.tokens.len().min(before.len())..])?;
            masked.extend(new, part.is_trained);
        }
        Some(masked)
    }

    /// The tokens of each part for itself.
    fn apart(&mut self, rendered: &Rendered) -> Masked {
        let mut masked = Masked::default();
        for (idx, part) in rendered.parts.iter().enumerate() {
            let tokens = match idx {
                0 => self.encode(&part.text, rendered),
                _ => self.encoder.encode_continuing(&part.text),
            };
            masked.extend(&tokens, part.is_trained);
        }
        masked
    }

    /// The tokens of a text as a model reads it when it is used: special tokens recognised, and begun as the tokenizer does, unless a
    /// chat template has done that.
    fn encode(&mut self, text: &str, rendered: &Rendered) -> Vec<TokenId> {
        let add_bos = self.encoder.tokenizer().add_bos() && !rendered.is_chat;
        self.encoder.encode_with(text, EncodeOptions { add_bos, specials: Specials::Everywhere })
    }

    /// Whether tokens end as a model should learn to end: by the end of text, or by a token that a chat template closes turns with.
    fn is_ended(&self, rendered: &Rendered, tokens: &[TokenId]) -> bool {
        let tokenizer = self.encoder.tokenizer();
        let is_blank = |token: &TokenId| tokenizer.piece(*token).iter().all(u8::is_ascii_whitespace);
        let last = match rendered.is_chat {
            true => tokens.iter().rev().find(|token| tokenizer.is_control(**token) || !is_blank(token)),
            false => tokens.last(),
        };
        last.is_some_and(|last| *last == self.frame.eos || (rendered.is_chat && tokenizer.is_control(*last)))
    }

    /// A prompt for an encoder, and its completion for the decoder.
    fn pair(&mut self, rendered: &Rendered) -> Option<Example> {
        let [prompt, completion] = &rendered.parts[..] else { return None };
        let options = EncodeOptions { add_bos: false, specials: Specials::Everywhere };
        let mut inputs = self.encoder.encode_with(&prompt.text, options);
        inputs.push(self.frame.eos);
        let mut targets = self.encoder.encode_with(&completion.text, options);
        if targets.last() != Some(&self.frame.eos) {
            targets.push(self.frame.eos);
        }
        let decoder_inputs = [self.frame.bos].into_iter().chain(targets.iter().copied()).take(targets.len()).collect();
        Some(Example { inputs, prefix_len: 0, decoder_inputs, targets })
    }

    /// An example without what is beyond the model's context; what an encoder reads keeps its end of text.
    pub fn truncated(&self, mut example: Example) -> Example {
        if self.kind == Kind::EncoderDecoder && example.inputs.len() > self.context_len {
            example.inputs.truncate(self.context_len - 1);
            example.inputs.push(self.frame.eos);
        }
        example.inputs.truncate(self.context_len);
        example.decoder_inputs.truncate(self.context_len);
        example.targets.truncate(self.context_len);
        example
    }
}
