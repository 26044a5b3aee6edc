//! Adapters as PEFT saves them, against the logits that PEFT computes; then quantised, in every layout and with every backend.
//!
//! `tests/oracles/peft_adapters.py` loads the folder that the first test leaves in `ORACLE_FOLDER`, saves adapters for it, and records its hash
//! and logits.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use siskin_compiler::artifact::{Adapter, Checkpoint, hf, names};
use siskin_compiler::pack::{AdapterPackError, AlignedBytes, PackOptions, pack, pack_adapter, relayout, with_adapters};
use siskin_compiler::reference::ReferenceModel;
use siskin_runtime::{Kernels, ModelConfig, PackedModel, Session, TokenId, WeightFormat, WeightLayout};

#[derive(Deserialize)]
struct Record {
    /// Of config.json and model.safetensors, one after the other.
    sha256: String,
    ids: Vec<TokenId>,
    adapters: Vec<Recorded>,
}

#[derive(Deserialize)]
struct Recorded {
    name: String,
    /// The last rows.
    logits: Vec<Vec<f32>>,
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/adapters").join(name)
}

fn record() -> Record {
    serde_json::from_slice(&fs::read(golden("logits.json")).unwrap()).unwrap()
}

/// Random weights in the shape of `tests/golden/shakespeare-260k.siskin`, so that its adapters fit that model too.
fn base() -> Checkpoint {
    let config = ModelConfig {
        dim: 64,
        hidden_dim: 172,
        n_layers: 5,
        n_heads: 8,
        n_kv_heads: 4,
        head_dim: 8,
        vocab_size: 512,
        context_len: 256,
        norm_eps: 1e-5,
        rope_theta: 10000.0,
        tied_head: true,
        parts: siskin_runtime::Parts::LLAMA,
    };
    Checkpoint::random(config, 17).unwrap()
}

fn packed(checkpoint: &Checkpoint, format: WeightFormat, layout: WeightLayout) -> AlignedBytes {
    let options = PackOptions {
        format,
        exceptions: Vec::new(),
        layout,
        context_len: None,
        prefill_batch: 8,
        keep_zero_blocks: false,
        sections: Vec::new(),
    };
    pack(checkpoint, &options).unwrap()
}

/// Logits after the last of `ids`, with the adapter of this name.
fn packed_logits(file: &[u8], kernels: Kernels, name: Option<&str>, ids: &[TokenId]) -> Vec<f32> {
    let model = PackedModel::parse(file).unwrap();
    let mut arena = AlignedBytes::zeroed(model.header().arena_bytes as usize);
    let mut session = Session::new(&model, &mut arena, kernels).unwrap();
    session.use_adapter(name).unwrap();
    session.prefill(ids).unwrap().to_vec()
}

/// The f32 model that an adapter makes of the base, and the ids that stand for its soft prompt.
fn adapted(adapter: &Adapter) -> (Checkpoint, Vec<TokenId>) {
    let mut checkpoint = base();
    adapter.validate(&checkpoint.config).unwrap();
    adapter.merge_into(&mut checkpoint);
    let Some(prompt) = &adapter.prompt else { return (checkpoint, Vec::new()) };
    // Embeddings of tokens that only a soft prompt has; their own logits are left out again.
    let n_virtual = prompt.shape[0];
    let embedding = checkpoint.tensors.get_mut(names::EMBEDDING).unwrap();
    let first = embedding.shape[0];
    embedding.data.extend(&prompt.data);
    embedding.shape[0] += n_virtual;
    checkpoint.config.vocab_size += n_virtual;
    (checkpoint, (first..first + n_virtual).map(|id| id as TokenId).collect())
}

/// Logits of the base's vocabulary after each of `ids`.
fn reference_logits(adapter: &Adapter, ids: &[TokenId]) -> Vec<Vec<f32>> {
    let (checkpoint, prompt) = adapted(adapter);
    let ids = [&prompt, ids].concat();
    let logits = ReferenceModel::new(&checkpoint).logits(&ids).unwrap();
    let rows = logits.chunks(checkpoint.config.vocab_size).skip(prompt.len());
    rows.map(|row| row[..base().config.vocab_size].to_vec()).collect()
}

fn worst(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0f32, |most, x| most.max(x.abs()));
    got.iter().zip(want).fold(0f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

#[test]
fn the_reference_computes_what_peft_does() {
    let dir = tempfile::tempdir().unwrap();
    let folder = std::env::var_os("ORACLE_FOLDER").map_or(dir.path().to_owned(), PathBuf::from);
    hf::save_folder(&folder, &base()).unwrap();
    let mut hash = Sha256::new();
    ["config.json", "model.safetensors"].iter().for_each(|name| hash.update(fs::read(folder.join(name)).unwrap()));
    let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let record = record();
    assert_eq!(record.sha256, hash, "record anew with tests/oracles/peft_adapters.py");
    assert_eq!(record.adapters.len(), 3);
    let plain = reference_logits(&Adapter::default(), &record.ids);
    for Recorded { name, logits } in &record.adapters {
        let got = reference_logits(&hf::load_adapter(&golden(name)).unwrap(), &record.ids);
        let last = got.len() - logits.len();
        assert!(worst(&got[last..].concat(), &logits.concat()) < 1e-5, "{name}");
        assert!(worst(&plain[last..].concat(), &logits.concat()) > 0.05, "{name} hardly changes anything");
    }
}

#[test]
fn a_packed_adapter_is_as_near_the_reference_as_a_packed_model() {
    let record = record();
    for format in WeightFormat::ALL {
        let plain = packed(&base(), format, WeightLayout::RowMajor);
        let plain = PackedModel::parse(&plain).unwrap();
        for Recorded { name, .. } in &record.adapters {
            let adapter = hf::load_adapter(&golden(name)).unwrap();
            let bytes = pack_adapter(name, &adapter, &plain).unwrap();
            let file = with_adapters(&plain, &[bytes]).unwrap();
            let want = reference_logits(&adapter, &record.ids).pop().unwrap();
            let off = worst(&packed_logits(&file, Kernels::detect(), Some(name), &record.ids), &want);
            let (merged, prompt) = adapted(&adapter);
            let merged_file = packed(&merged, format, WeightLayout::RowMajor);
            let ids = [&prompt[..], &record.ids].concat();
            let merged_off = worst(&packed_logits(&merged_file, Kernels::detect(), None, &ids)[..want.len()], &want);
            println!("{name} {}: off by {off} beside the weights, {merged_off} merged", format.name());
            assert!(off < 2.0 * merged_off.max(0.01), "{name} {format:?}: {off}, merged {merged_off}");
        }
    }
}

#[test]
fn adapters_give_the_same_bits_in_every_layout_and_with_every_backend() {
    let record = record();
    for format in WeightFormat::ALL {
        let plain = packed(&base(), format, WeightLayout::RowMajor);
        let plain = PackedModel::parse(&plain).unwrap();
        let adapters: Vec<AlignedBytes> = record
            .adapters
            .iter()
            .map(|recorded| {
                pack_adapter(&recorded.name, &hf::load_adapter(&golden(&recorded.name)).unwrap(), &plain).unwrap()
            })
            .collect();
        let file = with_adapters(&plain, &adapters).unwrap();
        let bits = |file: &[u8], kernels, name: Option<&str>| -> Vec<u32> {
            packed_logits(file, kernels, name, &record.ids).iter().map(|logit| logit.to_bits()).collect()
        };
        let names = record.adapters.iter().map(|recorded| Some(recorded.name.as_str())).chain([None]);
        for name in names {
            let want = bits(&file, Kernels::generic(), name);
            for layout in WeightLayout::ALL {
                let again = relayout(&PackedModel::parse(&file).unwrap(), layout, 5).unwrap();
                for kernels in Kernels::available() {
                    assert_eq!(bits(&again, kernels, name), want, "{name:?} {format:?} {layout:?} {}", kernels.name());
                }
            }
        }
        // A layout there and back gives the same bytes.
        let model = PackedModel::parse(&file).unwrap();
        let there = relayout(&model, WeightLayout::Rows4, 8).unwrap();
        let back = relayout(&PackedModel::parse(&there).unwrap(), WeightLayout::RowMajor, 8).unwrap();
        assert!(back[..] == file[..]);
    }
}

#[test]
fn what_cannot_be_packed_is_named() {
    let file = packed(&base(), WeightFormat::Int8, WeightLayout::RowMajor);
    let model = PackedModel::parse(&file).unwrap();
    let adapter = hf::load_adapter(&golden("poet")).unwrap();
    let error = |adapter: &Adapter, name: &str| pack_adapter(name, adapter, &model).unwrap_err().to_string();
    assert!(error(&adapter, "").contains("1 to 32 bytes"));
    assert!(error(&adapter, &"x".repeat(33)).contains("1 to 32 bytes"));
    let mut deeper = adapter.clone();
    deeper.pairs[0].layer_idx = 5;
    assert!(error(&deeper, "x").contains("model.layers.5.self_attn.q_proj.weight.lora_A"), "{}", error(&deeper, "x"));
    let mut wide = adapter.clone();
    let pair = &mut wide.pairs[0];
    (pair.a.shape[0], pair.b.shape[1]) = (42, 42);
    (pair.a.data, pair.b.data) = (vec![0.5; 42 * 64], vec![0.5; 64 * 42]);
    assert!(error(&wide, "x").contains("rank 42 beside an input of 64 elements, where at most 41"));
    let bytes = pack_adapter("twice", &adapter, &model).unwrap();
    let twice = with_adapters(&model, &[bytes.clone(), bytes]);
    assert!(matches!(twice, Err(AdapterPackError::SameName { name }) if name == "twice"));
}

#[test]
fn what_is_not_supported_in_a_peft_folder_is_named() {
    let problem = |from: &str, to: &str| {
        let dir = tempfile::tempdir().unwrap();
        let config = fs::read_to_string(golden("poet").join("adapter_config.json")).unwrap();
        assert!(config.contains(from), "{config}");
        fs::write(dir.path().join("adapter_config.json"), config.replace(from, to)).unwrap();
        fs::copy(golden("poet").join("adapter_model.safetensors"), dir.path().join("adapter_model.safetensors"))
            .unwrap();
        hf::load_adapter(dir.path()).unwrap_err().to_string()
    };
    assert!(problem("\"use_dora\": false", "\"use_dora\": true").contains("DoRA"));
    assert!(problem("\"modules_to_save\": null", "\"modules_to_save\": [\"lm_head\"]").contains("modules_to_save"));
    assert!(problem("\"bias\": \"none\"", "\"bias\": \"all\"").contains("trained biases"));
    assert!(problem("\"LORA\"", "\"IA3\"").contains("peft_type IA3"));
    assert!(problem("\"init_lora_weights\": false", "\"init_lora_weights\": \"pissa\"").contains("pissa"));
    assert!(problem("\"lora_alpha\": 8", "\"lora_alpha\": null").contains("lora_alpha"));
    assert!(problem("\"LORA\"", "\"PROMPT_TUNING\"").contains("num_virtual_tokens"));
    let missing = hf::load_adapter(tempfile::tempdir().unwrap().path()).unwrap_err().to_string();
    assert!(missing.contains("adapter_config.json"), "{missing}");
}
