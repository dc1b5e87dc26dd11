//! Our own books of what every tenant used, kept apart from the ledger's and compared with it.

use std::sync::Arc;

use weir::gate::ledger::Ledger;
use weir::gate::{Tenant, Used};

/// Index of the month among a tenant's balances; runs are shorter than a month.
const MONTH: usize = 2;

/// Tokens of each tenant, by how certain it is that the ledger knows them.
pub struct Books {
    tenants: Vec<Page>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Page {
    /// Charged and committed: never lost.
    durable: u64,
    /// Charged since the last commit.
    fresh: u64,
    /// Used by requests that a kill cut off, and charged up to some point of theirs.
    broken: u64,
}

impl Books {
    pub fn new(tenants: usize) -> Self {
        Self { tenants: vec![Page::default(); tenants] }
    }

    /// A request has ended and its permit is about to be dropped.
    pub fn ended(&mut self, tenant: u32, used: Used, cached_token_permille: u32) {
        self.tenants[tenant as usize].fresh += charge(used, cached_token_permille);
    }

    /// A request was cut off by the end of the process.
    pub fn broken(&mut self, tenant: u32, used: Used) {
        self.tenants[tenant as usize].broken += charge(used, 1000);
    }

    /// Everything charged so far is durable.
    pub fn committed(&mut self) {
        for page in &mut self.tenants {
            page.durable += std::mem::take(&mut page.fresh);
        }
    }

    /// After a kill: nothing durable is lost, nothing is charged that nobody used. The ledger's
    /// figure is the truth from then on.
    pub fn reopened(&mut self, ledger: &Ledger, tenants: &[Arc<Tenant>], unix_s: u64) {
        for (page, tenant) in self.tenants.iter_mut().zip(tenants) {
            let settled = ledger.balances(tenant.name(), unix_s)[MONTH].settled;
            let most = page.durable + page.fresh + page.broken;
            assert!(
                (page.durable..=most).contains(&settled),
                "{}: {settled} settled after a restart, {page:?}",
                tenant.name()
            );
            *page = Page { durable: settled, ..Page::default() };
        }
    }

    /// At the end: the ledger has charged exactly what was used (I6, I7, I12).
    pub fn close(&self, ledger: &Ledger, tenants: &[Arc<Tenant>], unix_s: u64) {
        let mut by_name: std::collections::BTreeMap<&str, u64> = std::collections::BTreeMap::new();
        for (page, tenant) in self.tenants.iter().zip(tenants) {
            *by_name.entry(tenant.name()).or_default() += page.durable + page.fresh;
        }
        for (name, used) in by_name {
            let balance = ledger.balances(name, unix_s)[MONTH];
            assert_eq!(
                (balance.settled, balance.held),
                (used, 0),
                "{name} is charged what it used"
            );
            let durable = ledger.durable_balances(name, unix_s)[MONTH];
            assert_eq!(durable.settled, used, "{name}'s charges are durable");
        }
    }
}

fn charge(used: Used, cached_token_permille: u32) -> u64 {
    let cached = u64::from(used.cached_tokens);
    u64::from(used.prompt_tokens) - cached
        + (cached * u64::from(cached_token_permille)).div_ceil(1000)
        + u64::from(used.output_tokens)
}
