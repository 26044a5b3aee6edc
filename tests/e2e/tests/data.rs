//! What `siskin data inspect` says of a recipe's data.

use siskin_e2e::{Program, assert_keys};

const RECIPE: &str = "\
model = { dim = 8, hidden_dim = 8, n_layers = 1, n_heads = 2, context_len = 16 }
tokenizer = { vocab_size = 258 }
data = { text = \"texts\", documents = \"blank_lines\", deduplicate = true, packing = \"best_fit\" }
train = { steps = 5, batch_size = 2 }
optimizer = { learning_rate = 1e-2 }
";

/// A model of the same shape that goes on from another.
const ADAPTATION: &str = "\
model = { init_from = \"base\" }
data = { text = \"domain.txt\", documents = \"blank_lines\", replay = { text = \"texts\", share = 0.25 } }
train = { steps = 5, batch_size = 2 }
optimizer = { learning_rate = 1e-2 }
";

const REPLY_KEYS: &str = "objective n_documents duplicates n_train_documents n_validation_documents n_train_bytes \
    n_validation_bytes n_train_tokens bytes_per_token lengths packing n_validation_targets n_rows passes row_positions padding_share \
    masked_share trained_share rows";

#[test]
fn a_recipes_data_is_counted_and_shown() {
    let program = Program::new();
    std::fs::create_dir(program.path("texts")).unwrap();
    program.write("texts/a.txt", "first of all\n\nthen more\n\nfirst of all\n");
    program.write("texts/b.jsonl", "{\"text\": \"a record\"}\n{\"text\": \"held out\"}\n");
    program.write("recipe.toml", RECIPE);
    let reply = program.json(&["data", "inspect", "recipe.toml", "--n", "2"]);
    assert_keys(&reply, REPLY_KEYS);
    assert_eq!((&reply["n_documents"], &reply["duplicates"]["n_exact"]), (&5.into(), &1.into()));
    assert_eq!(reply["rows"].as_array().unwrap().len(), 2);
    // Stdout is no terminal here.
    let text = program.text(&["data", "inspect", "recipe.toml"]);
    assert!(text.contains("duplicates dropped: 1 exact") && text.contains("[irst of all</s>]"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");

    program.write("texts/b.jsonl", "{\"text\": \"a record\"}\n{\"txt\": \"held out\"}\n");
    program.fails(&["data", "inspect", "recipe.toml"], 3, &["b.jsonl, line 2", "there is no field `text`"]);
}

#[test]
fn a_model_is_adapted_to_a_domain() {
    let program = Program::new();
    std::fs::create_dir(program.path("texts")).unwrap();
    program.write("texts/a.txt", "first of all\n\nthen more of it all\n\n".repeat(30));
    program.write("domain.txt", "quite another matter, and nothing else.\n\n".repeat(30));
    program.write("recipe.toml", RECIPE.replace("deduplicate = true, ", ""));
    program.write("adaptation.toml", ADAPTATION);
    program.fails(&["train", "adaptation.toml", "--out", "adapted"], 3, &["init_from", "base", "config.json"]);
    program.json(&["train", "recipe.toml", "--out", "base"]);
    let reply = program.json(&["train", "adaptation.toml", "--out", "adapted"]);
    for when in ["before", "after"] {
        for text in ["in_domain", "general"] {
            assert!(reply["adaptation"][when][text]["bits_per_byte"].as_f64().unwrap() > 0.0, "{reply}");
        }
    }
    let shown = program.text(&["data", "inspect", "adaptation.toml"]);
    assert!(shown.contains("another matter"), "{shown}");
}
