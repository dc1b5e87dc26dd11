//! Metrics of token budgets, their ledger, and refusals by tenant.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::Label;

use super::{LedgerFacts, Metrics, counter, gauge, histogram};

/// Tenants that get a label of their own; further ones are counted together (R30).
const TENANT_LABELS_MAX: usize = 1000;
/// The label of tenants beyond the bound.
const OTHER_TENANTS: &str = "(other)";

/// The tenants that have a label.
#[derive(Debug, Default)]
pub(super) struct TenantLabels(Mutex<HashSet<String>>);

impl TenantLabels {
    fn of(&self, tenant: &str) -> Label {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(tenant) {
            if known.len() >= TENANT_LABELS_MAX {
                return Label::from_static_parts("tenant", OTHER_TENANTS);
            }
            known.insert(tenant.to_owned());
        }
        Label::new("tenant", tenant.to_owned())
    }
}

impl Metrics {
    /// A request that the gate refused with this error code.
    pub fn refused(&self, code: &'static str, tenant: &str) {
        let labels = vec![Label::from_static_parts("code", code), self.tenants.of(tenant)];
        counter(&self.recorder, "weir_refusals_total", labels).increment(1);
    }

    /// A commit of the ledger, and how long it took.
    pub fn ledger_commit(&self, elapsed: Duration) {
        histogram(&self.recorder, "weir_ledger_commit_seconds").record(elapsed.as_secs_f64());
    }

    /// Sets what the ledger says; called before each scrape.
    pub fn ledger(&self, facts: &LedgerFacts) {
        let set = |name, value: u64| gauge(&self.recorder, name, Vec::new()).set(value as f64);
        set("weir_budget_holds_open", facts.holds_open);
        set("weir_budget_held_tokens", facts.held_tokens);
        set("weir_ledger_pending_entries", facts.pending_entries);
        set("weir_ledger_read_only", u64::from(facts.is_read_only));
        counter(&self.recorder, "weir_ledger_entries_total", Vec::new()).absolute(facts.entries);
        for (kind, tokens) in [
            ("prompt", facts.settled_prompt_tokens),
            ("cached", facts.settled_cached_tokens),
            ("output", facts.settled_output_tokens),
            ("charged", facts.charged_tokens),
        ] {
            let labels = vec![Label::from_static_parts("kind", kind)];
            counter(&self.recorder, "weir_budget_settled_tokens_total", labels).absolute(tokens);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_tenants_have_a_label() {
        let metrics = Metrics::new("m", false).expect("the table is right");
        for tenant in 0..TENANT_LABELS_MAX + 50 {
            metrics.refused("queue_full", &format!("t{tenant}"));
        }
        metrics.refused("queue_full", "t0");
        let text = metrics.render();
        let series = text.lines().filter(|line| line.starts_with("weir_refusals_total{"));
        assert_eq!(series.count(), TENANT_LABELS_MAX + 1);
        assert!(text.contains("weir_refusals_total{code=\"queue_full\",tenant=\"(other)\"} 50"));
        assert!(text.contains("weir_refusals_total{code=\"queue_full\",tenant=\"t0\"} 2"));
    }
}
