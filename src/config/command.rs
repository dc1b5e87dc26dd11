//! Commands beside `serve`: `weir keys …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::span::Span;

/// Arguments of `weir keys`.
#[derive(Clone, Debug, Args)]
pub struct KeysArgs {
    /// Settings file of the server that the keys are for: its tenants are known, and its state-dir
    #[arg(long, value_name = "FILE", env = "WEIR_CONFIG", global = true)]
    pub config: Option<PathBuf>,
    /// Folder of keys and ledger [default: $XDG_STATE_HOME/weir or ~/.local/state/weir]
    #[arg(long, value_name = "DIR", env = "WEIR_STATE_DIR", global = true)]
    pub state_dir: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub action: KeysAction,
}

/// What to do with keys. Running servers notice within half a second.
#[derive(Clone, Debug, Subcommand)]
pub enum KeysAction {
    /// Make a key. It is shown once, alone on standard output
    Create {
        /// Whose it is: a tenant of the settings file, or "default"
        #[arg(long, value_name = "NAME")]
        tenant: String,
        /// What it may be used for: inference, models:read, metrics:read, usage:read, admin:read,
        /// admin:write
        #[arg(
            long = "scope",
            value_name = "SCOPE",
            value_delimiter = ',',
            default_value = "inference,models:read,usage:read"
        )]
        scopes: Vec<String>,
        /// When it ends, e.g. 90d; without it never (admin scopes need it)
        #[arg(long, value_name = "SPAN")]
        expires: Option<Span>,
        /// What people call it
        #[arg(long, value_name = "TEXT")]
        name: Option<String>,
    },
    /// Show keys, without their secrets
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a key in the place of another one, which goes on for a while
    Rotate {
        /// The old key's id
        id: String,
        /// How long the old key goes on
        #[arg(long, value_name = "SPAN", default_value = "24h")]
        overlap: Span,
    },
    /// End a key at once and for good
    Revoke {
        /// Its id
        id: String,
    },
    /// Set when a key ends
    #[command(group(clap::ArgGroup::new("when").required(true).args(["at", "in"])))]
    Expire {
        /// Its id
        id: String,
        /// At this time, e.g. 2027-01-31T18:00:00Z
        #[arg(long, value_name = "TIME", value_parser = unix_s)]
        at: Option<u64>,
        /// After this time, e.g. 2h
        #[arg(long = "in", value_name = "SPAN", id = "in")]
        after: Option<Span>,
    },
}

/// Arguments of `weir usage`.
#[derive(Clone, Debug, Args)]
pub struct UsageArgs {
    /// Settings file of the server whose ledger is read, for its state-dir
    #[arg(long, value_name = "FILE", env = "WEIR_CONFIG")]
    pub config: Option<PathBuf>,
    /// Folder of keys and ledger [default: $XDG_STATE_HOME/weir or ~/.local/state/weir]
    #[arg(long, value_name = "DIR", env = "WEIR_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Of this tenant alone
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// From this day (UTC) on, e.g. 2026-11-01; 92 days with use are kept
    #[arg(long, value_name = "DATE", value_parser = unix_day)]
    pub since: Option<u32>,
    /// As CSV
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// As JSON, with the present hour, day and month
    #[arg(long)]
    pub json: bool,
}

/// How usage is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageFormat {
    /// For people.
    Table,
    /// For spreadsheets (RFC 4180).
    Csv,
    /// For programs.
    Json,
}

impl UsageArgs {
    /// As the flags say.
    pub(super) fn format(&self) -> UsageFormat {
        match (self.csv, self.json) {
            (true, _) => UsageFormat::Csv,
            (_, true) => UsageFormat::Json,
            _ => UsageFormat::Table,
        }
    }
}

/// Days since 1970 of a date.
fn unix_day(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is not a date such as 2026-11-01");
    let date = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").map_err(|_| wrong())?;
    let days = date.signed_duration_since(chrono::NaiveDate::default()).num_days();
    u32::try_from(days).map_err(|_| wrong())
}

/// Seconds since 1970 of a time in RFC 3339's form.
fn unix_s(text: &str) -> Result<u64, String> {
    let time = chrono::DateTime::parse_from_rfc3339(text).ok();
    let seconds = time.and_then(|time| u64::try_from(time.timestamp()).ok());
    seconds.ok_or_else(|| format!("{text:?} is not a time such as 2027-01-31T18:00:00Z"))
}
