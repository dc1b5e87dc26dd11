//! The buffers of a forward pass: named, sized at start, never allocated in a step.

use super::error::ModelError;
use super::spec::{MlpSpec, ModelSpec};
use crate::backend::Backend;

/// Memory that the logits of one chunk of sampled rows may take: with a vocabulary of 128,000 it
/// holds 65 rows, enough to read the output projection once for most batches.
const LOGITS_BYTES_MAX: u64 = 32 << 20;
/// Rows of a chunk at most, for small vocabularies.
const LOGITS_ROWS_MAX: u64 = 256;

/// Shapes: `T` rows in a step, `H` hidden size, `S` sampled rows of a chunk.
pub(super) struct Scratch<B: Backend> {
    /// `[T, H]`: the stream that blocks add to.
    pub(super) residual: B::Rows,
    /// `[T, H]`: what a block reads.
    pub(super) normed: B::Rows,
    /// `[T, H]`: what a block gives.
    pub(super) branch: B::Rows,
    /// `[T, H]`: a block's output after its own norm, in models that have one.
    pub(super) sandwiched: Option<B::Rows>,
    /// `[T, (Q + 2K)·D]`.
    pub(super) qkv: B::Rows,
    /// `[T, Q·D]`.
    pub(super) attended: B::Rows,
    /// Buffers of the dense feed-forward blocks, where there are any.
    pub(super) dense: Option<DenseScratch<B>>,
    /// `[S, H]`.
    pub(super) sampled: B::Rows,
    /// `[S, V]`.
    pub(super) logits: B::Rows,
    /// `S`.
    pub(super) logits_rows: u32,
}

/// Buffers of a dense feed-forward block of width `F`.
pub(super) struct DenseScratch<B: Backend> {
    /// `[T, 2F]`.
    pub(super) gate_up: B::Rows,
    /// `[T, F]`.
    pub(super) gated: B::Rows,
}

impl<B: Backend> Scratch<B> {
    /// Reserves all buffers for steps of up to `rows` rows.
    ///
    /// # Errors
    /// [`ModelError::Backend`] when memory does not suffice.
    pub(super) fn new(backend: &B, spec: &ModelSpec, rows: u32) -> Result<Self, ModelError> {
        let hidden = spec.hidden_size;
        let row_bytes = 4 * u64::from(spec.vocab_size);
        let logits_rows = (LOGITS_BYTES_MAX / row_bytes).clamp(1, LOGITS_ROWS_MAX) as u32;
        let has_dense = spec.layers.iter().any(|layer| layer.mlp == MlpSpec::Dense);
        let dense = if has_dense {
            let gate_up = backend.rows(rows, 2 * spec.mlp_width)?;
            Some(DenseScratch { gate_up, gated: backend.rows(rows, spec.mlp_width)? })
        } else {
            None
        };
        let sandwiched = if spec.sandwich_norms { Some(backend.rows(rows, hidden)?) } else { None };
        Ok(Self {
            residual: backend.rows(rows, hidden)?,
            normed: backend.rows(rows, hidden)?,
            branch: backend.rows(rows, hidden)?,
            sandwiched,
            qkv: backend.rows(rows, spec.qkv_width())?,
            attended: backend.rows(rows, spec.attention_width())?,
            dense,
            sampled: backend.rows(logits_rows, hidden)?,
            logits: backend.rows(logits_rows, spec.vocab_size)?,
            logits_rows,
        })
    }
}
