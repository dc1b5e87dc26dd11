//! What a run leaves behind: JSON, per-request JSONL, an HTML page, and text.

pub mod comparison;
pub mod figures;
pub mod files;
pub mod html;
pub mod json;
pub mod records;
pub mod sweep;
pub mod text;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;

pub use comparison::{Better, ComparedMetric, Comparison};
pub use files::{Destination, FileFailure, ReportError};
pub use json::{BenchFacts, Metric};
pub use records::{PartialLog, RecordsHeader, TenantName};
pub use sweep::{PointVerdict, Sweep, SweepPoint};

use crate::record::RequestRecord;
use crate::summary::Summary;

/// Files as they are written, and those that could not be.
struct Writing<'a> {
    destination: &'a Destination,
    directory_is_there: bool,
    written: Vec<PathBuf>,
    failures: Vec<FileFailure>,
}

impl<'a> Writing<'a> {
    fn begin(destination: &'a Destination) -> Self {
        let failures: Vec<FileFailure> = destination.prepare().err().into_iter().collect();
        let directory_is_there = failures.is_empty();
        Self { destination, directory_is_there, written: Vec::new(), failures }
    }

    fn write(&mut self, extension: &str, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) {
        if !self.directory_is_there {
            return;
        }
        let path = self.destination.path(extension);
        match files::write_whole(&path, content) {
            Ok(()) => self.written.push(path),
            Err(failure) => self.failures.push(failure),
        }
    }

    fn end(self) -> Result<Vec<PathBuf>, ReportError> {
        if self.failures.is_empty() {
            return Ok(self.written);
        }
        Err(ReportError { failures: self.failures, written: self.written })
    }
}

/// Writes all reports of a run: `<name>.json`, `.jsonl`, `.html`, `.txt`. The text report, which
/// names the others, is to be printed in any case: [`text::text`].
///
/// # Errors
///
/// When a file could not be written; the others are there all the same.
pub fn write_all(
    summary: &Summary,
    records: &[RequestRecord],
    facts: &BenchFacts,
    destination: &Destination,
) -> Result<Vec<PathBuf>, ReportError> {
    let mut writing = Writing::begin(destination);
    // The records first: all else can be computed from them.
    let header = RecordsHeader::of(summary);
    writing.write("jsonl", |out| records::write(out, &header, records));
    writing.write("json", |out| json::write(out, summary, records, facts));
    writing.write("html", |out| out.write_all(html::run_page(summary).as_bytes()));
    let others = writing.written.clone();
    writing.write("txt", |out| out.write_all(text::text(summary, &others).as_bytes()));
    writing.end()
}

/// Writes the reports of a sweep: `<name>.json`, `.html`, `.txt`. The page shows, besides the
/// sweep, the run at the highest good rate when there is one.
///
/// # Errors
///
/// As [`write_all`].
pub fn write_sweep(
    sweep: &Sweep,
    highest: Option<&Summary>,
    destination: &Destination,
) -> Result<Vec<PathBuf>, ReportError> {
    let mut writing = Writing::begin(destination);
    writing.write("json", |out| write_json(out, sweep));
    writing.write("html", |out| out.write_all(html::sweep_page(sweep, highest).as_bytes()));
    writing.write("txt", |out| out.write_all(sweep::text(sweep).as_bytes()));
    writing.end()
}

/// Writes the reports of a comparison: `<name>.json`, `.html`, `.txt`.
///
/// # Errors
///
/// As [`write_all`].
pub fn write_comparison(
    comparison: &Comparison,
    destination: &Destination,
) -> Result<Vec<PathBuf>, ReportError> {
    let mut writing = Writing::begin(destination);
    writing.write("json", |out| write_json(out, comparison));
    writing.write("html", |out| out.write_all(html::comparison_page(comparison).as_bytes()));
    writing.write("txt", |out| out.write_all(comparison::text(comparison).as_bytes()));
    writing.end()
}

fn write_json(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    out.write_all(b"\n")
}
