//! The paged KV cache: `[layer][k or v][block][kv head][position in block][head value]`, so that
//! attention reads the keys of one head in a block as one run of memory.
#![allow(unsafe_code, reason = "threads write disjoint heads of one buffer")]

use std::marker::PhantomData;

use half::{bf16, f16};

use super::super::{BackendError, DType, KvShape};
use super::kernels::Weights;
use super::memory::{Buffer, Request, product};
use crate::device::BlockCopy;

/// The cache of all layers.
#[derive(Debug)]
pub struct Kv {
    data: Buffer<u8>,
    layout: KvLayout,
}

/// Where everything lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct KvLayout {
    dtype: DType,
    layers: usize,
    blocks: usize,
    pub block_size_tokens: usize,
    pub heads: usize,
    pub head_dim: usize,
}

/// Keys or values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Keys,
    Values,
}

/// The cache while threads write to it, each the heads that are its own.
#[derive(Clone, Copy)]
pub(super) struct SharedKv<'a> {
    start: *mut u8,
    layout: KvLayout,
    buffer: PhantomData<&'a mut u8>,
}

// SAFETY: the pointer is only followed in `store`, whose contract is that heads are disjoint.
unsafe impl Send for SharedKv<'_> {}
// SAFETY: as above.
unsafe impl Sync for SharedKv<'_> {}

impl Kv {
    /// See [`super::super::Backend::kv_cache`].
    pub(super) fn new(shape: &KvShape, available_bytes: Option<u64>) -> Result<Self, BackendError> {
        if !matches!(shape.dtype, DType::F32 | DType::F16 | DType::BF16) {
            let what = format!("KV cache of {:?}; expected F32, F16 or BF16", shape.dtype);
            return Err(BackendError::Unsupported { what });
        }
        let layout = KvLayout {
            dtype: shape.dtype,
            layers: shape.layers as usize,
            blocks: shape.blocks as usize,
            block_size_tokens: shape.block_size_tokens as usize,
            heads: shape.kv_heads as usize,
            head_dim: shape.head_dim as usize,
        };
        let what = format!(
            "the KV cache of {} blocks of {} tokens",
            shape.blocks, shape.block_size_tokens
        );
        let request = Request {
            what: &what,
            remedy: "lower --gpu-memory-utilization, --max-model-len or the KV cache's size, or \
                     choose --kv-cache-dtype bf16",
            available_bytes,
        };
        let len = product(&[
            layout.layers,
            2,
            layout.blocks,
            layout.block_values(),
            value_bytes(layout.dtype),
        ]);
        Ok(Self { data: Buffer::zeroed(len, request)?, layout })
    }

    pub(super) fn layout(&self) -> KvLayout {
        self.layout
    }

    pub(super) fn dtype(&self) -> DType {
        self.layout.dtype
    }

    pub(super) fn share(&mut self) -> SharedKv<'_> {
        SharedKv { start: self.data.as_mut_ptr(), layout: self.layout, buffer: PhantomData }
    }

    /// The keys or values of one head in a block, from a position on: rows of one head value.
    pub(super) fn rows(
        &self,
        layer: usize,
        half: Half,
        block: usize,
        head: usize,
        offset: usize,
    ) -> Weights<'_> {
        let row_bytes = self.layout.head_dim * value_bytes(self.layout.dtype);
        let start = self.layout.place(layer, half, block, head, offset);
        let rows = self.layout.block_size_tokens - offset;
        let bytes = &self.data[start..start + rows * row_bytes];
        Weights { bytes, row_bytes, values: self.layout.head_dim }
    }

    /// Copies all layers of a block.
    pub(super) fn copy_block(&mut self, copy: &BlockCopy) {
        let bytes = self.layout.block_values() * value_bytes(self.layout.dtype);
        for layer in 0..self.layout.layers {
            for half in [Half::Keys, Half::Values] {
                let from = self.layout.place(layer, half, copy.from.index(), 0, 0);
                let to = self.layout.place(layer, half, copy.to.index(), 0, 0);
                self.data.copy_within(from..from + bytes, to);
            }
        }
    }
}

impl KvLayout {
    /// Values of a block's keys or values in one layer.
    fn block_values(&self) -> usize {
        product(&[self.heads, self.block_size_tokens, self.head_dim])
    }

    /// The first byte of a head's keys or values at a position of a block.
    fn place(&self, layer: usize, half: Half, block: usize, head: usize, offset: usize) -> usize {
        assert!(layer < self.layers && block < self.blocks, "layer {layer}, block {block}");
        assert!(head < self.heads && offset < self.block_size_tokens, "head {head} at {offset}");
        let block = (layer * 2 + usize::from(half == Half::Values)) * self.blocks + block;
        let position = (block * self.heads + head) * self.block_size_tokens + offset;
        position * self.head_dim * value_bytes(self.dtype)
    }
}

impl SharedKv<'_> {
    /// Writes a head's keys or values at KV slot `slot`, rounded to the nearest stored value.
    ///
    /// # Safety
    /// No other thread writes this head in this layer.
    pub unsafe fn store(&self, layer: usize, half: Half, slot: usize, head: usize, from: &[f32]) {
        let KvLayout { dtype, block_size_tokens, head_dim, .. } = self.layout;
        assert_eq!(from.len(), head_dim, "a head's values");
        let (block, offset) = (slot / block_size_tokens, slot % block_size_tokens);
        let start = self.layout.place(layer, half, block, head, offset);
        let bytes = head_dim * value_bytes(dtype);
        // SAFETY: `place` asserts that the position lies in the cache; it is this thread's alone
        // by this function's contract.
        let to = unsafe { std::slice::from_raw_parts_mut(self.start.add(start), bytes) };
        match dtype {
            DType::F32 => write(to, from, f32::to_le_bytes),
            DType::F16 => write(to, from, |v| f16::from_f32(v).to_le_bytes()),
            _ => write(to, from, |v| bf16::from_f32(v).to_le_bytes()),
        }
    }
}

fn write<const N: usize>(to: &mut [u8], from: &[f32], bytes: impl Fn(f32) -> [u8; N]) {
    for (to, from) in to.chunks_exact_mut(N).zip(from) {
        to.copy_from_slice(&bytes(*from));
    }
}

/// Bytes of a plain value.
fn value_bytes(dtype: DType) -> usize {
    dtype.block_bytes()
}
