//! Architectures, written once: specs, weights, the forward, the runner.

mod error;

pub use error::ModelError;
