//! The sampler with every filter and penalty: what it draws, and every probability, by their hashes.

use siskin_runtime::sampler::{LogitBias, Sampler, Sampling, SamplingError};
use siskin_runtime::{Kernels, LogitsHash};

use crate::random::Random;
use crate::{Memory, Mismatch};

const VOCAB_SIZE: usize = 96;
const N_TOKENS: usize = 48;

/// What each of [`samplings`] gave where these cases were written.
const EXPECTED: [u64; 7] = [
    0x8f9d12892700b184,
    0xccbfb55e2b31f3ab,
    0xb8d8ae0d207eadf0,
    0x93060253c9c032d9,
    0x611571b921009e15,
    0x049c681f002118d6,
    0xcc8350115ffa54ed,
];

fn samplings() -> Result<[Sampling; EXPECTED.len()], SamplingError> {
    let random = Sampling::random(0.9)?;
    let penalised = Sampling::greedy().with_repetition_penalty(1.3)?.with_frequency_penalty(0.4)?;
    Ok([
        penalised.with_presence_penalty(-0.2)?,
        random.with_top_k(20)?.with_top_p(0.9)?.with_min_p(0.02)?,
        random.with_typical_p(0.7)?,
        random.with_typical_p(0.4)?.with_top_k(40)?.with_top_p(0.8)?.with_min_p(0.1)?,
        random.with_frequency_penalty(0.3)?.with_presence_penalty(0.6)?,
        random.with_mirostat(3.0, 0.2)?,
        Sampling::random(1.7)?.with_mirostat(4.5, 0.1)?.with_typical_p(0.95)?.with_repetition_penalty(1.1)?,
    ])
}

/// A number of -8 to 8.
fn logit(random: &mut Random) -> f32 {
    random.below(1 << 16) as f32 * (1.0 / 4096.0) - 8.0
}

pub(crate) fn check(_: Kernels, _: &mut Memory) -> Result<usize, Mismatch> {
    let biases = [LogitBias { token: 5, bias: 1.5 }, LogitBias::ban(17), LogitBias { token: 60, bias: -0.75 }];
    let biases = biases.map(LogitBias::encode);
    let mismatch = |idx: usize, hash: u64| Mismatch {
        kernel: "sampler",
        case: [("sampling", idx), ("high", (hash >> 32) as usize), ("low", hash as u32 as usize), ("", 0)],
    };
    let samplings = samplings().map_err(|_| mismatch(EXPECTED.len(), 0))?;
    for (idx, (sampling, expected)) in samplings.into_iter().zip(EXPECTED).enumerate() {
        let mut random = Random::new(idx as u32);
        let mut sampler = Sampler::new(sampling, idx as u64).with_biases(&biases);
        let mut hash = LogitsHash::EMPTY;
        for _ in 0..N_TOKENS {
            let mut logits = [0.0; VOCAB_SIZE];
            logits.iter_mut().for_each(|x| *x = logit(&mut random));
            let token = sampler.next(&mut logits);
            hash.add(&[token as f32]);
            hash.add(&logits);
        }
        if hash.0 != expected {
            return Err(mismatch(idx, hash.0));
        }
    }
    Ok(samplings.len() * N_TOKENS)
}
