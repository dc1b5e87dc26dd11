//! Wiring: settings to rooms, rooms to a listening server; shutdown order and exit codes.

pub mod keys;
mod ledger;
pub mod log;
mod model;
mod reload;
mod server;
pub mod usage;

use std::sync::Arc;

use anyhow::{Context, Result};

use crate::clock::{Clock, SystemClock};
use crate::config::Config;

pub use server::Server;

/// The engine could not be kept running; a supervisor should start the process again.
pub const EXIT_ENGINE_LOST: u8 = 70;
/// A second signal came while the server was draining.
pub const EXIT_INTERRUPTED: u8 = 130;

/// Serves until a signal (or the engine's end) stops it. Returns the process's exit code.
///
/// # Errors
/// When the server cannot start: the model, the address.
pub fn run(config: Config) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the system gives no threads")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let drain_timeout = config.server.drain_timeout;
    let code = runtime.block_on(async {
        let mut server = Server::start(config, clock).await?;
        let mut signals = Signals::new()?;
        server.announce();
        tokio::select! {
            () = signals.next() => {}
            () = server.drain_asked() => {}
            () = server.engine_lost() => {
                tracing::error!("the engine is lost; the process ends so that it can be restarted");
                server.abort().await;
                return Ok(EXIT_ENGINE_LOST);
            }
        }
        tracing::info!(
            timeout_s = drain_timeout.as_secs_f64(),
            "draining: a second signal ends it"
        );
        tokio::select! {
            () = server.drain(drain_timeout) => Ok(0),
            () = signals.next() => Ok(EXIT_INTERRUPTED),
        }
    });
    // Work on the blocking pool (a prompt being tokenised) must not hold the process back.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    code
}

/// Ctrl-C and SIGTERM.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            terminate: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
                .context("SIGTERM cannot be listened for")?,
        })
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = self.terminate.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// Random bytes of the operating system: the one place where randomness enters the process.
#[allow(clippy::disallowed_methods, reason = "seeds and secrets begin here")]
fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).context("the operating system gives no randomness")?;
    Ok(bytes)
}
