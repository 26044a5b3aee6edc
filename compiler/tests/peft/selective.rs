//! A frozen base and some of its own parameters.

use crate::workshop::{Events, architecture, going_on, load, model, step, stop_at, train, workshop};
use siskin_compiler::artifact::hf;
use siskin_compiler::model;
use siskin_compiler::peft::{Patterns, PeftConfig, SelectiveConfig};
use siskin_compiler::train::TrainError;
use siskin_compiler::train::progress::Event;

const LAST: &str = "kind = 'selective'\nparams = ['*.1.*', '*_l1']";

/// Whatever is frozen, what is trained has the gradient that it has when all is: where the pass follows nothing, and where it does.
#[test]
fn gradients_are_those_of_the_whole_model() {
    for family in ["llama", "gpt2", "bert", "albert", "t5", "transformer", "gru", "gru_seq2seq"] {
        let whole = model(family, 2, None);
        let params = whole.init(3);
        // One layer; all vectors; every third parameter; the last one.
        let specs = whole.layout().specs();
        let (vectors, every_third, last): (Vec<_>, Vec<_>, _) = (
            specs.iter().filter(|spec| spec.is_vector).map(|spec| spec.name.clone()).collect(),
            specs.iter().skip(1).step_by(3).map(|spec| spec.name.clone()).collect(),
            vec![specs[specs.len() - 1].name.clone()],
        );
        let one_layer = specs.iter().filter(|spec| spec.name.contains(".1.")).map(|spec| spec.name.clone()).collect();
        for names in [vectors, every_third, last, one_layer] {
            if names.is_empty() {
                continue;
            }
            let peft = PeftConfig::Selective(SelectiveConfig { params: Patterns::List(names.clone()) });
            let part = model::build_for(&architecture(family, 2), Some(&peft)).unwrap();
            for how in ["kept", "bf16", "recompute"] {
                let (want_sums, want, _) = step(&*whole, family, &params, how);
                let (sums, got, _) = step(
                    &*part,
                    family,
                    &{
                        let mut own = part.init(3);
                        own.values = params.values.clone();
                        own
                    },
                    how,
                );
                assert_eq!(sums, want_sums, "{family} {how}");
                let of_part: Vec<f32> = specs
                    .iter()
                    .filter(|spec| names.contains(&spec.name))
                    .flat_map(|spec| want[spec.range.clone()].to_vec())
                    .collect();
                assert!(of_part == got, "{family} {how} {names:?}: gradients differ");
            }
        }
    }
}

#[test]
fn nothing_is_kept_of_layers_below_what_is_trained() {
    let bytes = |peft: Option<&str>| {
        let model = model("llama", 8, peft);
        step(&*model, "llama", &model.init(1), "kept").2
    };
    let (whole, head) = (bytes(None), bytes(Some("kind = 'selective'\nparams = ['model.norm.weight']")));
    assert!(head * 3 < whole, "{head} bytes instead of {whole}");
}

#[test]
fn the_rest_of_the_base_stays_as_it_is() {
    let dir = workshop();
    let base = hf::load_trained(&dir.path().join("base")).unwrap();
    let base_file = std::fs::read(dir.path().join("base/model.safetensors")).unwrap();
    let recipe = going_on(dir.path(), "{ kind = 'selective', params = ['model.layers.1.*', 'model.norm.weight'] }", 5);
    let (out, mut heard) = (dir.path().join("out"), Events::default());
    let outcome = train(&recipe, &out, &mut heard).unwrap();
    let tuned = hf::load_trained(&out).unwrap();
    let mut n_trained = 0;
    for (name, weight) in &base.tensors {
        let is_trained = name.starts_with("model.layers.1.") || name == "model.norm.weight";
        n_trained += if is_trained { weight.data.len() as u64 } else { 0 };
        assert_eq!(tuned.tensors[name] != *weight, is_trained, "{name}");
    }
    assert_eq!(outcome.n_trained_params, Some(n_trained));
    assert!(
        outcome.adaptation.unwrap().after.in_domain.unwrap().loss
            < outcome.adaptation.unwrap().before.in_domain.unwrap().loss
    );
    assert_eq!(std::fs::read(dir.path().join("base/model.safetensors")).unwrap(), base_file);
    // Told before the first step, and in the log.
    let told = heard.events.iter().position(|event| matches!(event, Event::TrainedPart(_))).unwrap();
    assert!(heard.events[..told].iter().all(|event| !matches!(event, Event::Step(_))));
    let Event::TrainedPart(part) = &heard.events[told] else { unreachable!() };
    assert_eq!((part.n_trained_params, part.n_params, part.peft), (n_trained, outcome.n_params, "selective"));
    assert_eq!(part.memory.optimizer_state.bytes, 8 * n_trained);
    assert_eq!(part.memory.weights.bytes, 4 * outcome.n_params);
    assert!(part.memory.gradients.bytes < 8 * 4 * n_trained + 1 && part.memory.activations.bytes > 0);
    let log = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    assert!(log.contains(&serde_json::to_string(part).unwrap()), "{log}");
    // Two moments of what is trained, and its values: nothing of what is not.
    let state = std::fs::metadata(out.join("training_state.safetensors")).unwrap().len();
    assert!(state < 12 * n_trained + 2000, "{state} bytes of state for {n_trained} numbers");
}

#[test]
fn an_interrupted_run_ends_in_the_same_bytes() {
    let dir = workshop();
    for (name, more) in [("f32", ""), ("bf16", "[train]\n")] {
        let mut recipe = going_on(dir.path(), "{ kind = 'selective', params = '.*(layernorm|1\\..*proj).*' }", 7);
        if !more.is_empty() {
            recipe.train.weights_dtype = siskin_compiler::tensor::Dtype::Bf16;
        }
        let (whole, parts) = (dir.path().join(format!("whole-{name}")), dir.path().join(format!("parts-{name}")));
        train(&recipe, &whole, &mut Events::default()).unwrap();
        assert!(train(&recipe, &parts, &mut stop_at(4)).unwrap().interrupted);
        assert_eq!(train(&recipe, &parts, &mut Events::default()).unwrap().steps, 7);
        for file in ["model.safetensors", "training_state.safetensors"] {
            assert!(
                std::fs::read(whole.join(file)).unwrap() == std::fs::read(parts.join(file)).unwrap(),
                "{name}: {file}"
            );
        }
    }
    // The state of another base is refused.
    let recipe = going_on(dir.path(), "{ kind = 'selective', params = '.*(layernorm|1\\..*proj).*' }", 7);
    let mut other = hf::load_trained(&dir.path().join("base")).unwrap();
    other.tensors.get_mut("model.norm.weight").unwrap().data[0] += 1.0;
    hf::write_trained(&dir.path().join("base"), &other).unwrap();
    let error = train(&recipe, &dir.path().join("whole-f32"), &mut Events::default()).unwrap_err();
    assert!(matches!(error, TrainError::OtherRecipe { .. }), "{error}");
}

#[test]
fn what_cannot_be_is_named() {
    let dir = workshop();
    let recipe = going_on(dir.path(), "{ kind = 'selective', params = ['*.bias'] }", 2);
    let error = train(&recipe, &dir.path().join("out"), &mut Events::default()).unwrap_err();
    assert!(error.is_input());
    assert!(
        error.to_string().starts_with("[peft]: `*.bias` matches no parameter; the model has model.embed"),
        "{error}"
    );
    let refused = |text: &str| load(dir.path(), text, 2).unwrap_err().to_string();
    let shape = "model = { dim = 24, hidden_dim = 44, n_layers = 2, n_heads = 4, context_len = 32 }\ntokenizer = { vocab_size = 275 }\n";
    let error = refused(&format!("{shape}peft = {{ kind = 'selective', params = ['*'] }}\n"));
    assert!(
        error.starts_with("peft.kind is selective, but must be left out where model.init_from is not set"),
        "{error}"
    );
    let error = refused("model = { init_from = 'base' }\npeft = { kind = 'selectiv', params = ['*'] }\n");
    assert!(error.contains("selectiv"), "{error}");
    assert!(toml::from_str::<PeftConfig>(LAST).is_ok());
    let error = toml::from_str::<PeftConfig>(&format!("{LAST}\nparam = 3")).unwrap_err().to_string();
    assert!(error.contains("param"), "{error}");
}
