//! One choice of a request: its tokens, its blocks, and how far both have come.

use crate::ids::{BlockId, SeqId, SlotId, TokenId};

use super::prefix::ChainId;

/// A sequence by its place, with its id so that a reused place is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeqKey {
    pub index: u32,
    pub id: SeqId,
}

/// Where a sequence is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its request waits; it has neither slot nor blocks.
    Waiting,
    /// It has a slot; its request's leading choice still computes the common prompt.
    Unborn,
    /// Several of its known tokens are not yet in a step.
    Prefill,
    /// It goes on by one token a step.
    Decode,
}

/// See the module. Positions count from the first prompt token.
///
/// Invariants: `computed <= scheduled <= known + sampling`; `sampling` is at most 1 for each step
/// in flight; blocks cover `scheduled`.
#[derive(Debug)]
pub(super) struct Sequence {
    pub id: SeqId,
    /// Index of its request.
    pub request: u32,
    /// Which choice of it.
    pub choice: u32,
    pub phase: Phase,
    /// Its place in the list of decoding sequences.
    pub place: u32,
    pub slot: SlotId,
    /// Whether the device knows the slot to be this sequence's.
    pub slot_ready: bool,
    /// Set when the choice has ended and it only computes the prompt for the others.
    pub ended: bool,
    /// Tokens whose value the host knows.
    pub known: u32,
    /// Positions that are in a submitted step.
    pub scheduled: u32,
    /// Positions whose step has completed.
    pub computed: u32,
    /// Tokens being sampled by steps in flight.
    pub sampling: u32,
    /// The last known token.
    pub last_token: TokenId,
    /// Tokens to generate at most.
    pub tokens_max: u32,
    /// Rises when the sequence loses what steps in flight computed for it.
    pub epoch: u32,
    pub generated: Vec<TokenId>,
    pub blocks: Vec<BlockId>,
    /// Leading blocks that stand in the slot's row of the block tables.
    pub tabled: u32,
    /// The partly filled last block of the common prompt, to be copied before the first own token
    /// is written; holds a reference until that step has completed.
    pub fork_source: Option<BlockId>,
    /// Leading blocks that were offered to the prefix cache, and the place after them.
    pub published: u32,
    pub published_end: ChainId,
}

impl Sequence {
    /// Known tokens that are in no step yet.
    pub fn unscheduled(&self) -> u32 {
        self.known.saturating_sub(self.scheduled)
    }

    /// Tokens generated, with those being sampled.
    pub fn generated_soon(&self) -> u32 {
        self.generated.len() as u32 + self.sampling
    }

    /// Takes in a sampled token.
    pub fn push(&mut self, token: TokenId) {
        self.generated.push(token);
        self.known += 1;
        self.last_token = token;
    }
}
