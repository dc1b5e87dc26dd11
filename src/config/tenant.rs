//! What a tenant may do and what it is promised, as the settings file says it.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

/// Which requests go first. Lower classes run when higher ones leave room, batch at least a little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Somebody waits for each token.
    Interactive,
    /// The default.
    #[default]
    Standard,
    /// Whenever there is room; also what `service_tier: "flex"` asks for.
    Batch,
}

impl Class {
    /// As settings and labels write it.
    pub fn name(self) -> &'static str {
        match self {
            Class::Interactive => "interactive",
            Class::Standard => "standard",
            Class::Batch => "batch",
        }
    }
}

/// A tenant's settings, checked. `None` is: no bound of its own. The server's own bounds hold for
/// every tenant, whatever stands here.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantSettings {
    /// Its name, for labels, logs and the ledger; what a tenant is known by across restarts.
    pub name: Arc<str>,
    /// Share of the device in proportion to other tenants' weights; 1 to 10,000.
    pub weight: u32,
    /// Class of its requests.
    pub class: Class,
    /// Names of models that it may use; `None`: all.
    pub models: Option<Vec<String>>,
    /// Requests a minute, evenly (GCRA).
    pub requests_per_min: Option<u32>,
    /// Tokens a minute, prompt and output.
    pub tokens_per_min: Option<u64>,
    /// Requests at once, waiting or running.
    pub concurrent_requests_max: Option<u32>,
    /// Requests that may wait for their first step.
    pub queued_requests_max: Option<u32>,
    /// Share of all KV blocks that its sequences, and apart from them its entries of the prefix
    /// cache, may hold; above 0, at most 1.
    pub kv_share: f64,
    /// Budget of an hour, a day and a month (UTC), in tokens.
    pub tokens_per_hour: Option<u64>,
    /// See `tokens_per_hour`.
    pub tokens_per_day: Option<u64>,
    /// See `tokens_per_hour`.
    pub tokens_per_month: Option<u64>,
    /// What a prompt token from the prefix cache costs of a budget, in thousandths of one that is
    /// computed; at most 1000.
    pub cached_token_permille: u32,
    /// Prompt plus output of a choice.
    pub context_tokens_max: Option<u32>,
    /// Output of a choice.
    pub output_tokens_max: Option<u32>,
    /// Output of a choice of a request that names no maximum.
    pub output_tokens_default: Option<u32>,
    /// Choices of a request (`n`).
    pub choices_max: Option<u32>,
    /// Objective of the time to the first token, for a prompt without length.
    pub ttft: Option<Duration>,
    /// What each 1,000 prompt tokens add to `ttft`; `None`: what the device needs to compute them.
    pub ttft_per_1k_tokens: Option<Duration>,
    /// Objective of the time between two tokens.
    pub tpot: Option<Duration>,
}

/// All tenants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tenancy {
    /// Of the tenant "default", whose keys are those of `--api-key`, and who everybody is when no
    /// keys exist; also what other tenants' missing settings are taken from.
    pub default: TenantSettings,
    /// The named ones; none is called "default".
    pub tenants: Vec<TenantSettings>,
}

impl Default for TenantSettings {
    /// The tenant "default", without bounds and objectives.
    fn default() -> Self {
        Self {
            name: Arc::from("default"),
            weight: 1,
            class: Class::Standard,
            models: None,
            requests_per_min: None,
            tokens_per_min: None,
            concurrent_requests_max: None,
            queued_requests_max: None,
            kv_share: 1.0,
            tokens_per_hour: None,
            tokens_per_day: None,
            tokens_per_month: None,
            cached_token_permille: 1000,
            context_tokens_max: None,
            output_tokens_max: None,
            output_tokens_default: None,
            choices_max: None,
            ttft: None,
            ttft_per_1k_tokens: None,
            tpot: None,
        }
    }
}

impl TenantSettings {
    /// Whether its tokens of an hour, a day or a month are bounded.
    pub fn has_budget(&self) -> bool {
        [self.tokens_per_hour, self.tokens_per_day, self.tokens_per_month]
            .iter()
            .any(Option::is_some)
    }
}

impl Tenancy {
    /// Whether any tenant has a budget.
    pub fn has_budget(&self) -> bool {
        self.default.has_budget() || self.tenants.iter().any(TenantSettings::has_budget)
    }
}
