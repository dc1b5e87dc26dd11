//! Log lines: to standard error, for people or machines. Prompts and outputs never enter them.

use std::io::IsTerminal;

use tracing::subscriber::set_global_default;
use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Starts logging for the process. A filter that cannot be read becomes "info", with a warning.
/// Only what is said through `tracing` is written: at its most talkative the tokenizer library
/// spells out each prompt, letter by letter, through the `log` crate.
pub fn init(config: &LogConfig) {
    let (filter, problem) = match EnvFilter::try_new(&config.level) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let colours = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(std::io::stderr);
    // A second call (tests run several servers in one process) keeps the first subscriber.
    let _ = match config.format {
        LogFormat::Text => set_global_default(builder.finish()),
        LogFormat::Json => set_global_default(builder.json().finish()),
    };
    if let Some(error) = problem {
        tracing::warn!(level = config.level, %error, "--log-level is not a filter; using info");
    }
}
