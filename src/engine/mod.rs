//! What runs in the next step: sequences, KV blocks, order, the loop. Knows nothing of text, HTTP
//! or tensors; meets the model only through [`crate::device::Device`].
//!
//! A submission comes through the mailbox ([`EngineHandle`]), waits in the fair queue, starts when
//! it fits, is computed in chunks, generates a token a step, and ends with one terminal event.
//! [`Engine::turn`] is the whole loop body; a thread, a simulation or a test calls it.

mod admission;
mod block_list;
mod blocks;
mod cached;
mod canary;
mod charges;
mod check;
mod complete;
mod cost;
mod endings;
mod handle;
mod load;
mod objective;
mod outbox;
mod pace;
mod plan;
mod policy;
mod prefix;
mod promise;
mod queue;
mod reply;
mod report;
mod request;
mod resume;
mod scheduler;
mod sequence;
mod settings;
mod slab;
mod soundness;
mod step;
mod submission;
mod tenants;
mod token_list;
mod trial;
mod turn;
mod watchdog;

pub use blocks::{BlockPool, ChainId};
pub use cost::{CostModel, StepPrices, StepShape};
pub use handle::{EngineError, EngineHandle, Observer, SubmitError};
pub use load::Load;
pub use reply::{CancelList, Event, FinishReason, Reply, ReplyStream, Usage, reply_channel};
pub use report::{StepFacts, TurnReport};
pub use settings::EngineConfig;
pub use submission::{Promise, Share, Stops, Submission};
pub use turn::Engine;
