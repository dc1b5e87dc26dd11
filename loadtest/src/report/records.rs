//! The per-request JSONL: a header line, then a [`RequestRecord`] on each line.

use std::fs::{self, File};
use std::io::{self, BufRead, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files::{Destination, FileFailure};
use crate::plan::{Pacing, Tenant};
use crate::record::RequestRecord;
use crate::summary::Summary;

/// The `format` of the header; the number goes up when a field changes its meaning.
pub const FORMAT: &str = "loadtest-records/1";

/// Lines are on disk this long after their request ended, at the latest when the next one ends.
const FLUSH_EVERY_NS: u64 = 1_000_000_000;

/// First line of the file: what is needed to read the others, all known before the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordsHeader {
    /// [`FORMAT`].
    pub format: String,
    /// As in [`crate::summary::RunFacts`].
    pub name: String,
    /// Without keys.
    pub command: String,
    /// RFC 3339; the zero of all times in the records.
    pub started_at: String,
    /// Server.
    pub base_url: String,
    /// Path under it.
    pub endpoint: String,
    /// `model` of the requests.
    pub model: String,
    /// Of the plan.
    pub seed: u64,
    /// Open or closed loop.
    pub pacing: Pacing,
    /// `tenant` of a record is an index into these.
    pub tenants: Vec<TenantName>,
}

/// What a reader of records needs to know of a tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TenantName {
    /// As in reports.
    pub name: String,
    /// As in reports.
    pub class: Option<String>,
    /// Marked as misbehaving in the plan.
    pub abusive: bool,
}

/// What is wrong with a records file.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("the records could not be read: {0}")]
    Io(#[from] io::Error),
    /// A line is not what it should be.
    #[error("line {line} is no {expected}: {cause}; was the file written by loadtest?")]
    Line {
        /// From 1.
        line: usize,
        /// What should stand there.
        expected: &'static str,
        /// What the parser said.
        cause: serde_json::Error,
    },
    /// It has no line at all.
    #[error("the file is empty: its first line should be a {FORMAT} header")]
    Empty,
    /// It is of another version.
    #[error("the file has the format {0:?}, this loadtest reads {FORMAT:?}")]
    Format(String),
}

/// Records written while a run goes on, so that a killed run leaves what it measured. Lives as
/// `<name>.partial.jsonl` until the whole JSONL is there.
#[derive(Debug)]
pub struct PartialLog {
    path: PathBuf,
    writer: BufWriter<File>,
    flushed_ns: u64,
    failure: Option<FileFailure>,
}

impl RecordsHeader {
    /// The header of a finished run.
    pub fn of(summary: &Summary) -> Self {
        let run = &summary.run;
        let tenants = summary.tenants.iter().map(|group| TenantName {
            name: group.name.clone(),
            class: group.class.clone(),
            abusive: group.abusive,
        });
        Self {
            format: FORMAT.to_owned(),
            name: run.name.clone(),
            command: run.command.clone(),
            started_at: run.started_at.clone(),
            base_url: run.base_url.clone(),
            endpoint: run.endpoint.clone(),
            model: run.model.clone(),
            seed: run.seed,
            pacing: run.pacing,
            tenants: tenants.collect(),
        }
    }
}

impl From<&Tenant> for TenantName {
    fn from(tenant: &Tenant) -> Self {
        Self { name: tenant.name.clone(), class: tenant.class.clone(), abusive: tenant.abusive }
    }
}

impl PartialLog {
    /// Begins the file with its header.
    ///
    /// # Errors
    ///
    /// When it cannot be made; better found out now than after the run.
    pub fn create(destination: &Destination, header: &RecordsHeader) -> Result<Self, FileFailure> {
        destination.prepare()?;
        let path = destination.path("partial.jsonl");
        let begun = File::create(&path).map(BufWriter::new).and_then(|mut writer| {
            write_line(&mut writer, header)?;
            writer.flush()?;
            Ok(writer)
        });
        match begun {
            Ok(writer) => Ok(Self { path, writer, flushed_ns: 0, failure: None }),
            Err(cause) => Err(FileFailure { path, cause }),
        }
    }

    /// Adds a finished request. A failure stops the log but not the run; [`Self::failure`] has it.
    pub fn append(&mut self, record: &RequestRecord) {
        if self.failure.is_some() {
            return;
        }
        let due = record.end_ns.saturating_sub(self.flushed_ns) >= FLUSH_EVERY_NS;
        let mut written = write_line(&mut self.writer, record);
        if due {
            self.flushed_ns = record.end_ns;
            written = written.and_then(|()| self.writer.flush());
        }
        if let Err(cause) = written {
            self.failure = Some(FileFailure { path: self.path.clone(), cause });
        }
    }

    /// Why the log stopped, if it did.
    pub fn failure(&self) -> Option<&FileFailure> {
        self.failure.as_ref()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ends the log: removed when the whole JSONL is there, else kept and its path returned.
    pub fn finish(mut self, whole_is_there: bool) -> Option<PathBuf> {
        let flushed = self.writer.flush();
        if whole_is_there {
            // A file too many is no reason to fail.
            let _ = fs::remove_file(&self.path);
            return None;
        }
        // After a failed flush the lines before it are still worth keeping.
        let _ = flushed;
        Some(self.path.clone())
    }
}

/// Writes the header and all records.
///
/// # Errors
///
/// What the writer says.
pub fn write(
    out: &mut dyn Write,
    header: &RecordsHeader,
    records: &[RequestRecord],
) -> io::Result<()> {
    write_line(&mut *out, header)?;
    records.iter().try_for_each(|record| write_line(&mut *out, record))
}

/// Reads a file of records. A last line without its end, as a killed run leaves it, is dropped.
///
/// # Errors
///
/// When a line is not what it should be; says which.
pub fn read(mut input: impl BufRead) -> Result<(RecordsHeader, Vec<RequestRecord>), ReadError> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Err(ReadError::Empty);
    }
    let header: RecordsHeader = serde_json::from_str(&line).map_err(|cause| ReadError::Line {
        line: 1,
        expected: "header",
        cause,
    })?;
    if header.format != FORMAT {
        return Err(ReadError::Format(header.format));
    }
    let mut records = Vec::new();
    loop {
        line.clear();
        if input.read_line(&mut line)? == 0 {
            return Ok((header, records));
        }
        match serde_json::from_str(&line) {
            Ok(record) => records.push(record),
            Err(_) if !line.ends_with('\n') => return Ok((header, records)),
            Err(cause) => {
                let line = records.len() + 2;
                return Err(ReadError::Line { line, expected: "request record", cause });
            }
        }
    }
}

fn write_line(mut out: impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut out, value)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests;
