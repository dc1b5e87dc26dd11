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
mod route;
mod shutdown;
mod state;
mod stream;
mod tokens;

use std::sync::Arc;

use axum::Router;

use self::route::{Listed, Routes, Scope};

pub use shutdown::{Phase, Shutdown};
pub use state::{AppState, CpuPool, ModelCard, PoolError, SamplingDefaults, Seeds};

/// Every route of the server. OpenAI's routes exist with and without the `/v1` prefix.
pub fn router(state: Arc<AppState>) -> Router {
    routes(state).0
}

fn routes(state: Arc<AppState>) -> (Router, Vec<Listed>) {
    const CHAT: &str = "/v1/chat/completions";
    const COMPLETIONS: &str = "/v1/completions";
    use Scope::{Open, Tenant};
    Routes::new(state)
        .generate(CHAT, CHAT, chat::create)
        .generate("/chat/completions", CHAT, chat::create)
        .generate(COMPLETIONS, COMPLETIONS, completions::create)
        .generate("/completions", COMPLETIONS, completions::create)
        .route("POST", "/v1/chat/completions/render", Tenant, chat::render)
        .route("POST", "/chat/completions/render", Tenant, chat::render)
        .route("POST", "/v1/completions/render", Tenant, completions::render)
        .route("POST", "/completions/render", Tenant, completions::render)
        .route("GET", "/v1/models", Tenant, models::list)
        .route("GET", "/models", Tenant, models::list)
        .route("GET", "/v1/models/{*id}", Tenant, models::get)
        .route("GET", "/models/{*id}", Tenant, models::get)
        .route("POST", "/tokenize", Tenant, tokens::tokenize)
        .route("POST", "/v1/tokenize", Tenant, tokens::tokenize)
        .route("POST", "/detokenize", Tenant, tokens::detokenize)
        .route("POST", "/v1/detokenize", Tenant, tokens::detokenize)
        .route("GET", "/tokenizer_info", Tenant, tokens::info)
        .route("GET", "/metrics", Tenant, ops::metrics)
        .route("GET", "/load", Tenant, ops::load)
        .route("GET", "/version", Tenant, ops::version)
        .route("GET", "/livez", Open, ops::livez)
        .route("GET", "/readyz", Open, ops::readyz)
        .route("GET", "/health", Open, ops::readyz)
        .route("GET", "/ping", Open, ops::readyz)
        .build()
}
