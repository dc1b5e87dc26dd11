//! The ops: what a decoder needs of a machine, as one static trait with caller-owned outputs.
//!
//! A backend implements about fourteen fused ops over row-major activation buffers
//! ([`Backend::Rows`]) whose memory is reserved at start, so that nothing allocates in a step.
//! Every implementation passes one conformance suite against a plain reference. A row's result
//! never depends on the other rows of the step: reductions have a fixed order for each output.
//!
//! Ops on a stream device only enqueue; their failure surfaces at [`Backend::read`].

#[cfg(test)]
mod conformance;
pub mod cpu;
#[cfg(test)]
mod reference;
mod tensor;

pub use tensor::{DType, HostTensor, TensorError};

use thiserror::Error;

use crate::device::{SlotInit, StepOutput, StepPlan};

/// Why a backend could not do what it was asked to.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum BackendError {
    /// Not enough memory for a buffer that has to exist.
    #[error("{what} needs {needed_bytes} bytes, more than this device has free; {remedy}")]
    Memory {
        /// What the memory is for.
        what: String,
        /// How much.
        needed_bytes: u64,
        /// What the user can change.
        remedy: &'static str,
    },
    /// A tensor's type or shape is one that no kernel of this backend takes.
    #[error("{what}")]
    Unsupported {
        /// Which tensor, what it is and what was expected.
        what: String,
    },
    /// The step failed and the device is well.
    #[error("{0}")]
    Step(String),
    /// The device is lost.
    #[error("{0}")]
    Lost(String),
}

/// Sizes of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Decoder layers.
    pub layers: u32,
    /// KV blocks.
    pub blocks: u32,
    /// Token positions in a block.
    pub block_size_tokens: u32,
    /// KV heads of each layer.
    pub kv_heads: u32,
    /// Values of each head.
    pub head_dim: u32,
    /// Stored type: `F32`, `F16` or `BF16`.
    pub dtype: DType,
}

/// Rotary embedding frequencies of one kind of layer.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSpec {
    /// `rotary_dim / 2` frequencies; the angle at position `p` is `p * inv_freq[i]` in f32.
    pub inv_freq: Vec<f32>,
    /// Cosine and sine are multiplied by this (1 unless a scaling scheme says otherwise).
    pub magnitude: f32,
    /// False: value `i` is rotated with value `i + rotary_dim/2` (Hugging Face layout).
    /// True: value `2i` with `2i + 1` (GGUF files of the llama architecture).
    pub interleaved: bool,
}

/// Sizes of everything that is reserved at start.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchShape {
    /// Rows of one step at most.
    pub rows_max: u32,
    /// Sequence slots.
    pub slots: u32,
    /// Vocabulary.
    pub vocab_size: u32,
    /// The kinds of rotary embedding that layers refer to by index.
    pub ropes: Vec<RopeSpec>,
}

/// Parameters of [`Backend::rope_store_kv`] and [`Backend::attend`], fixed for a layer.
#[derive(Clone, Debug)]
pub struct AttentionParams {
    /// Index of the layer, from 0.
    pub layer: u32,
    /// Query heads.
    pub heads: u32,
    /// KV heads; divides `heads`.
    pub kv_heads: u32,
    /// Values of each head.
    pub head_dim: u32,
    /// Index into [`BatchShape::ropes`].
    pub rope: u32,
    /// Scores are `q · k * scale`.
    pub scale: f32,
    /// `Some(w)`: a query at position `p` sees keys in `(p - w, p]`.
    pub window_tokens: Option<u32>,
    /// `Some(c)`: scores become `c * tanh(score / c)` before the softmax.
    pub softcap: Option<f32>,
    /// Epsilon of the q/k norms.
    pub norm_eps: f32,
}

/// How a normalisation weight is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// `x / rms(x) * w`.
    Plain,
    /// `x / rms(x) * (1 + w)` (Gemma).
    UnitOffset,
}

/// The gate's activation in [`Backend::gated_activation`] and [`Backend::moe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU by the tanh approximation.
    GeluTanh,
    /// GELU by the error function.
    GeluErf,
}

/// Parameters of [`Backend::moe`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MoeParams {
    /// Experts that each row uses.
    pub experts_per_token: u32,
    /// Whether the chosen experts' softmax probabilities are divided by their sum.
    pub normalise: bool,
    /// The experts' activation.
    pub activation: Activation,
}

/// The weights of one mixture-of-experts layer; expert `e` is `gate_up[e]` (`[2F, H]`, gate rows
/// first) and `down[e]` (`[H, F]`).
#[derive(Debug)]
pub struct MoeWeights<W> {
    /// `[experts, H]`.
    pub router: W,
    /// One for each expert.
    pub gate_up: Vec<W>,
    /// One for each expert.
    pub down: Vec<W>,
}

/// A machine's implementation of the ops. Shapes: `T` rows in the step, `H` hidden size, `D` head
/// size, `Q` query heads, `K` KV heads, `F` feed-forward size, `V` vocabulary, `S` sampled rows.
pub trait Backend: Send + 'static {
    /// An activation buffer `[capacity, width]` in the backend's activation type (f32 on the
    /// CPU); it carries its current row count, which every op sets on its output.
    type Rows: Send;
    /// A matrix `[out, in]` in its stored type, with an optional bias `[out]`.
    type Weight: Send;
    /// A normalisation weight.
    type Vector: Send;
    /// The uploaded arrays of a step.
    type Batch: Send;
    /// The paged KV cache of all layers.
    type Kv: Send;
    /// The slots' sampling state: last sampled token, parameters, penalty counts.
    type Sampler: Send;

    /// One line for the start-up log: what this backend runs on and which kernels it chose.
    fn describe(&self) -> String;

    /// Reserves an activation buffer.
    ///
    /// # Errors
    /// [`BackendError::Memory`].
    fn rows(&self, capacity_rows: u32, width: u32) -> Result<Self::Rows, BackendError>;

    /// Takes a matrix whose output rows are those of `parts`, one part after the other (fused
    /// projections); all parts have the same input size, their types may differ. `bias` has one
    /// part for each part or is empty. Weights keep their stored type.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] or [`BackendError::Memory`].
    fn weight(
        &self,
        parts: &[HostTensor],
        bias: &[HostTensor],
    ) -> Result<Self::Weight, BackendError>;

    /// Takes a normalisation weight of any float type, one-dimensional.
    ///
    /// # Errors
    /// As [`Backend::weight`].
    fn vector(&self, tensor: &HostTensor) -> Result<Self::Vector, BackendError>;

    /// Reserves the KV cache.
    ///
    /// # Errors
    /// [`BackendError::Memory`].
    fn kv_cache(&self, shape: &KvShape) -> Result<Self::Kv, BackendError>;

    /// Reserves the step's arrays and the sampling state.
    ///
    /// # Errors
    /// [`BackendError::Memory`].
    fn batch(&self, shape: &BatchShape) -> Result<(Self::Batch, Self::Sampler), BackendError>;

    /// Initialises a slot. `init.prompt` and `init.generated` count for penalties.
    fn init_slot(&self, sampler: &mut Self::Sampler, init: &SlotInit);

    /// Takes a step's arrays; [`crate::device::Input::LastSampled`] reads from `sampler`.
    fn upload(&self, plan: &StepPlan, sampler: &Self::Sampler, batch: &mut Self::Batch);

    /// Copies the plan's `copies` in all layers.
    fn copy_blocks(&self, plan: &StepPlan, kv: &mut Self::Kv);

    /// Token ids `[T]` → `out [T, H]`: rows of `table [V, H]`, each value times `scale`.
    fn embed(&self, batch: &Self::Batch, table: &Self::Weight, scale: f32, out: &mut Self::Rows);

    /// `x [T, H]` → `out [T, H]`, root mean square norm over each row (f32 sums).
    fn rms_norm(
        &self,
        x: &Self::Rows,
        weight: &Self::Vector,
        kind: NormKind,
        eps: f32,
        out: &mut Self::Rows,
    );

    /// `residual [T, H] += x [T, H]`, then `out = rms_norm(residual)`.
    fn add_rms_norm(
        &self,
        residual: &mut Self::Rows,
        x: &Self::Rows,
        weight: &Self::Vector,
        kind: NormKind,
        eps: f32,
        out: &mut Self::Rows,
    );

    /// `x [T, I]` × `weight [O, I]` + bias → `out [T, O]`.
    fn linear(&self, x: &Self::Rows, weight: &Self::Weight, out: &mut Self::Rows);

    /// In `qkv [T, (Q + 2K)·D]` (queries, keys, values): normalises each query and key head where
    /// `norms` (q, k; `[D]` each) are given, rotates queries and keys by the row's position, and
    /// writes K and V to the row's place in the cache.
    fn rope_store_kv(
        &self,
        batch: &Self::Batch,
        params: &AttentionParams,
        norms: Option<(&Self::Vector, &Self::Vector, NormKind)>,
        qkv: &mut Self::Rows,
        kv: &mut Self::Kv,
    );

    /// Causal attention of each row over its sequence's context in the cache (the step's own rows
    /// included): `qkv [T, (Q + 2K)·D]` → `out [T, Q·D]`.
    fn attend(
        &self,
        batch: &Self::Batch,
        params: &AttentionParams,
        qkv: &Self::Rows,
        kv: &Self::Kv,
        out: &mut Self::Rows,
    );

    /// `gate_up [T, 2F]` (gate first) → `out [T, F]` = `activation(gate) * up`.
    fn gated_activation(&self, activation: Activation, gate_up: &Self::Rows, out: &mut Self::Rows);

    /// `x [T, H]` → `out [T, H]`: softmax over the router's logits, the best experts, their
    /// weighted sum in ascending order of expert.
    fn moe(
        &self,
        params: &MoeParams,
        weights: &MoeWeights<Self::Weight>,
        x: &Self::Rows,
        out: &mut Self::Rows,
    );

    /// The rows of `x [T, H]` that the samples with indices `first..first + count` (in
    /// [`StepPlan::samples`]) name → `out [count, H]`.
    fn take_rows(
        &self,
        batch: &Self::Batch,
        first: u32,
        count: u32,
        x: &Self::Rows,
        out: &mut Self::Rows,
    );

    /// `logits[i] = cap * tanh(logits[i] / cap)` in place.
    fn softcap(&self, logits: &mut Self::Rows, cap: f32);

    /// Does what the samples `first..first + count` ask with `logits [count, V]`; results wait in
    /// the sampler until [`Backend::read`]. May overwrite `logits`.
    fn sample(
        &self,
        batch: &Self::Batch,
        first: u32,
        count: u32,
        logits: &mut Self::Rows,
        sampler: &mut Self::Sampler,
    );

    /// Appends the results of all samples since the last upload to `output`: the only
    /// synchronisation of a step.
    ///
    /// # Errors
    /// [`BackendError::Step`] or [`BackendError::Lost`] when an op of the step failed.
    fn read(
        &self,
        sampler: &mut Self::Sampler,
        output: &mut StepOutput,
    ) -> Result<(), BackendError>;

    /// Copies a buffer's rows to the host, row-major in f32; for tests and diagnosis only.
    ///
    /// # Errors
    /// As [`Backend::read`].
    fn read_rows(&self, rows: &Self::Rows) -> Result<Vec<f32>, BackendError>;
}
