//! Documents of a corpus: a text file, records, or a folder of both.

use super::records::RecordStream;
use super::text::Lines;
use super::{DataError, Record, read_text};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a document came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub path: Arc<Path>,
    /// The line that it starts in, from 1 on.
    pub line: u64,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.path.display(), self.line)
    }
}

/// One text that is read as a whole, with what is to be said about it, if anything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The text; for a pair, its source.
    pub text: String,
    /// What it is, for a classifier.
    pub label: Option<String>,
    /// What is to be said in answer, for a pair.
    pub target: Option<String>,
    /// Where it came from.
    pub origin: Origin,
}

impl Document {
    /// Bytes of its texts.
    pub fn n_bytes(&self) -> usize {
        self.text.len() + self.target.as_ref().map_or(0, String::len)
    }
}

/// What parts the documents of a text file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Separation {
    /// Nothing: a file is a document, byte for byte.
    #[default]
    Files,
    /// One blank line or more.
    BlankLines,
    /// A line that says this and nothing else, such as `<|endoftext|>`.
    Line(String),
}

/// The fields of a record that make a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentFields {
    /// The text.
    pub text: String,
    /// The label, where there are labels.
    pub label: Option<String>,
    /// The target, where there are pairs.
    pub target: Option<String>,
}

impl Default for DocumentFields {
    fn default() -> Self {
        Self { text: "text".into(), label: None, target: None }
    }
}

/// How a path's files become documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DocumentReading {
    /// What parts the documents of a text file.
    pub separation: Separation,
    /// The fields of records.
    pub fields: DocumentFields,
}

/// Reads the documents at `path`, in order: of a file, or of all files of a folder and the folders in it, by name.
///
/// A `.jsonl`, `.ndjson` or `.csv` file has records, any other is a text. Where texts are parted, the blank lines around a document
/// are no part of it. Documents of white space alone are left out, and so are files and folders of a folder whose names start with
/// a dot.
///
/// # Errors
/// [`DataError`], naming the file and the line: it cannot be read, a record lacks a field, or there is no document at all.
pub fn read_documents(path: &Path, reading: &DocumentReading) -> Result<Vec<Document>, DataError> {
    let documents: Vec<Document> = DocumentStream::open(path, reading)?.collect::<Result<_, _>>()?;
    match documents.is_empty() {
        true => Err(DataError::Empty { path: path.to_owned() }),
        false => Ok(documents),
    }
}

/// The documents of [`read_documents`], one after another: of a corpus that may be larger than memory, as long as each document
/// fits. It ends at the first error.
pub struct DocumentStream {
    files: std::vec::IntoIter<PathBuf>,
    reading: DocumentReading,
    open: Option<(Arc<Path>, OpenFile)>,
}

enum OpenFile {
    Records(RecordStream),
    Lines(Lines),
    Whole(String),
    AtEnd,
}

impl DocumentStream {
    /// Opens the file or folder at `path`.
    ///
    /// # Errors
    /// As [`data_files`].
    pub fn open(path: &Path, reading: &DocumentReading) -> Result<Self, DataError> {
        Ok(Self { files: data_files(path)?.into_iter(), reading: reading.clone(), open: None })
    }

    fn read(&mut self) -> Result<Option<Document>, DataError> {
        loop {
            let (path, file) = match &mut self.open {
                Some(open) => open,
                empty => {
                    let Some(path) = self.files.next() else { return Ok(None) };
                    let file = if has_records(&path) {
                        OpenFile::Records(RecordStream::open(&path)?)
                    } else if self.reading.separation == Separation::Files {
                        OpenFile::Whole(read_text(&path)?)
                    } else {
                        OpenFile::Lines(Lines::open(&path)?)
                    };
                    empty.insert((path.into(), file))
                }
            };
            let plain = |(text, line): (String, u64)| Document {
                text,
                label: None,
                target: None,
                origin: Origin { path: path.clone(), line },
            };
            let document = match file {
                OpenFile::Records(records) => {
                    let record = records.next().transpose()?;
                    record.map(|record| of_record(&record, path, &self.reading.fields)).transpose()?
                }
                OpenFile::Lines(lines) => next_part(lines, &self.reading.separation)?.map(plain),
                OpenFile::Whole(text) => {
                    let text = std::mem::take(text);
                    *file = OpenFile::AtEnd;
                    Some(plain((text, 1)))
                }
                OpenFile::AtEnd => None,
            };
            match document {
                Some(document) if document.text.trim().is_empty() => {}
                Some(document) => return Ok(Some(document)),
                None => self.open = None,
            }
        }
    }
}

impl Iterator for DocumentStream {
    type Item = Result<Document, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.read();
        if next.is_err() {
            (self.files, self.open) = (Vec::new().into_iter(), None);
        }
        next.transpose()
    }
}

/// The file at `path`, or all files of the folder there and of the folders in it, sorted by their names; hidden ones are left out.
///
/// # Errors
/// [`DataError::Read`], also for a link that leads back to a folder it lies in.
pub fn data_files(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    walk(path, &mut Vec::new(), &mut files).map_err(|(path, source)| DataError::Read { path, source }).map(|()| files)
}

/// `above` are the folders that `path` lies in.
fn walk(path: &Path, above: &mut Vec<PathBuf>, files: &mut Vec<PathBuf>) -> Result<(), (PathBuf, std::io::Error)> {
    let at = |source| (path.to_owned(), source);
    if !fs::metadata(path).map_err(at)?.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let real = fs::canonicalize(path).map_err(at)?;
    if above.contains(&real) {
        return Err(at(std::io::Error::other("the link leads back to a folder that it lies in: remove it")));
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(at)? {
        names.push(entry.map_err(at)?.file_name());
    }
    names.sort_unstable();
    above.push(real);
    for name in names.iter().filter(|name| !name.as_encoded_bytes().starts_with(b".")) {
        walk(&path.join(name), above, files)?;
    }
    above.pop();
    Ok(())
}

/// Whether a file's name says that it holds records.
pub fn has_records(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jsonl" || extension == "ndjson" || extension == "csv")
}

fn of_record(record: &Record, file: &Arc<Path>, fields: &DocumentFields) -> Result<Document, DataError> {
    let optional = |field: &Option<String>| field.as_ref().map(|field| record.text(field)).transpose();
    Ok(Document {
        text: record.text(&fields.text)?,
        label: optional(&fields.label)?,
        target: optional(&fields.target)?,
        origin: Origin { path: file.clone(), line: record.origin().1 },
    })
}

/// The next part of a text that is not blank, and the line that it starts in.
fn next_part(lines: &mut Lines, separation: &Separation) -> Result<Option<(String, u64)>, DataError> {
    let separates = |line: &str| match separation {
        Separation::Files => false,
        Separation::BlankLines => line.trim().is_empty(),
        Separation::Line(separator) => line.trim() == separator,
    };
    // Blank lines before a part do not belong to it.
    let (mut part, mut first_line) = (String::new(), 0);
    while let Some((line, number)) = lines.next()? {
        match (separates(&line), part.is_empty()) {
            (true, true) => {}
            (true, false) => break,
            (false, true) if line.trim().is_empty() => {}
            (false, true) => (part, first_line) = (line, number),
            (false, false) => part += &line,
        }
    }
    part.truncate(part.trim_end().len());
    Ok((!part.is_empty()).then_some((part, first_line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn texts(path: &Path, separation: Separation) -> Vec<(u64, String)> {
        let reading = DocumentReading { separation, ..DocumentReading::default() };
        read_documents(path, &reading)
            .unwrap()
            .into_iter()
            .map(|document| (document.origin.line, document.text))
            .collect()
    }

    fn owned(texts: &[(u64, &str)]) -> Vec<(u64, String)> {
        texts.iter().map(|(line, text)| (*line, (*text).to_owned())).collect()
    }

    #[test]
    fn a_text_is_parted_at_lines_or_not_at_all() {
        let text = "\n  one\n\nmore \n<|end|>\n\n<|end|>\r\ntwo <|end|>\n\n";
        let dir = folder(&[("a.txt", text)]);
        let path = dir.path().join("a.txt");
        assert_eq!(texts(&path, Separation::Files), owned(&[(1, text)]));
        let parted = texts(&path, Separation::Line("<|end|>".into()));
        assert_eq!(parted, owned(&[(2, "  one\n\nmore"), (8, "two <|end|>")]));
        let parted = texts(&path, Separation::BlankLines);
        assert_eq!(parted, owned(&[(2, "  one"), (4, "more \n<|end|>"), (7, "<|end|>\r\ntwo <|end|>")]));
    }

    #[test]
    fn a_folder_is_read_by_name_without_hidden_files() {
        let dir = folder(&[
            ("b.txt", "last"),
            ("a/z.jsonl", "{\"text\": \"second\"}\n\n{\"text\": \"third\"}\n{\"text\": \" \"}"),
            ("a/c.csv", "id,text\n1,\"first,\nof all\"\n"),
            (".hidden.txt", "no"),
            (".git/x.txt", "no"),
            ("empty.md", "\n"),
        ]);
        let read = texts(dir.path(), Separation::Files);
        assert_eq!(read, owned(&[(2, "first,\nof all"), (1, "second"), (3, "third"), (1, "last")]));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_a_circle_is_an_error() {
        let dir = folder(&[("a/b.txt", "text")]);
        std::os::unix::fs::symlink(dir.path(), dir.path().join("a/loop")).unwrap();
        let error = read_documents(dir.path(), &DocumentReading::default()).expect_err("a circle").to_string();
        assert!(error.contains("a/loop") && error.contains("leads back"), "{error}");
    }

    #[test]
    fn records_give_pairs_and_labels() {
        let dir = folder(&[("a.jsonl", "{\"source\": \"ab\", \"target\": \"ba\", \"kind\": 7}")]);
        let fields =
            DocumentFields { text: "source".into(), label: Some("kind".into()), target: Some("target".into()) };
        let reading = DocumentReading { fields, ..DocumentReading::default() };
        let document = read_documents(dir.path(), &reading).unwrap().remove(0);
        assert_eq!((document.label.as_deref(), document.target.as_deref()), (Some("7"), Some("ba")));
        assert_eq!((document.text.as_str(), document.n_bytes()), ("ab", 4));
        assert!(document.origin.to_string().ends_with("a.jsonl, line 1"), "{}", document.origin);
    }

    #[test]
    fn what_is_wrong_is_said_with_file_and_line() {
        let error = |name: &str, bytes: &[u8]| {
            let dir = folder(&[("fine.txt", "fine")]);
            fs::write(dir.path().join(name), bytes).unwrap();
            read_documents(dir.path(), &DocumentReading::default()).expect_err("bad data").to_string()
        };
        for (name, bytes, said) in [
            (
                "a.jsonl",
                &b"{\"text\": \"x\"}\n{\"body\": 1}"[..],
                "a.jsonl, line 2: there is no field `text`; there are: body",
            ),
            ("a.jsonl", b"\n{\"text\": \"x", "a.jsonl, line 2: not a JSON object"),
            ("a.csv", b"text\na\n\"b\",c\n", "a.csv, line 3: "),
            ("a.txt", b"one\ntwo\xe9\n", "a.txt, line 2: the byte at offset 7"),
        ] {
            let error = error(name, bytes);
            assert!(error.contains(said), "{error}");
        }
        let dir = folder(&[("a.txt", " \n")]);
        let said = |path: &Path| read_documents(path, &DocumentReading::default()).expect_err("nothing").to_string();
        assert!(said(dir.path()).contains("no text in it"));
        assert!(said(&dir.path().join("none")).contains("none"));
    }
}
