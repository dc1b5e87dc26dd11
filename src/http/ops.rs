//! Routes for operators: health, metrics, load, version.

use axum::body::Body;
use http::{HeaderValue, Response, header};
use serde_json::json;

use super::answer;
use super::error::ApiError;
use super::route::{Answer, Call};
use crate::gate::Refusal;
use crate::metrics::LoadFacts;

/// `GET /livez`: the process turns, and so does the engine's thread (R22). Whether it is ready is
/// another question: restarting a server that drains or is busy helps nobody.
pub(super) async fn livez(call: Call) -> Answer {
    if call.state.engine.load().alive {
        return Ok(answer::json(&json!({ "status": "alive" })));
    }
    let reason = "its thread has stopped";
    Err(Refusal::NotReady { reason, retry_after_ms: 1000 }.into())
}

/// `GET /readyz`, also as `/health` and `/ping`: requests would be taken now.
pub(super) async fn readyz(call: Call) -> Answer {
    let state = &call.state;
    state.gate.ready(&state.engine.load(), state.clock.now()).map_err(ApiError::from)?;
    if state.gate.ledger().is_read_only() {
        return Err(Refusal::LedgerReadOnly.into());
    }
    Ok(answer::json(&json!({ "status": "ready" })))
}

/// `GET /metrics` in Prometheus' text format.
pub(super) async fn metrics(call: Call) -> Answer {
    let state = &call.state;
    let load = state.engine.load();
    state.metrics.load(&LoadFacts {
        running: load.running,
        waiting: load.waiting,
        waiting_prompt_tokens: load.waiting_prompt_tokens,
        blocks_used: load.blocks_used,
        blocks_cached: load.blocks_cached,
        blocks_total: load.blocks_total,
        restarts: load.restarts,
        ready: state.gate.ready(&load, state.clock.now()).is_ok()
            && !state.gate.ledger().is_read_only(),
        connections: u32::try_from(state.connections.open()).unwrap_or(u32::MAX),
        tenants: load.tenants,
        promise_margins: state.gate.promise_margins(),
        prediction_errors: [load.cost.error_p50(), load.cost.error_p95()],
    });
    state.metrics.ledger(&state.gate.ledger().facts());
    let mut response = Response::new(Body::from(state.metrics.render()));
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    Ok(response)
}

/// `GET /version`.
pub(super) async fn version(call: Call) -> Answer {
    Ok(answer::json(&json!({ "version": call.state.version })))
}

/// `GET /load`: vLLM's `server_load`, and what a router may want to know besides.
pub(super) async fn load(call: Call) -> Answer {
    let state = &call.state;
    let load = state.engine.load();
    Ok(answer::json(&json!({
        "server_load": state.gate.open_requests(),
        "running": load.running,
        "waiting": load.waiting,
        "waiting_prompt_tokens": load.waiting_prompt_tokens,
        "kv_blocks_used": load.blocks_used,
        "kv_blocks_cached": load.blocks_cached,
        "kv_blocks_total": load.blocks_total,
        "steps": load.steps,
        "step_s": load.step_s,
        "tokens_per_s": load.tokens_per_s,
        "draining": state.gate.is_draining(),
    })))
}
