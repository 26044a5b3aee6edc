//! Files and folders that appear whole or not at all.
//!
//! Content goes to a temporary name beside the target, is flushed to the disk and then renamed, so that neither a
//! crash nor a full disk leaves half a file under the name that others read.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::ArtifactError;

/// How the names of unfinished files and folders end.
const TEMPORARY: &str = ".tmp";

/// Writes `bytes` to `path`, replacing what is there. Missing parent folders are made.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), ArtifactError> {
    write_atomic_with(path, |file| file.write_all(bytes)).map_err(|error| error.needing(bytes.len() as u64))
}

/// Writes to `path` what `fill` writes to the file it is given, replacing what is there.
///
/// If `fill` fails, `path` keeps its former content.
pub fn write_atomic_with(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), ArtifactError> {
    let attempt = || -> io::Result<()> {
        let parent = parent_of(path);
        fs::create_dir_all(parent)?;
        let mut temp = tempfile::Builder::new().prefix(&hidden(path, "")).suffix(TEMPORARY).tempfile_in(parent)?;
        fill(temp.as_file_mut())?;
        temp.as_file().sync_all()?;
        let file = temp.persist(path).map_err(|error| error.error)?;
        make_readable(&file)?;
        sync_folder(parent)
    };
    attempt().map_err(ArtifactError::io("write", path))
}

/// Makes the folder `path` with the files that `fill` writes into the folder it is given, replacing what is there.
///
/// A folder that is already there is first moved aside to `.NAME.replaced` and removed at the end; a crash between
/// the two renames leaves it there, and [`recover_folder`] moves it back.
pub fn write_folder_atomic<E: From<ArtifactError>>(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let parent = parent_of(path);
    let io_error = |source| ArtifactError::io("write", path)(source);
    fs::create_dir_all(parent).map_err(io_error)?;
    recover_folder(path)?;
    let temp =
        tempfile::Builder::new().prefix(&hidden(path, "")).suffix(TEMPORARY).tempdir_in(parent).map_err(io_error)?;
    fill(temp.path())?;
    let publish = || -> io::Result<()> {
        make_folder_readable(temp.path())?;
        sync_folder(temp.path())?;
        let aside = aside_of(path);
        if path.exists() {
            fs::rename(path, &aside)?;
        }
        fs::rename(temp.keep(), path)?;
        sync_folder(parent)?;
        if aside.exists() {
            fs::remove_dir_all(&aside)?;
        }
        Ok(())
    };
    publish().map_err(io_error)?;
    Ok(())
}

/// Finishes what a crash inside [`write_folder_atomic`] left: if `path` is gone, its former content comes back.
pub fn recover_folder(path: &Path) -> Result<(), ArtifactError> {
    let aside = aside_of(path);
    if !aside.exists() {
        return Ok(());
    }
    let attempt = || if path.exists() { fs::remove_dir_all(&aside) } else { fs::rename(&aside, path) };
    attempt().map_err(ArtifactError::io("recover", path))
}

/// Removes the temporary files that a killed process left in `folder` while it wrote others; nobody may be writing there.
pub fn remove_leftovers(folder: &Path) -> Result<(), ArtifactError> {
    let is_leftover = |name: &OsString| {
        let name = name.as_encoded_bytes();
        name.starts_with(b".") && name.ends_with(TEMPORARY.as_bytes())
    };
    let attempt = || -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if is_leftover(&entry.file_name()) && entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    attempt().map_err(ArtifactError::io("tidy up", folder))
}

/// Removes the folder `path`, which nobody finds half removed: it first gets a hidden name, `.NAME.removed`, unless it has one.
pub fn remove_folder(path: &Path) -> Result<(), ArtifactError> {
    let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let attempt = || -> io::Result<()> {
        if is_hidden {
            return fs::remove_dir_all(path);
        }
        let aside = parent_of(path).join(hidden(path, ".removed"));
        if aside.exists() {
            fs::remove_dir_all(&aside)?;
        }
        fs::rename(path, &aside)?;
        fs::remove_dir_all(&aside)
    };
    attempt().map_err(ArtifactError::io("remove", path))
}

fn aside_of(path: &Path) -> PathBuf {
    parent_of(path).join(hidden(path, ".replaced"))
}

/// `.NAME` and `suffix`, from the last part of `path`.
fn hidden(path: &Path, suffix: &str) -> OsString {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(suffix);
    name
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes a rename inside `folder` survive a power cut.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Temporary files are private to their owner; a finished one has the usual mode.
#[cfg(unix)]
fn make_readable(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn make_readable(_file: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn make_folder_readable(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_folder_readable(_folder: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_in(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn leftovers_of_a_killed_process_are_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".model.bin.Ab12cd.tmp", ".hidden", "notes.tmp", "model.bin"] {
            fs::write(dir.path().join(name), b"x").unwrap();
        }
        fs::create_dir(dir.path().join(".folder.tmp")).unwrap();
        remove_leftovers(dir.path()).unwrap();
        assert_eq!(names_in(dir.path()), [".folder.tmp", ".hidden", "model.bin", "notes.tmp"]);
    }

    #[test]
    fn a_failed_write_keeps_the_old_file_and_leaves_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/model.bin");
        write_atomic(&path, b"old").unwrap();
        let failed = write_atomic_with(&path, |file| {
            file.write_all(b"half of the new")?;
            Err(io::Error::other("disk full"))
        });
        assert!(failed.unwrap_err().to_string().contains("disk full"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names_in(path.parent().unwrap()), ["model.bin"]);
    }

    #[test]
    fn a_folder_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ckpt");
        let fill = |name: &'static str| move |dir: &Path| write_atomic(&dir.join(name), b"x");
        write_folder_atomic(&path, fill("a")).unwrap();
        write_folder_atomic(&path, fill("b")).unwrap();
        assert_eq!(names_in(&path), ["b"]);
        let failed = write_folder_atomic(&path, |dir| {
            write_atomic(&dir.join("c"), b"x")?;
            Err(ArtifactError::Unrecognized { path: dir.to_owned() })
        });
        assert!(failed.is_err());
        assert_eq!(names_in(&path), ["b"]);
        assert_eq!(names_in(dir.path()), ["ckpt"]);
    }

    #[test]
    fn a_crash_between_the_renames_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ckpt");
        write_folder_atomic(&path, |dir| write_atomic(&dir.join("a"), b"x")).unwrap();
        fs::rename(&path, aside_of(&path)).unwrap();
        recover_folder(&path).unwrap();
        assert_eq!(names_in(&path), ["a"]);
        assert_eq!(names_in(dir.path()), ["ckpt"]);
    }

    #[test]
    fn a_removed_folder_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for (name, rest) in [("ckpt", ".ckpt.removed"), (".ckpt.x.tmp", ".other")] {
            for folder in [name, rest] {
                write_atomic(&dir.path().join(folder).join("a"), b"x").unwrap();
            }
            remove_folder(&dir.path().join(name)).unwrap();
        }
        assert_eq!(names_in(dir.path()), [".other"]);
        assert!(remove_folder(&dir.path().join("none")).unwrap_err().to_string().contains("none"));
    }
}
