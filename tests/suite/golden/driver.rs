//! Drives a device by hand-made steps: what a scheduler does, without its choices.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use weir::backend::DType;
use weir::backend::cpu::{CpuBackend, CpuOptions};
use weir::clock::ManualClock;
use weir::device::{
    Device, Input, SampleKind, SampleRow, SampledToken, SamplingParams, SlotInit, Span, StepOutput,
    StepPlan,
};
use weir::ids::{BlockId, SeqId, SlotId, TokenId};
use weir::model::{Checkpoint, KvMemory, OpenOptions, Opened, Runner, open};

/// Small, so that every sequence has many blocks.
pub const BLOCK_SIZE: u32 = 8;

/// What the tests run models with.
pub const OPTIONS: OpenOptions = OpenOptions {
    // The prompt and the answer of a fixture, and inside the original context of longrope.
    context_tokens_max: Some(128),
    sequences_max: 64,
    step_tokens_max: 512,
    block_size_tokens: BLOCK_SIZE,
    kv_memory: KvMemory::AtMost(1 << 30),
    kv_dtype: None,
};

/// A device, its free blocks and its free slots.
pub struct Driver {
    pub runner: Runner<CpuBackend>,
    free_blocks: Vec<BlockId>,
    free_slots: Vec<SlotId>,
    inits: Vec<SlotInit>,
    plan: StepPlan,
    output: StepOutput,
    next_seq: u64,
}

/// A sequence on the device.
#[derive(Clone)]
pub struct Seat {
    pub seq: SeqId,
    pub slot: SlotId,
    pub table: Vec<BlockId>,
    /// Tokens whose K and V are in the cache.
    pub computed: u32,
}

/// One sequence's part of a step.
pub struct Part<'a> {
    pub seat: &'a mut Seat,
    pub inputs: Vec<Input>,
    /// Rows of this part, from 0, and what is wanted of them.
    pub samples: Vec<(u32, SampleKind)>,
}

impl<'a> Part<'a> {
    /// Known tokens, without a sample.
    pub fn tokens(seat: &'a mut Seat, tokens: &[TokenId]) -> Self {
        let inputs = tokens.iter().map(|&token| Input::Token(token)).collect();
        Self { seat, inputs, samples: Vec::new() }
    }

    /// The token that the slot sampled last.
    pub fn last_sampled(seat: &'a mut Seat) -> Self {
        Self { seat, inputs: vec![Input::LastSampled], samples: Vec::new() }
    }

    /// Samples the next token from the last row.
    pub fn next(mut self, output_index: u32) -> Self {
        let row = self.inputs.len() as u32 - 1;
        self.samples.push((row, SampleKind::Next { output_index }));
        self
    }

    /// Asks for every row's logits.
    pub fn score_all(mut self, top: u32) -> Self {
        let kind = SampleKind::Score { token: TokenId(0), top };
        self.samples = (0..self.inputs.len() as u32).map(|row| (row, kind)).collect();
        self
    }
}

impl Driver {
    /// Opens a folder with an exact (f32) KV cache.
    pub fn open(folder: &Path) -> Self {
        Self::over(&Checkpoint::open_folder(folder).unwrap(), Some(DType::F32))
    }

    /// Opens a checkpoint.
    pub fn over(checkpoint: &Checkpoint, kv_dtype: Option<DType>) -> Self {
        Self::with_threads(checkpoint, kv_dtype, 1)
    }

    /// Opens a checkpoint on a number of threads.
    pub fn with_threads(checkpoint: &Checkpoint, kv_dtype: Option<DType>, threads: usize) -> Self {
        Self::with_options(checkpoint, &OpenOptions { kv_dtype, ..OPTIONS }, threads)
    }

    /// Opens a checkpoint with these options.
    pub fn with_options(checkpoint: &Checkpoint, options: &OpenOptions, threads: usize) -> Self {
        let clock = Arc::new(ManualClock::default());
        let threads = NonZeroUsize::new(threads).unwrap();
        let backend = CpuBackend::new(&CpuOptions { threads, ..CpuOptions::default() }).unwrap();
        let Opened { runner, info } = open(checkpoint, options, backend, clock).unwrap();
        assert_eq!(info.warnings, Vec::<String>::new());
        let limits = runner.limits().clone();
        Self {
            runner,
            // Every other block, then the rest: no table is contiguous.
            free_blocks: (0..limits.blocks_total)
                .step_by(2)
                .chain((1..limits.blocks_total).step_by(2))
                .map(BlockId)
                .collect(),
            free_slots: (0..limits.slots_total).map(SlotId).collect(),
            inits: Vec::new(),
            plan: StepPlan::default(),
            output: StepOutput::default(),
            next_seq: 0,
        }
    }

    /// A sequence that has computed nothing.
    pub fn seat(&mut self, params: SamplingParams) -> Seat {
        let slot = self.free_slots.pop().unwrap();
        self.next_seq += 1;
        let seq = SeqId(self.next_seq);
        self.inits.push(SlotInit {
            slot,
            seq,
            params: Arc::new(params),
            prompt: Arc::from([]),
            generated: Vec::new(),
        });
        Seat { seq, slot, table: Vec::new(), computed: 0 }
    }

    /// A sequence whose first `tokens` tokens, whole blocks, are those of `other`.
    pub fn seat_with_prefix(&mut self, other: &Seat, tokens: u32, params: SamplingParams) -> Seat {
        assert_eq!(tokens % BLOCK_SIZE, 0);
        let mut seat = self.seat(params);
        seat.table = other.table[..(tokens / BLOCK_SIZE) as usize].to_vec();
        seat.computed = tokens;
        seat
    }

    /// Gives the slot and the blocks of `seat` back, to be used next.
    pub fn leave(&mut self, seat: Seat) {
        self.free_slots.push(seat.slot);
        self.free_blocks.extend(seat.table);
    }

    /// Runs one step.
    pub fn step(&mut self, parts: Vec<Part<'_>>) -> &StepOutput {
        self.build(parts);
        self.runner.submit(&self.plan).unwrap();
        self.runner.wait(&mut self.output).unwrap();
        assert_eq!(self.output.step, self.plan.step);
        &self.output
    }

    /// Runs one step and returns the logits of the sampled rows instead of sampling.
    pub fn logits(&mut self, parts: Vec<Part<'_>>) -> Vec<f32> {
        self.build(parts);
        self.runner.logits(&self.plan).unwrap()
    }

    fn build(&mut self, parts: Vec<Part<'_>>) {
        let plan = &mut self.plan;
        plan.clear(plan.step + 1);
        plan.slot_inits.append(&mut self.inits);
        for Part { seat, inputs, samples } in parts {
            let row_start = plan.rows() as u32;
            let row_count = inputs.len() as u32;
            let context_tokens = seat.computed + row_count;
            while (seat.table.len() as u32) * BLOCK_SIZE < context_tokens {
                seat.table.push(self.free_blocks.pop().unwrap());
            }
            for position in seat.computed..context_tokens {
                let block = seat.table[(position / BLOCK_SIZE) as usize];
                plan.positions.push(position);
                plan.kv_slots.push(block.0 * BLOCK_SIZE + position % BLOCK_SIZE);
            }
            plan.inputs.extend(inputs);
            plan.samples.extend(samples.into_iter().map(|(row, kind)| SampleRow {
                row: row_start + row,
                slot: seat.slot,
                kind,
            }));
            plan.spans.push(Span {
                seq: seat.seq,
                slot: seat.slot,
                row_start,
                row_count,
                context_tokens,
                table_start: plan.block_tables.len() as u32,
                table_len: seat.table.len() as u32,
            });
            plan.block_tables.extend(&seat.table);
            seat.computed = context_tokens;
        }
    }

    /// Computes what is left of `prompt` in chunks and samples the output positions `outputs`,
    /// alone.
    pub fn decode(
        &mut self,
        seat: &mut Seat,
        prompt: &[TokenId],
        chunk: usize,
        outputs: Range<u32>,
    ) -> Vec<SampledToken> {
        let mut chunks = prompt[seat.computed as usize..].chunks(chunk).peekable();
        let mut sampled = Vec::with_capacity(outputs.len());
        while sampled.len() < outputs.len() {
            let index = outputs.start + sampled.len() as u32;
            let part = match chunks.next() {
                Some(chunk) if chunks.peek().is_some() => Part::tokens(seat, chunk),
                Some(chunk) => Part::tokens(seat, chunk).next(index),
                None => Part::last_sampled(seat).next(index),
            };
            sampled.extend(self.step(vec![part]).sampled.iter().cloned());
        }
        sampled
    }

    /// As [`Driver::decode`] from output position 0, without anything but the tokens.
    pub fn tokens(
        &mut self,
        seat: &mut Seat,
        prompt: &[TokenId],
        chunk: usize,
        count: usize,
    ) -> Vec<TokenId> {
        let sampled = self.decode(seat, prompt, chunk, 0..count as u32);
        sampled.into_iter().map(|s| s.token).collect()
    }
}
