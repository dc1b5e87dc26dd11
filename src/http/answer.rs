//! From an admitted request to an HTTP answer, whole or streamed; and small JSON answers.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{HeaderValue, Response, header};
use serde::Serialize;
use serde_json::{Value, json};

use super::allowance::Allowance;
use super::ask::Ask;
use super::error::ApiError;
use super::form::{Form, Wishes};
use super::generation::{Detail, Entrant, Generation, Prompt};
use super::prompt::Encoded;
use super::route::Call;
use super::stream::{self, EventStream};
use crate::gate::Terms;

/// Admits, submits and answers.
///
/// # Errors
/// Whatever happens before the answer's head is sent.
pub(super) async fn generate(
    call: Call,
    ask: &Ask,
    terms: Terms,
    prompts: Vec<Prompt>,
    detail: Detail,
    wishes: Wishes,
) -> Result<Response<Body>, ApiError> {
    let state = &call.state;
    let account = Arc::clone(call.account.as_ref().expect("the route generates"));
    let entrant = Entrant { tenant: call.tenant(), ask, terms };
    let mut generation = Generation::start(state, account, entrant, prompts, detail)?;
    let predicted_ttft = generation.predicted_ttft();
    let form = Form::new(state, wishes, generation.choices());
    if wishes.stream.is_none() {
        let mut response = json_bytes(stream::whole(generation, form).await?);
        tell_prediction(&mut response, predicted_ttft);
        return Ok(response);
    }
    let patience = state.keep_alive_interval;
    let first = stream::first_step(&mut generation, patience).await?;
    let events = EventStream::new(generation, form, first, patience);
    let mut response = Response::new(Body::new(events));
    tell_prediction(&mut response, predicted_ttft);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies of the nginx family hold an answer back without this.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// What was predicted at admission; a client may compare it with what came.
fn tell_prediction(response: &mut Response<Body>, ttft: Duration) {
    let ms = u64::try_from(ttft.as_millis()).unwrap_or(u64::MAX);
    response.headers_mut().insert("x-weir-predicted-ttft-ms", HeaderValue::from(ms));
}

/// A prompt as the `render` routes show it.
pub(super) fn rendered(encoded: &Encoded, allowance: &Allowance) -> Value {
    let token_ids: Vec<u32> = encoded.tokens.iter().map(|token| token.0).collect();
    json!({
        "model": allowance.state().model.name(),
        "prompt": encoded.text,
        "token_ids": token_ids,
        "count": token_ids.len(),
        "max_model_len": allowance.context().tokens,
    })
}

/// A JSON answer.
pub(super) fn json(value: &impl Serialize) -> Response<Body> {
    json_bytes(serde_json::to_vec(value).expect("values with string keys are JSON"))
}

/// An answer that is JSON already.
fn json_bytes(bytes: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
