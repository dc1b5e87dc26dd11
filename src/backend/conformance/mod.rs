//! One suite for every backend: each op against [`super::reference`], odd sizes first. The checks
//! are generic over [`Backend`]; a backend's own tests call them for each way that it can run.

pub(super) mod attention;
pub(super) mod elementwise;
pub(super) mod matrix;
pub(super) mod sampling;

use bytes::Bytes;
use half::{bf16, f16};

use super::{Backend, BatchShape, DType, HostTensor, RopeSpec};
use crate::device::{Input, SampleRow, SlotInit, Span, StepPlan};
use crate::ids::{BlockId, SeqId, SlotId, TokenId};

pub(super) const PLAIN: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
pub(super) const BLOCK: [DType; 5] = [DType::Q8_0, DType::Q4_0, DType::Q4K, DType::Q5K, DType::Q6K];

/// Numbers that look random and are the same in every run (SplitMix64).
#[derive(Clone, Debug)]
pub(super) struct Draws(pub u64);

impl Draws {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// In `[-1, 1)`.
    pub fn signed(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.signed()).collect()
    }

    /// A matrix of a type, its bytes at an odd address.
    pub fn matrix(&mut self, name: &str, dtype: DType, rows: usize, columns: usize) -> HostTensor {
        let blocks = rows * columns / dtype.block_values();
        let mut bytes = vec![0];
        for _ in 0..blocks {
            let start = bytes.len();
            bytes.extend((0..dtype.block_bytes()).map(|_| self.next() as u8));
            let block = &mut bytes[start..];
            let mut put = |at: usize, value: f32| {
                block[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
            };
            match dtype {
                DType::F32 => {
                    let value = self.signed();
                    block.copy_from_slice(&value.to_le_bytes());
                }
                DType::F16 => put(0, self.signed()),
                DType::BF16 => block.copy_from_slice(&bf16::from_f32(self.signed()).to_le_bytes()),
                DType::Q8_0 | DType::Q4_0 => put(0, self.signed() * 0.01),
                DType::Q4K | DType::Q5K => {
                    put(0, self.signed() * 0.001);
                    put(2, self.signed() * 0.001);
                }
                DType::Q6K => put(208, self.signed() * 0.0001),
            }
        }
        tensor(name, dtype, vec![rows, columns], Bytes::from(bytes).slice(1..))
    }
}

pub(super) fn tensor(name: &str, dtype: DType, shape: Vec<usize>, data: Bytes) -> HostTensor {
    HostTensor::new(name, dtype, shape, data).expect("a well-formed tensor")
}

pub(super) fn floats(name: &str, shape: Vec<usize>, values: &[f32]) -> HostTensor {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    tensor(name, DType::F32, shape, Bytes::from(bytes))
}

pub(super) fn vector<B: Backend>(backend: &B, values: &[f32]) -> B::Vector {
    backend.vector(&floats("vector", vec![values.len()], values)).expect("a vector")
}

/// One step for one backend, with all that its ops need.
pub(super) struct Step<B: Backend> {
    pub batch: B::Batch,
    pub sampler: B::Sampler,
}

impl<B: Backend> Step<B> {
    pub fn new(backend: &B, plan: &StepPlan, vocab_size: usize, ropes: &[RopeSpec]) -> Self {
        let shape = BatchShape {
            rows_max: 256,
            slots: 64,
            vocab_size: vocab_size as u32,
            ropes: ropes.to_vec(),
        };
        let (mut batch, mut sampler) = backend.batch(&shape).expect("a batch");
        plan.slot_inits.iter().for_each(|init| backend.init_slot(&mut sampler, init));
        backend.upload(plan, &sampler, &mut batch);
        Self { batch, sampler }
    }
}

/// A plan of one sequence from position 0, with these tokens.
pub(super) fn plan_of(tokens: &[u32], samples: Vec<SampleRow>) -> StepPlan {
    let rows = tokens.len() as u32;
    StepPlan {
        step: 1,
        inputs: tokens.iter().map(|&t| Input::Token(TokenId(t))).collect(),
        positions: (0..rows).collect(),
        kv_slots: (0..rows).collect(),
        spans: vec![Span {
            seq: SeqId(1),
            slot: SlotId(0),
            row_start: 0,
            row_count: rows,
            context_tokens: rows,
            table_start: 0,
            table_len: 1,
        }],
        block_tables: vec![BlockId(0)],
        samples,
        ..StepPlan::default()
    }
}

/// Rows with these values, `width` to a row; brought in as an embedding, the only way there is.
pub(super) fn rows<B: Backend>(backend: &B, values: &[f32], width: usize) -> B::Rows {
    let count = values.len() / width;
    let table = floats("table", vec![count, width], values);
    let table = backend.weight(&[table], &[]).expect("a table");
    let tokens: Vec<u32> = (0..count as u32).collect();
    let step = Step::new(backend, &plan_of(&tokens, Vec::new()), count, &[]);
    let mut out = backend.rows(count as u32 + 1, width as u32).expect("rows");
    backend.embed(&step.batch, &table, 1.0, &mut out);
    out
}

pub(super) fn empty<B: Backend>(backend: &B, width: usize) -> B::Rows {
    backend.rows(256, width as u32).expect("rows")
}

pub(super) fn read<B: Backend>(backend: &B, rows: &B::Rows) -> Vec<f32> {
    backend.read_rows(rows).expect("rows can be read")
}

pub(super) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

pub(super) fn init(slot: u32, params: crate::device::SamplingParams) -> SlotInit {
    SlotInit {
        slot: SlotId(slot),
        seq: SeqId(u64::from(slot)),
        params: std::sync::Arc::new(params),
        prompt: std::sync::Arc::from(Vec::new()),
        generated: Vec::new(),
    }
}

/// Asserts that each value is within `tolerance` times its size of the reference's.
#[track_caller]
pub(super) fn close(what: &str, got: &[f32], want: &[f64], size: f64, tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}: the number of values");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*got) - want).abs();
        let limit = tolerance * (want.abs() + size);
        assert!(error <= limit, "{what}: value {i} is {got}, not {want} (limit {limit:e})");
    }
}
