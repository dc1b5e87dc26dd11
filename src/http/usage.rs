//! `GET /v1/usage`: what the asking tenant has used and may still use.

use serde_json::{Value, json};

use super::answer;
use super::route::{Answer, Call};
use crate::gate::calendar::Utc;
use crate::gate::ledger::WindowReport;

/// `GET /v1/usage`: durable figures, of the caller's own tenant. What is not durable yet counts as
/// held, so that with a limit `used + held + remaining` is the limit.
pub(super) async fn get(call: Call) -> Answer {
    let state = &call.state;
    let tenant = call.tenant();
    let report = state.gate.ledger().report(&tenant.settings, state.clock.unix_s());
    let days: Vec<Value> = report
        .days
        .iter()
        .map(|(day, used)| {
            json!({
                "date": day.to_string(),
                "requests": used.requests,
                "prompt_tokens": used.prompt_tokens,
                "cached_tokens": used.cached_tokens,
                "output_tokens": used.output_tokens,
                "charged_tokens": used.charged_tokens,
            })
        })
        .collect();
    Ok(answer::json(&json!({
        "object": "usage",
        "tenant": tenant.name(),
        "as_of": {
            "sequence": report.as_of.sequence,
            "time": Utc(report.as_of.unix_s).to_string(),
            "durable": report.as_of.durable,
        },
        "windows": report.windows.iter().map(window).collect::<Vec<_>>(),
        "days": days,
    })))
}

/// One window of a tenant's budget.
pub(super) fn window(report: &WindowReport) -> Value {
    json!({
        "window": report.window.name(),
        "starts_at": Utc(report.start).to_string(),
        "resets_at": Utc(report.resets).to_string(),
        "limit": report.limit,
        "used": report.used,
        "held": report.held,
        "remaining": report.remaining,
    })
}
