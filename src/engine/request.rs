//! A request inside the engine: what was asked, and which of its choices still go on.

use std::sync::Arc;
use std::time::Duration;

use super::outbox::ReplyKey;
use super::prefix::ChainId;
use super::queue::Flow;
use super::reply::Usage;
use super::submission::{Promise, Stops};
use crate::clock::Time;
use crate::device::SamplingParams;
use crate::ids::{RequestId, TokenId};

/// A request by its place, with its id so that a reused place is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestKey {
    pub index: u32,
    pub id: RequestId,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Request {
    pub id: RequestId,
    /// Its tenant and class.
    pub flow: Flow,
    /// Root of its prefix-cache domain.
    pub root: ChainId,
    pub prompt: Arc<[TokenId]>,
    pub params: Vec<Arc<SamplingParams>>,
    pub max_tokens: u32,
    pub stops: Stops,
    pub score_prompt: Option<u32>,
    pub priority: i32,
    /// Order of arrival among all requests.
    pub arrival: u64,
    pub deadline: Option<Time>,
    pub promise: Option<Promise>,
    pub tpot: Option<Duration>,
    pub reply: ReplyKey,
    /// The sequence of each choice; `None` once the choice has ended.
    pub choices: Vec<Option<u32>>,
    /// Choices that have not ended.
    pub unfinished: u32,
    /// The sequence that computes the prompt; may outlive its choice until the others are born.
    pub lead: Option<u32>,
    /// In the queue, with neither slots nor blocks.
    pub waiting: bool,
    /// `Event::Started` was sent.
    pub started: bool,
    /// It was resubmitted after the engine's thread panicked.
    pub resubmitted: bool,
    /// Prompt positions whose score was sent: the next wanted row.
    pub scores_sent: u32,
    /// Tokens that it must compute before it generates on; part of the engine's backlog.
    pub backlog_tokens: u32,
    /// Blocks kept for it, so that it needs nobody else's (after its last preemption).
    pub blocks_reserved: u32,
    /// Blocks that it lacked when it was last tried.
    pub blocks_lacking: u32,
    /// Positions up to here were charged; computing them again after a preemption is free.
    pub charged_to: u32,
    /// Device seconds that were charged when it started for prefill still to be computed.
    pub pledged_s: f64,
    /// Its cached blocks when it was last looked at as one of several that may start, and the
    /// step in which it was.
    pub cached_hint: (u64, u32),
    pub usage: Usage,
}

impl Request {
    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> u32 {
        self.prompt.len() as u32
    }

    /// Whether prompt rows still have to be scored.
    pub fn scores_wanted(&self) -> bool {
        self.score_prompt.is_some() && self.scores_sent + 1 < self.prompt_tokens()
    }
}

/// Blocks that a request can need at most: full blocks of the prompt once, the rest for each
/// choice.
pub(super) fn blocks_max(prompt: u32, max_tokens: u32, choices: u32, block_size: u32) -> u64 {
    let shared = u64::from(prompt / block_size);
    let each = (u64::from(prompt) + u64::from(max_tokens)).div_ceil(u64::from(block_size));
    shared + u64::from(choices) * (each - shared)
}
