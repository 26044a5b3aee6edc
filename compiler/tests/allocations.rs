//! A training step takes its buffers from the pool that the steps before have filled: after the first steps nothing but the notes
//! of the tape, a few bytes an operation, is allocated.

use rayon::ThreadPoolBuilder;
use siskin_compiler::data::Example;
use siskin_compiler::model::{self, Head, LossOptions};
use siskin_compiler::recipe::ModelSection;
use siskin_compiler::tensor::Dtype;
use siskin_compiler::train::step::{DropoutSeed, Stepper};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes from which an allocation is a matrix: the smallest of activations, 31 x 32, has 3,968, a list of a sequence's rows at most 512.
const BUFFER: usize = 1024;

static N_BUFFERS: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: the system's allocator does all the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() >= BUFFER {
            N_BUFFERS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_steady_step_allocates_no_buffer() {
    // On one thread: on several, which of them has a tape that knows a shape is left to chance.
    ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(|| {
        let families = [
            ("llama", Head::Language),
            ("gpt2", Head::Language),
            ("bert", Head::MaskedLanguage),
            ("t5", Head::Language),
        ];
        for (family, head) in families {
            let has_decoder = family == "t5";
            let section: ModelSection = toml::from_str(&format!(
                "architecture = \"{family}\"\ndim = 32\nhidden_dim = 64\nn_layers = 2\nn_heads = 4\ncontext_len = 48"
            ))
            .unwrap();
            let model = model::build(&section.architecture(128, head)).unwrap();
            let params = model.init(1);
            let tokens = |n: usize, salt: usize| (0..n).map(|i| ((i * 7 + salt) % 128) as u32).collect::<Vec<u32>>();
            let example = |n: usize| Example {
                decoder_inputs: if has_decoder { tokens(n, 3) } else { Vec::new() },
                ..Example::causal(&tokens(n, 0), &tokens(n, 1))
            };
            let batch = [[example(48)], [example(31)], [example(48)], [example(31)]];
            let (whole, half) = (Dtype::F32, Dtype::Bf16);
            for (recompute_activations, activations_dtype) in
                [(false, whole), (true, whole), (false, half), (true, half)]
            {
                let options =
                    LossOptions { dropout: 0.1, recompute_activations, activations_dtype, ..LossOptions::plain(0.01) };
                let mut stepper = Stepper::new(&*model);
                let mut n_buffers = Vec::new();
                for _ in 0..4 {
                    let before = N_BUFFERS.load(Ordering::Relaxed);
                    stepper.clear();
                    stepper.accumulate(&params, &batch, options, DropoutSeed::default());
                    stepper.gradient();
                    n_buffers.push(N_BUFFERS.load(Ordering::Relaxed) - before);
                }
                assert!(n_buffers[0] > 20, "{family}: the first step fills the pool: {n_buffers:?}");
                let what = format!("{family}, recomputing {recompute_activations}, {activations_dtype:?}");
                assert_eq!(n_buffers[2..], [0, 0], "{what}: {n_buffers:?}");
            }
        }
    });
}
