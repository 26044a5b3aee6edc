//! What the host asks for: small files of fixed layout in the folder that the emulator was started in, `siskin-request.bin`, then
//! `siskin-request-1.bin` and so on, as far as there are any.
//!
//! All numbers are little-endian; `f32` as its bits.
//!
//! | offset | type  | content |
//! | ---    | ---   | --- |
//! | 0      | 8 B   | magic `SISKINRQ` |
//! | 8      | u32   | version: 3; 4, which has the fields from byte 84; or 5, which has those from 96 |
//! | 12     | u32   | what the prompt is: 0 text, 1 token ids (u32 each) |
//! | 16     | u32   | bytes of the prompt |
//! | 20     | u32   | most tokens to generate |
//! | 24     | u64   | seed |
//! | 32     | f32   | temperature; 0 is greedy |
//! | 36     | u32   | top-k; 0 keeps every token |
//! | 40     | f32   | typical-p; 1 keeps every token |
//! | 44     | f32   | top-p; 1 keeps every token |
//! | 48     | f32   | min-p; 0 keeps every token |
//! | 52     | f32   | repetition penalty; 1 penalises nothing |
//! | 56     | f32   | frequency penalty; 0 penalises nothing |
//! | 60     | f32   | presence penalty; 0 penalises nothing |
//! | 64     | f32   | mirostat's tau; 0 is none |
//! | 68     | f32   | mirostat's eta |
//! | 72     | u32   | number of logit biases |
//! | 76     | u32   | number of stop sequences, at most [`STOPS_MAX`] |
//! | 80     | u32   | bytes of the adapter's name: 0 for none, all ones for the adapter in the file `siskin-adapter.bin` |
//! | 84     | u32   | newest tokens that a full context keeps when it slides; 0 ends the text there |
//! | 88     | u32   | first tokens that it keeps besides: attention sinks |
//! | 92     | u32   | 1: begin without the model's prefix |
//! | 96     | u32   | beams of a search for the best text, which takes no notice of sampling, biases and stop sequences; 0 for none |
//! | 100    | f32   | its length penalty |
//! | 104    | u32   | when it stops: 0 likely, 1 full, 2 never ([`EarlyStopping`]) |
//! | 84, 96, 108 | | each bias: u32 token, f32; the prompt; each stop sequence: u32 length, UTF-8 bytes; the adapter's name |

use siskin_runtime::sampler::{EncodedBias, Sampling, SamplingError};
use siskin_runtime::{EarlyStopping, Window};

use crate::failure::Failure;

/// Most requests of a run.
pub const REQUESTS_MAX: usize = 10;
/// Most stop sequences.
pub const STOPS_MAX: usize = 8;

/// A request's file name, with the 0 at its end that the host wants.
pub type FileName = [u8; 21];

/// The file of the request `request_idx`, below [`REQUESTS_MAX`].
pub fn request_file(request_idx: usize) -> FileName {
    match request_idx {
        0 => *b"siskin-request.bin\0\0\0",
        _ => {
            let mut name = *b"siskin-request-0.bin\0";
            name[15] += request_idx as u8;
            name
        }
    }
}

const MAGIC: &[u8; 8] = b"SISKINRQ";
/// The oldest version to the one that has all fields.
const VERSIONS: [u32; 3] = [3, 4, 5];

/// The text begins without the model's prefix.
const WITHOUT_PREFIX: u32 = 1;

/// The text to go on from.
pub enum Prompt<'r> {
    /// Text, for the tokenizer.
    Text(&'r str),
    /// Token ids, little-endian, four bytes each.
    Tokens(&'r [u8]),
}

/// What goes beside the model's weights.
#[derive(Clone, Copy)]
pub enum Adapter<'r> {
    /// Nothing.
    None,
    /// The model's adapter of this name.
    Named(&'r str),
    /// What the host has sent.
    Received,
}

/// How the best text is searched for; checked by who searches.
#[derive(Clone, Copy)]
pub struct Beams {
    /// Texts side by side.
    pub n_beams: usize,
    /// How much length counts.
    pub length_penalty: f32,
    /// When the search stops.
    pub early_stopping: EarlyStopping,
}

/// One request, checked.
pub struct Request<'r> {
    /// The text to go on from.
    pub prompt: Prompt<'r>,
    /// Most tokens to generate.
    pub max_new_tokens: usize,
    /// What a full context keeps when it slides; `None` ends the text there.
    pub window: Option<Window>,
    /// Whether the text begins after the model's prefix, where it has one.
    pub after_prefix: bool,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Where the random numbers start.
    pub seed: u64,
    /// What is added to logits.
    pub biases: &'r [EncodedBias],
    /// What goes beside the model's weights.
    pub adapter: Adapter<'r>,
    /// How the best text is searched for, in place of drawing tokens.
    pub beams: Option<Beams>,
    stops: [&'r str; STOPS_MAX],
    n_stops: usize,
}

impl<'r> Request<'r> {
    /// Reads the layout above.
    #[inline(never)]
    pub fn parse(file: &'r [u8]) -> Result<Self, Failure> {
        let mut fields = Fields { rest: file };
        if fields.bytes(MAGIC.len())? != MAGIC {
            return Err(Failure::new("the request does not start with its magic bytes"));
        }
        let version = fields.u32()?;
        if !VERSIONS.contains(&version) {
            return Err(Failure::new("the request has another version").with("found", version.into()));
        }
        let prompt_kind = fields.u32()?;
        let prompt_bytes = fields.u32()? as usize;
        let max_new_tokens = fields.u32()? as usize;
        let seed = u64::from(fields.u32()?) | u64::from(fields.u32()?) << 32;
        let sampling = fields.sampling()?;
        let n_biases = fields.u32()? as usize;
        let n_stops = fields.u32()? as usize;
        let adapter_bytes = fields.u32()?;
        if n_stops > STOPS_MAX {
            return Err(Failure::new("too many stop sequences")
                .with("given", n_stops as u64)
                .with("most", STOPS_MAX as u64));
        }
        let [n_newest, n_sinks, flags] = if version == VERSIONS[0] { [0; 3] } else { fields.words()? };
        let beams = if version == VERSIONS[2] { fields.beams()? } else { None };
        let window = (n_newest > 0).then_some(Window { n_sinks: n_sinks as usize, n_newest: n_newest as usize });
        let after_prefix = flags & WITHOUT_PREFIX == 0;
        let biases = fields.bytes(n_biases.saturating_mul(size_of::<EncodedBias>()))?.as_chunks().0;
        let prompt = fields.bytes(prompt_bytes)?;
        let prompt = match prompt_kind {
            0 => Prompt::Text(utf8(prompt)?),
            1 if prompt.len().is_multiple_of(4) => Prompt::Tokens(prompt),
            _ => return Err(Failure::new("the request's prompt is of no known kind").with("kind", prompt_kind.into())),
        };
        let mut stops = [""; STOPS_MAX];
        for stop in stops.iter_mut().take(n_stops) {
            let stop_bytes = fields.u32()? as usize;
            *stop = utf8(fields.bytes(stop_bytes)?)?;
        }
        let adapter = match adapter_bytes {
            0 => Adapter::None,
            u32::MAX => Adapter::Received,
            n_bytes => Adapter::Named(utf8(fields.bytes(n_bytes as usize)?)?),
        };
        Ok(Self {
            prompt,
            max_new_tokens,
            window,
            after_prefix,
            sampling,
            seed,
            biases,
            adapter,
            beams,
            stops,
            n_stops,
        })
    }

    /// Texts before which the generated text ends.
    pub fn stops(&self) -> &[&'r str] {
        self.stops.get(..self.n_stops).unwrap_or_default()
    }
}

/// What is left of the file.
struct Fields<'r> {
    rest: &'r [u8],
}

impl<'r> Fields<'r> {
    fn bytes(&mut self, n_bytes: usize) -> Result<&'r [u8], Failure> {
        let Some((bytes, rest)) = self.rest.split_at_checked(n_bytes) else {
            return Err(Failure::new("the request ends early"));
        };
        self.rest = rest;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, Failure> {
        self.bytes(4).map(crate::u32_le)
    }

    fn words<const N: usize>(&mut self) -> Result<[u32; N], Failure> {
        let mut words = [0; N];
        for word in &mut words {
            *word = self.u32()?;
        }
        Ok(words)
    }

    fn beams(&mut self) -> Result<Option<Beams>, Failure> {
        let [n_beams, length_penalty, early_stopping] = self.words()?;
        let early_stopping = match early_stopping {
            0 => EarlyStopping::Likely,
            1 => EarlyStopping::Full,
            2 => EarlyStopping::Never,
            other => return Err(Failure::new("the search's end is of no known kind").with("kind", other.into())),
        };
        let (n_beams, length_penalty) = (n_beams as usize, f32::from_bits(length_penalty));
        Ok((n_beams > 0).then_some(Beams { n_beams, length_penalty, early_stopping }))
    }

    fn f32(&mut self) -> Result<f32, Failure> {
        self.u32().map(f32::from_bits)
    }

    fn sampling(&mut self) -> Result<Sampling, Failure> {
        self.unchecked_sampling()?.map_err(|error| Failure::new(error.as_str()))
    }

    fn unchecked_sampling(&mut self) -> Result<Result<Sampling, SamplingError>, Failure> {
        let (temperature, top_k) = (self.f32()?, self.u32()?);
        let mut numbers = [0.0; 8];
        for number in &mut numbers {
            *number = self.f32()?;
        }
        let [typical_p, top_p, min_p, repetition, frequency, presence, tau, eta] = numbers;
        Ok(Sampling::random(temperature).and_then(|mut sampling| {
            if top_k != 0 {
                sampling = sampling.with_top_k(top_k)?;
            }
            if tau != 0.0 {
                sampling = sampling.with_mirostat(tau, eta)?;
            }
            let sampling = sampling.with_typical_p(typical_p)?.with_top_p(top_p)?.with_min_p(min_p)?;
            sampling
                .with_repetition_penalty(repetition)?
                .with_frequency_penalty(frequency)?
                .with_presence_penalty(presence)
        }))
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Failure> {
    core::str::from_utf8(bytes).map_err(|_| Failure::new("the request holds text that is not UTF-8"))
}
