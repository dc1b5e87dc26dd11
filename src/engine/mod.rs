//! What runs in the next step: sequences, KV blocks, order, the loop. Knows nothing of text, HTTP
//! or tensors; meets the model only through [`crate::device::Device`].

mod handle;
mod load;
mod reply;
mod submission;

pub use handle::{EngineHandle, SubmitError};
pub use load::Load;
pub use reply::{CancelList, Event, FinishReason, Reply, ReplyStream, Usage, reply_channel};
pub use submission::{Stops, Submission};
