//! `GET /v1/models` and `GET /v1/models/{id}`: what the caller's tenant may use.

use serde_json::{Value, json};

use super::allowance::Allowance;
use super::answer;
use super::route::{Answer, Call};

/// `GET /v1/models`.
pub(super) async fn list(call: Call) -> Answer {
    let allowance = call.allowance();
    let data: Vec<Value> = allowance.models().map(|name| model(&allowance, name)).collect();
    Ok(answer::json(&json!({ "object": "list", "data": data })))
}

/// `GET /v1/models/{id}`. The id may hold slashes, as hub ids do.
pub(super) async fn get(call: Call) -> Answer {
    let allowance = call.allowance();
    let name = call.path_after("/models/");
    allowance.check_model(Some(&name))?;
    Ok(answer::json(&model(&allowance, &name)))
}

fn model(allowance: &Allowance, name: &str) -> Value {
    let card = &allowance.state().model;
    json!({
        "id": name,
        "object": "model",
        "created": card.created_unix_s,
        "owned_by": "weir",
        "root": card.name(),
        "parent": null,
        "max_model_len": allowance.context().tokens,
    })
}
