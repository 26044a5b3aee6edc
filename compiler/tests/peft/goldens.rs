//! Adapters that PEFT made: what it computes with them, the gradients that it finds, and the files that it writes.

use siskin_compiler::artifact::hf::{self, SavedAdapter};
use siskin_compiler::artifact::{NamedWeights, TrainedModel};
use siskin_compiler::data::Example;
use siskin_compiler::model::{self, LossOptions, Model};
use siskin_compiler::peft::{PeftConfig, files, merge};
use siskin_compiler::tensor::{ParamGrads, Params, Tape};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(serde::Deserialize)]
struct Computed {
    ids: Vec<u32>,
    kinds: Vec<Recorded>,
}

/// What PEFT computes with an adapter.
#[derive(serde::Deserialize)]
struct Recorded {
    name: String,
    /// Of the last tokens.
    logits: Vec<Vec<f32>>,
    /// Mean over all tokens but the first.
    loss: f64,
    /// Its gradient by each tensor of the file.
    gradients: BTreeMap<String, Vec<f32>>,
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/adapters/kinds").join(name)
}

fn computed() -> Computed {
    serde_json::from_slice(&std::fs::read(golden("computed.json")).unwrap()).unwrap()
}

fn base() -> TrainedModel {
    hf::load_trained(&golden("base")).unwrap()
}

/// The base with the adapter of a folder.
fn adapted(folder: &Path) -> (Box<dyn Model>, PeftConfig, Params) {
    let (base, SavedAdapter { config, tensors }) = (base(), hf::load_peft(folder).unwrap());
    let model = model::build_for(&base.architecture, Some(&config)).unwrap();
    let mut params = Params::zeros(model.layout().clone());
    base.fill(&mut params, model.n_own_params()).unwrap();
    files::from_file(&*model, &config, tensors, &mut params).unwrap();
    (model, config, params)
}

fn logits(model: &dyn Model, params: &Params, ids: &[u32]) -> Vec<f32> {
    let mut tape = Tape::default();
    let mut graph = tape.evaluate(params);
    let logits = model.logits(&mut graph, &[Example::causal(ids, &[])]);
    graph.value(logits).to_vec()
}

/// The largest difference, over the largest number.
fn worst(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    got.iter().zip(want).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

#[test]
fn golden_adapters_compute_what_peft_does() {
    let Computed { ids, kinds } = computed();
    assert_eq!(kinds.len(), 7);
    let base = base();
    let plain_model = model::build(&base.architecture).unwrap();
    let plain = logits(&*plain_model, &base.params(plain_model.layout()).unwrap(), &ids);
    for Recorded { name, logits: want, .. } in &kinds {
        let (model, _, params) = adapted(&golden(name));
        let (got, want) = (logits(&*model, &params, &ids), want.concat());
        let last = got.len() - want.len();
        assert!(worst(&got[last..], &want) < 1e-5, "{name}: off by {}", worst(&got[last..], &want));
        assert!(worst(&plain[last..], &want) > 0.05, "{name} hardly changes anything");
    }
}

#[test]
fn golden_gradients_are_those_of_peft() {
    let Computed { ids, kinds } = computed();
    for Recorded { name, loss: want_loss, gradients, .. } in &kinds {
        let (model, config, params) = adapted(&golden(name));
        let layout = model.layout();
        let n = ids.len() - 1;
        let (mut tape, mut grads) = (Tape::default(), ParamGrads::new(layout));
        let mut graph = tape.record(&params, &mut grads);
        let example = [Example::causal(&ids[..n], &ids[1..])];
        let (loss, sums) = model.loss(&mut graph, &example, LossOptions::plain(1.0 / n as f32));
        graph.backward(loss, &[1.0]);
        assert!((sums.nats / n as f64 - want_loss).abs() < 1e-5 * want_loss, "{name}");
        // In the shapes of the file: a turn of keys turns their gradients, too.
        let mut as_params = Params::zeros(layout.clone());
        for (to, spec) in as_params.trained_mut().into_iter().zip(&layout.specs()[model.n_own_params()..]) {
            let siskin_compiler::tensor::WeightMut::F32(to) = to else { panic!("{} in 16 bits", spec.name) };
            to.copy_from_slice(&grads.values(layout)[spec.grad.clone().unwrap()]);
        }
        let got = files::to_file(&*model, &config, &as_params);
        assert_eq!(got.keys().collect::<Vec<_>>(), gradients.keys().collect::<Vec<_>>());
        for (tensor, want) in gradients {
            let off = worst(&got[tensor].data, want);
            assert!(off < 1e-4, "{name}, {tensor}: off by {off}");
        }
    }
}

/// The tensors of a file, without the base that PEFT saves along with tables.
fn own_tensors(folder: &Path) -> NamedWeights {
    let mut tensors = hf::load_peft(folder).unwrap().tensors;
    tensors.retain(|name, _| !name.contains("base_layer"));
    tensors
}

#[test]
fn golden_files_are_written_as_peft_writes_them() {
    let dir = tempfile::tempdir().unwrap();
    let out = std::env::var_os("ORACLE_FOLDER").map_or(dir.path().to_owned(), PathBuf::from);
    for Recorded { name, .. } in &computed().kinds {
        let (model, config, params) = adapted(&golden(name));
        let folder = out.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        hf::write_peft(&folder, (&*model, &config), &params, "base").unwrap();
        let (got, want) = (own_tensors(&folder), own_tensors(&golden(name)));
        assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
        for (tensor, want) in &want {
            assert_eq!(got[tensor].shape, want.shape, "{name}, {tensor}");
            // Keys are turned by their positions and back.
            let off = worst(&got[tensor].data, &want.data);
            assert!(if name == "prefix" { off < 1e-6 } else { off == 0.0 }, "{name}, {tensor}: off by {off}");
        }
        let fields = |folder: &Path| -> serde_json::Map<String, serde_json::Value> {
            serde_json::from_slice(&std::fs::read(folder.join("adapter_config.json")).unwrap()).unwrap()
        };
        let want = fields(&golden(name));
        for (field, value) in fields(&folder) {
            // A float of ours is a whole number there.
            let is_same = want.get(&field).is_some_and(|want| *want == value || want.as_f64() == value.as_f64());
            assert!(is_same, "{name}, {field}: {value}, not {:?}", want.get(&field));
        }
        assert_eq!(hf::load_peft(&folder).unwrap().config, config, "{name}");
    }
}

#[test]
fn merged_is_unmerged() {
    let Computed { ids, kinds } = computed();
    let base = base();
    let plain = model::build(&base.architecture).unwrap();
    for Recorded { name, .. } in &kinds {
        let SavedAdapter { config, tensors } = hf::load_peft(&golden(name)).unwrap();
        let mut merged = base.clone();
        match (name.as_str(), merge(&config, &tensors, &mut merged.tensors, true)) {
            ("table", result) => assert!(result.unwrap_err().to_string().contains("the output head is the same")),
            ("prompt" | "prefix", result) => assert!(result.unwrap_err().to_string().contains("merging pr")),
            (_, changed) => {
                let changed = changed.unwrap();
                for (name, weight) in &base.tensors {
                    assert_eq!(merged.tensors[name] != *weight, changed.contains(name), "{name}");
                }
                let (model, _, params) = adapted(&golden(name));
                let want = logits(&*model, &params, &ids);
                let got = logits(&*plain, &merged.params(plain.layout()).unwrap(), &ids);
                assert!(worst(&got, &want) < 1e-5, "{name}: off by {}", worst(&got, &want));
            }
        }
    }
    // Where the head is another matrix, a table can be merged.
    let SavedAdapter { config, tensors } = hf::load_peft(&golden("table")).unwrap();
    let mut untied = base.clone();
    untied.architecture.tied_head = false;
    untied.tensors.insert("lm_head.weight".into(), base.tensors["model.embed_tokens.weight"].clone());
    merge(&config, &tensors, &mut untied.tensors, false).unwrap();
    let model = model::build(&untied.architecture).unwrap();
    let got = logits(&*model, &untied.params(model.layout()).unwrap(), &ids);
    let (model, _, params) = adapted(&golden("table"));
    assert!(worst(&got, &logits(&*model, &params, &ids)) < 1e-5);
}
