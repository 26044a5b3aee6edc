//! Firmware in the emulator: what it measures, and how it fails.

use std::fs;
use std::path::Path;

use siskin_e2e::device::{self, GREEDY, boards, boards_dir, records, xtask};
use siskin_e2e::{Program, fixture};

const BOARD: &str = "netduinoplus2";

/// A packed model, and the firmware around it.
fn firmware() -> (Program, String) {
    let program = Program::new();
    let boards_dir = boards_dir();
    fixture::write_checkpoint(&program.path("model"), 5);
    program.text(&["compile", "model", "--board", BOARD, "--boards-dir", &boards_dir, "-o", "m.siskin"]);
    let build = ["board", "build", BOARD, "m.siskin", "--boards-dir", &boards_dir, "-o", "m.elf"];
    let sizes = program.json(&build);
    assert!(sizes["code_bytes"].as_u64().is_some_and(|bytes| bytes < 60_000), "{sizes}");
    let elf = program.path("m.elf").display().to_string();
    (program, elf)
}

/// Runs the firmware on the bytes of a request; what it printed, and the exit code.
fn emulate(program: &Program, elf: &str, request: &[u8]) -> (String, Option<i32>) {
    emulate_all(program, BOARD, elf, &[request])
}

/// Runs the firmware on one request after the other; what it printed, and the exit code.
fn emulate_all(program: &Program, board: &str, elf: &str, requests: &[&[u8]]) -> (String, Option<i32>) {
    let run_dir = program.path("run").display().to_string();
    let mut args =
        ["emulate", "--board", board, "--elf", elf, "--run-dir", &run_dir, "--watch-stack"].map(String::from).to_vec();
    for (idx, request) in requests.iter().enumerate() {
        let name = format!("request-{idx}");
        program.write(&name, request);
        args.extend(["--request".to_owned(), program.path(&name).display().to_string()]);
    }
    let output = xtask(&args.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
}

/// A greedy request for four tokens.
fn request(prompt: &str) -> Vec<u8> {
    device::request(prompt, 4, &GREEDY)
}

fn number_after(text: &str, keyword: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(keyword)?.trim().parse().ok())
}

#[test]
fn the_paint_and_the_stores_tell_the_same_stack() {
    let (program, elf) = firmware();
    let (said, code) = emulate(&program, &elf, &request("the siskin sings"));
    assert_eq!(code, Some(0), "{said}");
    let counts = fs::read_to_string(program.path("run").join("counts.txt")).expect("the counts");
    let (painted, stored) = (number_after(&said, "stack"), number_after(&counts, "stack"));
    assert!(painted.is_some_and(|bytes| bytes > 0), "{said}");
    assert_eq!(painted, stored, "{said}\n{counts}");
    let regions = counts.lines().filter(|line| line.starts_with("region")).count();
    assert_eq!(regions, 1 + 4 * 2 + 1, "the prompt, passes and draws of four tokens, the end: {counts}");
}

#[test]
fn a_bad_request_is_told_and_never_crashes() {
    let (program, elf) = firmware();
    let good = request("the siskin");
    let with = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        bad
    };
    let cases: [(Vec<u8>, &str); 14] = [
        (Vec::new(), "ends early"),
        (good[..good.len() - 1].to_vec(), "ends early"),
        (with(0, b'X'), "magic"),
        (with(8, 9), "version"),
        (with(12, 7), "no known kind"),
        (with(72, 200), "ends early"),
        (with(76, 200), "too many stop sequences"),
        (with(84, 0xff), "not UTF-8"),
        (with(35, 0xff), "temperature"),
        (with(43, 0xff), "typical-p"),
        (with(67, 0xff), "mirostat's tau"),
        (request(&"a ".repeat(100)), "the context is full"),
        (request(&"a ".repeat(900)), "too many tokens"),
        (request(&"a ".repeat(2000)), "the request is too long"),
    ];
    for (bytes, words) in cases {
        let (said, code) = emulate(&program, &elf, &bytes);
        assert_eq!(code, Some(1), "{words}: {said}");
        assert!(said.lines().any(|line| line.starts_with("error ") && line.contains(words)), "{words}: {said}");
    }
}

#[test]
fn after_a_failed_request_the_next_is_served_as_if_it_were_the_first() {
    let (program, elf) = firmware();
    let good = request("the siskin");
    let (alone, code) = emulate(&program, &elf, &good);
    assert_eq!(code, Some(0), "{alone}");
    let (said, code) = emulate_all(&program, BOARD, &elf, &[&request(&"a ".repeat(100)), &good, b"SISKIN", &good]);
    assert_eq!(code, Some(1), "{said}");
    let errors = records(&said, "error");
    assert!(errors.len() == 2 && errors[0].starts_with("the context is full"), "{said}");
    assert_eq!(records(&said, "hash"), [&records(&alone, "hash")[..], &records(&alone, "hash")].concat(), "{said}");
    assert_eq!(records(&said, "token"), [&records(&alone, "token")[..], &records(&alone, "token")].concat(), "{said}");
}

/// Builds firmware for [`BOARD`] without asking whether the model is meant for it.
fn build(model: &Path, elf: &str, arena_bytes: Option<&str>) {
    let model = model.display().to_string();
    let args = ["firmware", "--board", BOARD, "--model", &model, "--out", elf];
    let variable = arena_bytes.map(|bytes| ("SISKIN_ARENA_BYTES", bytes));
    let output = xtask(&args, variable.as_slice());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Runs `elf` on two requests: it must tell the same error twice, so it went on after the first, and end with 1.
fn keeps_telling(program: &Program, elf: &str, error: &str) {
    let good = request("the siskin");
    let (said, code) = emulate_all(program, BOARD, elf, &[&good, &good]);
    let errors = records(&said, "error");
    assert!(errors.len() == 2 && errors.iter().all(|told| told.starts_with(error)), "{error}: {said}");
    assert_eq!(code, Some(1), "{said}");
    assert!(records(&said, "fault").is_empty(), "{said}");
}

#[test]
fn a_model_that_the_device_cannot_run_is_told_and_the_firmware_goes_on() {
    let (program, elf) = firmware();
    let packed = fs::read(program.path("m.siskin")).expect("the packed model");
    let image = fs::read(&elf).expect("the firmware");
    let model_at = image.windows(packed.len()).position(|bytes| bytes == packed).expect("the model in the firmware");
    for (at, error) in [
        (0, "the checksum of the model's header is wrong"),
        (40, "the checksum of the model's header is wrong"),
        (packed.len() - 1000, "the checksum of a section of the model is wrong"),
    ] {
        let mut damaged = image.clone();
        damaged[model_at + at] ^= 1;
        program.write("damaged.elf", damaged);
        keeps_telling(&program, &program.path("damaged.elf").display().to_string(), error);
    }

    let other = program.path("other.elf").display().to_string();
    build(&program.path("m.siskin"), &other, Some("4096"));
    keeps_telling(&program, &other, "the arena is too small needed_bytes ");

    // A file for a core that reads weights in another order.
    program.text(&["compile", "model", "--board", "host", "-o", "other.siskin"]);
    build(&program.path("other.siskin"), &other, None);
    keeps_telling(&program, &other, "the weights lie in another order than this core's kernels read");
}

#[test]
fn the_kernels_of_every_board_conform_on_it() {
    let program = Program::new();
    for board in boards() {
        let elf = program.path(&format!("{board}.elf")).display().to_string();
        let built = xtask(&["firmware", "--board", &board, "--app", "conformance", "--out", &elf], &[]);
        assert!(built.status.success(), "{board}: {}", String::from_utf8_lossy(&built.stderr));
        let run_dir = program.path(&format!("run-{board}")).display().to_string();
        let output = xtask(&["emulate", "--board", &board, "--elf", &elf, "--run-dir", &run_dir], &[]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{board}: {said}");
        let mut kernels = said.lines().filter_map(|line| line.strip_prefix("kernels "));
        // The fastest first: those of the core, not the plain loops.
        assert!(kernels.next().is_some_and(|first| first != "generic"), "{board}: {said}");
        assert!(kernels.any(|kernels| kernels == "generic"), "{board}: {said}");
        assert!(said.lines().any(|line| line.starts_with("family matmul ")), "{board}: {said}");
    }
}

#[test]
fn nothing_in_the_image_allocates() {
    let (program, _) = firmware();
    let image = fs::read(program.path("m.elf")).expect("the firmware");
    for symbol in ["__rust_alloc", "malloc", "__rdl_alloc"] {
        let found = image.windows(symbol.len()).any(|bytes| bytes == symbol.as_bytes());
        assert!(!found, "{symbol} is linked");
    }
}

#[test]
fn the_greedy_build_draws_the_tokens_of_the_host() {
    let program = Program::new();
    let boards_dir = boards_dir();
    fixture::write_shape(&program.path("model"), 8, &fixture::TINY);
    program.text(&["compile", "model", "--board", BOARD, "--boards-dir", &boards_dir, "-o", "m.siskin"]);
    let (model, elf) = (program.path("m.siskin").display().to_string(), program.path("g.elf").display().to_string());
    let built = xtask(&["firmware", "--board", BOARD, "--app", "greedy", "--model", &model, "--out", &elf], &[]);
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));

    let prompt = "the siskin sings";
    let host = program.json(&["run", "m.siskin", "--prompt", prompt, "--greedy", "--max-new-tokens", "4"]);
    // As text, which this build has no tokenizer for; then as tokens: the bytes come after two special ones.
    let mut ids = request("");
    ids[12] = 1;
    ids[16..20].copy_from_slice(&(4 * prompt.len() as u32).to_le_bytes());
    ids.extend(prompt.bytes().flat_map(|byte| (2 + u32::from(byte)).to_le_bytes()));
    let (said, code) = emulate(&program, &elf, &request(prompt));
    assert_eq!((records(&said, "error").len(), code), (1, Some(1)), "{said}");
    let (said, code) = emulate(&program, &elf, &ids);
    assert_eq!(code, Some(0), "{said}");
    let drawn: Vec<u64> = records(&said, "token").iter().filter_map(|token| token.parse().ok()).collect();
    assert_eq!(host["tokens"], serde_json::json!(drawn), "{said}");
}
