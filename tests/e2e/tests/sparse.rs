//! A pruned model is packed without its zero blocks: the same bits on the host and on a board, in less flash and time.

use serde_json::Value;
use siskin_e2e::device::boards_dir;
use siskin_e2e::{Program, fixture};

const BOARD: &str = "mps2-an386";
const BAND_ROWS: usize = 16;
const BLOCK_COLS: usize = 32;
/// Most instructions of a token of a model half of whose blocks are zero, in hundredths of the whole one's.
const COST_MAX: u64 = 88;

/// Makes every other block of each matrix of a checkpoint zero, in the pattern of a chessboard.
fn prune(program: &Program) {
    let path = program.path("model/model.safetensors");
    let mut bytes = std::fs::read(&path).expect("the weights");
    let (head, rest) = bytes.split_at_mut(8);
    let header_bytes = u64::from_le_bytes(head.try_into().expect("eight bytes")) as usize;
    let (header, data) = rest.split_at_mut(header_bytes);
    let header: serde_json::Map<String, Value> = serde_json::from_slice(header).expect("a header");
    for tensor in header.values() {
        let [_, ref cols] = tensor["shape"].as_array().expect("a shape")[..] else { continue };
        let cols = cols.as_u64().expect("columns") as usize;
        let [start, end] = [0, 1].map(|i| tensor["data_offsets"][i].as_u64().expect("an offset") as usize);
        for (i, weight) in data[start..end].chunks_mut(4).enumerate() {
            if (i / cols / BAND_ROWS + i % cols / BLOCK_COLS).is_multiple_of(2) {
                weight.fill(0);
            }
        }
    }
    std::fs::write(path, bytes).expect("a writable file");
}

#[test]
fn zero_blocks_cost_neither_flash_nor_time_and_change_no_bit() {
    let program = Program::new();
    let shape = fixture::Shape { dim: 256, hidden_dim: 576, n_heads: 8, n_kv_heads: 4, ..fixture::USUAL };
    fixture::write_shape(&program.path("model"), 3, &shape);
    prune(&program);
    let boards_dir = boards_dir();
    let flags = ["--prompt", "The siskin", "--greedy", "--max-new-tokens", "24"];
    let same = |reply: &Value| ["text", "tokens", "logits_hash"].map(|key| reply[key].clone());
    for weights in ["int8", "int8-g32", "int4-g32"] {
        let compile = |board: &str, out: &str, flags: &[&str]| {
            let compile = ["compile", "model", "--weights", weights, "--board", board, "--boards-dir", &boards_dir];
            program.json(&[&compile[..], &["-o", out], flags].concat())
        };
        let whole = compile("host", "whole.siskin", &["--keep-zero-blocks"]);
        let sparse = compile("host", "sparse.siskin", &[]);
        let counts = |reply: &Value| {
            ["zero_blocks_dropped", "blocks_of_sparse_matrices", "file_bytes"].map(|key| reply[key].as_u64().unwrap())
        };
        let ([_, _, whole_bytes], [n_dropped, n_all, sparse_bytes]) = (counts(&whole), counts(&sparse));
        assert_eq!((counts(&whole)[1], n_dropped * 2), (0, n_all), "{weights}");
        assert!(sparse_bytes * 100 < whole_bytes * 60, "{weights}: {sparse_bytes} of {whole_bytes} bytes");

        let want = same(&program.json(&[&["run", "whole.siskin", "--kernels", "generic"], &flags[..]].concat()));
        for how in [&["--threads", "1"][..], &["--threads", "2"], &["--kernels", "generic"]] {
            let got = program.json(&[&["run", "sparse.siskin"], &flags[..], how].concat());
            assert_eq!(same(&got), want, "{weights} {how:?}");
        }
        let instructions = |out: &str, flags_of_file: &[&str]| -> u64 {
            compile(BOARD, out, flags_of_file);
            let run = ["board", "run", BOARD, out, "--boards-dir", &boards_dir];
            let reply = program.json(&[&run[..], &flags].concat());
            assert_eq!(same(&reply), want, "{weights} {out}");
            let steps = reply["instructions"].as_array().expect("counts");
            steps[1..].iter().filter_map(Value::as_u64).sum::<u64>() / (steps.len() as u64 - 1)
        };
        let whole = instructions("whole-board.siskin", &["--keep-zero-blocks"]);
        let sparse = instructions("sparse-board.siskin", &[]);
        println!("{BOARD} {weights}: {sparse} instructions a token without zero blocks, {whole} with them");
        assert!(sparse * 100 <= whole * COST_MAX, "{weights}: {sparse} of {whole} instructions");
    }
}
