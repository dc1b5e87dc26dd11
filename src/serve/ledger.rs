//! The ledger of token budgets: where it lies, and its thread.

use std::sync::Arc;

use anyhow::{Context, Result};

use crate::clock::Clock;
use crate::config::ServerConfig;
use crate::gate::ledger::{Committer, FileStorage, Ledger};
use crate::metrics::Metrics;

/// Opens the ledger that the settings ask for, and starts to make its entries durable. Without a
/// folder budgets live in memory, which a warning says when there are any.
pub(super) fn open(
    config: &ServerConfig,
    clock: &Arc<dyn Clock>,
    metrics: &Arc<Metrics>,
) -> Result<(Arc<Ledger>, Option<Committer>)> {
    let Some(folder) = &config.ledger_dir else {
        if config.tenancy.has_budget() {
            tracing::warn!(
                "token budgets live in memory and begin anew at each start; name a folder for \
                 their ledger with --state-dir"
            );
        }
        return Ok((Arc::new(Ledger::in_memory(config.ledger)), None));
    };
    let place = || format!("the ledger of token budgets in {} (--state-dir)", folder.display());
    let storage = FileStorage::open(folder).with_context(place)?;
    let (ledger, found) =
        Ledger::open(Box::new(storage), config.ledger, clock.unix_s()).with_context(place)?;
    tracing::info!(
        folder = %folder.display(),
        entries = found.entries,
        torn_bytes = found.torn_bytes,
        settled_holds = found.settled_holds,
        "the ledger of token budgets is open"
    );
    let ledger = Arc::new(ledger);
    let metrics = Arc::clone(metrics);
    let observer = Box::new(move |_: &_, elapsed| metrics.ledger_commit(elapsed));
    let committer = Committer::start(Arc::clone(&ledger), Arc::clone(clock), observer)
        .context("the system gives no thread for the ledger")?;
    Ok((ledger, Some(committer)))
}
