//! The request that the firmware reads: the layout is documented in boards/firmware/src/request.rs.

use siskin_runtime::sampler::{EncodedBias, Sampling};
use siskin_runtime::{BeamOptions, EarlyStopping, TokenId, Window};

const MAGIC: &[u8; 8] = b"SISKINRQ";
const VERSION: u32 = 4;
/// With a beam search.
const VERSION_OF_BEAMS: u32 = 5;
/// The text begins without the model's prefix.
const WITHOUT_PREFIX: u32 = 1;

/// The text to go on from.
pub(crate) enum Prompt<'r> {
    /// Text, which the device encodes.
    Text(&'r str),
    /// Tokens.
    Tokens(&'r [TokenId]),
}

/// What goes beside the model's weights.
#[derive(Clone, Copy)]
pub(crate) enum Adapter<'r> {
    /// Nothing.
    None,
    /// The model's adapter of this name.
    Named(&'r str),
    /// The one in `siskin-adapter.bin`, which lies beside the request.
    Received(&'r [u8]),
}

/// What the firmware is asked for.
pub(crate) struct Request<'r> {
    pub(crate) prompt: Prompt<'r>,
    pub(crate) max_new_tokens: usize,
    pub(crate) after_prefix: bool,
    pub(crate) window: Option<Window>,
    pub(crate) sampling: Sampling,
    pub(crate) seed: u64,
    pub(crate) biases: &'r [EncodedBias],
    pub(crate) stops: &'r [&'r str],
    pub(crate) adapter: Adapter<'r>,
    pub(crate) beams: Option<BeamOptions>,
}

impl Request<'_> {
    /// The file's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (kind, prompt) = match self.prompt {
            Prompt::Text(text) => (0u32, text.as_bytes().to_vec()),
            Prompt::Tokens(ids) => (1, ids.iter().flat_map(|id| id.to_le_bytes()).collect()),
        };
        let sampling = &self.sampling;
        let mut file = MAGIC.to_vec();
        let mut put = |word: u32| file.extend(word.to_le_bytes());
        put(if self.beams.is_some() { VERSION_OF_BEAMS } else { VERSION });
        put(kind);
        put(saturated(prompt.len()));
        put(saturated(self.max_new_tokens));
        put(self.seed as u32);
        put((self.seed >> 32) as u32);
        put(sampling.temperature().to_bits());
        put(sampling.top_k().unwrap_or(0));
        put(sampling.typical_p().to_bits());
        put(sampling.top_p().to_bits());
        put(sampling.min_p().to_bits());
        put(sampling.repetition_penalty().to_bits());
        put(sampling.frequency_penalty().to_bits());
        put(sampling.presence_penalty().to_bits());
        put(sampling.mirostat().map_or(0, |mirostat| mirostat.tau.to_bits()));
        put(sampling.mirostat().map_or(0, |mirostat| mirostat.eta.to_bits()));
        put(saturated(self.biases.len()));
        put(saturated(self.stops.len()));
        let (adapter_bytes, adapter) = match self.adapter {
            Adapter::None => (0, ""),
            Adapter::Named(name) => (saturated(name.len()), name),
            Adapter::Received(_) => (u32::MAX, ""),
        };
        put(adapter_bytes);
        put(self.window.map_or(0, |window| saturated(window.n_newest)));
        put(self.window.map_or(0, |window| saturated(window.n_sinks)));
        put(if self.after_prefix { 0 } else { WITHOUT_PREFIX });
        if let Some(BeamOptions { n_beams, length_penalty, early_stopping, .. }) = self.beams {
            put(saturated(n_beams));
            put(length_penalty.to_bits());
            put(match early_stopping {
                EarlyStopping::Likely => 0,
                EarlyStopping::Full => 1,
                EarlyStopping::Never => 2,
            });
        }
        file.extend(self.biases.as_flattened());
        file.extend(prompt);
        for stop in self.stops {
            file.extend(saturated(stop.len()).to_le_bytes());
            file.extend(stop.as_bytes());
        }
        file.extend(adapter.as_bytes());
        file
    }
}

fn saturated(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use siskin_runtime::sampler::LogitBias;

    use super::*;

    #[test]
    fn fields_lie_where_the_firmware_looks() {
        let sampling = Sampling::random(0.5).and_then(|s| s.with_top_k(3)).and_then(|s| s.with_top_p(0.25)).unwrap();
        let sampling = sampling.with_typical_p(0.75).and_then(|s| s.with_frequency_penalty(-1.0)).unwrap();
        let sampling = sampling.with_mirostat(5.0, 0.125).unwrap();
        let prompt = Prompt::Tokens(&[7, 0x0102_0304]);
        let biases = [LogitBias { token: 6, bias: -0.5 }.encode()];
        let (max_new_tokens, seed) = (9, 0x11_2233_4455_6677);
        let (biases, stops, adapter) = (&biases, &["ab"], Adapter::Named("poet"));
        let (after_prefix, window) = (false, Some(Window { n_sinks: 4, n_newest: 60 }));
        let beams = None;
        let mut request =
            Request { prompt, max_new_tokens, after_prefix, window, sampling, seed, biases, stops, adapter, beams };
        let file = request.encode();
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
        let number = |at: usize| f32::from_bits(word(at));
        assert_eq!(&file[..8], b"SISKINRQ");
        assert_eq!([8, 12, 16, 20].map(word), [4, 1, 8, 9]);
        assert_eq!([24, 28].map(word), [0x4455_6677, 0x11_2233]);
        assert_eq!([32, 40, 44, 48, 52].map(number), [0.5, 0.75, 0.25, 0.0, 1.0]);
        assert_eq!([56, 60, 64, 68].map(number), [-1.0, 0.0, 5.0, 0.125]);
        assert_eq!([36, 72, 76, 80, 84, 88, 92, 96].map(word), [3, 1, 1, 4, 60, 4, 1, 6]);
        assert_eq!(number(100), -0.5);
        assert_eq!([104, 108, 112].map(word), [7, 0x0102_0304, 2]);
        assert_eq!(&file[116..], b"abpoet");
        let early_stopping = EarlyStopping::Never;
        let options = BeamOptions { n_beams: 3, length_penalty: -0.5, early_stopping, end_token: None, max_new_tokens };
        request.beams = Some(options);
        let wide = request.encode();
        let word = |at: usize| u32::from_le_bytes(wide[at..at + 4].try_into().unwrap());
        assert_eq!([8, 96, 100, 104].map(word), [5, 3, (-0.5f32).to_bits(), 2]);
        assert_eq!((&wide[12..96], &wide[108..]), (&file[12..96], &file[96..]));
    }
}
