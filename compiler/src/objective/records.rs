//! Examples made of records: a source and a target, a text and its label, words and their tags.

use crate::data::{DataError, Example, ExampleSource, IGNORED, Packing, Record, Shuffle};
use crate::model::Kind;
use serde::{Deserialize, Serialize};
use siskin_runtime::TokenId;

/// Fields of a sequence-to-sequence record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Seq2seqFields {
    /// What is read.
    pub source: String,
    /// What is to be said.
    pub target: String,
}

impl Default for Seq2seqFields {
    fn default() -> Self {
        Self { source: "source".into(), target: "target".into() }
    }
}

/// Fields of a record with one label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassificationFields {
    /// What is read.
    pub text: String,
    /// What it is.
    pub label: String,
}

impl Default for ClassificationFields {
    fn default() -> Self {
        Self { text: "text".into(), label: "label".into() }
    }
}

/// Fields of a record with a tag for each word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenClassificationFields {
    /// The words.
    pub tokens: String,
    /// As many tags.
    pub tags: String,
}

impl Default for TokenClassificationFields {
    fn default() -> Self {
        Self { tokens: "tokens".into(), tags: "tags".into() }
    }
}

/// Makes examples of records for one model.
pub struct RecordEncoder<'a> {
    /// Tokens of a text, with nothing added.
    pub encode: &'a mut dyn FnMut(&str) -> Vec<TokenId>,
    /// What the model reads and writes.
    pub kind: Kind,
    /// Positions that it has.
    pub context_len: usize,
    /// First token of a text, and of what a decoder reads.
    pub bos: TokenId,
    /// Last token of a text.
    pub eos: TokenId,
}

impl RecordEncoder<'_> {
    /// An encoder reads the source and `eos`; its decoder reads `bos` and tells the target and `eos`. A decoder alone reads all of
    /// this in a row, and is trained on what follows the source.
    ///
    /// # Errors
    /// [`DataError::BadRecord`]: a missing field, or more tokens than the model has positions.
    pub fn seq2seq(&mut self, record: &Record, fields: &Seq2seqFields) -> Result<Example, DataError> {
        let source = (self.encode)(&filled(record, &fields.source)?);
        let target = (self.encode)(&record.text(&fields.target)?);
        let mut inputs = source;
        inputs.push(self.eos);
        let decoder_inputs: Vec<TokenId> = [self.bos].into_iter().chain(target.iter().copied()).collect();
        let mut targets = target;
        targets.push(self.eos);
        let example = match self.kind {
            Kind::EncoderDecoder => Example { inputs, prefix_len: 0, decoder_inputs, targets },
            Kind::DecoderOnly | Kind::EncoderOnly => Example {
                targets: vec![IGNORED; inputs.len()].into_iter().chain(targets).collect(),
                inputs: inputs.into_iter().chain(decoder_inputs).collect(),
                ..Example::default()
            },
        };
        self.fitting(record, example)
    }

    /// The text between `bos` and `eos`, cut off at its end where it is longer than the model's context.
    ///
    /// # Errors
    /// [`DataError::BadRecord`]: a missing field, or a label that is not among `labels`.
    pub fn classification(
        &mut self,
        record: &Record,
        fields: &ClassificationFields,
        labels: &[String],
    ) -> Result<Example, DataError> {
        let label = label_id(record, &record.text(&fields.label)?, labels)?;
        let mut inputs = vec![self.bos];
        inputs.extend((self.encode)(&filled(record, &fields.text)?));
        inputs.truncate(self.context_len.saturating_sub(1).max(1));
        inputs.push(self.eos);
        self.fitting(record, Example { inputs, targets: vec![label], ..Example::default() })
    }

    /// The words, a space between them, between `bos` and `eos`; a word's tag is told at its first token.
    ///
    /// # Errors
    /// [`DataError::BadRecord`]: a missing field, lists of different lengths, a tag that is not among `labels`, or more tokens than the
    /// model has positions.
    pub fn token_classification(
        &mut self,
        record: &Record,
        fields: &TokenClassificationFields,
        labels: &[String],
    ) -> Result<Example, DataError> {
        let (words, tags) = (record.list(&fields.tokens)?, record.list(&fields.tags)?);
        if words.len() != tags.len() {
            return Err(record.bad(format!("{} words, but {} tags", words.len(), tags.len())));
        }
        let (mut inputs, mut targets) = (vec![self.bos], vec![IGNORED]);
        for (i, (word, tag)) in words.iter().zip(&tags).enumerate() {
            let tokens = (self.encode)(&if i == 0 { word.clone() } else { format!(" {word}") });
            let label = label_id(record, tag, labels)?;
            targets.extend(tokens.iter().enumerate().map(|(i, _)| if i == 0 { label } else { IGNORED }));
            inputs.extend(tokens);
        }
        inputs.push(self.eos);
        targets.push(IGNORED);
        self.fitting(record, Example { inputs, targets, ..Example::default() })
    }

    /// An example that a model can run and learn from.
    fn fitting(&self, record: &Record, example: Example) -> Result<Example, DataError> {
        if example.inputs.is_empty() || example.n_targets() == 0 {
            return Err(record.bad("there is nothing to learn from it: give it some content, or leave it out"));
        }
        let longest = example.n_positions();
        match longest <= self.context_len {
            true => Ok(example),
            false => {
                let max = self.context_len;
                Err(record
                    .bad(format!("{longest} tokens, but model.context_len is {max}: raise it, or shorten the record")))
            }
        }
    }
}

/// A field's text, which must not be blank.
fn filled(record: &Record, field: &str) -> Result<String, DataError> {
    let text = record.text(field)?;
    match text.trim().is_empty() {
        true => Err(record.bad(format!("`{field}` is empty: give it some text, or leave the record out"))),
        false => Ok(text),
    }
}

fn label_id(record: &Record, label: &str, labels: &[String]) -> Result<TokenId, DataError> {
    match labels.binary_search_by(|known| known.as_str().cmp(label)) {
        Ok(id) => Ok(id as TokenId),
        Err(_) => {
            let problem =
                format!("the label `{label}` does not occur in the training part; there are: {}", labels.join(", "));
            Err(record.bad(problem))
        }
    }
}

/// Examples made of records: all of them in an order of its own each epoch.
#[derive(Clone, Debug)]
pub struct Records {
    train: Vec<Example>,
    /// Which examples are run together.
    rows: Vec<Vec<usize>>,
    /// Positions that a row has room for.
    capacity: usize,
    packing: Option<Packing>,
    validation: Vec<Example>,
}

impl Records {
    /// Examples to train on and to validate on.
    ///
    /// # Errors
    /// [`DataError::TooShort`] if there is nothing to train on.
    pub fn new(train: Vec<Example>, validation: Vec<Example>) -> Result<Self, DataError> {
        let rows = (0..train.len()).map(|idx| vec![idx]).collect();
        let capacity = train.iter().map(Example::n_positions).max().unwrap_or(0);
        match train.iter().any(|example| example.n_targets() > 0) {
            true => Ok(Self { train, rows, capacity, packing: None, validation }),
            false => Err(DataError::TooShort { part: "training", n_tokens: 0, needed: 1 }),
        }
    }

    /// The same examples in rows of at most `context_len` positions; a longer one is a row of its own.
    pub fn packed(self, context_len: usize) -> Self {
        let capacity = context_len.max(self.capacity);
        let lens: Vec<usize> = self.train.iter().map(Example::n_positions).collect();
        let packing = Packing::best_fit(&lens, capacity);
        let rows = packing.rows().iter().map(|row| row.iter().map(|piece| piece.document).collect()).collect();
        Self { rows, capacity, packing: Some(packing), ..self }
    }
}

impl ExampleSource for Records {
    fn examples(&self, seed: u64, idx: u64) -> Vec<Example> {
        let len = self.rows.len() as u64;
        let epoch_seed = seed.wrapping_add((idx / len).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let row = &self.rows[Shuffle::new(len, epoch_seed).at(idx % len) as usize];
        row.iter().map(|idx| self.train[*idx].clone()).collect()
    }

    fn n_train_tokens(&self) -> usize {
        self.train.iter().map(Example::n_tokens).sum()
    }

    fn validation(&self) -> &[Example] {
        &self.validation
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn passes(&self, n: u64) -> f64 {
        n as f64 / self.rows.len() as f64
    }

    fn packing(&self) -> Option<&Packing> {
        self.packing.as_ref()
    }

    fn document_lens(&self) -> Vec<usize> {
        self.train.iter().map(Example::n_tokens).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::read_records;

    fn with_encoder<T>(kind: Kind, context_len: usize, make: impl FnOnce(RecordEncoder<'_>) -> T) -> T {
        let mut encode = |text: &str| text.bytes().map(|byte| TokenId::from(byte) + 10).collect();
        make(RecordEncoder { encode: &mut encode, kind, context_len, bos: 0, eos: 1 })
    }

    fn record(json: &str) -> Record {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, json).unwrap();
        read_records(&path).unwrap().remove(0)
    }

    #[test]
    fn a_pair_is_read_by_an_encoder_and_told_by_a_decoder_or_both_by_one() {
        let record = record("{\"source\": \"ab\", \"target\": \"c\"}");
        let (a, b, c) = (107, 108, 109);
        let fields = Seq2seqFields::default();
        let example = with_encoder(Kind::EncoderDecoder, 3, |mut encoder| encoder.seq2seq(&record, &fields)).unwrap();
        assert_eq!((example.inputs, example.decoder_inputs, example.targets), (vec![a, b, 1], vec![0, c], vec![c, 1]));
        let example = with_encoder(Kind::DecoderOnly, 5, |mut encoder| encoder.seq2seq(&record, &fields)).unwrap();
        assert_eq!(example.inputs, [a, b, 1, 0, c]);
        assert_eq!(example.targets, [IGNORED, IGNORED, IGNORED, c, 1]);
        let error = with_encoder(Kind::DecoderOnly, 4, |mut encoder| encoder.seq2seq(&record, &fields));
        let error = error.expect_err("too long").to_string();
        assert!(error.contains("5 tokens") && error.contains("context_len is 4"), "{error}");
    }

    #[test]
    fn labels_are_numbers_in_order() {
        let labels = ["bad".to_owned(), "good".to_owned()];
        let record_of = |label: &str| record(&format!("{{\"text\": \"abc\", \"label\": \"{label}\"}}"));
        let classified = |label| {
            let fields = ClassificationFields::default();
            with_encoder(Kind::EncoderOnly, 4, |mut encoder| {
                encoder.classification(&record_of(label), &fields, &labels)
            })
        };
        let example = classified("good").unwrap();
        assert_eq!((example.inputs, example.targets), (vec![0, 107, 108, 1], vec![1]), "cut to the context");
        let error = classified("odd").expect_err("no such label");
        assert!(error.to_string().contains("`odd`") && error.to_string().contains("bad, good"), "{error}");
    }

    #[test]
    fn a_tag_is_told_at_the_first_token_of_its_word() {
        let labels = ["O".to_owned(), "X".to_owned()];
        let record = record("{\"tokens\": [\"a\", \"bc\"], \"tags\": [\"X\", \"O\"]}");
        let fields = TokenClassificationFields::default();
        let tagged = |mut encoder: RecordEncoder<'_>| encoder.token_classification(&record, &fields, &labels);
        let example = with_encoder(Kind::EncoderOnly, 9, tagged).unwrap();
        assert_eq!(example.inputs, [0, 107, 42, 108, 109, 1]);
        assert_eq!(example.targets, [IGNORED, 1, 0, IGNORED, IGNORED, IGNORED]);
    }

    #[test]
    fn an_epoch_has_every_record_once_in_an_order_of_its_own() {
        let train: Vec<Example> = (0..9).map(|i| Example::causal(&[i], &[i])).collect();
        let records = Records::new(train, Vec::new()).unwrap();
        let epoch =
            |epoch: u64| (0..9).map(|i| records.examples(4, 9 * epoch + i)[0].inputs[0]).collect::<Vec<TokenId>>();
        for n in 0..3 {
            let mut sorted = epoch(n);
            sorted.sort_unstable();
            assert_eq!(sorted, (0..9).collect::<Vec<TokenId>>());
        }
        assert_ne!(epoch(0), epoch(1));
        assert!(Records::new(Vec::new(), Vec::new()).is_err());
    }
}
