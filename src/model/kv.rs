//! How many KV blocks there are, from a memory budget.

use super::error::ModelError;
use super::spec::ModelSpec;
use crate::backend::{DType, KvShape};

/// What the cache has to hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct KvDemand {
    /// Stored type.
    pub(super) dtype: DType,
    /// Token positions of a block.
    pub(super) block_size_tokens: u32,
    /// Longest context.
    pub(super) context_tokens: u32,
    /// Sequences at most.
    pub(super) sequences: u32,
    /// Memory it may take.
    pub(super) memory: KvMemory,
}

/// Memory that the KV cache may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvMemory {
    /// This many bytes.
    Bytes(u64),
    /// What as many full contexts need as may run at once, but together with the weights at most
    /// this many bytes.
    AtMost(u64),
}

/// The cache's shape and its size in bytes.
///
/// # Errors
/// [`ModelError::Memory`] when not even one full context fits, with the longest that would.
pub(super) fn shape(spec: &ModelSpec, demand: &KvDemand) -> Result<(KvShape, u64), ModelError> {
    let value_bytes = demand.dtype.block_bytes() as u64;
    let token_bytes = spec.kv_bytes_per_token(value_bytes);
    let block_bytes = token_bytes * u64::from(demand.block_size_tokens);
    let per_context = u64::from(demand.context_tokens.div_ceil(demand.block_size_tokens));
    let wanted = per_context * u64::from(demand.sequences);
    let budget_bytes = match demand.memory {
        KvMemory::Bytes(bytes) => bytes,
        KvMemory::AtMost(bytes) => wanted.saturating_mul(block_bytes).min(bytes),
    };
    // Row addresses, `block * block_size + offset`, are 32 bits wide.
    let addressable = u64::from(u32::MAX / demand.block_size_tokens);
    let blocks = (budget_bytes / block_bytes).min(addressable);
    if blocks < per_context {
        let (KvMemory::Bytes(available_bytes) | KvMemory::AtMost(available_bytes)) = demand.memory;
        let longest = blocks * u64::from(demand.block_size_tokens);
        return Err(ModelError::Memory {
            what: format!("the KV cache of one context of {} tokens", demand.context_tokens),
            needed_bytes: per_context * block_bytes,
            available_bytes,
            advice: format!(
                "set --max-model-len {longest} or less, raise --kv-cache-memory-bytes, or choose \
                 a smaller --kv-cache-dtype"
            ),
        });
    }
    let shape = KvShape {
        layers: spec.layers.len() as u32,
        blocks: u32::try_from(blocks).expect("bounded by addressable"),
        block_size_tokens: demand.block_size_tokens,
        kv_heads: spec.kv_heads,
        head_dim: spec.head_dim,
        dtype: demand.dtype,
    };
    Ok((shape, blocks * block_bytes))
}
