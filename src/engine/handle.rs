//! The engine's thread and the way to it.

use std::sync::Arc;

use thiserror::Error;

use super::load::Load;
use super::reply::CancelList;
use super::submission::Submission;

/// Why a submission was not taken.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum SubmitError {
    /// The mailbox is full.
    #[error("the engine's mailbox is full")]
    Full,
    /// The engine's thread has ended.
    #[error("the engine has stopped")]
    Stopped,
}

/// A clonable way to the engine's thread.
#[derive(Clone, Debug)]
pub struct EngineHandle {}

impl EngineHandle {
    /// Hands a request to the engine; never blocks.
    ///
    /// # Errors
    /// [`SubmitError`]; the submission is dropped, its reply stream ends.
    pub fn submit(&self, _submission: Submission) -> Result<(), SubmitError> {
        todo!()
    }

    /// The latest snapshot.
    pub fn load(&self) -> Arc<Load> {
        todo!()
    }

    /// Where reply streams note that their caller has left; for [`super::reply_channel`].
    pub fn cancels(&self) -> Arc<CancelList> {
        todo!()
    }
}
