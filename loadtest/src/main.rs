//! `loadtest`: a load generator for OpenAI-compatible servers. Speaks only HTTP.

use std::process::ExitCode;

use clap::Parser;

/// The command line; the generator itself is not part of this version.
#[derive(Debug, Parser)]
#[command(
    name = "loadtest",
    version,
    about = "A load generator for OpenAI-compatible servers (not part of this version yet)"
)]
struct Cli {}

fn main() -> ExitCode {
    Cli::parse();
    eprintln!(
        "loadtest: this version has no load generator yet. \
         Until then `vllm bench serve` and aiperf work against Weir as they are."
    );
    ExitCode::from(2)
}
