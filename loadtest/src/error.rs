//! What stops a run, each with the exit code that tells scripts.

use std::path::PathBuf;

/// What stops a run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line or a profile asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// A file that was named cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// A line of a trace is not what its format says.
    #[error("{}:{line}: expected {expected}, found {found}", path.display())]
    Trace {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the format has there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Nobody answers at the address.
    #[error("no server at {url}: {cause}. Is it running, and is --base-url right?")]
    Unreachable {
        /// The address.
        url: String,
        /// Why.
        cause: String,
    },
    /// The server refused the request that is sent before a run.
    #[error("{url} refused the request before the run: {status} {code}: {message}{fix}")]
    Refused {
        /// The address.
        url: String,
        /// HTTP status.
        status: u16,
        /// `error.code`.
        code: String,
        /// The server's sentence.
        message: String,
        /// What to do.
        fix: &'static str,
    },
    /// The report could not be written.
    #[error("the report could not be written: {cause}. {kept}")]
    Report {
        /// Why.
        cause: String,
        /// Where the results are.
        kept: String,
    },
    /// The run ended, but its figures may not be used.
    #[error("{0}")]
    Invalid(String),
    /// The figures may be used, but some answers were not what an answer is.
    #[error("{0}")]
    BadAnswers(String),
    /// The machine refuses something that the run needs.
    #[error("{0}")]
    Machine(String),
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Invalid(_) => 1,
            Self::Usage(_) | Self::Unreadable { .. } | Self::Trace { .. } | Self::Machine(_) => 2,
            Self::Unreachable { .. } => 3,
            Self::Refused { .. } => 4,
            Self::Report { .. } => 5,
            Self::BadAnswers(_) => 6,
            Self::Interrupted => 130,
        }
    }
}
