//! A step's input and output: flat arrays that a device can upload as they are.

use std::sync::Arc;
use std::time::Duration;

use super::sampling::SamplingParams;
use crate::ids::{BlockId, SeqId, SlotId, TokenId};

/// Everything a device needs to run one step. Rows are token positions; the rows of one sequence
/// are adjacent and in order of position.
///
/// Invariants (asserted by [`StepPlan::check`]): `inputs`, `positions` and `kv_slots` have one
/// entry for each row; spans cover all rows without gap or overlap; every KV slot lies in a block
/// that the row's span lists; `samples` are in ascending order of row.
#[derive(Clone, Debug, Default)]
pub struct StepPlan {
    /// Number of this step, ascending by one.
    pub step: u64,
    /// Sequences that take a slot in this step, before anything else happens.
    pub slot_inits: Vec<SlotInit>,
    /// Block copies (copy-on-write) to finish before the forward pass.
    pub copies: Vec<BlockCopy>,
    /// The token of each row.
    pub inputs: Vec<Input>,
    /// The position of each row in its sequence, from 0.
    pub positions: Vec<u32>,
    /// Where each row's K and V are written: `block * block_size_tokens + offset`.
    pub kv_slots: Vec<u32>,
    /// The sequences in this step.
    pub spans: Vec<Span>,
    /// The block tables that spans point into. Tables of sequences that are not in the step may
    /// stand between them, so a device takes what its spans name.
    pub block_tables: Vec<BlockId>,
    /// The rows whose logits are wanted.
    pub samples: Vec<SampleRow>,
}

/// Where a row's token comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A token that the host knows.
    Token(TokenId),
    /// The token that the span's slot sampled last; the host may not have seen it yet.
    LastSampled,
}

/// One sequence's part of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The sequence, for error messages and simulated results.
    pub seq: SeqId,
    /// Its place on the device.
    pub slot: SlotId,
    /// First row.
    pub row_start: u32,
    /// Number of rows, at least 1.
    pub row_count: u32,
    /// Tokens of context after this step: the last row's position plus 1.
    pub context_tokens: u32,
    /// First entry of its block table in [`StepPlan::block_tables`].
    pub table_start: u32,
    /// Entries of its block table; they cover `context_tokens`.
    pub table_len: u32,
}

/// Puts a sequence's sampling state into a slot, replacing whatever was there.
#[derive(Clone, Debug)]
pub struct SlotInit {
    /// The slot.
    pub slot: SlotId,
    /// The sequence that owns it from now on.
    pub seq: SeqId,
    /// How its tokens are chosen.
    pub params: Arc<SamplingParams>,
    /// The prompt; empty unless `params.needs_history()`.
    pub prompt: Arc<[TokenId]>,
    /// What it generated before it lost an earlier slot to preemption; empty unless
    /// `params.needs_history()`.
    pub generated: Vec<TokenId>,
}

/// Copies all of a KV block's layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockCopy {
    /// Read from.
    pub from: BlockId,
    /// Written to; owned by one sequence alone.
    pub to: BlockId,
}

/// What is wanted of a row's logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleRow {
    /// The row.
    pub row: u32,
    /// The slot that the result is for: that of the row's span, or, when the choices of one
    /// request sample their first tokens from the last row of their common prompt, each choice's.
    pub slot: SlotId,
    /// What to do.
    pub kind: SampleKind,
}

/// See [`SampleRow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleKind {
    /// Choose a token by the slot's parameters and remember it as the slot's last sampled one.
    /// `output_index` counts the sequence's generated tokens from 0 and selects the random bits.
    Next {
        /// Index of the token to be sampled among the generated ones.
        output_index: u32,
    },
    /// Report the log-probability of a known token (a prompt's next one) and the `top` highest.
    Score {
        /// The token whose log-probability is wanted.
        token: TokenId,
        /// How many of the highest to report.
        top: u32,
    },
}

/// What a step produced. Entries of `sampled` and `scores` are in the order of the plan's
/// `samples` of that kind.
#[derive(Clone, Debug, Default)]
pub struct StepOutput {
    /// The step's number.
    pub step: u64,
    /// One entry for each [`SampleKind::Next`].
    pub sampled: Vec<SampledToken>,
    /// One entry for each [`SampleKind::Score`].
    pub scores: Vec<RowScore>,
    /// Device time of the step.
    pub elapsed: Duration,
}

/// A sampled token.
#[derive(Clone, Debug, PartialEq)]
pub struct SampledToken {
    /// The slot it was sampled for.
    pub slot: SlotId,
    /// The token; meaningless unless `finite`.
    pub token: TokenId,
    /// False when the row's logits held a NaN or plus infinity, or nothing but minus infinity, as
    /// they came or after bias and bans (R35): the sequence must end with an error.
    pub finite: bool,
    /// Present when the slot's parameters ask for log-probabilities.
    pub logprob: Option<Box<TokenLogprob>>,
}

/// The scores of a prompt row.
#[derive(Clone, Debug, PartialEq)]
pub struct RowScore {
    /// The slot of the row.
    pub slot: SlotId,
    /// The known token's log-probability and the highest ones.
    pub logprob: TokenLogprob,
}

/// Log-probabilities (natural logarithm, of the unmodified logits) at one position.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The chosen or known token.
    pub token: TokenId,
    /// Its log-probability.
    pub logprob: f32,
    /// The highest, in descending order; ties in ascending order of token.
    pub top: Vec<(TokenId, f32)>,
}

impl StepPlan {
    /// Empties the plan for the next step and keeps its memory.
    pub fn clear(&mut self, step: u64) {
        self.step = step;
        self.slot_inits.clear();
        self.copies.clear();
        self.inputs.clear();
        self.positions.clear();
        self.kv_slots.clear();
        self.spans.clear();
        self.block_tables.clear();
        self.samples.clear();
    }

    /// Rows in the step.
    pub fn rows(&self) -> usize {
        self.inputs.len()
    }

    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// The block table of a span.
    pub fn table(&self, span: &Span) -> &[BlockId] {
        let start = span.table_start as usize;
        &self.block_tables[start..start + span.table_len as usize]
    }

    /// Asserts the invariants of this type.
    ///
    /// # Panics
    /// When one is broken: the plan would read or write memory of another sequence.
    pub fn check(&self, block_size_tokens: u32, blocks_total: u32) {
        let rows = self.rows();
        assert_eq!(self.positions.len(), rows, "one position for each row");
        assert_eq!(self.kv_slots.len(), rows, "one KV slot for each row");
        let mut next_row = 0;
        for span in &self.spans {
            assert_eq!(span.row_start, next_row, "spans cover the rows in order");
            assert!(span.row_count >= 1, "a span has a row");
            next_row += span.row_count;
            let table = self.table(span);
            let covered = table.len() as u64 * u64::from(block_size_tokens);
            assert!(covered >= u64::from(span.context_tokens), "blocks cover the context");
            for row in span.row_start..next_row {
                let position = self.positions[row as usize];
                assert!(position < span.context_tokens, "a row lies in its context");
                let block = table[(position / block_size_tokens) as usize];
                assert!(block.0 < blocks_total, "a block of the device");
                let slot = block.0 * block_size_tokens + position % block_size_tokens;
                assert_eq!(self.kv_slots[row as usize], slot, "a row writes its own place");
            }
        }
        assert_eq!(next_row as usize, rows, "spans cover all rows");
        assert!(
            self.samples.windows(2).all(|w| w[0].row <= w[1].row),
            "samples are in order of row"
        );
        assert!(self.samples.iter().all(|s| (s.row as usize) < rows), "samples name rows");
    }
}
