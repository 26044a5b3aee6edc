//! A draft on the command line: the same reply, within a grammar too, and how its guesses fared.

use siskin_e2e::Program;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/shakespeare-260k.siskin");
const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/reply.schema.json");

#[test]
fn a_draft_changes_nothing_but_the_passes() {
    let program = Program::new();
    let ways: [&[&str]; 3] =
        [&["--greedy"], &["--temperature", "0.9", "--seed", "5", "--slide"], &["--grammar", SCHEMA, "--seed", "3"]];
    for way in ways {
        let flags = [&["run", MODEL, "--prompt", "ROMEO:", "--max-new-tokens", "70"], way].concat();
        let alone = program.json(&flags);
        assert!(alone.get("guesses").is_none());
        for n_guesses in ["1", "3"] {
            let draft = ["--draft", MODEL, "--guesses", n_guesses, "--threads", "2"];
            let guessed = program.json(&[&flags[..], &draft].concat());
            for key in ["text", "tokens", "n_prompt_tokens", "logits_hash", "end"] {
                assert_eq!(guessed[key], alone[key], "{key} of {way:?}");
            }
            let count = |key: &str| guessed["guesses"][key].as_u64().expect("a count");
            assert!(count("n_right") > 0 && count("n_right") <= count("n_made"), "{guessed}");
            assert!(count("n_passes") < 70, "{guessed}");
        }
    }
    program.text(&["compile", MODEL, "--board", "host", "--draft", MODEL, "-o", "both.siskin"]);
    let greedy = ["--prompt", "ROMEO:", "--greedy", "--max-new-tokens", "70"];
    let [alone, both] = [MODEL, "both.siskin"].map(|file| program.json(&[&["run", file], &greedy[..]].concat()));
    assert_eq!((&both["text"], &both["logits_hash"]), (&alone["text"], &alone["logits_hash"]));
    assert_eq!(both["guesses"]["n_passes"], 18, "four tokens a pass, of the 69 after the first: {both}");
}
