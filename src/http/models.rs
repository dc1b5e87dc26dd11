//! `GET /v1/models` and `GET /v1/models/{id}`.

use serde_json::{Value, json};

use super::answer;
use super::error::ApiError;
use super::route::{Answer, Call};
use super::state::ModelCard;

/// `GET /v1/models`.
pub(super) async fn list(call: Call) -> Answer {
    let card = &call.state.model;
    let data: Vec<Value> = card.names.iter().map(|name| model(card, name)).collect();
    Ok(answer::json(&json!({ "object": "list", "data": data })))
}

/// `GET /v1/models/{id}`. The id may hold slashes, as hub ids do.
pub(super) async fn get(call: Call) -> Answer {
    let card = &call.state.model;
    let name = call.path_after("/models/");
    if card.answers_to(&name) {
        return Ok(answer::json(&model(card, &name)));
    }
    let name = name.chars().take(128).collect();
    Err(ApiError::ModelNotFound { name, served: card.names.join("`, `") })
}

fn model(card: &ModelCard, name: &str) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": card.created_unix_s,
        "owned_by": "weir",
        "root": card.name(),
        "parent": null,
        "max_model_len": card.max_model_len,
    })
}
