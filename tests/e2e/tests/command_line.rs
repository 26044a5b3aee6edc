//! The command line itself: its commands, its help, its exit codes, its errors.

use siskin_e2e::{Program, assert_keys, fixture};

/// Scripts and people rely on these names; a change here is a change for them.
const COMMANDS: [&str; 13] = [
    "train",
    "compile",
    "adapter",
    "merge",
    "plan",
    "run",
    "eval",
    "inspect",
    "tokenize",
    "data",
    "board",
    "device",
    "completions",
];

#[test]
fn help_lists_the_commands_in_order() {
    let help = Program::new().text(&["--help"]);
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names[..names.len() - 1], COMMANDS);
    assert_eq!(names.last(), Some(&"help"));
    for code in ["0 done", "1 failed", "2 the command line", "3 the input", "4 it does not fit", "5 interrupted"] {
        assert!(help.contains(code), "{code}");
    }
}

#[test]
fn every_command_has_help_with_examples() {
    let program = Program::new();
    for command in COMMANDS {
        let help = program.text(&[command, "--help"]);
        let examples = help.split("Examples:\n").nth(1).unwrap_or_default();
        assert!(examples.contains(&format!("siskin {command} ")), "{command}: {help}");
        assert!(help.contains("--format") && help.contains("--quiet"), "{command}");
    }
    for action in ["list", "build", "run"] {
        program.text(&["board", action, "--help"]);
    }
    program.text(&["data", "inspect", "--help"]);
}

#[test]
fn completions_know_every_command() {
    let program = Program::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = program.text(&["completions", shell]);
        assert!(COMMANDS.iter().all(|command| script.contains(command)), "{shell}");
    }
    assert_keys(&program.json(&["completions", "bash"]), "shell script");
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    let program = Program::new();
    program.fails(&[], 2, &["Usage"]);
    program.fails(&["sing"], 2, &["sing"]);
    program.fails(&["run"], 2, &["FILE"]);
    program.fails(&["run", "x.siskin"], 2, &["--prompt"]);
    program.fails(&["run", "x.siskin", "--prompt", "a", "--threads", "0"], 2, &["--threads"]);
    program.fails(&["run", "x.siskin", "--prompt", "a", "--greedy", "--top-k", "3"], 2, &["--greedy", "--top-k"]);
    program.fails(&["run", "x.siskin", "--prompt", "a", "--kernels", "abacus"], 2, &["abacus", "generic"]);
    program.fails(&["compile", "x", "--board", "host"], 2, &["--out"]);
    program.fails(&["compile", "x", "--board", "host", "-o", "y", "--weights", "int3"], 2, &["int8-g32"]);
    for (flag, value) in [
        ("--temperature", "-1"),
        ("--temperature", "nan"),
        ("--top-k", "0"),
        ("--top-p", "1.5"),
        ("--min-p", "-0.1"),
        ("--repetition-penalty", "0"),
    ] {
        program.fails(&["run", "x.siskin", "--prompt", "a", flag, value], 2, &["must be"]);
    }
    program.fails(&["run", "x.siskin", "--prompt", "a", "--stop", ""], 2, &["stop sequence 1 is empty"]);
}

#[test]
fn a_path_that_cannot_be_read_is_exit_code_3() {
    let program = Program::new();
    program.write("text.txt", fixture::TEXT);
    program.write("empty", "");
    let commands: [&[&str]; 6] = [
        &["inspect", "MODEL"],
        &["run", "MODEL", "--prompt", "a"],
        &["plan", "MODEL", "--board", "host"],
        &["compile", "MODEL", "--board", "host", "-o", "out.siskin"],
        &["eval", "MODEL", "--text", "text.txt"],
        &["tokenize", "MODEL", "--text", "text.txt"],
    ];
    for command in commands {
        for (model, words) in [("missing", "missing"), (".", ""), ("text.txt", "text.txt"), ("empty", "empty")] {
            let args: Vec<&str> = command.iter().map(|&arg| if arg == "MODEL" { model } else { arg }).collect();
            program.fails(&args, 3, &["siskin: failed to ", words]);
        }
    }
    assert!(!program.path("out.siskin").exists());
}
