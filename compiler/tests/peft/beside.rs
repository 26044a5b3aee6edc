//! What is trained beside a frozen base: gradients by differences, first values, runs and what they leave.

use crate::workshop::{Events, going_on, model, step, stop_at, tokens, train, workshop};
use siskin_compiler::artifact::hf::{self, SavedAdapter};
use siskin_compiler::data::Example;
use siskin_compiler::model::{self, LossOptions, Model};
use siskin_compiler::peft::files;
use siskin_compiler::tensor::{ParamGrads, Params, Tape};
use siskin_compiler::train::progress::Event;

const LORA: &str =
    "kind = 'lora'\nr = 3\nlora_alpha = 5\ntarget_modules = 'all-linear'\nrank_pattern = { down_proj = 1 }";
const KINDS: [&str; 8] = [
    LORA,
    "kind = 'lora'\nr = 2\nlora_alpha = 0.1\ntarget_modules = ['q_proj', 'model.embed_tokens']\nuse_rslora = true",
    "kind = 'lora'\nr = 2\ntarget_modules = ['o_proj', 'gate_proj']\nuse_dora = true",
    "kind = 'ia3'\ntarget_modules = ['k_proj', 'v_proj', 'down_proj']\nfeedforward_modules = ['down_proj']",
    "kind = 'prompt_tuning'\nnum_virtual_tokens = 3",
    "kind = 'prefix_tuning'\nnum_virtual_tokens = 3",
    "kind = 'bottleneck'\nplace = 'houlsby'\nreduction_factor = 4",
    "kind = 'bottleneck'\nplace = 'pfeiffer'\nreduction_factor = 8",
];

/// First values with what begins at zero moved away from it.
fn moved(model: &dyn Model) -> Params {
    let mut params = model.init(3);
    let mut i = 0_u32;
    for spec in &model.layout().specs()[model.n_own_params()..] {
        let id = model.layout().find(&spec.name).unwrap();
        for value in params.get_mut(id) {
            i += 1;
            *value += 0.2 * (i as f32 * 0.7).sin();
        }
    }
    params
}

#[test]
fn gradients_agree_with_differences() {
    let text = tokens(23, 0);
    let halves = [Example::causal(&text[..11], &text[1..12]), Example::causal(&text[11..22], &text[12..])];
    for peft in KINDS {
        let model = model("llama", 2, Some(peft));
        let layout = model.layout();
        let mut params = moved(&*model);
        let (mut tape, mut grads) = (Tape::default(), ParamGrads::new(layout));
        let mut graph = tape.record(&params, &mut grads);
        let (loss, _) = model.loss(&mut graph, &halves, LossOptions::plain(1.0 / 22.0));
        graph.backward(loss, &[1.0]);
        let mut nats =
            |params: &Params| model.loss(&mut tape.evaluate(params), &halves, LossOptions::plain(1.0)).1.nats / 22.0;
        let grads = grads.values(layout);
        let step = 2e-3;
        for spec in &layout.specs()[model.n_own_params()..] {
            // DoRA takes the norm as a constant, which differences cannot know; PEFT's gradients are in the goldens.
            if peft.contains("use_dora") && !spec.name.contains("magnitude") {
                continue;
            }
            let grads = &grads[spec.grad.clone().unwrap()];
            let scale = grads.iter().fold(0.0_f64, |top, g| top.max(f64::from(g.abs())));
            // The last layer says nothing about where a virtual token leads.
            assert!(scale > 0.0, "{}: no gradient", spec.name);
            for i in (0..grads.len()).step_by(grads.len() / 5 + 1) {
                let at = spec.range.start + i;
                let old = params.values[at];
                params.values[at] = old + step;
                let above = nats(&params);
                params.values[at] = old - step;
                let slope = (above - nats(&params)) / (2.0 * f64::from(step));
                params.values[at] = old;
                let error = (slope - f64::from(grads[i])).abs();
                assert!(error < 1e-2 * scale + 1e-5, "{}[{i}]: {} against {slope}", spec.name, grads[i]);
            }
        }
    }
}

#[test]
fn activations_may_be_computed_twice() {
    for peft in KINDS {
        let model = model("llama", 3, Some(peft));
        let params = moved(&*model);
        let (want, got) = (step(&*model, "llama", &params, "kept"), step(&*model, "llama", &params, "recompute"));
        assert_eq!(want.0, got.0, "{peft}");
        assert!(want.1 == got.1, "{peft}: gradients differ");
    }
}

/// Families whose modules have other names, biases, activations behind a product, a second stack.
#[test]
fn every_transformer_has_low_rank_pairs_and_gains() {
    for (family, gains) in [
        ("llama", "['k_proj', 'down_proj']"),
        ("bert", "['key', 'value', 'output.dense']"),
        ("albert", "['key', 'ffn', 'ffn_output']"),
        ("t5", "['k', 'v', 'wo']"),
        ("transformer", "['k_proj', 'v_proj', 'fc1']"),
    ] {
        let gains = format!("kind = 'ia3'\ntarget_modules = {gains}\n");
        for peft in [LORA, &gains] {
            let peft = peft.replace("down_proj = 1", "'output.dense' = 1");
            let (whole, part) = (model(family, 2, None), model(family, 2, Some(&peft)));
            let params = part.init(3);
            let (want, got) = (step(&*whole, family, &whole.init(3), "kept"), step(&*part, family, &params, "kept"));
            // Pairs begin at nothing, gains at one.
            let same = (want.0.nats - got.0.nats).abs() < 1e-6 * want.0.nats;
            assert!(same, "{family}, {peft}: {} against {}", got.0.nats, want.0.nats);
            assert_eq!(got.1.len(), part.layout().n_trained());
            assert!(got.1.iter().any(|grad| *grad != 0.0) && got.1.len() * 2 < want.1.len(), "{family}, {peft}");
        }
    }
}

#[test]
fn a_run_leaves_an_adapter_and_the_base_as_it_was() {
    let dir = workshop();
    let base_file = || std::fs::read(dir.path().join("base/model.safetensors")).unwrap();
    let (bytes, base) = (base_file(), hf::load_trained(&dir.path().join("base")).unwrap());
    for (idx, peft) in KINDS.iter().enumerate() {
        let peft = format!("{{ {} }}", peft.replace('\n', ", "));
        let recipe = going_on(dir.path(), &peft, 6);
        let (whole, parts) = (dir.path().join(format!("whole-{idx}")), dir.path().join(format!("parts-{idx}")));
        let mut heard = Events::default();
        let outcome = train(&recipe, &whole, &mut heard).unwrap();
        let Some(Event::TrainedPart(part)) = heard.events.iter().find(|e| matches!(e, Event::TrainedPart(_))) else {
            panic!("{peft}: the trained part is not told")
        };
        assert_eq!(Some(part.n_trained_params), outcome.n_trained_params);
        assert_eq!(part.memory.optimizer_state.bytes, 8 * part.n_trained_params, "{peft}");
        let adaptation = outcome.adaptation.unwrap();
        let [before, after] = [adaptation.before, adaptation.after].map(|standing| standing.in_domain.unwrap().loss);
        assert!(after < before, "{peft}: {before} to {after}");
        assert!(base_file() == bytes && !whole.join("model.safetensors").exists(), "{peft}");
        // An interrupted run ends in the same bytes.
        assert!(train(&recipe, &parts, &mut stop_at(4)).unwrap().interrupted);
        train(&recipe, &parts, &mut Events::default()).unwrap();
        for file in ["adapter_config.json", "adapter_model.safetensors", "training_state.safetensors"] {
            let [a, b] = [&whole, &parts].map(|folder| std::fs::read(folder.join(file)).unwrap());
            assert!(a == b, "{peft}: {file}");
        }
        // What was written is what was trained: loaded again, it tells the same.
        let SavedAdapter { config, tensors } = hf::load_peft(&whole).unwrap();
        let model = model::build_for(&base.architecture, Some(&config)).unwrap();
        let mut params = Params::zeros(model.layout().clone());
        base.fill(&mut params, model.n_own_params()).unwrap();
        files::from_file(&*model, &config, tensors, &mut params).unwrap();
        let nats = |model: &dyn Model, params: &Params| {
            let example = [Example::causal(&tokens(20, 0), &tokens(20, 1))];
            model.loss(&mut Tape::default().evaluate(params), &example, LossOptions::plain(1.0)).1.nats
        };
        let plain = model::build(&base.architecture).unwrap();
        assert_ne!(nats(&*model, &params), nats(&*plain, &base.params(plain.layout()).unwrap()), "{peft}");
        let on_device = hf::load_adapter(&whole);
        let runs_on_device = matches!(idx, 0 | 4);
        match &on_device {
            Ok(adapter) => adapter.validate(&base.architecture.runtime_config().unwrap()).unwrap(),
            Err(error) => assert!(!runs_on_device, "{peft}: {error}"),
        }
    }
}

#[test]
fn a_soft_prompt_begins_as_a_text() {
    let dir = workshop();
    let base = hf::load_trained(&dir.path().join("base")).unwrap();
    let embedding = &base.tensors["model.embed_tokens.weight"].data;
    let recipe = |init: &str| {
        let peft = format!("{{ kind = 'prompt_tuning', num_virtual_tokens = 9, prompt_tuning_init = {init} }}");
        let mut recipe = going_on(dir.path(), &peft, 2);
        recipe.optimizer.learning_rate = 1e-12;
        recipe
    };
    for (idx, init) in ["'text', prompt_tuning_init_text = 'heat five'", "'sample_vocab'"].iter().enumerate() {
        let out = dir.path().join(format!("out-{idx}"));
        train(&recipe(init), &out, &mut Events::default()).unwrap();
        let prompt = hf::load_peft(&out).unwrap().tensors.remove("prompt_embeddings").unwrap();
        assert_eq!(prompt.shape, [9, 24]);
        let rows: Vec<usize> = prompt
            .data
            .chunks(24)
            .map(|row| {
                let is_near = |of: &[f32]| of.iter().zip(row).all(|(a, b)| (a - b).abs() < 1e-6);
                embedding.chunks(24).position(is_near).expect("a row of the embedding")
            })
            .collect();
        // A text of a few tokens begins again; chance does not.
        let repeats = (1..9).find(|n| rows.iter().zip(&rows[*n..]).all(|(a, b)| a == b));
        assert_eq!(repeats.is_some_and(|n| n < 8), idx == 0, "{rows:?}");
    }
}

/// The texts that the report shows are as long as the context, but for the virtual tokens.
#[test]
fn a_long_soft_prompt_leaves_room_for_what_is_shown() {
    let dir = workshop();
    for kind in ["prompt_tuning", "prefix_tuning"] {
        let recipe = going_on(dir.path(), &format!("{{ kind = '{kind}', num_virtual_tokens = 20 }}"), 2);
        let out = dir.path().join(kind);
        train(&recipe, &out, &mut Events::default()).unwrap();
        let log = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
        assert!(log.contains("\"said\""), "{log}");
    }
}

#[test]
fn what_is_not_possible_is_said() {
    let refused = |family: &str, peft: &str| {
        let peft = toml::from_str(peft).unwrap();
        model::build_for(&crate::workshop::architecture(family, 2), Some(&peft)).err().unwrap().to_string()
    };
    let error = refused("llama", "kind = 'lora'\ntarget_modules = ['query']");
    assert!(
        error.starts_with("[peft]: `query` matches no module that could be adapted; the model has model."),
        "{error}"
    );
    assert!(refused("llama", "kind = 'lora'\ntarget_modules = ['lm_head']").contains("`lm_head` matches no module"));
    assert!(refused("gpt2", "kind = 'lora'\ntarget_modules = 'all-linear'").contains("GPT-2"));
    assert!(refused("llama", "kind = 'lora'\nuse_dora = true\ntarget_modules = ['embed_tokens']").contains("a table"));
    assert!(refused("llama", "kind = 'ia3'\ntarget_modules = ['embed_tokens']").contains("a table"));
    assert!(refused("bert", "kind = 'prompt_tuning'\nnum_virtual_tokens = 2").contains("for decoders"));
    assert!(refused("llama", "kind = 'prefix_tuning'\nnum_virtual_tokens = 32").contains("fill the context"));
    assert!(refused("gru", LORA).contains("lora is for transformers"));
    assert!(refused("t5", "kind = 'bottleneck'\nplace = 'houlsby'").contains("for Llamas"));
    assert!(
        refused("llama", "kind = 'bottleneck'\nplace = 'houlsby'\nreduction_factor = 20")
            .contains("nothing of a width")
    );
    let dir = workshop();
    for (peft, key) in [
        ("kind = 'lora', target_modules = ['q_proj'], r = 0", "peft.r is 0"),
        ("kind = 'lora', target_modules = ['q_proj'], lora_dropout = 1.0", "peft.lora_dropout is 1"),
        ("kind = 'prompt_tuning', num_virtual_tokens = 0", "peft.num_virtual_tokens is 0"),
        ("kind = 'prompt_tuning', num_virtual_tokens = 3, prompt_tuning_init = 'text'", "peft.prompt_tuning_init_text"),
        (
            "kind = 'prefix_tuning', num_virtual_tokens = 25",
            "peft.num_virtual_tokens is 25, but must be at least 8 below",
        ),
        ("kind = 'bottleneck', place = 'houlsby', reduction_factor = 0", "peft.reduction_factor is 0"),
    ] {
        let text = format!("model = {{ init_from = 'base' }}\npeft = {{ {peft} }}\n");
        let error = crate::workshop::load(dir.path(), &text, 2).unwrap_err().to_string();
        assert!(error.starts_with(key), "{error}");
    }
}
