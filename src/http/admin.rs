//! `/admin/v1/…`: what the operator sees and does, on a listener of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::answer;
use super::error::ApiError;
use super::route::{Answer, Call};
use super::usage;
use crate::config::{Class, TenantSettings};
use crate::gate::{KeyRecord, KeyState, Refusal, Roster, Tenant};

/// `GET /admin/v1/tenants`: settings in force, and what each tenant is doing now.
pub(super) async fn tenants(call: Call) -> Answer {
    let state = &call.state;
    let now = state.clock.unix_s();
    let roster = state.gate.rosters().current();
    let live_keys = live_keys(&roster, now);
    let tenant = |tenant: &Arc<Tenant>| {
        let (open, waiting) = state.gate.open_prompts(tenant);
        let report = state.gate.ledger().report(&tenant.settings, now);
        json!({
            "name": tenant.name(),
            "settings": settings(&tenant.settings),
            "live_keys": live_keys.get(tenant.name()).copied().unwrap_or(0),
            "open_prompts": open,
            "waiting_prompts": waiting,
            "windows": report.windows.iter().map(usage::window).collect::<Vec<_>>(),
        })
    };
    let tenants: Vec<Value> = roster.tenants().iter().map(tenant).collect();
    Ok(answer::json(&json!({ "tenants": tenants, "needs_key": roster.needs_key() })))
}

/// `GET /admin/v1/keys`: the keys of the key file, without digests. When a key was last used is
/// what this server has seen since its start.
pub(super) async fn keys(call: Call) -> Answer {
    let now = call.state.clock.unix_s();
    let roster = call.state.gate.rosters().current();
    let mut keys: Vec<_> = roster.keys().collect();
    keys.sort_by_key(|(key, _)| (key.created_unix_s, &key.id));
    let key = |(key, last_used): &(&KeyRecord, Option<u64>)| {
        json!({
            "id": key.id,
            "tenant": key.tenant,
            "name": key.label,
            "scopes": key.scopes,
            "state": key.state(now).as_str(),
            "created_unix_s": key.created_unix_s,
            "expires_unix_s": key.expires_unix_s,
            "revoked_unix_s": key.revoked_unix_s,
            "replaced_by": key.replaced_by,
            "last_used_unix_s": last_used,
        })
    };
    let keys: Vec<Value> = keys.iter().map(key).collect();
    Ok(answer::json(&json!({ "keys": keys })))
}

/// `POST /admin/v1/reload`: reads settings file and key file again.
pub(super) async fn reload(call: Call) -> Answer {
    match call.state.control.reload().await {
        Some(Ok(reloaded)) => Ok(answer::json(&reloaded)),
        Some(Err(reason)) => Err(ApiError::Reload { reason }),
        None => Err(Refusal::Draining { retry_after_ms: 1000 }.into()),
    }
}

/// `POST /admin/v1/drain`: what SIGTERM does. Readiness goes red at once, requests are refused,
/// running answers may finish, then the process ends.
pub(super) async fn drain(call: Call) -> Answer {
    let state = &call.state;
    state.gate.drain();
    state.control.drain().await;
    Ok(answer::json(&json!({ "draining": true, "open_requests": state.gate.open_requests() })))
}

/// How many keys of each tenant may be used.
fn live_keys(roster: &Roster, now: u64) -> HashMap<&str, u32> {
    let mut counts = HashMap::new();
    for (key, _) in roster.keys().filter(|(key, _)| key.state(now) == KeyState::Live) {
        *counts.entry(key.tenant.as_str()).or_default() += 1;
    }
    counts
}

/// Settings under the names that the settings file gives them; null: no bound.
fn settings(settings: &TenantSettings) -> Value {
    let ms = |duration: Option<Duration>| duration.map(|duration| duration.as_secs_f64() * 1e3);
    json!({
        "weight": settings.weight,
        "class": match settings.class {
            Class::Interactive => "interactive",
            Class::Standard => "standard",
            Class::Batch => "batch",
        },
        "models": settings.models,
        "requests-per-minute": settings.requests_per_min,
        "tokens-per-minute": settings.tokens_per_min,
        "concurrent-requests": settings.concurrent_requests_max,
        "queued-requests": settings.queued_requests_max,
        "kv-share": settings.kv_share,
        "tokens-per-hour": settings.tokens_per_hour,
        "tokens-per-day": settings.tokens_per_day,
        "tokens-per-month": settings.tokens_per_month,
        "cached-token-price": f64::from(settings.cached_token_permille) / 1000.0,
        "max-context-tokens": settings.context_tokens_max,
        "max-output-tokens": settings.output_tokens_max,
        "default-output-tokens": settings.output_tokens_default,
        "max-choices": settings.choices_max,
        "ttft-objective-ms": ms(settings.ttft),
        "ttft-objective-ms-per-1k-tokens": ms(settings.ttft_per_1k_tokens),
        "tpot-objective-ms": ms(settings.tpot),
    })
}
