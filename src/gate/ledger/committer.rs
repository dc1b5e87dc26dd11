//! The thread that makes the ledger's entries durable, in groups.

use std::io;
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Committed, Ledger};
use crate::clock::Clock;

/// Told about each commit and how long it took.
pub type Observer = Box<dyn FnMut(&Committed, Duration) + Send>;

/// The running thread.
#[derive(Debug)]
pub struct Committer {
    ledger: Arc<Ledger>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    /// Starts it.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        ledger: Arc<Ledger>,
        clock: Arc<dyn Clock>,
        mut observer: Observer,
    ) -> io::Result<Self> {
        let worker = Arc::clone(&ledger);
        let work = move || {
            while worker.wait_for_entries() {
                let began = clock.now();
                match worker.commit(clock.unix_s()) {
                    Ok(committed) => observer(&committed, clock.now().since(began)),
                    Err(error) => tracing::error!(%error, "work with a token budget is refused"),
                }
            }
        };
        let thread = thread::Builder::new().name("ledger".to_owned()).spawn(work)?;
        Ok(Self { ledger, thread: Some(thread) })
    }

    /// Commits what is noted and ends the thread. To be called when no request is left.
    pub fn close(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.ledger.live().is_closed = true;
        self.ledger.noted.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the ledger's thread had panicked");
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
        }
    }
}

impl Ledger {
    /// Waits until a group is to be committed: enough entries, or the first has waited long
    /// enough, or the ledger is being closed. False: it is closed and nothing is left.
    fn wait_for_entries(&self) -> bool {
        let live = self.live();
        let idle = self.noted.wait_while(live, |live| live.outbox.is_empty() && !live.is_closed);
        let live = idle.unwrap_or_else(PoisonError::into_inner);
        if live.is_closed {
            return !live.outbox.is_empty();
        }
        let (entries, after) = (self.limits.commit_entries, self.limits.commit_after);
        let is_short = |live: &mut super::Live| live.outbox.len() < entries && !live.is_closed;
        // What it ends with does not matter: a group is committed in each case.
        drop(self.noted.wait_timeout_while(live, after, is_short));
        true
    }
}
