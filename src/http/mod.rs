//! Bytes to typed requests and back: HTTP and OpenAI's JSON; nothing of tensors.

mod account;
mod answer;
mod ask;
mod body;
mod chat;
mod choice;
mod completions;
mod error;
mod fields;
mod form;
mod generation;
mod json;
pub mod listener;
mod logprobs;
mod messages;
mod models;
mod ops;
mod parameters;
mod prompt;
mod rates;
mod route;
mod shutdown;
mod state;
mod stream;
mod tokens;
mod usage;

use std::sync::Arc;

use axum::Router;

use self::route::{Access, Listed, Routes};
use crate::gate::Scope;

pub use shutdown::{Phase, Shutdown};
pub use state::{AppState, CpuPool, ModelCard, PoolError, SamplingDefaults, Seeds};

/// Every route of the server. OpenAI's routes exist with and without the `/v1` prefix.
pub fn router(state: Arc<AppState>) -> Router {
    routes(state).0
}

fn routes(state: Arc<AppState>) -> (Router, Vec<Listed>) {
    const CHAT: &str = "/v1/chat/completions";
    const COMPLETIONS: &str = "/v1/completions";
    const INFERENCE: Access = Access::Needs(Scope::Inference);
    const MODELS: Access = Access::Needs(Scope::ModelsRead);
    const METRICS: Access = Access::Needs(Scope::MetricsRead);
    use Access::Open;
    Routes::new(state)
        .generate(CHAT, CHAT, chat::create)
        .generate("/chat/completions", CHAT, chat::create)
        .generate(COMPLETIONS, COMPLETIONS, completions::create)
        .generate("/completions", COMPLETIONS, completions::create)
        .route("POST", "/v1/chat/completions/render", INFERENCE, chat::render)
        .route("POST", "/chat/completions/render", INFERENCE, chat::render)
        .route("POST", "/v1/completions/render", INFERENCE, completions::render)
        .route("POST", "/completions/render", INFERENCE, completions::render)
        .route("GET", "/v1/models", MODELS, models::list)
        .route("GET", "/models", MODELS, models::list)
        .route("GET", "/v1/models/{*id}", MODELS, models::get)
        .route("GET", "/models/{*id}", MODELS, models::get)
        .route("POST", "/tokenize", INFERENCE, tokens::tokenize)
        .route("POST", "/v1/tokenize", INFERENCE, tokens::tokenize)
        .route("POST", "/detokenize", INFERENCE, tokens::detokenize)
        .route("POST", "/v1/detokenize", INFERENCE, tokens::detokenize)
        .route("GET", "/tokenizer_info", INFERENCE, tokens::info)
        .route("GET", "/metrics", METRICS, ops::metrics)
        .route("GET", "/load", METRICS, ops::load)
        .route("GET", "/v1/usage", Access::Needs(Scope::UsageRead), usage::get)
        .route("GET", "/version", MODELS, ops::version)
        .route("GET", "/livez", Open, ops::livez)
        .route("GET", "/readyz", Open, ops::readyz)
        .route("GET", "/health", Open, ops::readyz)
        .route("GET", "/ping", Open, ops::readyz)
        .build()
}
