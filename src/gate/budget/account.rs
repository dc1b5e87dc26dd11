//! One tenant's figures: by window, and by day for reports.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::gate::Used;
use crate::gate::calendar::{Day, Window};

/// Days of use that are kept for reports; older ones are forgotten.
pub const USAGE_DAYS_MAX: usize = 92;

/// A tenant's use on a day, by the day of its requests' admission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DayUse {
    /// Requests (each prompt is one) that had begun to run.
    pub requests: u64,
    /// Tokens of their prompts.
    pub prompt_tokens: u64,
    /// Of these, the ones from the prefix cache.
    pub cached_tokens: u64,
    /// Tokens generated.
    pub output_tokens: u64,
    /// Tokens charged to budgets: cached ones count at the tenant's rate.
    pub charged_tokens: u64,
}

/// A tenant's account.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Account {
    pub(super) name: Arc<str>,
    /// The newest hour of a hold; a clock that goes back does not reopen older windows.
    pub(super) latest_hour: u64,
    /// By kind of window, sorted by start: the newest, and older ones that requests still hold in.
    windows: [Vec<Instance>; 3],
    days: BTreeMap<Day, DayUse>,
}

/// One window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instance {
    pub(super) start: u64,
    pub(super) settled: u64,
    pub(super) held: u64,
}

impl DayUse {
    /// One settled request's; nothing of one that had not begun to run.
    pub(super) fn of(used: Used, charged_tokens: u64) -> Self {
        Self {
            requests: u64::from(used.prompt_tokens > 0),
            prompt_tokens: u64::from(used.prompt_tokens),
            cached_tokens: u64::from(used.cached_tokens),
            output_tokens: u64::from(used.output_tokens),
            charged_tokens,
        }
    }

    /// Adds another's sums.
    pub fn add(&mut self, other: &DayUse) {
        self.requests = self.requests.saturating_add(other.requests);
        self.prompt_tokens = self.prompt_tokens.saturating_add(other.prompt_tokens);
        self.cached_tokens = self.cached_tokens.saturating_add(other.cached_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.charged_tokens = self.charged_tokens.saturating_add(other.charged_tokens);
    }
}

impl Instance {
    pub(super) fn new(start: u64) -> Self {
        Self { start, settled: 0, held: 0 }
    }
}

impl Account {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self { name, latest_hour: 0, windows: Default::default(), days: BTreeMap::new() }
    }

    /// Holds tokens in all windows of `unix_s`; false, and nothing is changed, when a sum would
    /// overflow, which only a log can bring about that no server has written.
    pub(super) fn hold(&mut self, unix_s: u64, tokens: u64) -> bool {
        let fits = |window: Window| {
            let held = self.instance(window, window.start(unix_s)).map_or(0, |i| i.held);
            held.checked_add(tokens).is_some()
        };
        if !Window::ALL.into_iter().all(fits) {
            return false;
        }
        self.latest_hour = self.latest_hour.max(Window::Hour.start(unix_s));
        for (kind, window) in Window::ALL.into_iter().enumerate() {
            self.instance_mut(kind, window.start(unix_s)).held += tokens;
        }
        true
    }

    pub(super) fn settle(&mut self, unix_s: u64, tokens: u64, used: &DayUse) {
        for (kind, window) in Window::ALL.into_iter().enumerate() {
            let instance = self.instance_mut(kind, window.start(unix_s));
            instance.held -= tokens;
            instance.settled = instance.settled.saturating_add(used.charged_tokens);
            self.forget_closed(kind);
        }
        if used.requests > 0 {
            self.add_day(Day::of(unix_s), used);
        }
    }

    /// A window's figures from a snapshot.
    pub(super) fn open_balance(&mut self, window: Window, start: u64, settled: u64) {
        self.latest_hour = self.latest_hour.max(start);
        self.instance_mut(window as usize, start).settled = settled;
    }

    pub(super) fn add_day(&mut self, day: Day, used: &DayUse) {
        self.days.entry(day).or_default().add(used);
        while self.days.len() > USAGE_DAYS_MAX {
            self.days.pop_first();
        }
    }

    pub(super) fn instance(&self, window: Window, start: u64) -> Option<Instance> {
        self.windows[window as usize].iter().find(|i| i.start == start).copied()
    }

    pub(super) fn instances(&self) -> impl Iterator<Item = (Window, &Instance)> {
        let all = Window::ALL.into_iter().zip(&self.windows);
        all.flat_map(|(window, instances)| instances.iter().map(move |i| (window, i)))
    }

    pub(super) fn days(&self) -> impl Iterator<Item = (Day, &DayUse)> {
        self.days.iter().map(|(day, used)| (*day, used))
    }

    /// Whether nothing of it matters at `unix_s` or later.
    pub(super) fn is_idle(&self, unix_s: u64) -> bool {
        let newest_day = self.days.last_key_value().map_or(0, |(day, _)| day.0);
        let is_past =
            |(window, i): (Window, &Instance)| i.held == 0 && i.start < window.start(unix_s);
        self.instances().all(is_past)
            && newest_day as usize + USAGE_DAYS_MAX < Day::of(unix_s).0 as usize
    }

    fn instance_mut(&mut self, kind: usize, start: u64) -> &mut Instance {
        let instances = &mut self.windows[kind];
        let at = match instances.binary_search_by_key(&start, |instance| instance.start) {
            Ok(at) => at,
            Err(at) => {
                instances.insert(at, Instance::new(start));
                if at + 1 == instances.len() {
                    return self.newest_after_forgetting(kind);
                }
                at
            }
        };
        &mut self.windows[kind][at]
    }

    fn newest_after_forgetting(&mut self, kind: usize) -> &mut Instance {
        self.forget_closed(kind);
        self.windows[kind].last_mut().expect("the newest is never forgotten")
    }

    /// Older windows are kept as long as a request holds in them, and not longer.
    fn forget_closed(&mut self, kind: usize) {
        let instances = &mut self.windows[kind];
        let newest = instances.last().map_or(0, |instance| instance.start);
        instances.retain(|instance| instance.held > 0 || instance.start == newest);
    }
}
