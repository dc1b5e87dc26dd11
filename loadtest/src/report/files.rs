//! Report files: written whole or not at all.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Where the reports of a run go: `directory/name.{json,jsonl,html,txt}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Made when it is not there.
    pub directory: PathBuf,
    /// File name without its extension.
    pub name: String,
}

/// A file that could not be written.
#[derive(Debug)]
pub struct FileFailure {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub cause: io::Error,
}

/// Some reports could not be written. The others were.
#[derive(Debug, thiserror::Error)]
#[error("{}", sentences(.failures))]
pub struct ReportError {
    /// Each file that is missing.
    pub failures: Vec<FileFailure>,
    /// Those that are there.
    pub written: Vec<PathBuf>,
}

impl Destination {
    /// The path of a report by its extension.
    pub fn path(&self, extension: &str) -> PathBuf {
        self.directory.join(format!("{}.{extension}", self.name))
    }

    /// Makes the directory. To be called before a run, so that a directory that cannot be made
    /// is found out before anything is measured.
    ///
    /// # Errors
    ///
    /// When it can neither be found nor made.
    pub fn prepare(&self) -> Result<(), FileFailure> {
        fs::create_dir_all(&self.directory)
            .map_err(|cause| FileFailure { path: self.directory.clone(), cause })
    }
}

impl fmt::Display for FileFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what_to_do = match self.cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some space or choose another place with --result-dir"
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "choose a place that you may write to with --result-dir"
            }
            io::ErrorKind::IsADirectory => {
                "a directory has the report's name: choose another with --result-filename"
            }
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                "a part of the path is no directory: choose another with --result-dir"
            }
            _ => "choose another place with --result-dir",
        };
        write!(f, "could not write {}: {}; {what_to_do}", self.path.display(), self.cause)
    }
}

/// Writes a file by way of `<path>.tmp`, so that `path` is either what it was before or whole.
///
/// # Errors
///
/// With what the file system said; the temporary file is then removed.
pub fn write_whole(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), FileFailure> {
    let temporary = temporary_path(path);
    let written = write_and_sync(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    written.map_err(|cause| {
        // What is left is of no use, and its removal gives back space on a full disk.
        let _ = fs::remove_file(&temporary);
        FileFailure { path: path.to_owned(), cause }
    })
}

fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

fn write_and_sync(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut writer = BufWriter::new(File::create(path)?);
    content(&mut writer)?;
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()
}

fn sentences(failures: &[FileFailure]) -> String {
    failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
