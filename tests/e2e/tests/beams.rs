//! Beam search on a board as on the host, and on the command line.

use siskin_e2e::Program;
use siskin_e2e::device::{GREEDY, Image, Reply, Setting, boards_dir, request};
use siskin_e2e::families::Family::{self, Classifier, Gru, Llama, T5};
use siskin_e2e::families::write_family;

const BOARD: &str = "mps2-an386";
const PROMPT: &str = "the siskin sings";
const N_TOKENS: u32 = 9;
const SEARCHES: [Setting; 4] = [
    Setting { beams: (1, 1.0, 0), ..GREEDY },
    Setting { beams: (2, 0.0, 2), ..GREEDY },
    Setting { beams: (4, 1.0, 0), ..GREEDY },
    Setting { beams: (3, 1.5, 1), ..GREEDY },
];

/// A small random model, packed for the board.
fn pack(program: &Program, family: Family, flags: &[&str]) -> Vec<u8> {
    let (folder, packed) = (format!("{family:?}"), format!("{family:?}.siskin"));
    write_family(&program.path(&folder), family, 11);
    let args = ["compile", &folder, "--board", BOARD, "--boards-dir", &boards_dir(), "-o", &packed];
    program.text(&[&args, flags].concat());
    std::fs::read(program.path(&packed)).expect("a packed model")
}

fn host(program: &Program, family: Family, setting: &Setting) -> Reply {
    let (flags, n_tokens) = (setting.flags(), N_TOKENS.to_string());
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let packed = format!("{family:?}.siskin");
    let run = ["run", &packed, "--prompt", PROMPT, "--max-new-tokens", &n_tokens];
    Reply::of_host(&program.json(&[&run[..], &flags].concat()))
}

#[test]
fn a_board_finds_what_the_host_finds() {
    let program = Program::new();
    for (family, more) in [(T5, &["--weights", "int8-g32"][..]), (Llama, &["--kv", "int8-ue5m3"]), (Gru, &[])] {
        let model = pack(&program, family, &[&["--beams", "4"], more].concat());
        let image = Image::linked(&program, BOARD, &model);
        let wanted: Vec<Reply> = SEARCHES.iter().map(|setting| host(&program, family, setting)).collect();
        let mut asked: Vec<Vec<u8>> = SEARCHES.iter().map(|setting| request(PROMPT, N_TOKENS, setting)).collect();
        asked.push(request(PROMPT, N_TOKENS, &Setting { beams: (5, 1.0, 0), ..GREEDY }));
        asked.push(request(PROMPT, N_TOKENS, &GREEDY));
        let (said, _) = image.run(&asked);
        let replies = Reply::all_of_board(&said);
        let (searched, others) = replies.split_at(SEARCHES.len().min(replies.len()));
        assert_eq!(searched, wanted, "{family:?}: {said}");
        assert!(wanted.iter().all(|reply| !reply.score.is_empty() && !reply.tokens.is_empty()), "{wanted:?}");
        // One beam is greedy, which the firmware still is when asked.
        let greedy = host(&program, family, &GREEDY);
        assert_eq!((&wanted[0].tokens, &wanted[0].text), (&greedy.tokens, &greedy.text), "{family:?}");
        let [refused, drawn] = others else { panic!("{family:?}: {said}") };
        assert!(refused.error.as_deref().is_some_and(|error| error.contains("asked 5 most 4")), "{said}");
        assert_eq!(*drawn, greedy, "{family:?}");
    }
}

#[test]
fn what_cannot_be_searched_is_told() {
    let program = Program::new();
    pack(&program, Llama, &[]);
    pack(&program, Classifier, &[]);
    let run = ["run", "Llama.siskin", "--prompt", PROMPT, "--beams"];
    for flags in [&["--temperature", "1"][..], &["--top-k", "3"], &["--seed", "1"], &["--stop", "x"], &["--slide"]] {
        program.fails(&[&run[..], &["2"], flags].concat(), 2, &["cannot be used with", "--beams"]);
    }
    program.fails(&[&run[..], &["0"]].concat(), 2, &["1 to 64 beams"]);
    program.fails(&[&run[..], &["2", "--length-penalty", "5"]].concat(), 2, &["between -4 and 4"]);
    program.fails(&["run", "Llama.siskin", "--prompt", PROMPT, "--length-penalty", "1"], 2, &["--beams"]);
    program.fails(&["run", "Classifier.siskin", "--prompt", PROMPT, "--beams", "2"], 3, &["is an encoder"]);
    let boards_dir = boards_dir();
    let at = ["--board", BOARD, "--boards-dir", &boards_dir];
    program.fails(&[&["compile", "Classifier", "-o", "x", "--beams", "2"], &at[..]].concat(), 3, &["writes nothing"]);
    program.fails(&[&["compile", "Llama", "-o", "x", "--beams", "65"], &at[..]].concat(), 3, &["up to 64 beams"]);
    let on_board = ["board", "--boards-dir", &boards_dir, "run", BOARD, "Llama.siskin", "--prompt", PROMPT];
    program.fails(&[&on_board[..], &["--beams", "2"]].concat(), 3, &["compile it with --beams 2"]);
    // What a packed model has room for is kept and can be changed.
    program.text(&[&["compile", "Llama", "-o", "two.siskin", "--beams", "2"], &at[..]].concat());
    program.text(&[&["compile", "two.siskin", "-o", "again.siskin"], &at[..]].concat());
    program.text(&[&["compile", "two.siskin", "-o", "none.siskin", "--beams", "0"], &at[..]].concat());
    let beams = |file: &str| program.json(&["inspect", file])["beams"].as_u64();
    assert_eq!(["two.siskin", "again.siskin", "none.siskin"].map(beams), [Some(2), Some(2), Some(0)]);
}
