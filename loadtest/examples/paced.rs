//! The paced server of the tests as a program: known times, known errors, and the truth about
//! what was written at `/truth` and `/truth/summary`.
//!
//! `cargo run --release -p loadtest --example paced -- --port 9000 --ttft-ms 30 --gap-ms 4`
#![allow(dead_code, unreachable_pub, unused_imports, reason = "the module serves the tests first")]
#![allow(clippy::print_stdout, reason = "scripts wait for the line that says where it listens")]

#[path = "../tests/paced/mod.rs"]
mod paced;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;

/// An OpenAI-compatible server that answers on a timetable.
#[derive(Debug, Parser)]
#[command(name = "paced")]
struct Cli {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: std::net::IpAddr,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 9000)]
    port: u16,
    #[command(flatten)]
    settings: paced::Settings,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    paced::runtime().block_on(async {
        let wanted = SocketAddr::new(cli.host, cli.port);
        let listener =
            paced::listen(wanted).with_context(|| format!("cannot listen on {wanted}"))?;
        println!("paced: listening on http://{}", listener.local_addr()?);
        paced::serve(listener, Arc::new(paced::Shared::new(cli.settings))).await;
        Ok(())
    })
}
