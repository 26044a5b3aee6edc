//! All that is wrong with the records of a run, told at once.

use super::DataError;
use std::fmt;
use std::path::Path;

/// Most errors that are told one by one.
const N_TOLD: usize = 20;

/// What is wrong with records: the first errors in the order of files and lines, and the number of all.
#[derive(Debug, Default)]
pub struct BadRecords {
    errors: Vec<DataError>,
}

impl BadRecords {
    /// Takes in an error about a record.
    ///
    /// # Errors
    /// The error itself, if it is about more than one record.
    pub fn push(&mut self, error: DataError) -> Result<(), DataError> {
        match error {
            DataError::BadRecord { .. } | DataError::NotUtf8 { .. } => self.errors.push(error),
            other => return Err(other),
        }
        Ok(())
    }

    /// The value of a result that holds; an error is taken in.
    ///
    /// # Errors
    /// As [`BadRecords::push`].
    pub fn keep<T>(&mut self, result: Result<T, DataError>) -> Result<Option<T>, DataError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) => self.push(error).map(|()| None),
        }
    }

    /// Ends if anything was wrong so far.
    ///
    /// # Errors
    /// [`DataError::BadRecords`].
    pub fn check(&mut self) -> Result<(), DataError> {
        if self.errors.is_empty() {
            return Ok(());
        }
        let mut errors = std::mem::take(&mut self.errors);
        errors.sort_by(|a, b| place(a).cmp(&place(b)));
        Err(DataError::BadRecords(Self { errors }))
    }
}

/// The file and the line that an error is about.
fn place(error: &DataError) -> (&Path, u64) {
    match error {
        DataError::BadRecord { path, line, .. } | DataError::NotUtf8 { path, line, .. } => (path, *line),
        _ => (Path::new(""), 0),
    }
}

/// A line for each of the first errors, and how many there are more.
impl fmt::Display for BadRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.errors.len();
        write!(f, "{n} {} cannot be trained on:", if n == 1 { "record" } else { "records" })?;
        for error in self.errors.iter().take(N_TOLD) {
            write!(f, "\n  {error}")?;
        }
        match n.saturating_sub(N_TOLD) {
            0 => Ok(()),
            n_more => write!(f, "\n  and {n_more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(line: u64) -> DataError {
        DataError::BadRecord { path: "a.jsonl".into(), line, problem: "odd".into() }
    }

    #[test]
    fn the_first_are_told_in_order_and_the_others_counted() {
        let mut records = BadRecords::default();
        assert!(records.check().is_ok());
        for line in (1..=23).rev() {
            records.push(bad(line)).unwrap();
        }
        let told = records.check().expect_err("bad records").to_string();
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!((lines[0], lines[1]), ("23 records cannot be trained on:", "  a.jsonl, line 1: odd"));
        assert_eq!((lines.len(), lines[20], lines[21]), (22, "  a.jsonl, line 20: odd", "  and 3 more"));
        records.push(bad(2)).unwrap();
        assert_eq!(records.check().unwrap_err().to_string(), "1 record cannot be trained on:\n  a.jsonl, line 2: odd");
        let other = DataError::UnknownFormat { path: "a.bin".into() };
        assert!(records.push(other).is_err(), "no record's error");
    }
}
