//! Firmware of every family links where a panic has no handler: none can be reached (boards/PANICS.md).

use siskin_e2e::Program;
use siskin_e2e::device::{boards_dir, xtask};
use siskin_e2e::families::Family::*;
use siskin_e2e::families::write_family;

const BOARD: &str = "mps2-an386";

#[test]
fn no_family_can_panic_on_a_cortex_m4() {
    let (program, boards_dir) = (Program::new(), boards_dir());
    let usual = [Llama, Gpt2, Gru, T5, Classifier, Tagger, Masked, Vector].map(|family| (family, "int8"));
    for (family, kv) in usual.into_iter().chain([(T5, "int4"), (Llama, "f16")]) {
        let path = |extension: &str| program.path(&format!("{family:?}.{extension}")).display().to_string();
        let (folder, packed, elf) = (path("model"), path("siskin"), path("elf"));
        write_family(folder.as_ref(), family, 3);
        let text = if family == Masked { "the [MASK]" } else { "the siskin" };
        let on_board = ["--board", BOARD, "--boards-dir", &boards_dir];
        let flags = [&on_board[..], &["--weights", "int8", "--kv", kv, "--self-test", text, "-o", &packed]].concat();
        program.text(&[&["compile", &folder], &flags[..]].concat());
        for app in [&[][..], &["--app", "selftest"]] {
            let args = ["firmware", "--board", BOARD, "--panic-free", "--model", &packed, "--out", &elf];
            let linked = xtask(&[&args, app].concat(), &[]);
            assert!(linked.status.success(), "{family:?} {kv} {app:?}: {}", String::from_utf8_lossy(&linked.stderr));
        }
    }
}
