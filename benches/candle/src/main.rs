//! candle's side of `cargo xtask bench train`: the same Llama, its loss, its gradients and AdamW, in `f32`.
//!
//! `bench-candle llama DIM HIDDEN LAYERS HEADS KV_HEADS VOCAB BATCH CONTEXT`, then the protocol of benches/README.md.

use std::io::Write as _;
use std::time::Instant;

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::{
    AdamW, Embedding, Init, Linear, Module as _, Optimizer as _, ParamsAdamW, RmsNorm, VarBuilder, VarMap,
};

/// Added inside the root of every norm.
const NORM_EPS: f64 = 1e-5;
/// Steps before the clock starts.
const WARM_UP: usize = 2;

#[derive(Clone, Copy)]
struct Shape {
    dim: usize,
    hidden_dim: usize,
    n_layers: usize,
    n_heads: usize,
    n_kv_heads: usize,
    vocab_size: usize,
    batch_size: usize,
    context_len: usize,
}

impl Shape {
    fn from_args() -> Option<Self> {
        let mut args = std::env::args().skip(1);
        args.next().filter(|family| family == "llama")?;
        let numbers: Vec<usize> = args.map(|number| number.parse()).collect::<std::result::Result<_, _>>().ok()?;
        let [dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, batch_size, context_len] = numbers[..] else {
            return None;
        };
        Some(Self { dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, batch_size, context_len })
    }

    fn head_dim(self) -> usize {
        self.dim / self.n_heads
    }
}

struct Layer {
    attention_norm: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    feed_forward_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Layer {
    fn new(shape: Shape, vars: VarBuilder<'_>) -> Result<Self> {
        let Shape { dim, hidden_dim, .. } = shape;
        let kv_dim = shape.head_dim() * shape.n_kv_heads;
        let linear = |from, to, name| candle_nn::linear_no_bias(from, to, vars.pp(name));
        Ok(Self {
            attention_norm: candle_nn::rms_norm(dim, NORM_EPS, vars.pp("attention_norm"))?,
            query: linear(dim, dim, "query")?,
            key: linear(dim, kv_dim, "key")?,
            value: linear(dim, kv_dim, "value")?,
            output: linear(dim, dim, "output")?,
            feed_forward_norm: candle_nn::rms_norm(dim, NORM_EPS, vars.pp("feed_forward_norm"))?,
            gate: linear(dim, hidden_dim, "gate")?,
            up: linear(dim, hidden_dim, "up")?,
            down: linear(hidden_dim, dim, "down")?,
        })
    }

    fn forward(&self, shape: Shape, constants: &Constants, stream: &Tensor) -> Result<Tensor> {
        let x = self.attention_norm.forward_diff(stream)?;
        let stream = (stream + self.attention(shape, constants, &x)?)?;
        let x = self.feed_forward_norm.forward_diff(&stream)?;
        let hidden = (self.gate.forward(&x)?.silu()? * self.up.forward(&x)?)?;
        stream + self.down.forward(&hidden)?
    }

    fn attention(&self, shape: Shape, constants: &Constants, x: &Tensor) -> Result<Tensor> {
        let Shape { dim, n_heads, n_kv_heads, batch_size, context_len, .. } = shape;
        let heads = |x: Tensor, n_heads| {
            x.reshape((batch_size, context_len, n_heads, shape.head_dim()))?.transpose(1, 2)?.contiguous()
        };
        // The fused rotation has no gradient in candle.
        let rotate = |x: &Tensor| candle_nn::rotary_emb::rope_slow(x, &constants.cos, &constants.sin);
        let query = rotate(&heads(self.query.forward(x)?, n_heads)?)?;
        let key = shared(rotate(&heads(self.key.forward(x)?, n_kv_heads)?)?, n_heads / n_kv_heads)?;
        let value = shared(heads(self.value.forward(x)?, n_kv_heads)?, n_heads / n_kv_heads)?;
        let scores = (query.matmul(&key.t()?.contiguous()?)? * (shape.head_dim() as f64).powf(-0.5))?;
        let shares = candle_nn::ops::softmax(&scores.broadcast_add(&constants.mask)?, D::Minus1)?;
        let mixed = shares.matmul(&value)?.transpose(1, 2)?.reshape((batch_size, context_len, dim))?;
        self.output.forward(&mixed)
    }
}

/// Repeats each head for the `n` queries that share it.
fn shared(x: Tensor, n: usize) -> Result<Tensor> {
    if n == 1 {
        return Ok(x);
    }
    let (batch_size, n_heads, context_len, head_dim) = x.dims4()?;
    let repeated = x.unsqueeze(2)?.broadcast_as((batch_size, n_heads, n, context_len, head_dim))?;
    repeated.contiguous()?.reshape((batch_size, n_heads * n, context_len, head_dim))
}

struct Constants {
    mask: Tensor,
    cos: Tensor,
    sin: Tensor,
}

impl Constants {
    fn new(shape: Shape, device: &Device) -> Result<Self> {
        let (n, half) = (shape.context_len, shape.head_dim() / 2);
        let mask = (0..n * n).map(|i| if i % n > i / n { f32::NEG_INFINITY } else { 0.0 }).collect();
        let angle = |i: usize| (i / half) as f32 / 10_000_f32.powf((i % half) as f32 / half as f32);
        let table =
            |f: fn(f32) -> f32| Tensor::from_vec((0..n * half).map(|i| f(angle(i))).collect(), (n, half), device);
        Ok(Self { mask: Tensor::from_vec(mask, (1, 1, n, n), device)?, cos: table(f32::cos)?, sin: table(f32::sin)? })
    }
}

struct Llama {
    shape: Shape,
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    constants: Constants,
}

impl Llama {
    fn new(shape: Shape, vars: VarBuilder<'_>, device: &Device) -> Result<Self> {
        let init = Init::Randn { mean: 0.0, stdev: 0.02 };
        let embedding = vars.get_with_hints((shape.vocab_size, shape.dim), "embedding", init)?;
        Ok(Self {
            shape,
            embedding: Embedding::new(embedding, shape.dim),
            layers: (0..shape.n_layers).map(|i| Layer::new(shape, vars.pp(i))).collect::<Result<_>>()?,
            norm: candle_nn::rms_norm(shape.dim, NORM_EPS, vars.pp("norm"))?,
            constants: Constants::new(shape, device)?,
        })
    }

    fn loss(&self, inputs: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let mut stream = self.embedding.forward(inputs)?;
        for layer in &self.layers {
            stream = layer.forward(self.shape, &self.constants, &stream)?;
        }
        let states = self.norm.forward_diff(&stream)?.reshape(((), self.shape.dim))?;
        candle_nn::loss::cross_entropy(&states.matmul(&self.embedding.embeddings().t()?)?, targets)
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let shape = Shape::from_args().ok_or("expected `llama` and eight numbers")?;
    let (device, map) = (Device::Cpu, VarMap::new());
    let llama = Llama::new(shape, VarBuilder::from_varmap(&map, DType::F32, &device), &device)?;
    let rule = ParamsAdamW { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    let mut optimizer = AdamW::new(map.all_vars(), rule)?;
    let n_params: usize = map.all_vars().iter().map(|var| var.elem_count()).sum();
    let tokens = |shift: usize| {
        let n = shape.batch_size * shape.context_len;
        let token =
            |i: usize| (((i + shift) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) % shape.vocab_size as u64;
        Tensor::from_vec((0..n).map(|i| token(i) as u32).collect(), n, &device)
    };
    let (inputs, targets) = (tokens(1)?.reshape((shape.batch_size, shape.context_len))?, tokens(2)?);
    let mut step = || {
        let loss = llama.loss(&inputs, &targets)?;
        optimizer.backward_step(&loss)?;
        loss.to_scalar::<f32>()
    };
    for _ in 0..WARM_UP {
        step()?;
    }
    println!("ready {n_params}");
    for line in std::io::stdin().lines() {
        let (mut loss, mut seconds) = (0.0, String::new());
        for _ in 0..line?.trim().parse::<usize>()? {
            let start = Instant::now();
            loss = step()?;
            seconds += &format!(" {}", start.elapsed().as_secs_f64());
        }
        println!("{loss}{seconds}");
        std::io::stdout().flush()?;
    }
    Ok(())
}
