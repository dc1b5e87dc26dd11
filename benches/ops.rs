//! Speed of the CPU backend's ops, each beside the limit that binds it: bytes of weights against
//! what the machine reads, multiply-adds against what it multiplies, both measured in this run.
//!
//! `cargo bench --bench ops`, or with a filter: `cargo bench --bench ops -- linear`.
#![allow(clippy::print_stdout, reason = "a table is what this program is for")]

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use weir::backend::cpu::{Batch, CpuBackend, CpuOptions, Rows, Sampler};
use weir::backend::{AttentionParams, Backend, BatchShape, DType, HostTensor, KvShape, RopeSpec};
use weir::clock::{Clock, SystemClock};
use weir::device::{
    Input, SampleKind, SampleRow, SamplingParams, SlotInit, Span, StepOutput, StepPlan,
};
use weir::ids::{BlockId, SeqId, SlotId, TokenId};

/// More bytes than any cache of the machine holds.
const UNCACHED_BYTES: usize = 256 << 20;

/// Vocabulary of Qwen 2.5.
const VOCAB: usize = 151_936;

/// Rows of a step at most.
const ROWS_MAX: u32 = 512;

/// What the machine can do, on all threads together.
#[derive(Clone, Copy)]
struct Limits {
    read_bytes_per_s: f64,
    flops: f64,
}

struct Bench {
    backend: CpuBackend,
    clock: SystemClock,
    limits: Limits,
    filter: String,
}

fn main() {
    // Cargo passes `--bench`; the first other argument is the filter.
    let filter = std::env::args().skip(1).find(|a| !a.starts_with("--")).unwrap_or_default();
    let options = CpuOptions::default();
    let clock = SystemClock::new();
    let limits = Limits {
        read_bytes_per_s: read_limit(&clock, options.threads),
        flops: flop_limit(&clock, options.threads),
    };
    let backend = CpuBackend::new(&options).expect("a backend");
    println!("{}", backend.describe());
    println!(
        "limits: read {:.1} GB/s, f32 {:.0} GFLOP/s",
        limits.read_bytes_per_s / 1e9,
        limits.flops / 1e9
    );
    println!(
        "{:40} {:>10} {:>8} {:>6} {:>9} {:>6}",
        "op", "time", "GB/s", "share", "GFLOP/s", "share"
    );
    let bench = Bench { backend, clock, limits, filter };
    bench.linear();
    bench.attention();
    bench.sampling();
}

impl Bench {
    /// Times `op`, the median of repeated runs, and prints it with its shares of the limits.
    fn report(&self, name: &str, bytes: f64, flops: f64, mut op: impl FnMut()) {
        if !name.contains(&self.filter) {
            return;
        }
        op();
        let mut times = Vec::new();
        let start = self.clock.now();
        while times.len() < 5
            || (self.clock.now().since(start) < Duration::from_millis(300) && times.len() < 1000)
        {
            let before = self.clock.now();
            op();
            times.push(self.clock.now().since(before).as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        let time = times[times.len() / 2];
        println!(
            "{name:40} {:>7.1} us {:>8.2} {:>6.2} {:>9.1} {:>6.2}",
            time * 1e6,
            bytes / time / 1e9,
            bytes / time / self.limits.read_bytes_per_s,
            flops / time / 1e9,
            flops / time / self.limits.flops
        );
    }

    /// The feed-forward matrices of Qwen2.5-0.5B, from memory (not from cache).
    fn linear(&self) {
        let types = [
            DType::F32,
            DType::BF16,
            DType::F16,
            DType::Q8_0,
            DType::Q4_0,
            DType::Q4K,
            DType::Q5K,
            DType::Q6K,
        ];
        for dtype in types {
            for (inputs, outputs) in [(1024, 4864), (4864, 1024)] {
                let name = |rows| format!("linear {dtype:?} [{rows}, {inputs}] x {outputs}");
                if !name(0).contains(&self.filter) && !self.filter.contains("linear") {
                    continue;
                }
                let bytes = inputs / dtype.block_values() * dtype.block_bytes() * outputs;
                let copies = UNCACHED_BYTES.div_ceil(bytes);
                let data = Bytes::from(noise(dtype, bytes * copies));
                let weight = |i: usize| {
                    let data = data.slice(i * bytes..(i + 1) * bytes);
                    let tensor = HostTensor::new("w", dtype, vec![outputs, inputs], data);
                    let tensor = tensor.expect("a well-formed tensor");
                    self.backend.weight(&[tensor], &[]).expect("a weight")
                };
                let weights: Vec<_> = (0..copies).map(weight).collect();
                let mut out = self.backend.rows(ROWS_MAX, outputs as u32).expect("rows");
                for rows in [1, 2, 4, 8, 16, 64, 256] {
                    let x = self.rows(rows, inputs);
                    let flops = 2.0 * (rows * inputs * outputs) as f64;
                    let mut next = weights.iter().cycle();
                    self.report(&name(rows), bytes as f64, flops, || {
                        let weight = next.next().expect("a cycle has no end");
                        self.backend.linear(&x, weight, &mut out);
                    });
                }
            }
        }
    }

    /// Heads of Qwen2.5-0.5B: one prompt, and 16 sequences that each take one token.
    fn attention(&self) {
        for (name, sequences, rows, context) in [
            ("attend prefill 512 of 512", 1, 512, 512),
            ("attend prefill 512 of 4096", 1, 512, 4096),
            ("attend decode 1 of 4096", 1, 1, 4096),
            ("attend decode 16 x 1 of 1024", 16, 1, 1024),
        ] {
            let params = AttentionParams {
                layer: 0,
                heads: 14,
                kv_heads: 2,
                head_dim: 64,
                rope: 0,
                scale: 0.125,
                window_tokens: None,
                softcap: None,
                norm_eps: 1e-6,
            };
            let plan = context_plan(sequences, rows, context);
            let (batch, _) = self.step(&plan, 1);
            let shape = KvShape {
                layers: 1,
                blocks: (sequences * context / 16) as u32,
                block_size_tokens: 16,
                kv_heads: 2,
                head_dim: 64,
                dtype: DType::F16,
            };
            let kv = self.backend.kv_cache(&shape).expect("a cache");
            let qkv = self.rows(sequences * rows, 18 * 64);
            let mut out = self.backend.rows(ROWS_MAX, 14 * 64).expect("rows");
            // Each row sees its context; keys and values are f16.
            let seen: usize = plan.positions.iter().map(|&p| p as usize + 1).sum();
            let flops = (seen * 14 * 64 * 4) as f64;
            let bytes = (sequences * context * 2 * 64 * 2 * 2) as f64;
            self.report(name, bytes, flops, || {
                self.backend.attend(&batch, &params, &qkv, &kv, &mut out);
            });
        }
    }

    fn sampling(&self) {
        let greedy = SamplingParams::greedy();
        let drawn = SamplingParams { temperature: 1.0, seed: 1, ..greedy.clone() };
        for (name, params) in [
            ("greedy", greedy.clone()),
            ("greedy, logprobs 5", SamplingParams { logprobs: Some(5), ..greedy }),
            ("temperature", drawn.clone()),
            ("top_p 0.9", SamplingParams { top_p: 0.9, ..drawn.clone() }),
            ("top_k 50, top_p 0.9", SamplingParams { top_k: 50, top_p: 0.9, ..drawn.clone() }),
            ("min_p 0.05", SamplingParams { min_p: 0.05, ..drawn }),
        ] {
            for rows in [1, 16] {
                let mut plan = context_plan(rows, 1, 1);
                for slot in (0..rows as u32).map(SlotId) {
                    plan.samples.push(SampleRow {
                        row: slot.0,
                        slot,
                        kind: SampleKind::Next { output_index: 0 },
                    });
                    plan.slot_inits.push(SlotInit {
                        slot,
                        seq: SeqId(0),
                        params: Arc::new(params.clone()),
                        prompt: Arc::from(Vec::new()),
                        generated: Vec::new(),
                    });
                }
                let (batch, mut sampler) = self.step(&plan, VOCAB);
                let mut logits = self.rows_of(rows, VOCAB, logits(rows * VOCAB));
                let mut output = StepOutput::default();
                let bytes = (rows * VOCAB * 4) as f64;
                self.report(&format!("sample {name} [{rows}, {VOCAB}]"), bytes, 0.0, || {
                    self.backend.sample(&batch, 0, rows as u32, &mut logits, &mut sampler);
                    output.sampled.clear();
                    self.backend.read(&mut sampler, &mut output).expect("results");
                });
            }
        }
    }

    fn step(&self, plan: &StepPlan, vocab: usize) -> (Batch, Sampler) {
        let rope = RopeSpec { inv_freq: vec![1.0; 32], magnitude: 1.0, interleaved: false };
        let shape = BatchShape {
            rows_max: ROWS_MAX,
            slots: 16,
            vocab_size: vocab as u32,
            ropes: vec![rope],
        };
        let (mut batch, mut sampler) = self.backend.batch(&shape).expect("a batch");
        plan.slot_inits.iter().for_each(|i| self.backend.init_slot(&mut sampler, i));
        self.backend.upload(plan, &sampler, &mut batch);
        (batch, sampler)
    }

    /// Rows of noise, brought in as an embedding.
    fn rows(&self, count: usize, width: usize) -> Rows {
        self.rows_of(count, width, noise(DType::F32, count * width * 4))
    }

    fn rows_of(&self, count: usize, width: usize, bytes: Vec<u8>) -> Rows {
        let data = Bytes::from(bytes);
        let table = HostTensor::new("table", DType::F32, vec![count, width], data);
        let table = table.expect("a well-formed tensor");
        let table = self.backend.weight(&[table], &[]).expect("a table");
        let mut plan = context_plan(1, count, count);
        for (input, token) in plan.inputs.iter_mut().zip(0..) {
            *input = Input::Token(TokenId(token));
        }
        let (batch, _) = self.step(&plan, count);
        let mut rows = self.backend.rows(ROWS_MAX.min(count as u32), width as u32).expect("rows");
        self.backend.embed(&batch, &table, 1.0, &mut rows);
        rows
    }
}

/// The last `rows` tokens of each of `sequences` contexts, in blocks of 16.
fn context_plan(sequences: usize, rows: usize, context: usize) -> StepPlan {
    let mut plan = StepPlan { step: 1, ..StepPlan::default() };
    let blocks = context.div_ceil(16) as u32;
    for sequence in 0..sequences as u32 {
        plan.spans.push(Span {
            seq: SeqId(0),
            slot: SlotId(sequence),
            row_start: plan.rows() as u32,
            row_count: rows as u32,
            context_tokens: context as u32,
            table_start: plan.block_tables.len() as u32,
            table_len: blocks,
        });
        // Neighbours in a sequence are none in memory.
        plan.block_tables.extend((0..blocks).map(|b| BlockId(b * sequences as u32 + sequence)));
        for position in (context - rows) as u32..context as u32 {
            plan.inputs.push(Input::Token(TokenId(0)));
            plan.positions.push(position);
            plan.kv_slots.push((position / 16 * sequences as u32 + sequence) * 16 + position % 16);
        }
    }
    plan
}

/// Bytes of small finite numbers of a type (xorshift64).
fn noise(dtype: DType, len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = vec![0; len];
    for chunk in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
    // An exponent below 1 for whatever is a float.
    let float_bytes = if dtype == DType::F32 { 4 } else { 2 };
    if dtype.block_values() == 1 {
        for value in bytes.chunks_exact_mut(float_bytes) {
            value[float_bytes - 1] = value[float_bytes - 1] & 0x80 | 0x38;
        }
    } else {
        for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
            let places: &[usize] = match dtype {
                DType::Q4K | DType::Q5K => &[1, 3],
                DType::Q6K => &[209],
                _ => &[1],
            };
            places.iter().for_each(|&p| block[p] = 0x10);
        }
    }
    bytes
}

/// Bytes of logits with a standard deviation of about 3.7.
fn logits(count: usize) -> Vec<u8> {
    let bytes = noise(DType::Q8_0, count * 4);
    let sum = |four: &[u8]| four.iter().map(|&b| f32::from(b)).sum::<f32>();
    bytes.chunks_exact(4).flat_map(|four| ((sum(four) - 510.0) / 40.0).to_le_bytes()).collect()
}

/// Bytes per second that `threads` threads read from memory.
fn read_limit(clock: &SystemClock, threads: NonZeroUsize) -> f64 {
    let data = vec![1_u64; UNCACHED_BYTES / 8];
    best_rate(clock, threads, UNCACHED_BYTES as f64, || {
        let mut sums = [0_u64; 32];
        for chunk in data.chunks_exact(32) {
            sums.iter_mut().zip(chunk).for_each(|(s, c)| *s = s.wrapping_add(*c));
        }
        sums.iter().fold(0, |a, b| a ^ b) as f64
    })
}

/// Floating-point operations per second of f32 multiply-adds on `threads` threads.
fn flop_limit(clock: &SystemClock, threads: NonZeroUsize) -> f64 {
    const ROUNDS: usize = 10_000_000;
    /// Independent sums, enough to hide an instruction's latency.
    const SUMS: usize = 12;
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;

        #[target_feature(enable = "avx512f")]
        fn wide() -> f64 {
            let (a, b) = (_mm512_set1_ps(0.5), _mm512_set1_ps(0.25));
            let mut sums = [_mm512_setzero_ps(); SUMS];
            for _ in 0..ROUNDS {
                for sum in &mut sums {
                    *sum = _mm512_fmadd_ps(*sum, a, b);
                }
            }
            sums.map(|s| f64::from(_mm512_reduce_add_ps(s))).iter().sum()
        }

        #[target_feature(enable = "avx2,fma")]
        fn narrow() -> f64 {
            let (a, b) = (_mm256_set1_ps(0.5), _mm256_set1_ps(0.25));
            let mut sums = [_mm256_setzero_ps(); SUMS];
            for _ in 0..ROUNDS {
                for sum in &mut sums {
                    *sum = _mm256_fmadd_ps(*sum, a, b);
                }
            }
            sums.map(|s| f64::from(_mm256_cvtss_f32(s))).iter().sum()
        }

        let flops = |lanes: usize| (2 * lanes * SUMS * ROUNDS) as f64;
        #[allow(unsafe_code, reason = "instructions that were found to be there")]
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the CPU has the instructions.
            return best_rate(clock, threads, flops(16), || unsafe { wide() });
        } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the CPU has the instructions.
            return best_rate(clock, threads, flops(8), || unsafe { narrow() });
        }
    }
    best_rate(clock, threads, (2 * 4 * SUMS * ROUNDS) as f64, || {
        let mut sums = [0.0_f32; 4 * SUMS];
        for _ in 0..ROUNDS {
            sums.iter_mut().for_each(|s| *s = *s * 0.5 + 0.25);
        }
        f64::from(sums.iter().sum::<f32>())
    })
}

/// The best rate of some runs, in which each thread does `work` units of work.
fn best_rate(
    clock: &SystemClock,
    threads: NonZeroUsize,
    work: f64,
    job: impl Fn() -> f64 + Sync,
) -> f64 {
    let run = |_| {
        let before = clock.now();
        std::thread::scope(|scope| {
            for _ in 0..threads.get() {
                scope.spawn(|| std::hint::black_box(job()));
            }
        });
        work * threads.get() as f64 / clock.now().since(before).as_secs_f64()
    };
    (0..5).map(run).fold(0.0, f64::max)
}
