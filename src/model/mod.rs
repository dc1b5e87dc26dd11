//! Architectures, written once: specs, weights, the forward, the runner.

mod checkpoint;
mod decoder;
mod demo;
mod error;
pub mod families;
mod fields;
mod hub;
mod kv;
mod parameters;
mod rope;
mod runner;
mod scratch;
pub mod source;
mod spec;
pub mod weights;

use std::sync::Arc;

pub use checkpoint::{Checkpoint, read_json};
pub use error::ModelError;
pub use kv::KvMemory;
pub use runner::Runner;
pub use spec::{Biases, EmbeddingScale, LayerSpec, MlpSpec, ModelSpec, MoeNames, TensorNames};

use self::decoder::Decoder;
use self::kv::KvDemand;
use self::parameters::{Inventory, Parameters};
use self::runner::State;
use self::scratch::Scratch;
use crate::backend::{Backend, BatchShape, DType};
use crate::clock::Clock;
use crate::device::DeviceLimits;
use crate::ids::TokenId;

/// What a model is run with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Longest context; `None`: what the model is made for.
    pub context_tokens_max: Option<u32>,
    /// Sequences that run at once.
    pub sequences_max: u32,
    /// Rows of a step at most.
    pub step_tokens_max: u32,
    /// Token positions of a KV block.
    pub block_size_tokens: u32,
    /// Memory of the KV cache.
    pub kv_memory: KvMemory,
    /// Type of the KV cache; `None`: the weights' type where that is a float, else f16.
    pub kv_dtype: Option<DType>,
}

/// A model that is ready to run.
pub struct Opened<B: Backend> {
    /// Runs its steps.
    pub runner: Runner<B>,
    /// What it is, for people and for the rooms above.
    pub info: ModelInfo,
}

impl<B: Backend> std::fmt::Debug for Opened<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("runner", &self.runner).field("info", &self.info).finish()
    }
}

/// What a model is.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// Name of its folder or file.
    pub name: String,
    /// Name in `architectures` of config.json.
    pub architecture: String,
    /// Number of weights; a tied output projection counts once.
    pub parameters: u64,
    /// Longest context that is run.
    pub context_tokens: u32,
    /// Rows of the logits.
    pub vocab_size: u32,
    /// Tokens that end a sequence, ascending.
    pub eos: Vec<TokenId>,
    /// Stored type of the embedding table.
    pub dtype: DType,
    /// Bytes of the weights as stored.
    pub weight_bytes: u64,
    /// Bytes of the KV cache.
    pub kv_bytes: u64,
    /// Stored type of the KV cache.
    pub kv_dtype: DType,
    /// What the user should know: tensors of the files that the model does not use.
    pub warnings: Vec<String>,
}

/// Loads a model onto a backend and reserves everything that its steps need.
///
/// # Errors
/// [`ModelError`] naming the field, tensor or setting that is wrong, or what does not fit.
pub fn open<B: Backend>(
    checkpoint: &Checkpoint,
    options: &OpenOptions,
    backend: B,
    clock: Arc<dyn Clock>,
) -> Result<Opened<B>, ModelError> {
    let spec = checkpoint.spec(options.context_tokens_max)?;
    let context_tokens = context(&spec, options.context_tokens_max)?;
    let (parameters, inventory) = Parameters::load(&backend, &spec, &checkpoint.weights)?;
    let demand = KvDemand {
        dtype: options.kv_dtype.unwrap_or_else(|| kv_dtype(inventory.dtype)),
        block_size_tokens: options.block_size_tokens,
        context_tokens,
        sequences: options.sequences_max,
        memory: after_weights(options.kv_memory, inventory.bytes),
    };
    let (kv_shape, kv_bytes) = kv::shape(&spec, &demand)?;
    let scratch = Scratch::new(&backend, &spec, options.step_tokens_max)?;
    let (batch, sampler) = backend.batch(&BatchShape {
        rows_max: options.step_tokens_max,
        slots: options.sequences_max,
        vocab_size: spec.vocab_size,
        ropes: spec.ropes.clone(),
    })?;
    let kv = backend.kv_cache(&kv_shape)?;
    let limits = DeviceLimits {
        block_size_tokens: options.block_size_tokens,
        blocks_total: kv_shape.blocks,
        step_rows_max: options.step_tokens_max,
        slots_total: options.sequences_max,
        context_tokens_max: context_tokens,
        vocab_size: spec.vocab_size,
        steps_in_flight_max: 1,
        computes_in_submit: true,
    };
    let info = info(checkpoint, &spec, &inventory, &limits, (kv_bytes, demand.dtype));
    let state = State { batch, sampler, kv };
    let decoder = Decoder { spec, parameters };
    let runner = Runner::new(backend, clock, decoder, scratch, state, limits);
    Ok(Opened { runner, info })
}

fn context(spec: &ModelSpec, asked: Option<u32>) -> Result<u32, ModelError> {
    let made_for = spec.context_tokens;
    match asked {
        Some(asked) if asked > made_for || asked == 0 => Err(ModelError::Setting {
            name: "max-model-len",
            reason: format!("{asked}, but this model is made for 1 to {made_for} tokens"),
        }),
        other => Ok(other.unwrap_or(made_for)),
    }
}

/// What a bound on all memory leaves for the KV cache.
fn after_weights(memory: KvMemory, weight_bytes: u64) -> KvMemory {
    match memory {
        KvMemory::Bytes(bytes) => KvMemory::Bytes(bytes),
        KvMemory::AtMost(bytes) => KvMemory::AtMost(bytes.saturating_sub(weight_bytes)),
    }
}

fn kv_dtype(weights: DType) -> DType {
    match weights {
        DType::F32 | DType::F16 | DType::BF16 => weights,
        _ => DType::F16,
    }
}

fn info(
    checkpoint: &Checkpoint,
    spec: &ModelSpec,
    inventory: &Inventory,
    limits: &DeviceLimits,
    (kv_bytes, kv_dtype): (u64, DType),
) -> ModelInfo {
    ModelInfo {
        name: checkpoint.name.clone(),
        architecture: spec.architecture.to_owned(),
        parameters: inventory.values,
        context_tokens: limits.context_tokens_max,
        vocab_size: spec.vocab_size,
        eos: spec.eos.clone(),
        dtype: inventory.dtype,
        weight_bytes: inventory.bytes,
        kv_bytes,
        kv_dtype,
        warnings: inventory
            .unused
            .iter()
            .map(|name| format!("tensor {name} is in the file and not used by the model"))
            .collect(),
    }
}
