//! Answers of an emulated board, over its serial line.

use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use indicatif::ProgressBar;
use siskin_compiler::eval::task::{Answer, Expected, Prompt, Respondent};
use siskin_compiler::pack::{PackedFile, with_section};
use siskin_compiler::plan::Board;
use siskin_device::serial::Generate;
use siskin_runtime::format::SectionKind;

use crate::boards::BoardsDirArgs;
use crate::commands::device::{ask, generate};
use crate::console::Console;
use crate::device::{Device, Line};
use crate::failure::{Failure, OrFail as _};
use crate::firmware::BoardTools;
use crate::grammar;
use crate::packing::PackingArgs;

/// A model to be asked on a board.
pub(super) struct Job<'j> {
    pub(super) name: &'j str,
    pub(super) boards_dir: &'j BoardsDirArgs,
    pub(super) model_path: &'j Path,
    pub(super) grammar: Option<&'j Path>,
    /// How it is asked on the host.
    pub(super) respondent: &'j Respondent<'j>,
}

/// The longest silence of a board that is at work.
const PATIENCE: Duration = Duration::from_secs(300);

impl Job<'_> {
    /// Builds firmware around the model, and has the board answer one question after another.
    pub(super) fn answers(
        &self,
        prompts: &[Prompt],
        expected: &[&Expected],
        console: &Console,
        bar: &ProgressBar,
    ) -> Result<Vec<Answer>, Failure> {
        if expected.iter().any(|expected| !matches!(expected, Expected::Text(_))) {
            let cause = anyhow!("over its serial line a board answers in text: leave --on out for choices and labels");
            return Err(Failure::command_line(cause));
        }
        let folder = tempfile::tempdir().or_failed(|| "make a folder for the firmware".to_owned())?;
        let mut device = self.device(folder.path(), console)?;
        let one = |(idx, prompt): (usize, &Prompt)| {
            let Prompt::Text(prompt) = prompt else {
                let cause = anyhow!("a board takes no --chat over its serial line: give the template as --doc-to-text");
                return Err(Failure::command_line(cause));
            };
            let Respondent { sampling, seed, max_new_tokens, stops, .. } = self.respondent;
            let seed = seed.wrapping_add(idx as u64);
            let request = Generate { seed, ..generate(prompt, *max_new_tokens, sampling, stops)? };
            let reply = ask(&mut device, request, console, |_| Ok(()))?;
            bar.inc(1);
            Ok(Answer::Text { text: reply.text, n_tokens: reply.tokens.len() })
        };
        prompts.iter().enumerate().map(one).collect()
    }

    /// The board, emulated, with firmware around the model; its files are in `folder`.
    fn device(&self, folder: &Path, console: &Console) -> Result<Device, Failure> {
        let doing = || format!("have {} answer", self.name);
        let dir = self.boards_dir.find_board(self.name)?;
        let board = Board::load(&dir).or_invalid_input(doing)?;
        let mut file = PackingArgs::default().pack(self.model_path, &board, console)?;
        if let Some(path) = self.grammar {
            let section = grammar::compile(path, &file.model())?;
            let bytes = with_section(&file.model(), SectionKind::Grammar, &section).or_invalid_input(doing)?;
            file = PackedFile::from_bytes(bytes).or_failed(doing)?;
        }
        let (packed, elf) = (folder.join("model.siskin"), folder.join("serial.elf"));
        std::fs::write(&packed, file.bytes()).or_failed(doing)?;
        let tools = BoardTools::new(&dir).or_failed(doing)?;
        tools.build_serial(&packed, &elf).or_failed(doing)?;
        let line = tools.emulate_serial(&elf).and_then(Line::of_emulator).or_failed(doing)?;
        Ok(Device::new(line, PATIENCE))
    }
}
