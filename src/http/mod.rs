//! Bytes to typed requests and back: HTTP and OpenAI's JSON; nothing of tensors.

mod account;
mod admin;
mod allowance;
mod answer;
mod ask;
mod body;
mod chat;
mod choice;
mod completions;
mod control;
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
mod terms;
mod tokens;
mod usage;

use std::sync::Arc;

use axum::Router;

use self::route::Routes;
use crate::gate::Scope;

pub use control::{Command, Control, Reloaded};
pub use route::{Access, Listed};
pub use shutdown::{Phase, Shutdown};
pub use state::{AppState, CpuPool, ModelCard, PoolError, SamplingDefaults, Seeds};

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// OpenAI's routes, which exist with and without the `/v1` prefix.
    Inference {
        /// Whether `/metrics` and `/load` are here too.
        with_metrics: bool,
    },
    /// `/admin/v1`.
    Admin,
    /// `/metrics` and `/load`.
    Metrics,
}

impl Surface {
    /// Every surface that there is.
    pub const ALL: [Surface; 4] = [
        Surface::Inference { with_metrics: true },
        Surface::Inference { with_metrics: false },
        Surface::Admin,
        Surface::Metrics,
    ];
}

/// The routes of a listener.
pub fn router(state: Arc<AppState>, surface: Surface) -> Router {
    routes(state, surface).0
}

/// The routes of a listener, as they are listed: with them is said who may use them.
pub fn listed(state: Arc<AppState>, surface: Surface) -> Vec<Listed> {
    routes(state, surface).1
}

fn routes(state: Arc<AppState>, surface: Surface) -> (Router, Vec<Listed>) {
    let routes = Routes::new(state);
    let routes = match surface {
        Surface::Inference { with_metrics: true } => measured(inference(routes)),
        Surface::Inference { with_metrics: false } => inference(routes),
        Surface::Admin => admin_routes(routes),
        Surface::Metrics => measured(routes),
    };
    // Whoever watches a listener asks there, and these say nothing of anybody: they alone are open.
    routes
        .route("GET", "/livez", Access::Open, ops::livez)
        .route("GET", "/readyz", Access::Open, ops::readyz)
        .route("GET", "/health", Access::Open, ops::readyz)
        .route("GET", "/ping", Access::Open, ops::readyz)
        .build()
}

fn measured(routes: Routes) -> Routes {
    const METRICS: Access = Access::Needs(Scope::MetricsRead);
    routes.route("GET", "/metrics", METRICS, ops::metrics).route("GET", "/load", METRICS, ops::load)
}

fn admin_routes(routes: Routes) -> Routes {
    const READ: Access = Access::Needs(Scope::AdminRead);
    const WRITE: Access = Access::Needs(Scope::AdminWrite);
    routes
        .route("GET", "/admin/v1/tenants", READ, admin::tenants)
        .route("GET", "/admin/v1/keys", READ, admin::keys)
        .route("POST", "/admin/v1/reload", WRITE, admin::reload)
        .route("POST", "/admin/v1/drain", WRITE, admin::drain)
}

fn inference(routes: Routes) -> Routes {
    const CHAT: &str = "/v1/chat/completions";
    const COMPLETIONS: &str = "/v1/completions";
    const INFERENCE: Access = Access::Needs(Scope::Inference);
    const MODELS: Access = Access::Needs(Scope::ModelsRead);
    routes
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
        .route("GET", "/v1/usage", Access::Needs(Scope::UsageRead), usage::get)
        .route("GET", "/version", MODELS, ops::version)
}
