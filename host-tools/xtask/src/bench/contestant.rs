//! A program that trains when it is told to: started once, then asked for some steps at a time.
//!
//! The protocol (benches/README.md): it says `ready` and a number, of its parameters, once it has warmed up; then it answers each
//! line of its standard input, a number of steps, with a line: the loss, then the seconds of each step.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

/// How to start one.
pub struct Program {
    /// What the table calls it.
    pub name: String,
    /// The program, and what precedes the shape in its arguments.
    pub command: Vec<PathBuf>,
    /// What follows the shape.
    pub options: Vec<&'static str>,
}

/// A running one. Dropping it ends it.
pub struct Contestant {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// The number that it gave when it was ready: of parameters, where it trains.
    pub n_params: u64,
}

/// What it did when asked.
pub struct Turn {
    /// What it answered.
    pub numbers: Vec<f64>,
    /// Processor time of all its threads.
    pub cpu_seconds: f64,
    /// The time it took.
    pub seconds: f64,
}

impl Contestant {
    /// Starts it on `n_threads` threads and waits until it has warmed up.
    ///
    /// # Errors
    /// It does not start, or ends before it is ready; the message has the end of what it printed.
    pub fn start(program: &Program, arguments: &[String], n_threads: usize) -> Result<Self> {
        let (first, rest) = program.command.split_first().context("a program has a name")?;
        let mut command = Command::new(first);
        command.args(rest).args(arguments).args(&program.options).stdin(Stdio::piped()).stdout(Stdio::piped());
        for variable in ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"] {
            command.env(variable, n_threads.to_string());
        }
        let mut child = command.spawn().with_context(|| format!("cannot start {}", first.display()))?;
        let requests = child.stdin.take().context("its input is piped")?;
        let mut answers = BufReader::new(child.stdout.take().context("its output is piped")?);
        let mut line = String::new();
        let n_params = loop {
            line.clear();
            ensure!(answers.read_line(&mut line)? > 0, "{} ended before it was ready", program.name);
            if let Some(n_params) = line.strip_prefix("ready ") {
                let number = n_params.split_whitespace().next().unwrap_or_default();
                break number.parse().context("a number of parameters")?;
            }
        };
        Ok(Self { child, requests, answers, n_params })
    }

    /// Asks for `n` steps and waits for the answer.
    ///
    /// # Errors
    /// It has ended, or what it says are not numbers.
    pub fn turn(&mut self, n: usize) -> Result<Turn> {
        let (start, cpu_before) = (Instant::now(), self.cpu_seconds());
        writeln!(self.requests, "{n}")?;
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "it ended");
        let seconds = start.elapsed().as_secs_f64();
        let numbers: Vec<f64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        if numbers.iter().any(|number| !number.is_finite()) {
            bail!("it answered {}", line.trim());
        }
        Ok(Turn { numbers, cpu_seconds: self.cpu_seconds() - cpu_before, seconds })
    }

    /// Processor time of all its threads so far; 0 where the system does not say.
    fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // The second field is a name in brackets, which may hold anything.
        let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let ticks: u64 = fields.skip(11).take(2).flat_map(str::parse::<u64>).sum();
        ticks as f64 / 100.0
    }
}

impl Drop for Contestant {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
