//! Hugging Face folders: what is written is read back, what is wrong is named.

use std::fs;
use std::path::Path;

use siskin_compiler::artifact::{
    ArtifactError, Checkpoint, GenerationDefaults, LoadOptions, Problem, RopeScaling, TokenizerSource, hf, load_model,
};
use siskin_runtime::ModelConfig;

fn small_config() -> ModelConfig {
    ModelConfig {
        dim: 24,
        hidden_dim: 40,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 8,
        vocab_size: 50,
        context_len: 32,
        norm_eps: 1e-5,
        rope_theta: 10000.0,
        tied_head: false,
        parts: siskin_runtime::Parts::LLAMA,
    }
}

fn small_checkpoint() -> Checkpoint {
    let mut checkpoint = Checkpoint::random(small_config(), 7).unwrap();
    checkpoint.rope =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context_len: 16 };
    checkpoint.tokenizer = TokenizerSource::HuggingFace(br#"{"version":"1.0"}"#.to_vec());
    checkpoint.chat_template = Some("{{ messages }}".to_owned());
    checkpoint.bos_id = Some(1);
    checkpoint.eos_ids = vec![2, 3];
    checkpoint.generation = GenerationDefaults { temperature: Some(0.7), top_k: Some(40), ..Default::default() };
    checkpoint
}

fn load(path: &Path) -> Result<Checkpoint, ArtifactError> {
    load_model(path, &LoadOptions::default())
}

/// Saves the small checkpoint, lets `spoil` change the folder, and gives the error that loading it then makes.
fn error_after(spoil: impl FnOnce(&Path)) -> ArtifactError {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    hf::save_folder(&path, &small_checkpoint()).unwrap();
    spoil(&path);
    load(&path).expect_err("the folder was spoilt")
}

fn edit_config(folder: &Path, edit: impl FnOnce(&mut serde_json::Value)) {
    let path = folder.join("config.json");
    let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut config);
    fs::write(path, config.to_string()).unwrap();
}

#[test]
fn a_saved_folder_loads_as_the_same_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    for (name, tied_head, rope) in [
        ("untied", false, small_checkpoint().rope),
        ("tied", true, RopeScaling::None),
        ("linear", true, RopeScaling::Linear { factor: 2.5 }),
    ] {
        let path = dir.path().join(name);
        let mut saved = small_checkpoint();
        saved.config.tied_head = tied_head;
        saved.rope = rope;
        if tied_head {
            saved.tensors.remove("lm_head.weight");
        }
        hf::save_folder(&path, &saved).unwrap();
        assert_eq!(load(&path).unwrap(), saved, "{name}");
    }
}

#[test]
fn the_same_checkpoint_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    hf::save_folder(&a, &small_checkpoint()).unwrap();
    hf::save_folder(&b, &small_checkpoint()).unwrap();
    for entry in fs::read_dir(&a).unwrap() {
        let name = entry.unwrap().file_name();
        assert_eq!(fs::read(a.join(&name)).unwrap(), fs::read(b.join(&name)).unwrap(), "{name:?}");
    }
}

#[test]
fn unsupported_features_are_named() {
    let cases: [(&str, serde_json::Value, &str); 6] = [
        ("architectures", serde_json::json!(["GPT2LMHeadModel"]), "GPT2LMHeadModel"),
        ("attention_bias", true.into(), "attention_bias"),
        ("mlp_bias", true.into(), "mlp_bias"),
        ("hidden_act", "gelu".into(), "gelu"),
        ("rope_scaling", serde_json::json!({"type": "yarn", "factor": 4.0}), "yarn"),
        ("quantization_config", serde_json::json!({"bits": 4}), "quantization_config"),
    ];
    for (field, value, named) in cases {
        let error = error_after(|folder| edit_config(folder, |config| config[field] = value));
        assert!(matches!(error.problem(), Some(Problem::Unsupported { .. })), "{field}: {error}");
        assert!(error.to_string().contains(named) && error.to_string().contains("config.json"), "{error}");
    }
}

#[test]
fn newer_rope_parameters_are_read() {
    let dir = tempfile::tempdir().unwrap();
    hf::save_folder(dir.path().join("m").as_path(), &small_checkpoint()).unwrap();
    edit_config(&dir.path().join("m"), |config| {
        let fields = config.as_object_mut().unwrap();
        fields.remove("rope_theta");
        fields.remove("rope_scaling");
        config["rope_parameters"] = serde_json::json!({"rope_type": "default", "rope_theta": 500000.0});
    });
    let checkpoint = load(&dir.path().join("m")).unwrap();
    assert_eq!(checkpoint.config.rope_theta, 500_000.0);
    assert_eq!(checkpoint.rope, RopeScaling::None);
}

#[test]
fn each_broken_folder_gives_its_own_error() {
    let weights = "model.safetensors";
    let cut = |n_bytes: usize| {
        move |folder: &Path| {
            let bytes = fs::read(folder.join(weights)).unwrap();
            fs::write(folder.join(weights), &bytes[..n_bytes.min(bytes.len() - 4)]).unwrap();
        }
    };
    for n_bytes in [4, 100, usize::MAX] {
        let error = error_after(cut(n_bytes));
        assert!(matches!(error.problem(), Some(Problem::Truncated { .. })), "{n_bytes}: {error}");
        assert!(error.to_string().contains(weights), "{error}");
    }
    let error = error_after(|folder| fs::write(folder.join(weights), b"PK\x03\x04 and so on: a zip").unwrap());
    assert!(matches!(error.problem(), Some(Problem::WrongMagic { .. })), "{error}");
    let error = error_after(|folder| {
        let mut bytes = fs::read(folder.join(weights)).unwrap();
        bytes.extend([0; 8]);
        fs::write(folder.join(weights), bytes).unwrap();
    });
    assert!(matches!(error.problem(), Some(Problem::TrailingBytes { extra_bytes: 8 })), "{error}");
    let error = error_after(|folder| edit_config(folder, |config| config["intermediate_size"] = 48.into()));
    assert!(matches!(error.problem(), Some(Problem::WrongShape { .. })), "{error}");
    let error = error_after(|folder| edit_config(folder, |config| config["num_hidden_layers"] = 3.into()));
    assert!(matches!(error.problem(), Some(Problem::MissingTensor { name }) if name.contains("layers.2.")), "{error}");
    let error = error_after(|folder| edit_config(folder, |config| config["num_hidden_layers"] = 1.into()));
    assert!(matches!(error.problem(), Some(Problem::UnexpectedTensor { .. })), "{error}");
    let error = error_after(|folder| edit_config(folder, |config| config["num_key_value_heads"] = 3.into()));
    assert!(matches!(error.problem(), Some(Problem::Config(_))), "{error}");
    let error = error_after(|folder| edit_config(folder, |config| drop(config["vocab_size"].take())));
    assert!(matches!(error.problem(), Some(Problem::MissingField { .. })), "{error}");
    let error = error_after(|folder| fs::write(folder.join("config.json"), "{\"hidden_size\": ").unwrap());
    assert!(matches!(error.problem(), Some(Problem::Json(_))), "{error}");
    let error = error_after(|folder| fs::remove_file(folder.join(weights)).unwrap());
    assert!(matches!(error, ArtifactError::Io { .. }), "{error}");
    let error = error_after(|folder| fs::remove_file(folder.join("config.json")).unwrap());
    assert!(matches!(error, ArtifactError::Unrecognized { .. }), "{error}");
}

#[test]
fn weights_that_are_not_numbers_are_refused() {
    let mut checkpoint = small_checkpoint();
    checkpoint.tensors.get_mut("model.norm.weight").unwrap().data[3] = f32::NAN;
    assert!(matches!(checkpoint.validate(), Err(Problem::NotFinite { element_idx: 3, .. })));
}

#[test]
fn a_sharded_model_is_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let whole = small_checkpoint();
    hf::save_folder(&path, &whole).unwrap();
    let bytes = fs::read(path.join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap().tensors();
    let (head, tail) = tensors.split_at(5);
    let mut weight_map = serde_json::Map::new();
    for (file, part) in [("model-1.safetensors", head), ("model-2.safetensors", tail)] {
        weight_map.extend(part.iter().map(|(name, _)| (name.clone(), file.into())));
        let views = part.iter().map(|(name, view)| (name.as_str(), view));
        fs::write(path.join(file), safetensors::serialize(views, None).unwrap()).unwrap();
    }
    fs::remove_file(path.join("model.safetensors")).unwrap();
    let index = serde_json::json!({ "weight_map": weight_map });
    fs::write(path.join("model.safetensors.index.json"), index.to_string()).unwrap();
    assert_eq!(load(&path).unwrap(), whole);

    let escape = serde_json::json!({ "weight_map": { "lm_head.weight": "../model.safetensors" } });
    fs::write(path.join("model.safetensors.index.json"), escape.to_string()).unwrap();
    assert!(matches!(load(&path).unwrap_err().problem(), Some(Problem::BadField { .. })));
}
