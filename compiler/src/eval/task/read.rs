//! Questions from files of records, every one of which is checked before the first is asked.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Expected, Question};
use crate::data::{DataError, Record, read_records};

/// Problems that are told one by one; of more only the number is.
const N_TOLD: usize = 20;

/// Why a file of questions cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuestionsError {
    /// The file cannot be read, or a line of it is no record.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Records are no questions. Says which, line by line.
    #[error("{}", told(path, problems))]
    Bad {
        /// The file.
        path: PathBuf,
        /// Each with its line.
        problems: Vec<DataError>,
    },
    /// There is no record in it.
    #[error("{} has no record in it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

fn told(path: &Path, problems: &[DataError]) -> String {
    let mut lines = vec![format!("{} has {} records that cannot be used", path.display(), problems.len())];
    lines.extend(problems.iter().take(N_TOLD).map(ToString::to_string));
    if problems.len() > N_TOLD {
        lines.push(format!("and {} more", problems.len() - N_TOLD));
    }
    lines.join("\n")
}

/// Reads questions from a `.jsonl` or `.csv` file. The fields say what kind they are:
///
/// | field | what is expected |
/// | --- | --- |
/// | `choices`, `answer` | a list of texts, and the index of the right one or its text |
/// | `completion`, or `references` | a text, or a list of texts one of which is as good as another |
/// | `label` | a classifier's label |
///
/// All questions of a file are of one kind. An `id`, where there is one, occurs once.
///
/// # Errors
/// [`QuestionsError`], which names every bad record with its line.
pub fn read_questions(path: &Path) -> Result<Vec<Question>, QuestionsError> {
    let records = read_records(path)?;
    let (mut questions, mut problems) = (Vec::with_capacity(records.len()), Vec::new());
    let (mut lines_of_ids, mut kind) = (HashMap::new(), None);
    for record in &records {
        let question = question(record).and_then(|question| {
            let line = record.origin().1;
            let own = std::mem::discriminant(&question.expected);
            if *kind.get_or_insert(own) != own {
                return Err(record.bad("it is of another kind than the questions before it: part the file by kind"));
            }
            match lines_of_ids.insert(question.id.clone(), line) {
                Some(first) => Err(record.bad(format!("the id {:?} is that of line {first} too", question.id))),
                None => Ok(question),
            }
        });
        match question {
            Ok(question) => questions.push(question),
            Err(problem) => problems.push(problem),
        }
    }
    match (problems.is_empty(), questions.is_empty()) {
        (false, _) => Err(QuestionsError::Bad { path: path.to_owned(), problems }),
        (true, true) => Err(QuestionsError::Empty { path: path.to_owned() }),
        (true, false) => Ok(questions),
    }
}

fn id(record: &Record) -> Result<String, DataError> {
    match record.fields().contains_key("id") {
        true => record.text("id"),
        false => Ok(record.origin().1.to_string()),
    }
}

fn question(record: &Record) -> Result<Question, DataError> {
    let fields = record.fields();
    let expected = if fields.contains_key("choices") {
        choice(record)?
    } else if fields.contains_key("references") {
        let references = texts(record, fields, "references")?;
        if references.is_empty() {
            return Err(record.bad("`references` is empty: it wants a text at least"));
        }
        Expected::Text(references)
    } else if fields.contains_key("completion") {
        let completion = record.text("completion")?;
        if completion.is_empty() {
            return Err(record.bad("`completion` is empty: there is nothing to answer"));
        }
        Expected::Text(vec![completion])
    } else if fields.contains_key("label") {
        Expected::Label(record.text("label")?)
    } else {
        return Err(record.bad("it has none of the fields `completion`, `references`, `choices` and `label`"));
    };
    Ok(Question { id: id(record)?, fields: fields.clone(), expected })
}

fn choice(record: &Record) -> Result<Expected, DataError> {
    let choices = texts(record, record.fields(), "choices")?;
    if choices.len() < 2 {
        return Err(record.bad("`choices` wants two texts at least"));
    }
    if choices.iter().any(String::is_empty) {
        return Err(record.bad("one of its `choices` is empty"));
    }
    let answer = match record.fields().get("answer") {
        Some(Value::Number(idx)) => idx.as_u64().map(|idx| idx as usize).filter(|&idx| idx < choices.len()),
        Some(Value::String(text)) => choices.iter().position(|choice| choice == text),
        _ => None,
    };
    let n_choices = choices.len();
    let wanted = || record.bad(format!("`answer` is neither an index below {n_choices} nor one of the choices' texts"));
    Ok(Expected::Choice { answer: answer.ok_or_else(wanted)?, choices })
}

/// A list of texts, each as it is.
fn texts(record: &Record, fields: &Map<String, Value>, field: &str) -> Result<Vec<String>, DataError> {
    match fields.get(field) {
        Some(Value::Array(_)) => record.list(field),
        _ => Err(record.bad(format!("`{field}` is no list"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Question>, QuestionsError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("questions.jsonl");
        std::fs::write(&path, text).unwrap();
        read_questions(&path)
    }

    #[test]
    fn each_kind_is_read() {
        let texts = read(
            "{\"prompt\": \"a\", \"completion\": \" b\"}\n\n{\"id\": 7, \"prompt\": \"c\", \"completion\": \"d\"}",
        );
        let texts = texts.unwrap();
        assert_eq!((texts[0].id.as_str(), texts[1].id.as_str()), ("1", "7"));
        assert_eq!(texts[0].expected, Expected::Text(vec![" b".into()]));
        let choices =
            read("{\"choices\": [\"x\", \"y z\"], \"answer\": \"y z\"}\n{\"choices\": [\"x\", \"y\"], \"answer\": 0}");
        let choices = choices.unwrap();
        assert_eq!((choices[0].expected.text(), choices[1].expected.text()), ("y z", "x"));
        assert_eq!(read("{\"text\": \"a\", \"label\": 3}").unwrap()[0].expected, Expected::Label("3".into()));
        let references = read("{\"references\": [\"one\", \"two words\"]}").unwrap();
        assert_eq!(references[0].expected, Expected::Text(vec!["one".into(), "two words".into()]));
    }

    #[test]
    fn every_bad_line_is_named() {
        let text = [
            r#"{"prompt": "a", "completion": "b"}"#,
            r#"{"prompt": "a"}"#,
            r#"{"prompt": "a", "completion": ""}"#,
            r#"{"choices": ["x"], "answer": 0}"#,
            r#"{"choices": ["x", "y"], "answer": 2}"#,
            r#"{"choices": "x y", "answer": 0}"#,
            r#"{"choices": ["x", ""], "answer": 0}"#,
            r#"{"references": []}"#,
            r#"{"completion": {}}"#,
            r#"{"id": "1", "completion": "a"}"#,
            r#"{"id": "k", "label": "a"}"#,
        ];
        let error = read(&text.join("\n")).expect_err("bad records").to_string();
        for line in 2..=11 {
            assert!(error.contains(&format!("line {line}:")), "{line}: {error}");
        }
        assert!(error.contains("10 records") && error.contains("that of line 1"), "{error}");
        let many = (0..30).map(|_| "{}\n").collect::<String>();
        assert!(read(&many).expect_err("bad records").to_string().ends_with("and 10 more"));
        let mixed = "{\"completion\": \"a\"}\n{\"label\": \"b\"}\n{\"completion\": \"c\"}\n{\"label\": \"d\"}";
        let error = read(mixed).expect_err("two kinds").to_string();
        assert!(error.contains("line 2") && error.contains("line 4") && error.contains("2 records"), "{error}");
        assert!(matches!(read("\n"), Err(QuestionsError::Empty { .. })));
        assert!(read("{\"completion\": ").expect_err("no JSON").to_string().contains("line 1"));
    }
}
