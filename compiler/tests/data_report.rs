//! What is said of a recipe's data, held to data that was counted by hand.

use siskin_compiler::recipe::Recipe;
use siskin_compiler::train::inspect::{DataReport, ShownToken, TokenRole, inspect};
use std::path::Path;

/// A vocabulary of bytes: a token is a letter.
fn report(dir: &Path, architecture: &str, objective: &str, data: &str, steps: usize) -> DataReport {
    let vocab_size = match objective {
        objective if objective.contains("masked") => 259,
        objective if objective.contains("span") => 258 + 2,
        _ => 258,
    };
    let text = format!(
        "\
model = {{ architecture = '{architecture}', dim = 8, hidden_dim = 8, n_layers = 1, n_heads = 2, context_len = 16 }}
tokenizer = {{ vocab_size = {vocab_size} }}
data = {{ {data} }}
objective = {{ {objective} }}
train = {{ steps = {steps}, batch_size = 2, accumulate = 3, seed = 1 }}
optimizer = {{ learning_rate = 1e-2 }}
"
    );
    let path = dir.join("recipe.toml");
    std::fs::write(&path, text).unwrap();
    inspect(&Recipe::load(&path, &[]).unwrap(), 4).unwrap()
}

fn workshop(name: &str, content: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(name), content).unwrap();
    dir
}

fn texts(tokens: &[ShownToken], role: TokenRole) -> String {
    tokens.iter().filter(|token| token.role == role).map(|token| token.text.as_str()).collect()
}

#[test]
fn documents_are_counted_as_by_hand() {
    // With their ends: 4, 9, 4 and 17 tokens; 3, 8, 3 and 16 positions, two rows of 16 with 2 positions left.
    let dir = workshop("a.txt", "abc\n\nabcdefgh\n\nxyz\n\n xyz\n\nabcdefghijklmnop\n\nheld\n");
    let data =
        "text = 'a.txt', documents = 'blank_lines', deduplicate = true, packing = 'best_fit', train_fraction = 0.8";
    let report = report(dir.path(), "llama", "kind = 'causal'", data, 2);
    let summary = report.summary;
    assert_eq!((summary.n_documents, summary.duplicates.n_exact, summary.duplicates.n_bytes), (6, 1, 4));
    assert_eq!((summary.n_train_documents, summary.n_validation_documents), (4, 1));
    assert_eq!((summary.n_train_bytes, summary.n_validation_bytes), (30, 4));
    assert_eq!((report.n_train_tokens, report.n_validation_targets), (34, 4));
    assert_eq!(report.bytes_per_token, Some(30.0 / 34.0));
    let lengths: Vec<(usize, usize)> =
        report.lengths.iter().map(|length| (length.n_tokens_max, length.n_documents)).collect();
    assert_eq!(lengths, [(4, 2), (8, 0), (16, 1), (32, 1)]);
    let packing = report.packing.unwrap();
    assert_eq!((packing.n_rows, packing.n_cut_documents, packing.n_short_documents), (2, 0, 0));
    assert_eq!(packing.utilisation, 30.0 / 32.0);
    let run = report.run;
    assert_eq!((run.n_rows, run.passes, run.row_positions), (12, 6.0, 16));
    assert!((run.padding_share - 2.0 / 32.0).abs() < 1e-12, "{run:?}");
    assert_eq!((run.masked_share, run.trained_share), (0.0, 1.0));
    assert_eq!(report.rows.len(), 4);
    // The first token of each document is only read, its end is trained.
    let mut shown: Vec<(String, String)> = report.rows[..2]
        .iter()
        .flatten()
        .map(|example| (texts(&example.reads, TokenRole::Read), texts(&example.reads, TokenRole::Trained)))
        .collect();
    shown.sort();
    let shown: Vec<(&str, &str)> = shown.iter().map(|(read, trained)| (read.as_str(), trained.as_str())).collect();
    assert_eq!(shown, [("a", "bc</s>"), ("a", "bcdefgh</s>"), ("a", "bcdefghijklmnop</s>"), ("x", "yz</s>")]);
}

#[test]
fn every_objective_shows_what_is_hidden_and_told() {
    let dir = workshop("a.txt", &"the small grey bird sees the tree ".repeat(60));
    let text = "text = 'a.txt'";
    let masked = report(dir.path(), "bert", "kind = 'masked'", text, 400);
    assert!((masked.run.trained_share - 0.15 * 14.0 / 16.0).abs() < 0.01, "{:?}", masked.run);
    // Nine in ten of them, but for random tokens that happen to be right.
    assert!((masked.run.masked_share / masked.run.trained_share - 0.9).abs() < 0.05, "{:?}", masked.run);
    let hidden = masked.rows.iter().flatten().flat_map(|example| &example.reads);
    let hidden: Vec<&ShownToken> = hidden.filter(|token| token.role == TokenRole::Masked).collect();
    assert!(hidden.iter().any(|token| token.text == "<mask>"));
    assert!(hidden.iter().all(|token| token.target.as_ref().is_some_and(|target| *target != token.text)));

    let spans = report(dir.path(), "t5", "kind = 'span_corruption'", text, 10);
    let example = &spans.rows[0][0];
    let gaps = texts(&example.reads, TokenRole::Masked);
    assert!(gaps.starts_with("<extra_id_0>"), "{gaps}");
    let told = texts(&example.tells, TokenRole::Trained);
    assert!(told.starts_with("<extra_id_0>") && told.ends_with("</s>"), "{told}");
    assert!(spans.run.masked_share > 0.0 && spans.run.padding_share < 0.2, "{:?}", spans.run);

    let prefix = report(dir.path(), "gpt2", "kind = 'prefix'", text, 10);
    let reads = &prefix.rows[0][0].reads;
    let n_read = reads.iter().take_while(|token| token.role == TokenRole::Read).count();
    assert!(n_read > 0 && reads[n_read..].iter().all(|token| token.role == TokenRole::Trained) && reads.len() == 17);
}

#[test]
fn records_show_their_labels_and_targets() {
    let lines = "{\"source\": \"abc\", \"target\": \"cb\", \"text\": \"it flies\", \"label\": \"yes\", \"tokens\": [\"ab\", \"c\"], \"tags\": [\"X\", \"Y\"]}\n".repeat(20);
    let dir = workshop("a.jsonl", &lines);
    let of = |architecture, objective, more| {
        let data = format!("text = 'a.jsonl'{more}");
        let report = report(dir.path(), architecture, objective, &data, 3);
        let example = report.rows[0][0].clone();
        (report, example)
    };
    let (pairs, example) = of("transformer", "kind = 'seq2seq'", ", packing = 'best_fit'");
    assert_eq!(
        (texts(&example.reads, TokenRole::Read).as_str(), texts(&example.tells, TokenRole::Trained).as_str()),
        ("abc</s>", "cb</s>")
    );
    // Four positions each: four in a row of 16, and 18 to train on.
    assert_eq!((pairs.rows[0].len().max(pairs.rows[1].len()), pairs.bytes_per_token), (4, None));
    assert!((pairs.run.passes - 18.0 / 5.0).abs() < 1e-12, "{:?}", pairs.run);
    let (_, example) = of("gpt2", "kind = 'seq2seq'", "");
    assert_eq!(texts(&example.reads, TokenRole::Read), "abc</s><s>");
    assert_eq!(texts(&example.reads, TokenRole::Trained), "cb</s>");
    let (_, example) = of("bert", "kind = 'classification'", "");
    assert_eq!(
        (texts(&example.reads, TokenRole::Read).as_str(), example.tells[0].text.as_str()),
        ("<s>it flies</s>", "yes")
    );
    let (_, example) = of("bert", "kind = 'token_classification'", "");
    let tags: Vec<(&str, &str)> =
        example.reads.iter().filter_map(|token| Some((token.text.as_str(), token.target.as_deref()?))).collect();
    assert_eq!(tags, [("a", "X"), (" ", "Y")]);
}
