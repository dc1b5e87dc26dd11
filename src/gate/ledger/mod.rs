//! The ledger: token budgets that survive the process. Admission changes the live figures at once
//! and notes each change; a commit writes the noted changes as one batch, makes it durable, and
//! then applies it to the durable figures, which are the only ones that reports tell.
//!
//! - A hold need not be durable before its request runs; a settlement is durable before it is
//!   reported.
//! - Requests note how far they are every [`CHECKPOINT_TOKENS`] tokens. What a killed process left
//!   open is settled at the next start with what was noted last, each exactly once.
//! - When a write or a sync fails the ledger is read-only for the rest of the process: what the
//!   disk holds is not known then, and asking it again would not tell (a kernel may drop bytes that
//!   it failed to write and report success the next time). Work with a budget is refused.
//!
//! [`Ledger::commit`] is all that a thread or a simulation has to call.

mod committer;
mod file;
mod frame;
mod journal;
mod report;
mod sim;
mod storage;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Used;
use super::budget::{Balance, Budgets, Entry, HoldId, Limits, NoHold, Progress, WorstCase};
use super::refusal::Refusal;
use crate::config::{LedgerLimits, TenantSettings};
use crate::metrics::LedgerFacts;

use self::journal::Journal;

pub use committer::Committer;
pub use file::FileStorage;
pub use frame::NAME_BYTES_MAX;
pub use journal::{LedgerError, Replayed, replay};
pub use report::{AsOf, Report, WindowReport};
pub use sim::{DiskFaults, SimDisk};
pub use storage::Storage;

/// A request notes how far it is each time it has generated this many tokens. Together with what
/// is generated until the note is durable (5 ms) that keeps what a crash leaves uncharged below 32
/// tokens a request.
pub const CHECKPOINT_TOKENS: u32 = 16;

/// See the file's head. Shared by the gate, the requests' permits and the committing thread.
#[derive(Debug)]
pub struct Ledger {
    limits: LedgerLimits,
    live: Mutex<Live>,
    /// Wakes the committing thread.
    noted: Condvar,
    durable: Mutex<Durable>,
    /// `None`: budgets live in memory only. Locked for as long as a commit takes.
    journal: Option<Mutex<Journal>>,
}

/// What a start found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Entries that were read.
    pub entries: u64,
    /// Bytes at the end that a crash had left in parts.
    pub torn_bytes: u64,
    /// Requests that had not ended, and were settled with what they had noted last.
    pub settled_holds: u64,
}

/// What a commit did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Entries that are durable now.
    pub entries: u64,
    /// Whether the log was replaced by a snapshot.
    pub is_snapshot: bool,
}

#[derive(Debug)]
struct Live {
    budgets: Budgets,
    /// Noted and not yet taken by a commit.
    outbox: Vec<Entry>,
    is_read_only: bool,
    /// No more commits after the next one.
    is_closed: bool,
}

#[derive(Debug)]
struct Durable {
    budgets: Budgets,
    as_of: AsOf,
    /// Entries since start.
    entries: u64,
}

impl Ledger {
    /// A ledger without a log: budgets begin anew with each process.
    pub fn in_memory(limits: LedgerLimits) -> Self {
        let as_of = AsOf { sequence: 0, unix_s: 0, durable: false };
        Self::with(limits, Budgets::default(), None, as_of)
    }

    /// Reads a log, settles what it left open, and replaces it by a snapshot, so that what is read
    /// from now on is what was synced, whatever the process before had been told by its disk.
    ///
    /// # Errors
    /// [`LedgerError`]: the log cannot be read or written, or is damaged.
    pub fn open(
        mut storage: Box<dyn Storage>,
        limits: LedgerLimits,
        unix_s: u64,
    ) -> Result<(Self, Recovery), LedgerError> {
        let log = storage.read().map_err(|source| LedgerError::Read { source })?;
        let Replayed { mut budgets, next_sequence, torn_bytes, .. } = replay(&log)?;
        let recovery = Recovery {
            entries: next_sequence,
            torn_bytes,
            settled_holds: budgets.open_holds() as u64,
        };
        budgets.settle_open(&mut Vec::new());
        if let Some(pruned) = budgets.pruned(unix_s) {
            budgets = pruned;
        }
        let mut journal = Journal::new(storage, next_sequence);
        let snapshot = journal.snapshot(&budgets, unix_s);
        journal.replace(snapshot)?;
        let as_of = AsOf { sequence: journal.next_sequence(), unix_s, durable: true };
        Ok((Self::with(limits, budgets, Some(Mutex::new(journal)), as_of), recovery))
    }

    fn with(
        limits: LedgerLimits,
        budgets: Budgets,
        journal: Option<Mutex<Journal>>,
        as_of: AsOf,
    ) -> Self {
        let durable = Durable { budgets: budgets.clone(), as_of, entries: 0 };
        let live = Live { budgets, outbox: Vec::new(), is_read_only: false, is_closed: false };
        Self {
            limits,
            live: Mutex::new(live),
            noted: Condvar::new(),
            durable: Mutex::new(durable),
            journal,
        }
    }

    /// Whether any request of this tenant could hold its tokens now; asked before it is tokenised.
    ///
    /// # Errors
    /// [`Refusal::Budget`] and [`Refusal::LedgerReadOnly`].
    pub fn check_room(&self, tenant: &TenantSettings, unix_s: u64) -> Result<(), Refusal> {
        let limits = Limits::of(tenant);
        if !limits.any() {
            return Ok(());
        }
        let live = self.live();
        if live.is_read_only {
            return Err(Refusal::LedgerReadOnly);
        }
        let least = WorstCase { prompt_tokens: 1, output_tokens: 0 }.tokens();
        let shortage = live.budgets.shortage(&tenant.name, &limits, least, unix_s);
        shortage.map_or(Ok(()), |shortage| Err(Refusal::Budget(shortage)))
    }

    /// Holds the worst cases of a request's prompts, one hold for each, or none at all.
    ///
    /// # Errors
    /// [`Refusal::Budget`], [`Refusal::LedgerReadOnly`] or [`Refusal::LedgerBusy`].
    pub fn hold(
        &self,
        tenant: &TenantSettings,
        worst_cases: &[WorstCase],
        unix_s: u64,
    ) -> Result<Vec<HoldId>, Refusal> {
        let limits = Limits::of(tenant);
        let live = self.live();
        if live.is_read_only && limits.any() {
            return Err(Refusal::LedgerReadOnly);
        }
        // Each hold is two entries, and a tenant's first one more; settling needs the second.
        let open = live.budgets.open_holds() + 2 * worst_cases.len() + 1;
        if live.outbox.len() + open > self.limits.pending_entries_max {
            return Err(Refusal::LedgerBusy { reason: "too many changes wait for the disk" });
        }
        let held = self.note(live, |budgets, outbox| {
            budgets.hold(&tenant.name, &limits, worst_cases, unix_s, outbox)
        });
        held.map_err(|none| match none {
            NoHold::Shortage(shortage) => Refusal::Budget(shortage),
            NoHold::Accounts => Refusal::LedgerBusy { reason: "it knows too many tenants" },
        })
    }

    /// Notes how far a started request is; at its start, and each [`CHECKPOINT_TOKENS`] tokens.
    pub fn checkpoint(&self, hold: HoldId, progress: Progress) {
        let live = self.live();
        // Room for each open hold's settlement is kept: a checkpoint is worth less than one.
        if live.outbox.len() + live.budgets.open_holds() < self.limits.pending_entries_max {
            self.note(live, |budgets, outbox| budgets.checkpoint(hold, progress, outbox));
        }
    }

    /// Charges what a request used and ends its hold. Only the first call for a hold does anything.
    pub fn settle(&self, hold: HoldId, used: Used) {
        self.note(self.live(), |budgets, outbox| budgets.settle(hold, used, outbox));
    }

    /// Makes everything noted so far durable, as one batch. Without a log, or when it is read-only,
    /// there is nothing to do.
    ///
    /// # Errors
    /// [`LedgerError::Write`], once: the ledger is read-only from then on.
    pub fn commit(&self, unix_s: u64) -> Result<Committed, LedgerError> {
        let Some(journal) = &self.journal else { return Ok(Committed::default()) };
        let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = std::mem::take(&mut self.live().outbox);
        if entries.is_empty() {
            return Ok(Committed::default());
        }
        let written = journal.append(&entries, unix_s).and_then(|()| {
            let snapshot = {
                let mut durable = self.durable();
                for entry in &entries {
                    durable.budgets.apply(entry).expect("the live figures took the same entries");
                }
                durable.entries += entries.len() as u64;
                durable.as_of.sequence = journal.next_sequence();
                durable.as_of.unix_s = unix_s;
                let is_long = journal.grown_bytes() >= self.limits.snapshot_after_bytes;
                is_long.then(|| journal.snapshot(&durable.budgets, unix_s))
            };
            let is_snapshot = snapshot.is_some();
            if let Some(snapshot) = snapshot {
                journal.replace(snapshot)?;
                self.durable().as_of.sequence = journal.next_sequence();
            }
            Ok(Committed { entries: entries.len() as u64, is_snapshot })
        });
        if written.is_err() {
            let mut live = self.live();
            live.is_read_only = true;
            live.outbox = Vec::new();
        }
        written
    }

    /// Whether the log cannot be written any more.
    pub fn is_read_only(&self) -> bool {
        self.live().is_read_only
    }

    /// Whether there is a log.
    pub fn has_log(&self) -> bool {
        self.journal.is_some()
    }

    /// A tenant's usage, durable figures only: a request that has ended counts as held until its
    /// settlement is durable. Without a log the live figures are all there is.
    pub fn report(&self, tenant: &TenantSettings, unix_s: u64) -> Report {
        let (settled, days, as_of) = {
            let durable = self.durable();
            let live = if self.has_log() { None } else { Some(self.live()) };
            let figures = live.as_ref().map_or(&durable.budgets, |live| &live.budgets);
            let settled = figures.balances(&tenant.name, unix_s).map(|balance| balance.settled);
            let days = figures.days(&tenant.name).map(|(day, used)| (day, *used)).collect();
            (settled, days, durable.as_of)
        };
        let balances = self.live().budgets.balances(&tenant.name, unix_s);
        Report::new(tenant, balances, settled, days, as_of)
    }

    /// The live figures of a tenant's windows.
    pub fn balances(&self, tenant: &str, unix_s: u64) -> [Balance; 3] {
        self.live().budgets.balances(tenant, unix_s)
    }

    /// The durable figures of a tenant's windows.
    pub fn durable_balances(&self, tenant: &str, unix_s: u64) -> [Balance; 3] {
        self.durable().budgets.balances(tenant, unix_s)
    }

    /// Open holds, in the order of their ids: tenant, tokens held.
    pub fn holds(&self) -> Vec<(HoldId, Arc<str>, u64)> {
        let live = self.live();
        live.budgets
            .holds()
            .map(|(id, tenant, hold)| (id, Arc::clone(tenant), hold.tokens))
            .collect()
    }

    /// Recomputes every counter of held tokens from the open holds and compares: see
    /// [`Budgets::check`].
    ///
    /// # Errors
    /// Which counter differs, and by how much.
    pub fn check(&self) -> Result<(), String> {
        self.live().budgets.check()
    }

    /// Figures for the metrics.
    pub fn facts(&self) -> LedgerFacts {
        let entries = self.durable().entries;
        let live = self.live();
        let totals = live.budgets.totals();
        LedgerFacts {
            holds_open: live.budgets.open_holds() as u64,
            held_tokens: u64::try_from(totals.held).unwrap_or(u64::MAX),
            settled_prompt_tokens: totals.used.prompt_tokens,
            settled_cached_tokens: totals.used.cached_tokens,
            settled_output_tokens: totals.used.output_tokens,
            charged_tokens: totals.used.charged_tokens,
            entries,
            pending_entries: live.outbox.len() as u64,
            is_read_only: live.is_read_only,
        }
    }

    /// Changes the live figures; the entries of it go to the next commit, if there is one.
    fn note<T>(
        &self,
        mut live: MutexGuard<'_, Live>,
        change: impl FnOnce(&mut Budgets, &mut Vec<Entry>) -> T,
    ) -> T {
        let Live { budgets, outbox, .. } = &mut *live;
        let before = outbox.len();
        let changed = change(budgets, outbox);
        if !self.has_log() || live.is_read_only {
            live.outbox.clear();
            return changed;
        }
        let after = live.outbox.len();
        drop(live);
        // The committing thread waits for the first entry, and then for a full group.
        let full = self.limits.commit_entries;
        if (before == 0 && after > 0) || (before < full && after >= full) {
            self.noted.notify_one();
        }
        changed
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn durable(&self) -> MutexGuard<'_, Durable> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
