//! Figures on a text: consistent with one another, and the same however they are computed.

use serde_json::Value;
use siskin_e2e::{Program, assert_keys, fixture};

const SCORE_KEYS: &str = "model arithmetic bits_per_byte perplexity n_tokens n_bytes";

fn number(reply: &Value, key: &str) -> f64 {
    reply[key].as_f64().unwrap_or_else(|| panic!("{key} is no number in {reply}"))
}

fn program() -> Program {
    let program = Program::new();
    fixture::write_checkpoint(&program.path("model"), 6);
    program.write("text.txt", fixture::TEXT.repeat(3));
    program.text(&["compile", "model", "--board", "host", "-o", "packed.siskin"]);
    program
}

#[test]
fn figures_follow_from_one_another() {
    let program = program();
    for (model, arithmetic) in [("model", "float"), ("packed.siskin", "packed")] {
        let reply = program.json(&["eval", model, "--text", "text.txt"]);
        assert_keys(&reply, &format!("{SCORE_KEYS} window_len"));
        assert_eq!((&reply["arithmetic"], &reply["model"]), (&Value::from(arithmetic), &Value::from(model)));
        assert_eq!(number(&reply, "n_bytes") as usize, fixture::TEXT.len() * 3);
        assert_eq!(number(&reply, "window_len") as usize, fixture::CONTEXT_LEN);
        let nats = number(&reply, "perplexity").ln() * number(&reply, "n_tokens");
        let bits_per_byte = nats / (std::f64::consts::LN_2 * number(&reply, "n_bytes"));
        assert!((bits_per_byte / number(&reply, "bits_per_byte") - 1.0).abs() < 1e-9, "{reply}");
        // Random weights know nothing: about as many choices as there are tokens, and no fewer.
        assert!(number(&reply, "perplexity") > fixture::VOCAB_SIZE as f64 / 2.0, "{reply}");
        assert_eq!(reply, program.json(&["eval", model, "--text", "text.txt", "--threads", "1"]));
    }
}

#[test]
fn two_models_are_compared_token_by_token() {
    let program = program();
    let reply = program.json(&["eval", "packed.siskin", "--text", "text.txt", "--against", "model"]);
    let difference_keys = "perplexity_increase mean_kl_nats same_top_share";
    assert_keys(&reply, &format!("{SCORE_KEYS} window_len against {difference_keys}"));
    assert_keys(&reply["against"], SCORE_KEYS);
    let increase = number(&reply, "perplexity") / number(&reply["against"], "perplexity") - 1.0;
    assert!((increase - number(&reply, "perplexity_increase")).abs() < 1e-12 && increase.abs() < 0.02, "{reply}");
    assert!((0.0..0.02).contains(&number(&reply, "mean_kl_nats")) && number(&reply, "same_top_share") > 0.9, "{reply}");

    // Each alone has the same figures as side by side, and a model does not differ from itself.
    for (model, score) in [("packed.siskin", &reply), ("model", &reply["against"])] {
        assert_eq!(program.json(&["eval", model, "--text", "text.txt"])["perplexity"], score["perplexity"]);
    }
    let itself = program.json(&["eval", "model", "--text", "text.txt", "--against", "model"]);
    let differs = [number(&itself, "perplexity_increase"), number(&itself, "mean_kl_nats")];
    assert_eq!((differs, number(&itself, "same_top_share")), ([0.0, 0.0], 1.0));
    let text = program.text(&["eval", "packed.siskin", "--text", "text.txt", "--against", "model"]);
    assert!(["bits per byte", "packed", "float", "KL divergence"].iter().all(|word| text.contains(word)), "{text}");
}

#[test]
fn a_text_that_cannot_be_evaluated_is_exit_code_3() {
    let program = program();
    program.write("latin1.txt", b"caf\xe9");
    program.write("short.txt", "a");
    program.write("empty.txt", "");
    for (text, words) in [
        ("latin1.txt", "not UTF-8 text from byte 3"),
        ("short.txt", "at least 2"),
        ("empty.txt", "at least 2"),
        ("model", "folder"),
    ] {
        program.fails(&["eval", "packed.siskin", "--text", text], 3, &[words]);
    }
    program.fails(&["eval", "model", "--text", "text.txt", "--window", "65"], 3, &["65", "64"]);
    program.fails(&["eval", "model", "--text", "text.txt", "--window", "0"], 3, &["window"]);
}

#[test]
fn quiet_says_nothing_on_stderr() {
    let program = program();
    for args in [&["eval", "model", "--text", "text.txt"][..], &["run", "packed.siskin", "--prompt", "a"]] {
        let outcome = program.run(&[args, &["--quiet"]].concat());
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:#?}");
    }
}
