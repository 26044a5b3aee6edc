//! Every board against the host, bit for bit: each family of models, in each format, with each setting of the sampler, within a grammar,
//! after a prefix, with an adapter; and every way in which the firmware refuses. Most boards have one build, in whose flash the models take turns.

use std::fs;
use std::sync::OnceLock;

use siskin_e2e::Program;
use siskin_e2e::device::{
    GREEDY, Image, REQUESTS_MAX, Reply, Setting, boards, boards_dir, records, request, root, xtask,
};
use siskin_e2e::families::Family::{self, Classifier, Gpt2, Gru, Llama, Masked, T5, Tagger, Vector};
use siskin_e2e::families::{write_family_of, write_lora};
use siskin_e2e::fixture::{Shape, USUAL};

/// How weights are stored.
const FORMATS: [&str; 3] = ["int8", "int8-g32", "int4-g32"];
/// What a packed model may have besides, in the order in which it is compiled in: a flag of `compile`, its value, and the families.
const EXTRAS: [(&str, &str, &[Family]); 6] = [
    ("--grammar", "words.gbnf", &[Llama, Gru, T5]),
    ("--adapter", "tiny=lora", &[Llama]),
    ("--prefix", "the ", &[Llama, Gpt2]),
    ("--kv", "int8-ue5m3", &[Llama]),
    ("--kv", "int4", &[Llama, T5]),
    ("--kv", "f16", &[Llama]),
];
const FAMILIES: [Family; 8] = [Llama, Gpt2, Gru, T5, Classifier, Tagger, Masked, Vector];
const GRAMMAR: &str = "root ::= word (\" \" word)* \".\"\nword ::= [a-z] [a-z]? [a-z]?\n";

/// For the nRF51822's 16 KB of RAM: an encoder-decoder keeps two caches and the states of its source beside the stack's 5 KB.
const SMALL: Shape =
    Shape { dim: 16, hidden_dim: 24, n_layers: 2, n_heads: 2, n_kv_heads: 1, context_len: 32, n_merges: 0 };
/// For the STM32F100's 8 KB, half of which are the stack and an eighth the logits of 258 tokens.
const SMALLEST: Shape =
    Shape { dim: 8, hidden_dim: 16, n_layers: 1, n_heads: 1, n_kv_heads: 1, context_len: 24, n_merges: 0 };

/// The shape of the models that a board's RAM holds.
fn shape_of(board: &str) -> &'static Shape {
    match board {
        "microbit" => &SMALL,
        "stm32vldiscovery" => &SMALLEST,
        _ => &USUAL,
    }
}

/// Where a model is packed.
const PACKED: &str = "packed.siskin";
/// Tokens that are asked for.
const N_TOKENS: u32 = 7;
/// The byte-level tokens of two letters: the bytes come after two special tokens.
const X: u32 = 2 + b'x' as u32;
const Y: u32 = 2 + b'y' as u32;

/// Every setting of the sampler by itself, and nearly all at once.
const SETTINGS: [Setting; 13] = [
    GREEDY,
    Setting { temperature: 1.2, seed: 1, ..GREEDY },
    Setting { temperature: 1.1, top_k: 5, seed: 0x1_0000_0002, ..GREEDY },
    Setting { temperature: 1.3, typical_p: 0.6, seed: 3, ..GREEDY },
    Setting { temperature: 1.3, top_p: 0.7, seed: 4, ..GREEDY },
    Setting { temperature: 1.4, min_p: 0.2, seed: 5, ..GREEDY },
    Setting { repetition: 1.5, ..GREEDY },
    Setting { frequency: 0.9, ..GREEDY },
    Setting { presence: 0.9, ..GREEDY },
    Setting { temperature: 1.0, mirostat: (3.0, 0.3), seed: 6, ..GREEDY },
    // The text would be x after x.
    Setting { biases: &[(X, 1000.0)], stops: &["a rare text", "xxx"], ..GREEDY },
    Setting { biases: &[(X, 1000.0), (X, f32::NEG_INFINITY), (Y, 900.0)], ..GREEDY },
    Setting {
        temperature: 1.2,
        top_k: 40,
        typical_p: 0.95,
        top_p: 0.9,
        min_p: 0.01,
        repetition: 1.1,
        frequency: 0.2,
        presence: 0.1,
        biases: &[(X, 1.5), (Y, -1.5)],
        stops: &["zz"],
        seed: 7,
        ..GREEDY
    },
];

/// One model, and what the host said to all that it is asked.
struct Case {
    family: Family,
    weights: &'static str,
    extras: Vec<&'static str>,
    asked: Vec<(&'static str, Setting)>,
    wanted: Vec<Reply>,
}

impl Case {
    fn name(&self) -> String {
        format!("{:?}-{}{}", self.family, self.weights, self.extras.join(""))
    }

    /// Packs it for a board.
    fn pack(&self, program: &Program, board: &str, shape: &Shape) -> Vec<u8> {
        let folder = program.path(&format!("{:?}", self.family));
        if !folder.exists() {
            write_family_of(&folder, self.family, 11, shape);
            program.write("words.gbnf", GRAMMAR);
            write_lora(&program.path("lora"), 12, shape);
        }
        let (folder, boards_dir) = (folder.display().to_string(), boards_dir());
        let flags = ["--board", board, "--boards-dir", &boards_dir, "--weights", self.weights, "-o", PACKED];
        program.text(&[&["compile", &folder], &flags[..], &self.extras].concat());
        fs::read(program.path(PACKED)).expect("a packed model")
    }

    /// What the program says when it is asked, after [`Case::pack`].
    fn run(&self, program: &Program, prompt: &str, setting: &Setting, threads: &str) -> Reply {
        let (flags, n_tokens) = (setting.flags(), N_TOKENS.to_string());
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let run = ["run", PACKED, "--prompt", prompt, "--max-new-tokens", &n_tokens, "--threads", threads];
        let run = if is_encoder(self.family) { run.to_vec() } else { [&run, &flags[..]].concat() };
        Reply::of_host(&program.json(&run))
    }
}

/// What a family is asked. Encoders have no use for a sampler.
fn asked(family: Family, extras: &[&str]) -> Vec<(&'static str, Setting)> {
    let prompt = if family == Masked { "the [MASK] sin[MASK]" } else { "the siskin sings" };
    let others = if family == Masked { ["[MASK]", "マ[MASK]"] } else { ["a", "マヒワ"] };
    let adapter = if extras.contains(&"--adapter") { "tiny" } else { "" };
    let others = others.map(|prompt| (prompt, Setting { adapter, ..GREEDY }));
    let settings = match family {
        Classifier | Tagger | Masked | Vector => &SETTINGS[..1],
        // What a model has besides is tried on a few of them.
        _ if !extras.is_empty() => &SETTINGS[..4],
        _ => &SETTINGS,
    };
    settings.iter().map(|&setting| (prompt, Setting { adapter, ..setting })).chain(others).collect()
}

/// Every case of a shape. The host says its part once: the order of a file's weights is the only thing that boards differ in.
fn cases(shape: &Shape) -> Vec<Case> {
    let program = Program::new();
    let mut cases = Vec::new();
    for (family, weights) in FAMILIES.iter().flat_map(|&family| FORMATS.map(|weights| (family, weights))) {
        let extras = EXTRAS.iter().filter(|(_, _, families)| families.contains(&family));
        let extras = extras.map(|&(flag, value, _)| vec![flag, value]);
        for extras in std::iter::once(Vec::new()).chain(extras) {
            let asked = asked(family, &extras);
            let mut case = Case { family, weights, extras, asked, wanted: Vec::new() };
            case.pack(&program, "host", shape);
            case.wanted = case.asked.iter().map(|(prompt, setting)| case.run(&program, prompt, setting, "1")).collect();
            check_host(&case);
            let is_plain = |other: &&Case| (other.family, other.weights) == (case.family, case.weights);
            if let Some(plain) = cases.iter().find(is_plain) {
                assert_ne!(case.wanted[0].hash, plain.wanted[0].hash, "{} changes nothing", case.name());
            }
            cases.push(case);
        }
    }
    cases
}

fn is_encoder(family: Family) -> bool {
    matches!(family, Classifier | Tagger | Masked | Vector)
}

/// The settings and extras did what they are for: equal replies would prove nothing otherwise.
fn check_host(case: &Case) {
    let name = case.name();
    for (reply, (_, setting)) in case.wanted.iter().zip(&case.asked) {
        assert_ne!(reply.hash, "cbf29ce484222325", "{name}: nothing was computed");
        match setting.biases.len() {
            1 => assert_eq!((reply.end.as_str(), reply.text.as_str()), ("stop", ""), "{name}"),
            3 => assert_eq!(reply.text, "y".repeat(N_TOKENS as usize), "{name}"),
            _ => {}
        }
        if case.extras.contains(&"--grammar") {
            let is_word =
                |word: &str| matches!(word.len(), 1..=3) && word.bytes().all(|byte| byte.is_ascii_lowercase());
            assert!(reply.text.strip_suffix('.').is_some_and(|text| text.split(' ').all(is_word)), "{name}: {reply:?}");
        }
    }
    if !is_encoder(case.family) && case.extras.is_empty() {
        let mut hashes: Vec<&str> = case.wanted[..SETTINGS.len()].iter().map(|reply| reply.hash.as_str()).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert!(hashes.len() >= 8, "{name}: the settings draw the same tokens: {hashes:?}");
    }
}

/// The cases of each shape, from whichever test asks first.
fn cases_of(board: &str) -> &'static [Case] {
    static CASES: [OnceLock<Vec<Case>>; 3] = [const { OnceLock::new() }; 3];
    let cell = match board {
        "microbit" => &CASES[0],
        "stm32vldiscovery" => &CASES[1],
        _ => &CASES[2],
    };
    cell.get_or_init(|| cases(shape_of(board)))
}

/// What the board says of a case is what the host said.
fn agrees(case: &Case, board: &str, image: &Image<'_>) {
    let asked = case.asked.iter().map(|(prompt, setting)| request(prompt, N_TOKENS, setting));
    let mut got = Vec::new();
    for requests in asked.collect::<Vec<_>>().chunks(REQUESTS_MAX) {
        let (said, code) = image.run(requests);
        assert_eq!(code, Some(0), "{} on {board}: {said}", case.name());
        got.extend(Reply::all_of_board(&said));
    }
    assert_eq!(got.len(), case.wanted.len(), "{} on {board}", case.name());
    for ((got, wanted), asked) in got.iter().zip(&case.wanted).zip(&case.asked) {
        assert_eq!(got, wanted, "{} on {board}, asked {asked:?}", case.name());
    }
}

/// One image for all models.
fn board_agrees_with_the_host(board: &str) {
    let (program, shape, cases) = (Program::new(), shape_of(board), cases_of(board));
    let mut models: Vec<Vec<u8>> = cases.iter().map(|case| case.pack(&program, board, shape)).collect();
    let arena_bytes = models.iter().map(|model| arena_bytes(model)).max().expect("models");
    let too_large = larger_model(&program, board, shape);
    assert!(self::arena_bytes(&too_large) > arena_bytes, "{board}");
    let room_bytes = models.iter().chain([&too_large]).map(Vec::len).max().expect("models").next_multiple_of(1024);
    let mut image = Image::with_room(&program, board, &models[0], room_bytes, arena_bytes);
    for (case, model) in cases.iter().zip(&models) {
        image.put(model);
        agrees(case, board, &image);
    }
    a_refusal_ends_one_request(board, shape, &mut image, &models[0], &cases[0].wanted[0]);
    let good = models.swap_remove(0);
    bad_models_are_told(&program, board, shape, &mut image, &good, &too_large);
}

/// An image for each model: the stack of one that runs them all is more than these boards have. So it is a choice of families.
fn small_board_agrees_with_the_host(board: &str) {
    let (program, shape) = (Program::new(), shape_of(board));
    let is_chosen = |case: &&Case| case.extras.is_empty() || (case.family, case.weights) == (Llama, FORMATS[0]);
    let chosen = cases_of(board).iter().filter(|case| [Llama, Gru, T5, Classifier].contains(&case.family));
    for case in chosen.filter(is_chosen) {
        let image = Image::linked(&program, board, &case.pack(&program, board, shape));
        agrees(case, board, &image);
    }
}

/// `siskin` itself on Linux for this kind of core, as on a single-board computer: it packs each model, maps the file, and runs it on one
/// thread and on several.
fn linux_agrees_with_the_host(triple: &str, emulator: &str, cpus: &[&str]) {
    let built = xtask(&["linux", "--build", triple], &[]);
    assert!(built.status.success(), "{triple}: {}", String::from_utf8_lossy(&built.stderr));
    let siskin = root().join("target/linux").join(triple).join("cross/siskin");
    for (cpu_idx, cpu) in cpus.iter().enumerate() {
        let launcher = [emulator.into(), "-cpu".into(), cpu.into(), siskin.clone().into_os_string()];
        let program = Program::launched_by(launcher.into());
        for (case_idx, case) in cases_of(triple).iter().enumerate() {
            case.pack(&program, "host", &USUAL);
            let threads = if (case_idx + cpu_idx) % 2 == 0 { "1" } else { "3" };
            let got = case.asked.iter().map(|(prompt, setting)| case.run(&program, prompt, setting, threads));
            assert_eq!(got.collect::<Vec<_>>(), case.wanted, "{} on {triple}, {cpu}", case.name());
        }
    }
}

/// What the header says of the arena (runtime/FORMAT.md).
fn arena_bytes(model: &[u8]) -> usize {
    u64::from_le_bytes(model[80..88].try_into().expect("eight bytes")) as usize
}

/// A model in the order of the board's core that no board of its memory would be given.
fn larger_model(program: &Program, board: &str, shape: &Shape) -> Vec<u8> {
    let real = fs::read_to_string(root().join("boards").join(board).join("board.toml")).expect("the board");
    let layout = real.lines().find(|line| line.starts_with("layout = ")).expect("a layout");
    let memory = format!("flash_bytes = {}\nram_bytes = {}\n", 1 << 24, 1 << 24);
    let firmware = "code_bytes = 50000\nstatic_ram_bytes = 1000\nstack_bytes = 8192\n";
    fs::create_dir_all(program.path("boards/large")).expect("a writable folder");
    program
        .write("boards/large/board.toml", format!("[target]\n{layout}\n\n[memory]\n{memory}\n[firmware]\n{firmware}"));
    write_family_of(&program.path("larger"), Llama, 11, &Shape { context_len: 16 * shape.context_len, ..*shape });
    program.text(&["compile", "larger", "--board", "large", "--boards-dir", "boards", "-o", "larger.siskin"]);
    fs::read(program.path("larger.siskin")).expect("a packed model")
}

/// A prompt that is too long is refused, and an adapter that the model has not; the next request is answered as on the host.
fn a_refusal_ends_one_request(board: &str, shape: &Shape, image: &mut Image<'_>, model: &[u8], wanted: &Reply) {
    image.put(model);
    let long = request(&"x".repeat(shape.context_len + 4), N_TOKENS, &GREEDY);
    let short = request("the siskin sings", N_TOKENS, &GREEDY);
    let unknown = request("the siskin sings", N_TOKENS, &Setting { adapter: "nobody", ..GREEDY });
    let (said, code) = image.run(&[long, short.clone(), unknown, short]);
    let replies = Reply::all_of_board(&said);
    let errors: Vec<&str> = replies.iter().filter_map(|reply| reply.error.as_deref()).collect();
    assert!(errors.len() == 2 && errors[0].starts_with("the context is full"), "{board}: {said}");
    assert!(errors[1].starts_with("the model has no adapter") && errors[1].contains("nobody"), "{board}: {said}");
    assert_eq!((code, &replies[1], &replies[3]), (Some(1), wanted, wanted), "{board}: {said}");
}

/// A model that cannot run is told by name, once for each request: the firmware goes on.
fn bad_models_are_told(
    program: &Program,
    board: &str,
    shape: &Shape,
    image: &mut Image<'_>,
    good: &[u8],
    too_large: &[u8],
) {
    let sings = request("the siskin sings", N_TOKENS, &GREEDY);
    let mut is_told = |model: &[u8], error: &str| {
        image.put(model);
        let (said, code) = image.run(&[sings.clone(), sings.clone()]);
        let errors = records(&said, "error");
        assert!(errors.len() == 2 && errors.iter().all(|told| told.starts_with(error)), "{error} on {board}: {said}");
        assert!(code == Some(1) && records(&said, "fault").is_empty(), "{error} on {board}: {said}");
    };
    for (at, error) in [
        (0, "the flash holds no packed model"),
        (40, "the checksum of the model's header is wrong"),
        (good.len() - 1000, "the checksum of a section of the model is wrong"),
    ] {
        let mut damaged = good.to_vec();
        damaged[at] ^= 1;
        is_told(&damaged, error);
    }
    // No core reads both of these boards' orders: the first of them that is not this board's.
    let other = ["mps2-an386", "mps3-an547"].map(|other| cases_of(board)[0].pack(program, other, shape));
    let other = other.iter().find(|other| other[24..28] != good[24..28]).expect("two orders");
    is_told(other, "the weights lie in another order than this core's kernels read");
    is_told(too_large, "the arena is too small needed_bytes ");
}

/// A test for each board.
macro_rules! every_board {
    ($($test:ident: $board:literal $check:ident,)*) => {
        $(#[test]
        fn $test() {
            $check($board);
        })*

        #[test]
        fn aarch64_linux() {
            // With dot products, and without.
            linux_agrees_with_the_host("aarch64-unknown-linux-gnu", "qemu-aarch64", &["max", "cortex-a53"]);
        }

        #[test]
        fn armv7_linux() {
            linux_agrees_with_the_host("armv7-unknown-linux-gnueabihf", "qemu-arm", &["cortex-a15"]);
        }

        #[test]
        fn no_board_is_left_out() {
            assert_eq!(boards(), [$($board),*]);
        }
    };
}

every_board! {
    aarch64_virt: "aarch64-virt" board_agrees_with_the_host,
    microbit: "microbit" small_board_agrees_with_the_host,
    mps2_an386: "mps2-an386" board_agrees_with_the_host,
    mps2_an500: "mps2-an500" board_agrees_with_the_host,
    mps2_an505: "mps2-an505" board_agrees_with_the_host,
    mps3_an547: "mps3-an547" board_agrees_with_the_host,
    netduinoplus2: "netduinoplus2" board_agrees_with_the_host,
    raspi3b: "raspi3b" board_agrees_with_the_host,
    riscv32_virt: "riscv32-virt" board_agrees_with_the_host,
    riscv32_virt_v: "riscv32-virt-v" board_agrees_with_the_host,
    riscv64_virt: "riscv64-virt" board_agrees_with_the_host,
    stm32vldiscovery: "stm32vldiscovery" small_board_agrees_with_the_host,
}
