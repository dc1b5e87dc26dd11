//! A step's arrays, and the sines and cosines of its positions.

use super::super::{BackendError, BatchShape, RopeSpec};
use super::memory::{Buffer, Request, product};
use crate::device::{Input, SampleRow, Span, StepPlan};
use crate::ids::{BlockId, SlotId};

/// What ops know of the step that runs.
#[derive(Debug)]
pub struct Batch {
    pub(super) tokens: Vec<u32>,
    pub(super) positions: Vec<u32>,
    pub(super) kv_slots: Vec<u32>,
    pub(super) spans: Vec<Span>,
    pub(super) block_tables: Vec<BlockId>,
    pub(super) samples: Vec<SampleRow>,
    ropes: Vec<Rope>,
}

/// One kind of rotary embedding, at the step's positions.
#[derive(Debug)]
pub(super) struct Rope {
    spec: RopeSpec,
    /// `[rows, 2, pairs]`: cosines, then sines.
    table: Buffer<f32>,
}

impl Batch {
    /// See [`super::super::Backend::batch`].
    pub(super) fn new(
        shape: &BatchShape,
        available_bytes: Option<u64>,
    ) -> Result<Self, BackendError> {
        let request = Request {
            what: "the rotary embeddings of a step",
            remedy: "lower --max-num-batched-tokens",
            available_bytes,
        };
        let rows = shape.rows_max as usize;
        let rope = |spec: &RopeSpec| {
            let table = Buffer::zeroed(product(&[rows, 2, spec.inv_freq.len()]), request)?;
            Ok(Rope { spec: spec.clone(), table })
        };
        Ok(Self {
            tokens: Vec::with_capacity(rows),
            positions: Vec::with_capacity(rows),
            kv_slots: Vec::with_capacity(rows),
            spans: Vec::with_capacity(shape.slots as usize),
            block_tables: Vec::new(),
            samples: Vec::with_capacity(rows),
            ropes: shape.ropes.iter().map(rope).collect::<Result<_, BackendError>>()?,
        })
    }

    /// Takes a plan's arrays. `last_sampled` says what a slot sampled last.
    pub(super) fn fill(&mut self, plan: &StepPlan, last_sampled: impl Fn(SlotId) -> u32) {
        self.tokens.clear();
        for span in &plan.spans {
            let first = span.row_start as usize;
            for input in &plan.inputs[first..first + span.row_count as usize] {
                self.tokens.push(match input {
                    Input::Token(token) => token.0,
                    Input::LastSampled => last_sampled(span.slot),
                });
            }
        }
        replace(&mut self.positions, &plan.positions);
        replace(&mut self.kv_slots, &plan.kv_slots);
        self.spans.clear();
        self.block_tables.clear();
        for span in &plan.spans {
            let table_start = self.block_tables.len() as u32;
            self.block_tables.extend_from_slice(plan.table(span));
            self.spans.push(Span { table_start, ..*span });
        }
        replace(&mut self.samples, &plan.samples);
        for rope in &mut self.ropes {
            rope.fill(&self.positions);
        }
    }

    pub(super) fn rope(&self, index: u32) -> &Rope {
        &self.ropes[index as usize]
    }

    /// The samples `first..first + count`.
    pub(super) fn samples(&self, first: u32, count: u32) -> &[SampleRow] {
        &self.samples[first as usize..][..count as usize]
    }

    /// A span's block table.
    pub(super) fn table(&self, span: &Span) -> &[BlockId] {
        &self.block_tables[span.table_start as usize..][..span.table_len as usize]
    }
}

impl Rope {
    fn fill(&mut self, positions: &[u32]) {
        let pairs = self.spec.inv_freq.len();
        if pairs == 0 {
            return;
        }
        for (row, &position) in self.table.chunks_exact_mut(2 * pairs).zip(positions) {
            let (cosines, sines) = row.split_at_mut(pairs);
            for ((cos, sin), frequency) in cosines.iter_mut().zip(sines).zip(&self.spec.inv_freq) {
                let (s, c) = (position as f32 * frequency).sin_cos();
                (*cos, *sin) = (c * self.spec.magnitude, s * self.spec.magnitude);
            }
        }
    }

    /// Rotates a head's first `2 * pairs` values by the position of a row of the step.
    pub fn rotate(&self, row: usize, head: &mut [f32]) {
        let pairs = self.spec.inv_freq.len();
        let (cosines, sines) = self.table[row * 2 * pairs..][..2 * pairs].split_at(pairs);
        let turns = cosines.iter().zip(sines);
        if self.spec.interleaved {
            for (pair, (cos, sin)) in head.chunks_exact_mut(2).zip(turns) {
                let (a, b) = (pair[0], pair[1]);
                pair[0] = a * cos - b * sin;
                pair[1] = b * cos + a * sin;
            }
        } else {
            let (first, second) = head[..2 * pairs].split_at_mut(pairs);
            for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(turns) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }

    /// Values of a head that it rotates.
    pub fn rotary_dim(&self) -> usize {
        2 * self.spec.inv_freq.len()
    }
}

fn replace<T: Clone>(to: &mut Vec<T>, from: &[T]) {
    to.clear();
    to.extend_from_slice(from);
}
