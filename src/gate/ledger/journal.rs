//! The log's writer and its reader.

use std::io;

use thiserror::Error;

use super::frame::{self, Found};
use super::storage::Storage;
use crate::gate::budget::{Budgets, Entry};

/// Why a ledger cannot be used.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The log could not be read.
    #[error("the ledger cannot be read: {source}; check the folder that --state-dir names")]
    Read {
        /// What the system says.
        source: io::Error,
    },
    /// The log could not be written, or not be made durable.
    #[error(
        "the ledger cannot be written: {source}; it is read-only from now on, because what the \
         disk holds is not known. Look at the disk (full? failing?) and start the server again"
    )]
    Write {
        /// What the system says.
        source: io::Error,
    },
    /// Bytes that had been durable are not what was written.
    #[error(
        "the ledger is damaged at byte {at}, entry {sequence}: {reason}. Bytes that were safely \
         written have changed, so budgets cannot be known. Restore ledger.log from a copy, or move \
         it away to begin with empty budgets"
    )]
    Damaged {
        /// Where.
        at: u64,
        /// The number of the entry that is expected there.
        sequence: u64,
        /// What is wrong.
        reason: String,
    },
}

/// What a log says.
#[derive(Debug, Default)]
pub struct Replayed {
    /// The state after its last entry.
    pub budgets: Budgets,
    /// The number of the entry that would come next.
    pub next_sequence: u64,
    /// When its last batch was written, in seconds since 1970.
    pub unix_s: u64,
    /// Bytes at its end that a crash left in parts, and that are not part of it.
    pub torn_bytes: u64,
}

/// The log's end, to write at.
#[derive(Debug)]
pub(super) struct Journal {
    storage: Box<dyn Storage>,
    next_sequence: u64,
    /// Since the last snapshot.
    grown_bytes: u64,
    /// Kept, so that a commit takes no memory.
    buffer: Vec<u8>,
}

/// A log of one batch.
#[derive(Debug)]
pub(super) struct Snapshot {
    bytes: Vec<u8>,
    entries: u64,
}

impl Journal {
    pub(super) fn new(storage: Box<dyn Storage>, next_sequence: u64) -> Self {
        Self { storage, next_sequence, grown_bytes: 0, buffer: Vec::new() }
    }

    pub(super) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    pub(super) fn grown_bytes(&self) -> u64 {
        self.grown_bytes
    }

    /// Writes a batch and makes it durable.
    pub(super) fn append(&mut self, entries: &[Entry], unix_s: u64) -> Result<(), LedgerError> {
        self.buffer.clear();
        frame::write_batch(&mut self.buffer, self.next_sequence, unix_s, entries);
        let write = |source| LedgerError::Write { source };
        self.storage.append(&self.buffer).map_err(write)?;
        self.storage.sync().map_err(write)?;
        self.next_sequence += entries.len() as u64;
        self.grown_bytes += self.buffer.len() as u64;
        Ok(())
    }

    /// `budgets` as one batch that can be a whole log.
    pub(super) fn snapshot(&self, budgets: &Budgets, unix_s: u64) -> Snapshot {
        let mut entries = Vec::new();
        budgets.snapshot(|entry| entries.push(entry));
        let mut bytes = Vec::new();
        frame::write_batch(&mut bytes, self.next_sequence, unix_s, &entries);
        Snapshot { bytes, entries: entries.len() as u64 }
    }

    /// Replaces the log by a snapshot: it is there as a whole or not at all.
    pub(super) fn replace(&mut self, snapshot: Snapshot) -> Result<(), LedgerError> {
        let Snapshot { bytes, entries } = snapshot;
        self.storage.replace(&bytes).map_err(|source| LedgerError::Write { source })?;
        self.next_sequence += entries;
        self.grown_bytes = 0;
        Ok(())
    }
}

/// Reads a log to its end.
///
/// # Errors
/// [`LedgerError::Damaged`].
pub fn replay(log: &[u8]) -> Result<Replayed, LedgerError> {
    let mut replayed = Replayed::default();
    let mut at = 0;
    loop {
        let damaged = |sequence, reason: &str| {
            Err(LedgerError::Damaged { at: at as u64, sequence, reason: reason.to_owned() })
        };
        let rest = &log[at..];
        match frame::read_batch(rest) {
            Found::End => return Ok(replayed),
            Found::Batch(head, body, bytes) => {
                if at > 0 && head.first != replayed.next_sequence {
                    return damaged(replayed.next_sequence, "entries are missing or doubled");
                }
                if head.first.checked_add(u64::from(head.entries)).is_none() {
                    return damaged(head.first, "no ledger has that many entries");
                }
                replayed.next_sequence = head.first;
                for entry in body {
                    let Some(entry) = entry else {
                        return damaged(replayed.next_sequence, "an entry cannot be read");
                    };
                    if let Err(inconsistent) = replayed.budgets.apply(&entry) {
                        return damaged(replayed.next_sequence, &inconsistent.to_string());
                    }
                    replayed.next_sequence += 1;
                }
                replayed.unix_s = head.unix_s;
                at += bytes;
            }
            Found::Damaged if at == 0 => {
                return damaged(0, "its beginning cannot be read (is it a ledger of Weir?)");
            }
            Found::Damaged if frame::any_batch(rest, replayed.next_sequence) => {
                return damaged(replayed.next_sequence, "a batch cannot be read, a later one can");
            }
            Found::Damaged => {
                replayed.torn_bytes = rest.len() as u64;
                return Ok(replayed);
            }
        }
    }
}
