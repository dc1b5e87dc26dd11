//! One choice of a request: its tokens, its blocks, and how far both have come.

use std::mem::offset_of;

use super::block_list::BlockList;
use super::outbox::ReplyKey;
use super::prefix::ChainId;
use super::queue::Flow;
use super::submission::Stops;
use super::token_list::TokenList;
use crate::ids::{BlockId, SeqId, SlotId, TokenId};

/// A sequence by its place, with its id so that a reused place is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeqKey {
    pub index: u32,
    pub id: SeqId,
}

/// Where a sequence is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
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

/// Tells most tokens that stop nothing from those that might, without a look at the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StopFilter(u32);

/// See the module. Positions count from the first prompt token.
///
/// Invariants: `finite <= computed <= scheduled <= known + sampling`; `sampling` is at most 1 for
/// each step in flight; blocks cover `scheduled`.
///
/// What a decode reads and writes comes first and fills three cache lines, the rest is behind it:
/// with a thousand sequences running, a step costs little else than these lines.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Sequence {
    pub id: SeqId,
    /// Positions that are in a submitted step.
    pub scheduled: u32,
    /// Tokens whose value the host knows.
    pub known: u32,
    /// Positions whose step has completed.
    pub computed: u32,
    /// Tokens being sampled by steps in flight.
    pub sampling: u32,
    /// Rises when the sequence loses what steps in flight computed for it.
    pub epoch: u32,
    /// The last known token.
    pub last_token: TokenId,
    /// Tokens to generate at most.
    pub tokens_max: u32,
    pub slot: SlotId,
    /// Leading blocks that were offered to the prefix cache.
    pub published: u32,
    pub phase: Phase,
    /// Whether the device knows the slot to be this sequence's.
    pub slot_ready: bool,
    /// Set when the choice has ended and it only computes the prompt for the others.
    pub ended: bool,
    /// Whether there is a `fork_source`.
    pub forks: bool,
    pub blocks: BlockList,
    /// Its request's, kept here so that a step touches no request that merely goes on.
    pub stop_filter: StopFilter,
    /// As `stop_filter`.
    pub flow: Flow,
    /// As `stop_filter`.
    pub reply: ReplyKey,
    /// Which choice of its request.
    pub choice: u32,
    pub generated: TokenList,
    /// Index of its request.
    pub request: u32,
    /// Its place in the list of decoding sequences.
    pub place: u32,
    /// Of the computed positions, the leading ones that are known to hold no NaN: a row at or
    /// after each was finite (R34). Kept up to date at the ends of blocks.
    pub finite: u32,
    /// Of its blocks, those that count as another choice's of its request.
    pub uncounted: u32,
    /// Leading blocks that stand in the slot's row of the block tables.
    pub tabled: u32,
    /// Other choices of the request wait for this one to compute their prompt.
    pub bears: bool,
    /// The partly filled last block of the common prompt, to be copied before the first own token
    /// is written; holds a reference until that step has completed.
    pub fork_source: Option<BlockId>,
    /// The place in the prefix cache after the published blocks.
    pub published_end: ChainId,
}

const _: () = assert!(offset_of!(Sequence, request) == 192, "three cache lines");

impl StopFilter {
    /// A Bloom filter of the stop tokens with two bits for each.
    pub fn new(stops: &Stops) -> Self {
        let tokens = stops.eos.iter().chain(stops.tokens.iter());
        Self(tokens.fold(0, |bits, token| bits | Self::bits(*token)))
    }

    /// False for most tokens that are no stop token, and for none that is one.
    pub fn may_stop(self, token: TokenId) -> bool {
        let bits = Self::bits(token);
        self.0 & bits == bits
    }

    fn bits(token: TokenId) -> u32 {
        // Multiplicative hashing with the golden ratio; its upper bits are the mixed ones.
        1 << (token.0 % 32) | 1 << (token.0.wrapping_mul(0x9e37_79b9) >> 27)
    }
}

impl Sequence {
    /// Known tokens that are in no step yet.
    pub fn unscheduled(&self) -> u32 {
        self.known.saturating_sub(self.scheduled)
    }

    /// Tokens generated, with those being sampled.
    pub fn generated_soon(&self) -> u32 {
        self.generated.len() + self.sampling
    }

    /// Takes in a sampled token.
    pub fn push(&mut self, token: TokenId) {
        self.generated.push(token);
        self.known += 1;
        self.last_token = token;
    }
}
