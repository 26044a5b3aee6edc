//! A run's figures as an event file, which TensorBoard and others draw.
//!
//! The file is a sequence of records: the length as 8 bytes, its checksum, a protobuf message, its checksum. Checksums are CRC-32C,
//! rotated and shifted by a constant, as TFRecord files have them. A resumed run adds a file that says from which step on it
//! replaces what earlier files say.

use super::progress::{EvaluationRecord, Event, Progress, StepRecord};
use crc::{CRC_32_ISCSI, Crc};
use prost::Message;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What a reader checks first.
const FILE_VERSION: &str = "brain.Event:2";
/// The state of a session that begins: figures of its step and of later ones are void.
const SESSION_START: i32 = 1;

const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// `tensorflow.Event`, as far as it is used.
#[derive(Clone, PartialEq, Message)]
struct EventMessage {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

/// `tensorflow.Summary.Value`.
#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// `tensorflow.SessionLog`.
#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Writes a run's figures to an event file and hands its events on.
pub struct TensorBoard<'a> {
    folder: PathBuf,
    file: Option<File>,
    problem: Option<(PathBuf, io::Error)>,
    then: &'a mut dyn Progress,
}

impl<'a> TensorBoard<'a> {
    /// Writes in the run folder once the run starts; `then` hears all events too, and a warning if the file cannot be written.
    pub fn new(folder: &Path, then: &'a mut dyn Progress) -> Self {
        Self { folder: folder.to_owned(), file: None, problem: None, then }
    }

    fn start(&mut self, steps_done: u64) {
        let now = seconds_now();
        let path = self.folder.join(format!("events.out.tfevents.{}.siskin", now as u64));
        let version =
            EventMessage { wall_time: now, file_version: Some(FILE_VERSION.to_owned()), ..EventMessage::default() };
        // Figures of the step that was saved are in an earlier file.
        let start = EventMessage {
            wall_time: now,
            step: steps_done as i64 + 1,
            session_log: Some(SessionLog { status: SESSION_START }),
            ..EventMessage::default()
        };
        let opened = OpenOptions::new().create(true).append(true).open(&path).and_then(|mut file| {
            file.write_all(&record(&version))?;
            file.write_all(&record(&start))?;
            Ok(file)
        });
        self.keep(path, opened);
    }

    fn scalars(&mut self, step: u64, figures: &[(&str, f64)]) {
        let Some(mut file) = self.file.take() else { return };
        let written = file.write_all(&record(&scalars(seconds_now(), step, figures)));
        self.keep(self.folder.clone(), written.map(|()| file));
    }

    /// Goes on with the file, or without it from now on.
    fn keep(&mut self, path: PathBuf, file: io::Result<File>) {
        match file {
            Ok(file) => self.file = Some(file),
            Err(error) => self.problem = Some((path, error)),
        }
    }
}

impl Progress for TensorBoard<'_> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Started { steps_done, .. } => self.start(*steps_done),
            Event::Step(record) => {
                let StepRecord { step, loss, gradient_norm, learning_rate, tokens_per_second, .. } = *record;
                let figures = [
                    ("loss/training", loss),
                    ("gradient_norm", gradient_norm),
                    ("learning_rate", learning_rate),
                    ("tokens_per_second", tokens_per_second),
                ];
                self.scalars(step, &figures);
            }
            Event::Evaluated(EvaluationRecord { step, evaluation, .. }) => {
                let mut figures = vec![
                    ("loss/validation", evaluation.validation_loss),
                    ("validation/accuracy", evaluation.validation_accuracy),
                    ("validation/exact_match", evaluation.validation_exact_match),
                ];
                figures.extend(evaluation.validation_bits_per_byte.map(|bits| ("validation/bits_per_byte", bits)));
                self.scalars(*step, &figures);
            }
            _ => {}
        }
        self.then.event(event);
        if let Some((path, error)) = self.problem.take() {
            let warning =
                format!("the run goes on without TensorBoard files: cannot write {}: {error}", path.display());
            self.then.event(&Event::Warning(warning));
        }
    }
}

fn seconds_now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn scalars(wall_time: f64, step: u64, figures: &[(&str, f64)]) -> EventMessage {
    let value = |(tag, value): &(&str, f64)| SummaryValue { tag: (*tag).to_owned(), simple_value: Some(*value as f32) };
    let summary = Some(Summary { value: figures.iter().map(value).collect() });
    EventMessage { wall_time, step: step as i64, summary, ..EventMessage::default() }
}

/// A message as the file has it.
fn record(message: &EventMessage) -> Vec<u8> {
    let data = message.encode_to_vec();
    let len = (data.len() as u64).to_le_bytes();
    [&len[..], &masked_crc(&len).to_le_bytes(), &data, &masked_crc(&data).to_le_bytes()].concat()
}

/// The checksum in the form that records carry.
fn masked_crc(bytes: &[u8]) -> u32 {
    CRC32C.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn records_are_those_that_tensorboard_writes() {
        // As `tensorboard.summary.writer.record_writer.RecordWriter` of TensorBoard 2.21.0 writes the same events.
        let file_version = Some(FILE_VERSION.to_owned());
        let version = EventMessage { wall_time: 1.5, file_version, ..EventMessage::default() };
        let session_log = Some(SessionLog { status: SESSION_START });
        let start = EventMessage { wall_time: 1.5, step: 21, session_log, ..EventMessage::default() };
        let cases = [
            (version, "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c"),
            (start, "0f000000000000006d532b0909000000000000f83f10153a020801768d7cfc"),
            (
                scalars(1.5, 20, &[("loss/training", 2.5), ("learning_rate", 0.0)]),
                "39000000000000008b0737f109000000000000f83f10142a2c0a140a0d6c6f73732f747261696e696e6715000020400a140a0d6c6561\
                 726e696e675f7261746515000000002a253f2b",
            ),
        ];
        for (message, expected) in cases {
            assert_eq!(hex(&record(&message)), expected, "{message:?}");
        }
    }

    /// Keeps what it hears.
    #[derive(Default)]
    struct Heard(Vec<Event>);

    impl Progress for Heard {
        fn event(&mut self, event: &Event) {
            self.0.push(event.clone());
        }
    }

    fn started() -> Event {
        let (n_params, n_train_tokens, n_validation_targets) = (1, 1, 1);
        Event::Started { n_params, n_train_tokens, n_validation_targets, baselines: None, steps_done: 0, steps: 9 }
    }

    fn step() -> Event {
        Event::Step(StepRecord {
            step: 4,
            steps: 9,
            n_tokens: 10,
            loss: 2.5,
            gradient_norm: 1.0,
            learning_rate: 0.1,
            tokens_per_second: 100.0,
            seconds_left: 1.0,
        })
    }

    #[test]
    fn each_line_of_a_run_becomes_a_record_and_is_handed_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut heard = Heard::default();
        let mut board = TensorBoard::new(dir.path(), &mut heard);
        [started(), step(), step()].iter().for_each(|event| board.event(event));
        assert_eq!(heard.0, [started(), step(), step()]);
        let file = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        let (mut bytes, mut n_records) = (&std::fs::read(file).unwrap()[..], 0);
        while let Some((len, rest)) = bytes.split_first_chunk::<8>() {
            let message = EventMessage::decode(&rest[4..4 + u64::from_le_bytes(*len) as usize]).unwrap();
            assert_eq!(message.summary.map_or(0, |summary| summary.value.len()), if n_records < 2 { 0 } else { 4 });
            (bytes, n_records) = (&rest[8 + u64::from_le_bytes(*len) as usize..], n_records + 1);
        }
        assert_eq!(n_records, 4);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_a_single_warning() {
        let mut heard = Heard::default();
        let mut board = TensorBoard::new(Path::new("/nowhere/at/all"), &mut heard);
        [started(), step(), step()].iter().for_each(|event| board.event(event));
        let is_warning = |event: &&Event| matches!(event, Event::Warning(text) if text.contains("/nowhere/at/all"));
        assert_eq!((heard.0.len(), heard.0.iter().filter(is_warning).count()), (4, 1));
    }
}
