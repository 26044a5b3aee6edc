//! Opening what the user names: each way a path can be wrong has its own message, and all are exit code 3.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::anyhow;

use crate::failure::Failure;

/// The bytes of a file.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    check_is_file(path)?;
    fs::read(path).map_err(|error| unreadable(path, error))
}

/// The text of a file, which must be UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read_file(path)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::invalid_input(
            format!("read {}", path.display()),
            anyhow!("it is not UTF-8 text from byte {at} on; convert it first, for example with iconv"),
        )
    })
}

/// Checks that something is there, and that it is no folder.
pub(crate) fn check_is_file(path: &Path) -> Result<(), Failure> {
    if metadata(path)?.is_dir() {
        let cause = anyhow!("it is a folder, and a file is wanted");
        return Err(Failure::invalid_input(format!("read {}", path.display()), cause));
    }
    Ok(())
}

/// Checks that something is there: a file or a folder.
pub(crate) fn check_exists(path: &Path) -> Result<(), Failure> {
    metadata(path).map(drop)
}

fn metadata(path: &Path) -> Result<fs::Metadata, Failure> {
    fs::metadata(path).map_err(|error| unreadable(path, error))
}

fn unreadable(path: &Path, error: std::io::Error) -> Failure {
    let doing = format!("read {}", path.display());
    match error.kind() {
        ErrorKind::NotFound => Failure::invalid_input(doing, anyhow!("there is no such file or folder")),
        ErrorKind::PermissionDenied => {
            Failure::invalid_input(doing, anyhow!("you may not read it; check its permissions"))
        }
        _ => Failure::invalid_input(doing, error),
    }
}
