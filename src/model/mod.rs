//! Architectures, written once: specs, weights, the forward, the runner.

mod error;
pub mod weights;

pub use error::ModelError;
