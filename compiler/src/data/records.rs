//! Records of named fields: JSONL and CSV files.

use super::text::Lines;
use super::{BadRecords, DataError};
use serde_json::{Map, Value};
use std::fs::File;
use std::path::{Path, PathBuf};

/// One record, and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    path: PathBuf,
    line: u64,
    fields: Map<String, Value>,
}

/// Reads a `.jsonl` file, an object a line with empty lines skipped, or a `.csv` file, whose first line names the fields (RFC 4180).
///
/// # Errors
/// [`DataError::Read`], [`DataError::NotUtf8`], or [`DataError::BadRecord`] with the line.
pub fn read_records(path: &Path) -> Result<Vec<Record>, DataError> {
    RecordStream::open(path)?.collect()
}

/// As [`read_records`], but goes on after what is wrong with a line: it is put with the other `bad` ones.
///
/// # Errors
/// [`DataError::Read`], or [`DataError::UnknownFormat`].
pub fn read_good_records(path: &Path, bad: &mut BadRecords) -> Result<Vec<Record>, DataError> {
    let mut good = Vec::new();
    for record in RecordStream::open(path)? {
        match record {
            Ok(record) => good.push(record),
            Err(error) => bad.push(error)?,
        }
    }
    Ok(good)
}

/// The records of a file, one after another: the file may be larger than memory.
pub(super) struct RecordStream {
    path: PathBuf,
    rows: Rows,
}

enum Rows {
    Jsonl(Lines),
    Csv { names: csv::StringRecord, rows: csv::StringRecordsIntoIter<File> },
}

impl RecordStream {
    /// Opens a file as [`read_records`] does.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let rows = match path.extension().and_then(|extension| extension.to_str()) {
            Some("jsonl" | "ndjson") => Rows::Jsonl(Lines::open(path)?),
            Some("csv") => {
                let file = File::open(path).map_err(|source| DataError::Read { path: path.to_owned(), source })?;
                let mut reader = csv::Reader::from_reader(file);
                let names = reader.headers().map_err(|error| bad_row(path, error))?.clone();
                Rows::Csv { names, rows: reader.into_records() }
            }
            _ => return Err(DataError::UnknownFormat { path: path.to_owned() }),
        };
        Ok(Self { path: path.to_owned(), rows })
    }

    fn read(&mut self) -> Result<Option<Record>, DataError> {
        let path = &self.path;
        match &mut self.rows {
            Rows::Jsonl(lines) => {
                while let Some((text, line)) = lines.next()? {
                    let text = if line == 1 { text.strip_prefix('\u{feff}').unwrap_or(&text) } else { &text };
                    if text.trim().is_empty() {
                        continue;
                    }
                    let fields = serde_json::from_str(text.trim_end()).map_err(|error| {
                        // The parser counts lines from this one on.
                        let (said, place) = (error.to_string(), format!(" at line {} column ", error.line()));
                        let problem = format!("not a JSON object: {}", said.replace(&place, " at column "));
                        DataError::BadRecord { path: path.clone(), line, problem }
                    })?;
                    return Ok(Some(Record { path: path.clone(), line, fields }));
                }
                Ok(None)
            }
            Rows::Csv { names, rows } => {
                let Some(row) = rows.next().transpose().map_err(|error| bad_row(path, error))? else { return Ok(None) };
                let line = row.position().map_or(0, csv::Position::line);
                let fields =
                    names.iter().zip(&row).map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
                Ok(Some(Record { path: path.clone(), line, fields }))
            }
        }
    }
}

impl Iterator for RecordStream {
    type Item = Result<Record, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

fn bad_row(path: &Path, error: csv::Error) -> DataError {
    let path = path.to_owned();
    let line = error.position().map_or(1, csv::Position::line);
    let problem = error.to_string();
    match error.into_kind() {
        csv::ErrorKind::Io(source) => DataError::Read { path, source },
        _ => DataError::BadRecord { path, line, problem },
    }
}

impl Record {
    /// The file that it is in, and the line that it starts in.
    pub fn origin(&self) -> (&Path, u64) {
        (&self.path, self.line)
    }

    /// All fields.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// A field's text; a number or a truth value is spelled as JSON does.
    ///
    /// # Errors
    /// [`DataError::BadRecord`] if there is no such field, or a list or an object in it.
    pub fn text(&self, field: &str) -> Result<String, DataError> {
        let value = self.fields.get(field).ok_or_else(|| self.missing(field))?;
        spelled(value).ok_or_else(|| self.bad(format!("`{field}` is no text")))
    }

    /// A field's list of texts; a text is a list of its words.
    ///
    /// # Errors
    /// [`DataError::BadRecord`] if there is no such field, or an object in it.
    pub fn list(&self, field: &str) -> Result<Vec<String>, DataError> {
        match self.fields.get(field).ok_or_else(|| self.missing(field))? {
            Value::String(text) => Ok(text.split_whitespace().map(str::to_owned).collect()),
            Value::Array(items) => {
                let items: Option<Vec<String>> = items.iter().map(spelled).collect();
                items.ok_or_else(|| self.bad(format!("`{field}` has something in it that is no text")))
            }
            _ => Err(self.bad(format!("`{field}` is no list"))),
        }
    }

    /// The record as a line of JSON.
    pub fn to_json(&self) -> String {
        Value::Object(self.fields.clone()).to_string()
    }

    /// A field as it is.
    pub fn value(&self, field: &str) -> Option<&Value> {
        self.fields.get(field)
    }

    /// The names of the fields, in a row.
    pub fn field_names(&self) -> String {
        let names: Vec<&str> = self.fields.keys().map(String::as_str).collect();
        names.join(", ")
    }

    /// The error that there is no such field.
    pub fn missing(&self, field: &str) -> DataError {
        self.bad(format!("there is no field `{field}`; there are: {}", self.field_names()))
    }

    /// An error about this record.
    pub fn bad(&self, problem: impl Into<String>) -> DataError {
        DataError::BadRecord { path: self.path.clone(), line: self.line, problem: problem.into() }
    }
}

fn spelled(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Vec<Record>, DataError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        read_records(&path)
    }

    #[test]
    fn fields_of_both_formats_are_read() {
        let jsonl =
            read("a.jsonl", "\u{feff}{\"text\": \"a \\\"b\\\"\", \"label\": 3}\n\n{\"text\": [\"x\", 1]}\n").unwrap();
        assert_eq!(
            (jsonl[0].text("text").unwrap().as_str(), jsonl[0].text("label").unwrap().as_str()),
            ("a \"b\"", "3")
        );
        assert_eq!(jsonl[1].list("text").unwrap(), ["x", "1"]);
        let csv = read("a.csv", "\u{feff}text,label\n\"two\nlines, and \"\"quotes\"\"\",good\nb c,bad\n").unwrap();
        assert_eq!(csv[0].text("text").unwrap(), "two\nlines, and \"quotes\"");
        assert_eq!((csv[1].text("label").unwrap().as_str(), csv[1].list("text").unwrap().len()), ("bad", 2));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let error = |name, text| read(name, text).expect_err("a bad file").to_string();
        assert!(error("a.jsonl", "{\"a\": 1}\n{\"a\": \n").contains("line 2"));
        assert!(error("a.jsonl", "{}\n[1]\n").contains("line 2"));
        assert!(error("a.csv", "a,b\n1,2\n3\n").contains("line 3"));
        assert!(error("a.parquet", "").contains(".jsonl"));
        let records = read("a.jsonl", "\n{\"a\": {}, \"b\": 1}").unwrap();
        let missing = records[0].text("c").expect_err("no such field").to_string();
        assert!(missing.contains("line 2") && missing.contains("`c`") && missing.contains("a, b"), "{missing}");
        assert!(records[0].text("a").is_err() && records[0].list("b").is_err());
    }
}
