//! Bytes to typed requests and back: HTTP and OpenAI's JSON; nothing of tensors.

mod ask;
mod body;
mod error;
mod fields;
pub mod listener;
mod messages;
mod parameters;
mod shutdown;
mod state;

use std::sync::Arc;

use axum::Router;

pub use shutdown::{Phase, Shutdown};
pub use state::{AppState, CpuPool, ModelCard, PoolError, SamplingDefaults, Seeds};

/// Every route of the server. Routes exist with and without the `/v1` prefix.
pub fn router(_state: Arc<AppState>) -> Router {
    todo!()
}
