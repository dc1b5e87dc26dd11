//! Token budgets. A request holds the most it can cost before it enters, settles once with what it
//! used, and so a balance is never overspent: settled + held stays at or below the limit in every
//! window at once, and what is settled never exceeds what was held (two-phase transfers).
//!
//! Everything here is a function of (state, seconds since 1970), without IO. Each change of state
//! is an [`Entry`]; the ledger writes entries down, and applying them in order again gives the same
//! state. That is how a restart, and the durable figures of a running server, are made.

mod account;
mod entry;
mod shortage;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use thiserror::Error;

use super::Used;
use super::calendar::{Day, Window};
use crate::config::TenantSettings;

use account::{Account, Instance};
pub use account::{DayUse, USAGE_DAYS_MAX};
pub use entry::Entry;
pub use shortage::Shortage;

/// Tenants that are remembered, those that are no longer configured included. A name that is new
/// when there are as many is refused; idle ones are forgotten at a restart.
pub const ACCOUNTS_MAX: usize = 65_536;

/// No window counts more tokens than this, so that no sum of a tenant's counters can overflow. A
/// setting cannot name more.
const COUNTED_TOKENS_MAX: u64 = 1 << 53;

/// A hold. Never given twice by the same ledger, restarts included, so that none can be settled
/// twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HoldId(pub u64);

/// What bounds a tenant now, from its settings; a reload changes it for the next hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Tokens of an hour, a day and a month; `None`: without bound.
    pub tokens: [Option<u64>; 3],
    /// What a cached prompt token costs, in thousandths.
    pub cached_token_permille: u16,
}

/// The most that one prompt of a request can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorstCase {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens of output, all choices together.
    pub output_tokens: u64,
}

/// A hold that is not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    account: u32,
    /// Names the windows that it is held in, and settles in.
    pub unix_s: u64,
    /// Tokens held.
    pub tokens: u64,
    /// Tokens of its prompt.
    pub prompt_tokens: u32,
    cached_token_permille: u16,
    /// What it had used when that was last noted; `None` before it has started.
    pub progress: Option<Progress>,
}

/// How far a started request is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Prompt tokens from the prefix cache.
    pub cached_tokens: u32,
    /// Tokens generated.
    pub output_tokens: u32,
}

/// A window's figures of one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Which window.
    pub window: Window,
    /// Its first second.
    pub start: u64,
    /// Tokens charged.
    pub settled: u64,
    /// Tokens held by requests.
    pub held: u64,
}

/// Sums over all tenants since this state began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tokens of settled requests.
    pub used: DayUse,
    /// Tokens held now.
    pub held: u128,
}

/// An entry that does not fit the state: the log is not this state's.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("entry {entry:?} does not follow from the ones before it: {reason}")]
pub struct Inconsistent {
    entry: Box<Entry>,
    reason: &'static str,
}

/// Why a hold was not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoHold {
    /// A window has no room.
    Shortage(Shortage),
    /// [`ACCOUNTS_MAX`] names are known and this is another one.
    Accounts,
}

/// All accounts and holds. See the file's head.
#[derive(Clone, Debug, Default)]
pub struct Budgets {
    numbers: HashMap<Arc<str>, u32>,
    accounts: Vec<Account>,
    holds: BTreeMap<HoldId, Hold>,
    next_hold: u64,
    totals: Totals,
}

impl Limits {
    /// Those of a tenant's settings.
    pub fn of(settings: &TenantSettings) -> Self {
        let tokens = [settings.tokens_per_hour, settings.tokens_per_day, settings.tokens_per_month];
        let permille = u16::try_from(settings.cached_token_permille).unwrap_or(1000).min(1000);
        Self { tokens, cached_token_permille: permille }
    }

    /// Whether any window is bounded.
    pub fn any(&self) -> bool {
        self.tokens.iter().any(Option::is_some)
    }
}

impl WorstCase {
    /// Tokens to hold.
    pub fn tokens(self) -> u64 {
        self.output_tokens.saturating_add(u64::from(self.prompt_tokens))
    }
}

impl Hold {
    /// What `used` costs: uncached prompt, cached prompt at its rate (rounded up), output; never
    /// more than what is held.
    pub fn charge(&self, used: Used) -> u64 {
        let cached = u64::from(used.cached_tokens.min(used.prompt_tokens));
        let uncached = u64::from(used.prompt_tokens) - cached;
        let reduced = (cached * u64::from(self.cached_token_permille)).div_ceil(1000);
        (uncached + reduced + u64::from(used.output_tokens)).min(self.tokens)
    }

    /// What it had used when that was last noted.
    pub fn used(&self) -> Used {
        self.progress.map_or(Used::default(), |progress| Used {
            prompt_tokens: self.prompt_tokens,
            cached_tokens: progress.cached_tokens,
            output_tokens: progress.output_tokens,
        })
    }
}

impl Budgets {
    /// Holds the worst cases of all prompts of a request, or of none, and notes the entries in
    /// `log`. A clock that went back stays in the tenant's newest windows.
    ///
    /// # Errors
    /// [`NoHold`]: of all windows without room, the one whose shortage lasts longest.
    pub fn hold(
        &mut self,
        tenant: &Arc<str>,
        limits: &Limits,
        worst_cases: &[WorstCase],
        unix_s: u64,
        log: &mut Vec<Entry>,
    ) -> Result<Vec<HoldId>, NoHold> {
        let known = self.numbers.get(tenant).copied();
        if known.is_none() && self.accounts.len() >= ACCOUNTS_MAX {
            return Err(NoHold::Accounts);
        }
        let account = known.and_then(|number| self.accounts.get(number as usize));
        let unix_s = unix_s.max(account.map_or(0, |account| account.latest_hour));
        let asked = worst_cases.iter().fold(0, |sum: u64, w| sum.saturating_add(w.tokens()));
        if let Some(shortage) = shortage(account, limits, asked, unix_s) {
            return Err(NoHold::Shortage(shortage));
        }
        let number = known.unwrap_or_else(|| {
            let entry = Entry::Tenant { number: self.accounts.len() as u32, name: tenant.clone() };
            self.note(entry, log);
            self.accounts.len() as u32 - 1
        });
        let mut ids = Vec::with_capacity(worst_cases.len());
        for worst_case in worst_cases {
            let hold = HoldId(self.next_hold);
            self.note(
                Entry::Hold {
                    hold,
                    account: number,
                    unix_s,
                    tokens: worst_case.tokens(),
                    prompt_tokens: worst_case.prompt_tokens,
                    cached_token_permille: limits.cached_token_permille,
                },
                log,
            );
            ids.push(hold);
        }
        Ok(ids)
    }

    /// Why `asked` tokens could not be held now, if they could not.
    pub fn shortage(
        &self,
        tenant: &str,
        limits: &Limits,
        asked: u64,
        unix_s: u64,
    ) -> Option<Shortage> {
        let account = self.account(tenant);
        let unix_s = unix_s.max(account.map_or(0, |account| account.latest_hour));
        shortage(account, limits, asked, unix_s)
    }

    /// Notes how far a request is. A hold that is settled already is left alone.
    pub fn checkpoint(&mut self, hold: HoldId, progress: Progress, log: &mut Vec<Entry>) {
        if self.holds.contains_key(&hold) {
            self.note(Entry::Checkpoint { hold, progress }, log);
        }
    }

    /// Charges what was used to the windows that the hold named and gives the rest back. The first
    /// call settles; false: it was settled already, and nothing changes.
    pub fn settle(&mut self, hold: HoldId, used: Used, log: &mut Vec<Entry>) -> bool {
        let is_open = self.holds.contains_key(&hold);
        if is_open {
            self.note(Entry::Settle { hold, used }, log);
        }
        is_open
    }

    /// Settles what a stopped process left open, with what it had noted last.
    pub fn settle_open(&mut self, log: &mut Vec<Entry>) {
        let open: Vec<(HoldId, Used)> =
            self.holds.iter().map(|(id, hold)| (*id, hold.used())).collect();
        for (hold, used) in open {
            self.settle(hold, used, log);
        }
    }

    /// Makes an entry part of the state.
    ///
    /// # Errors
    /// [`Inconsistent`]; the state is as before.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), Inconsistent> {
        let wrong = |reason| Inconsistent { entry: Box::new(entry.clone()), reason };
        match *entry {
            Entry::Opening { next_hold } => self.next_hold = self.next_hold.max(next_hold),
            Entry::Tenant { number, ref name } => {
                if number as usize != self.accounts.len() || self.numbers.contains_key(name) {
                    return Err(wrong("tenants are numbered in the order of their first hold"));
                }
                self.numbers.insert(Arc::clone(name), number);
                self.accounts.push(Account::new(Arc::clone(name)));
            }
            Entry::Hold { hold, account, unix_s, tokens, prompt_tokens, cached_token_permille } => {
                if hold.0 < self.next_hold || hold.0 == u64::MAX {
                    return Err(wrong("ids of holds only rise"));
                }
                if tokens > COUNTED_TOKENS_MAX {
                    return Err(wrong("no budget has that many tokens"));
                }
                let at = self.accounts.get_mut(account as usize);
                let at = at.ok_or_else(|| wrong("its tenant is not known"))?;
                if !at.hold(unix_s, tokens) {
                    return Err(wrong("no budget has that many tokens"));
                }
                self.totals.held += u128::from(tokens);
                let hold_state = Hold {
                    account,
                    unix_s,
                    tokens,
                    prompt_tokens,
                    cached_token_permille,
                    progress: None,
                };
                self.holds.insert(hold, hold_state);
                self.next_hold = hold.0 + 1;
            }
            Entry::Checkpoint { hold, progress } => {
                let hold =
                    self.holds.get_mut(&hold).ok_or_else(|| wrong("no such hold is open"))?;
                hold.progress = Some(progress);
            }
            Entry::Settle { hold, used } => {
                let hold = self.holds.remove(&hold).ok_or_else(|| wrong("no such hold is open"))?;
                let charge = hold.charge(used);
                let used = DayUse::of(used, charge);
                self.totals.held -= u128::from(hold.tokens);
                self.totals.used.add(&used);
                self.accounts[hold.account as usize].settle(hold.unix_s, hold.tokens, &used);
            }
            Entry::Balance { account, window, start, settled } => {
                let at = self.accounts.get_mut(account as usize);
                let at = at.ok_or_else(|| wrong("its tenant is not known"))?;
                at.open_balance(window, start, settled);
            }
            Entry::Day { account, day, ref used } => {
                let at = self.accounts.get_mut(account as usize);
                at.ok_or_else(|| wrong("its tenant is not known"))?.add_day(day, used);
            }
        }
        Ok(())
    }

    /// The entries that make this state from an empty one, [`Totals::used`] apart.
    pub fn snapshot(&self, mut take: impl FnMut(Entry)) {
        for (number, account) in self.accounts.iter().enumerate() {
            let number = number as u32;
            take(Entry::Tenant { number, name: Arc::clone(&account.name) });
        }
        for (id, hold) in &self.holds {
            let Hold { account, unix_s, tokens, prompt_tokens, .. } = *hold;
            let cached_token_permille = hold.cached_token_permille;
            let hold_entry = Entry::Hold {
                hold: *id,
                account,
                unix_s,
                tokens,
                prompt_tokens,
                cached_token_permille,
            };
            take(hold_entry);
            if let Some(progress) = hold.progress {
                take(Entry::Checkpoint { hold: *id, progress });
            }
        }
        // After the holds: a past window without any is forgotten.
        for (number, account) in self.accounts.iter().enumerate() {
            let number = number as u32;
            for (window, instance) in account.instances() {
                let Instance { start, settled, .. } = *instance;
                take(Entry::Balance { account: number, window, start, settled });
            }
            for (day, used) in account.days() {
                take(Entry::Day { account: number, day, used: *used });
            }
        }
        take(Entry::Opening { next_hold: self.next_hold });
    }

    /// This state without the accounts that have nothing in the present windows, nothing open, and
    /// no use in the days that are kept; `None` when there is nothing to forget.
    pub fn pruned(&self, unix_s: u64) -> Option<Self> {
        let is_idle = |account: &&Account| account.is_idle(unix_s);
        if !self.accounts.iter().any(|account| is_idle(&account)) {
            return None;
        }
        let mut kept = Self { next_hold: self.next_hold, totals: self.totals, ..Self::default() };
        let mut renumbered = HashMap::new();
        for (number, account) in self.accounts.iter().enumerate() {
            if !account.is_idle(unix_s) {
                let new = kept.accounts.len() as u32;
                renumbered.insert(number as u32, new);
                kept.numbers.insert(Arc::clone(&account.name), new);
                kept.accounts.push(account.clone());
            }
        }
        // An account with a hold is never idle, so that each hold keeps its account.
        for (id, hold) in &self.holds {
            kept.holds.insert(*id, Hold { account: renumbered[&hold.account], ..*hold });
        }
        Some(kept)
    }

    /// The figures of a tenant's windows at `unix_s`, in the order of [`Window::ALL`].
    pub fn balances(&self, tenant: &str, unix_s: u64) -> [Balance; 3] {
        let account = self.account(tenant);
        let unix_s = unix_s.max(account.map_or(0, |account| account.latest_hour));
        Window::ALL.map(|window| {
            let start = window.start(unix_s);
            let instance = account.and_then(|account| account.instance(window, start));
            let Instance { settled, held, .. } = instance.unwrap_or(Instance::new(start));
            Balance { window, start, settled, held }
        })
    }

    /// A tenant's use of each day that is kept and had any, the oldest first.
    pub fn days(&self, tenant: &str) -> impl Iterator<Item = (Day, &DayUse)> {
        self.account(tenant).into_iter().flat_map(Account::days)
    }

    /// Names of all tenants that ever held something, in the order of their first hold.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<str>> {
        self.accounts.iter().map(|account| &account.name)
    }

    /// Open holds with their tenants' names, in the order of their ids.
    pub fn holds(&self) -> impl Iterator<Item = (HoldId, &Arc<str>, &Hold)> {
        self.holds.iter().map(|(id, hold)| (*id, &self.accounts[hold.account as usize].name, hold))
    }

    /// How many holds are open.
    pub fn open_holds(&self) -> usize {
        self.holds.len()
    }

    /// Sums over all tenants.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Recomputes every counter of held tokens from the open holds and compares (I6, R41, R45):
    /// each window's, each account's and the sum. For tests and for sampled checks in production.
    ///
    /// # Errors
    /// Which counter differs, and by how much.
    pub fn check(&self) -> Result<(), String> {
        let mut windows: HashMap<(u32, Window, u64), u64> = HashMap::new();
        let mut total = 0u128;
        for hold in self.holds.values() {
            total += u128::from(hold.tokens);
            for window in Window::ALL {
                let key = (hold.account, window, window.start(hold.unix_s));
                *windows.entry(key).or_default() += hold.tokens;
            }
        }
        if total != self.totals.held {
            return Err(format!("{} tokens held, the holds have {total}", self.totals.held));
        }
        for (number, account) in self.accounts.iter().enumerate() {
            for (window, instance) in account.instances() {
                let key = (number as u32, window, instance.start);
                let expected = windows.remove(&key).unwrap_or(0);
                if instance.held != expected {
                    return Err(format!(
                        "{} holds {} in the {} from {}, its requests hold {expected}",
                        account.name,
                        instance.held,
                        window.name(),
                        instance.start
                    ));
                }
            }
        }
        match windows.into_iter().next() {
            None => Ok(()),
            Some((key, tokens)) => Err(format!("{tokens} tokens are held in no window: {key:?}")),
        }
    }

    fn account(&self, tenant: &str) -> Option<&Account> {
        self.accounts.get(*self.numbers.get(tenant)? as usize)
    }

    fn note(&mut self, entry: Entry, log: &mut Vec<Entry>) {
        self.apply(&entry).expect("an entry that was made from this state fits it");
        log.push(entry);
    }
}

/// The shortage that lasts longest among the windows without room for `asked` tokens.
fn shortage(
    account: Option<&Account>,
    limits: &Limits,
    asked: u64,
    unix_s: u64,
) -> Option<Shortage> {
    let mut worst: Option<Shortage> = None;
    for (window, limit) in Window::ALL.into_iter().zip(limits.tokens) {
        let start = window.start(unix_s);
        let instance = account.and_then(|account| account.instance(window, start));
        let Instance { settled: used, held, .. } = instance.unwrap_or(Instance::new(start));
        let limit = limit.unwrap_or(u64::MAX).min(COUNTED_TOKENS_MAX);
        let sum = used.checked_add(held).and_then(|sum| sum.checked_add(asked));
        if sum.is_some_and(|sum| sum <= limit) {
            continue;
        }
        let found =
            Shortage { window, limit, used, held, asked, resets_unix_s: window.end(unix_s) };
        if worst.as_ref().is_none_or(|worst| found.is_final() >= worst.is_final()) {
            worst = Some(found);
        }
    }
    worst
}

#[cfg(test)]
mod tests;
