//! The ops on the CPU: f32 activations, weights in their stored type straight from the memory map,
//! own kernels for AVX-512, AVX2 and everything else, and threads that spin between ops.
//!
//! Every output value is computed in one order whatever else is in the step: sums are split by
//! position and size of the sum itself, never by the number of rows or threads.

mod attend;
mod batch;
mod kernels;
mod kv;
mod linear;
mod memory;
mod moe;
mod norm;
mod pool;
mod random;
mod ranking;
mod rows;
mod sample;
mod sampler;
mod scratch;
#[cfg(test)]
mod tests;
mod weight;

pub use batch::Batch;
pub use kernels::{Instructions, KernelSet};
pub use kv::Kv;
pub use memory::available_bytes;
pub use rows::Rows;
pub use sampler::Sampler;
pub use weight::{Vector, Weight};

use std::cell::RefCell;
use std::num::NonZeroUsize;

use super::{
    Activation, AttentionParams, Backend, BackendError, BatchShape, HostTensor, KvShape, MoeParams,
    MoeWeights, NormKind,
};
use crate::device::{SlotInit, StepOutput, StepPlan};
use moe::MoeScratch;
use pool::Pool;
use scratch::Scratches;

/// What a [`CpuBackend`] may use.
#[derive(Clone, Copy, Debug)]
pub struct CpuOptions {
    /// Threads, including the caller's.
    pub threads: NonZeroUsize,
    /// Instructions.
    pub kernels: KernelSet,
    /// Bytes that can still be taken, asked before each large buffer; `None` where unknown.
    pub available_bytes: fn() -> Option<u64>,
}

/// See the head of this file.
pub struct CpuBackend {
    kernels: KernelSet,
    pool: Pool,
    scratches: Scratches,
    moe: RefCell<MoeScratch>,
    available_bytes: fn() -> Option<u64>,
}

impl Default for CpuOptions {
    /// All cores, the best instructions, what the operating system says about memory.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { threads, kernels: KernelSet::best(), available_bytes }
    }
}

impl CpuBackend {
    /// Starts the threads.
    ///
    /// # Errors
    /// [`BackendError::Memory`], or [`BackendError::Lost`] when the operating system refuses a
    /// thread.
    pub fn new(options: &CpuOptions) -> Result<Self, BackendError> {
        let pool = Pool::new(options.threads).map_err(|error| {
            BackendError::Lost(format!("cannot start {} threads: {error}", options.threads))
        })?;
        Ok(Self {
            kernels: options.kernels,
            scratches: Scratches::new(pool.threads(), (options.available_bytes)())?,
            pool,
            moe: RefCell::default(),
            available_bytes: options.available_bytes,
        })
    }

    fn runner(&self) -> (KernelSet, &Pool) {
        (self.kernels, &self.pool)
    }

    fn runner_with_scratch(&self) -> (KernelSet, &Pool, &Scratches) {
        (self.kernels, &self.pool, &self.scratches)
    }
}

impl Backend for CpuBackend {
    type Rows = Rows;
    type Weight = Weight;
    type Vector = Vector;
    type Batch = Batch;
    type Kv = Kv;
    type Sampler = Sampler;

    fn describe(&self) -> String {
        let instructions = match self.kernels.instructions() {
            Instructions::Avx512 => "AVX-512",
            Instructions::Avx2 => "AVX2",
            Instructions::Portable => "portable",
        };
        format!("CPU, {} threads, {instructions} kernels", self.pool.threads())
    }

    fn rows(&self, capacity_rows: u32, width: u32) -> Result<Rows, BackendError> {
        Rows::new(capacity_rows as usize, width as usize, (self.available_bytes)())
    }

    fn weight(&self, parts: &[HostTensor], bias: &[HostTensor]) -> Result<Weight, BackendError> {
        Weight::new(parts, bias)
    }

    fn vector(&self, tensor: &HostTensor) -> Result<Vector, BackendError> {
        Vector::new(tensor)
    }

    fn kv_cache(&self, shape: &KvShape) -> Result<Kv, BackendError> {
        Kv::new(shape, (self.available_bytes)())
    }

    fn batch(&self, shape: &BatchShape) -> Result<(Batch, Sampler), BackendError> {
        let batch = Batch::new(shape, (self.available_bytes)())?;
        Ok((batch, Sampler::new(shape, self.pool.threads())))
    }

    fn init_slot(&self, sampler: &mut Sampler, init: &SlotInit) {
        sampler.init_slot(init);
    }

    fn upload(&self, plan: &StepPlan, sampler: &Sampler, batch: &mut Batch) {
        batch.fill(plan, |slot| sampler.last_sampled(slot));
    }

    fn copy_blocks(&self, plan: &StepPlan, kv: &mut Kv) {
        plan.copies.iter().for_each(|copy| kv.copy_block(copy));
    }

    fn embed(&self, batch: &Batch, table: &Weight, scale: f32, out: &mut Rows) {
        linear::embed(self.runner(), &batch.tokens, table, scale, out);
    }

    fn rms_norm(&self, x: &Rows, weight: &Vector, kind: NormKind, eps: f32, out: &mut Rows) {
        norm::rms_norm(self.runner(), x, (weight, kind, eps), out);
    }

    fn add_rms_norm(
        &self,
        residual: &mut Rows,
        x: &Rows,
        weight: &Vector,
        kind: NormKind,
        eps: f32,
        out: &mut Rows,
    ) {
        norm::add_rms_norm(self.runner(), (residual, x), (weight, kind, eps), out);
    }

    fn linear(&self, x: &Rows, weight: &Weight, out: &mut Rows) {
        linear::linear(self.runner_with_scratch(), x, weight, out);
    }

    fn rope_store_kv(
        &self,
        batch: &Batch,
        params: &AttentionParams,
        norms: Option<(&Vector, &Vector, NormKind)>,
        qkv: &mut Rows,
        kv: &mut Kv,
    ) {
        attend::rope_store_kv(self.runner(), batch, params, norms, qkv, kv);
    }

    fn attend(&self, batch: &Batch, params: &AttentionParams, qkv: &Rows, kv: &Kv, out: &mut Rows) {
        attend::attend(self.runner_with_scratch(), batch, params, qkv, kv, out);
    }

    fn gated_activation(&self, activation: Activation, gate_up: &Rows, out: &mut Rows) {
        norm::gated_activation(self.runner(), activation, gate_up, out);
    }

    fn moe(&self, params: &MoeParams, weights: &MoeWeights<Weight>, x: &Rows, out: &mut Rows) {
        let scratch = &mut self.moe.borrow_mut();
        moe::moe(self.runner_with_scratch(), params, weights, x, out, scratch);
    }

    fn take_rows(&self, batch: &Batch, first: u32, count: u32, x: &Rows, out: &mut Rows) {
        out.set_count(count as usize);
        for (i, sample) in batch.samples(first, count).iter().enumerate() {
            out.row_mut(i).copy_from_slice(x.row(sample.row as usize));
        }
    }

    fn softcap(&self, logits: &mut Rows, cap: f32) {
        norm::softcap(self.runner(), logits, cap);
    }

    fn sample(
        &self,
        batch: &Batch,
        first: u32,
        count: u32,
        logits: &mut Rows,
        sampler: &mut Sampler,
    ) {
        sampler.sample(self.runner(), batch.samples(first, count), logits);
    }

    fn read(&self, sampler: &mut Sampler, output: &mut StepOutput) -> Result<(), BackendError> {
        sampler.read(output);
        Ok(())
    }

    fn read_rows(&self, rows: &Rows) -> Result<Vec<f32>, BackendError> {
        Ok((0..rows.count()).flat_map(|row| rows.row(row)).copied().collect())
    }
}
