//! What a tenant has used and may still use.

use crate::config::TenantSettings;
use crate::gate::budget::{Balance, DayUse, Limits};
use crate::gate::calendar::{Day, Window};

/// Up to where figures reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsOf {
    /// Entries of the ledger before this number are in them.
    pub sequence: u64,
    /// When the last of these was made durable, in seconds since 1970.
    pub unix_s: u64,
    /// Whether they survive the process.
    pub durable: bool,
}

/// One window's figures. With a limit, `used + held + remaining` is the limit, or `remaining` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowReport {
    /// Which kind.
    pub window: Window,
    /// Its first second, since 1970.
    pub start: u64,
    /// The next one's first second.
    pub resets: u64,
    /// The tenant's limit, if it has one.
    pub limit: Option<u64>,
    /// Tokens charged.
    pub used: u64,
    /// Tokens of requests that have not ended, or whose settlement is not durable.
    pub held: u64,
    /// What requests may still hold.
    pub remaining: Option<u64>,
}

/// A tenant's usage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The present windows, in the order of [`Window::ALL`].
    pub windows: [WindowReport; 3],
    /// Days with use, the oldest first.
    pub days: Vec<(Day, DayUse)>,
    /// Up to where these figures reach.
    pub as_of: AsOf,
}

impl Report {
    /// From the live balances and the reported (durable) sums of the same windows.
    pub(super) fn new(
        tenant: &TenantSettings,
        balances: [Balance; 3],
        settled: [u64; 3],
        days: Vec<(Day, DayUse)>,
        as_of: AsOf,
    ) -> Self {
        let limits = Limits::of(tenant).tokens;
        let mut rows = balances.into_iter().zip(settled).zip(limits);
        let windows = Window::ALL.map(|window| {
            let ((balance, used), limit) = rows.next().expect("one for each kind of window");
            let taken = balance.settled.saturating_add(balance.held);
            WindowReport {
                window,
                start: balance.start,
                resets: window.end(balance.start),
                limit,
                used,
                held: taken.saturating_sub(used),
                remaining: limit.map(|limit| limit.saturating_sub(taken)),
            }
        });
        Self { windows, days, as_of }
    }
}
