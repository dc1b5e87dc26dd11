//! Architectures, written once: specs, weights, the forward, the runner.

mod error;
pub mod families;
mod fields;
mod rope;
mod spec;
pub mod weights;

pub use error::ModelError;
pub use spec::{Biases, EmbeddingScale, LayerSpec, MlpSpec, ModelSpec, MoeNames, TensorNames};
