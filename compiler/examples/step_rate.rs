//! Times training steps of the 260K shape.
use siskin_compiler::model::Llama;
use siskin_compiler::train::step::{Sample, Stepper};
use siskin_runtime::ModelConfig;
fn cpu() -> f64 {
    let s = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = s.rsplit(')').next().unwrap().split_whitespace().collect();
    (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0
}
fn main() {
    let n: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let steps: usize = std::env::args().nth(2).unwrap().parse().unwrap();
    rayon::ThreadPoolBuilder::new().num_threads(n).build_global().unwrap();
    let c = ModelConfig {
        dim: 64,
        hidden_dim: 172,
        n_layers: 5,
        n_heads: 8,
        n_kv_heads: 4,
        head_dim: 8,
        vocab_size: 512,
        context_len: 256,
        norm_eps: 1e-5,
        rope_theta: 1e4,
        tied_head: true,
    };
    let m = Llama::new(&c);
    let p = m.init(1);
    let mut s = Stepper::new(&m);
    let toks: Vec<u32> = (0..16 * 256 + 1).map(|i| (i * 7919 % 509) as u32).collect();
    let b: Vec<Sample> =
        (0..16).map(|i| Sample { inputs: &toks[i * 256..][..256], targets: &toks[i * 256 + 1..][..256] }).collect();
    let (t, c0) = (std::time::Instant::now(), cpu());
    let mut l = 0.0;
    for _ in 0..steps {
        s.clear();
        l = s.accumulate(&p, &b, 1.0 / 4096.0) / 4096.0;
        s.gradient();
    }
    let w = t.elapsed().as_secs_f64();
    println!("loss {l} {} tok/s wall, {} tok/cpu-s", steps as f64 * 4096.0 / w, steps as f64 * 4096.0 / (cpu() - c0));
}
