//! A change of the budgets' state, as the ledger keeps it.

use std::sync::Arc;

use super::{DayUse, HoldId, Progress};
use crate::gate::Used;
use crate::gate::calendar::{Day, Window};

/// A change of state. `account` is the number that an [`Entry::Tenant`] gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A tenant's first hold; accounts are numbered from 0.
    Tenant {
        /// Its account.
        number: u32,
        /// Its name.
        name: Arc<str>,
    },
    /// A request holds its worst case.
    Hold {
        /// Its id; ids only rise.
        hold: HoldId,
        /// Whose.
        account: u32,
        /// When; names the windows.
        unix_s: u64,
        /// Tokens held.
        tokens: u64,
        /// Tokens of the prompt.
        prompt_tokens: u32,
        /// The tenant's rate for cached tokens at that time, in thousandths.
        cached_token_permille: u16,
    },
    /// How far a started request is.
    Checkpoint {
        /// Which.
        hold: HoldId,
        /// How far.
        progress: Progress,
    },
    /// A request is charged for what it used, and its hold ends.
    Settle {
        /// Which.
        hold: HoldId,
        /// What it used.
        used: Used,
    },
    /// Of a snapshot: no id of a hold is below this one.
    Opening {
        /// The next id.
        next_hold: u64,
    },
    /// Of a snapshot: what is settled in a window.
    Balance {
        /// Whose.
        account: u32,
        /// Kind of window.
        window: Window,
        /// Its first second.
        start: u64,
        /// Tokens charged in it.
        settled: u64,
    },
    /// Of a snapshot: use on a day.
    Day {
        /// Whose.
        account: u32,
        /// Which day.
        day: Day,
        /// What.
        used: DayUse,
    },
}
