//! One step, as plain data: the contract between the engine and whatever runs it.
//!
//! The engine plans a step, submits it and later waits for its output. Devices that can keep a
//! step in flight while the next is planned say so in [`DeviceLimits::steps_in_flight_max`], and
//! those that compute inside [`Device::submit`] in [`DeviceLimits::computes_in_submit`].

mod plan;
mod sampling;
pub mod sim;

pub use plan::{
    BlockCopy, Input, RowScore, SampleKind, SampleRow, SampledToken, SlotInit, Span, StepOutput,
    StepPlan, TokenLogprob,
};
pub use sampling::SamplingParams;

use thiserror::Error;

/// What a device can hold and do; fixed for its life, read once by the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceLimits {
    /// Token positions in one KV block; at most 256.
    pub block_size_tokens: u32,
    /// KV blocks the device has.
    pub blocks_total: u32,
    /// Rows (tokens) that one step may hold.
    pub step_rows_max: u32,
    /// Sequence slots; a step holds at most this many spans.
    pub slots_total: u32,
    /// Longest context (prompt plus output) of one sequence.
    pub context_tokens_max: u32,
    /// Size of the vocabulary; every token id in plans and outputs is below it.
    pub vocab_size: u32,
    /// 1, or 2 when the next step may be submitted before the previous one's output was waited
    /// for.
    pub steps_in_flight_max: u32,
    /// Whether `submit` returns only when the step is computed, so that whatever the engine has to
    /// do beside a step is better done before.
    pub computes_in_submit: bool,
}

/// Why a step could not be run.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum DeviceError {
    /// The step failed, the device is well: the requests in it may be retried without the culprit.
    #[error("the device could not run step {step}: {reason}")]
    Step {
        /// The plan's step number.
        step: u64,
        /// What the device said.
        reason: String,
    },
    /// The device is lost: every later call fails, and the process has to be started again.
    #[error("the device is lost: {reason}; restart the server")]
    Lost {
        /// What the device said.
        reason: String,
    },
}

/// Runs steps. Implemented by the model's runner and by the simulated device.
///
/// Outputs come in the order of submission: each `submit` is answered by exactly one `wait`.
pub trait Device: Send {
    /// What this device can hold.
    fn limits(&self) -> &DeviceLimits;

    /// Starts a step. The plan is only borrowed for the call.
    ///
    /// # Errors
    /// [`DeviceError`] when the step cannot be run; there is then no output to wait for.
    fn submit(&mut self, plan: &StepPlan) -> Result<(), DeviceError>;

    /// Waits for the oldest submitted step and writes its result over `output`.
    ///
    /// # Errors
    /// [`DeviceError`] when that step failed; its rows have no result.
    fn wait(&mut self, output: &mut StepOutput) -> Result<(), DeviceError>;
}
