//! `rope_store_kv`, `attend` and `copy_blocks`: several sequences over scattered blocks.

use std::collections::HashMap;

use super::super::reference;
use super::super::{AttentionParams, Backend, KvShape, NormKind, RopeSpec};
use super::*;
use crate::device::BlockCopy;

/// Layers of the cache; the one that is used is the last.
const LAYERS: u32 = 2;

/// One shape of attention and what its sequences hold.
#[derive(Clone, Debug)]
struct Case {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    window: Option<u32>,
    softcap: Option<f32>,
    rope: RopeSpec,
    norms: Option<NormKind>,
    kv_dtype: DType,
    block_size: usize,
    /// Tokens of each sequence.
    lengths: Vec<usize>,
}

/// A case's data on a backend.
struct World<'a, B: Backend> {
    backend: &'a B,
    case: &'a Case,
    params: AttentionParams,
    kv: B::Kv,
    /// Block tables of the sequences.
    tables: Vec<Vec<BlockId>>,
    /// Of each sequence: `[tokens, (heads + 2 kv_heads) * dim]`.
    qkv: Vec<Vec<f32>>,
    norm_weights: (Vec<f32>, Vec<f32>),
}

/// Tokens `start..start + len` of a sequence.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    seq: usize,
    start: usize,
    len: usize,
}

/// What a row became.
struct RowResult {
    seq: usize,
    position: usize,
    qkv: Vec<f32>,
    out: Vec<f32>,
}

fn rope(pairs: usize, interleaved: bool) -> RopeSpec {
    let frequency = |i| 10_000_f32.powf(-(i as f32) / pairs as f32);
    RopeSpec { inv_freq: (0..pairs).map(frequency).collect(), magnitude: 1.0, interleaved }
}

/// Head sizes, group sizes and everything else, each at least once, with odd lengths.
fn cases() -> Vec<Case> {
    let mut draws = Draws(20);
    let mut cases = Vec::new();
    for (i, dim) in [16, 32, 64, 80, 96, 128, 256].into_iter().enumerate() {
        for group in 1..=8 {
            // All group sizes for one head size; three of them for each of the others.
            if dim != 64 && group % 7 != i % 7 && group != 3 + i % 4 {
                continue;
            }
            let n = i * 8 + group;
            let kv_heads = [1, 2, 3][n % 3];
            let pairs = [dim / 2, dim / 4][n % 2];
            let mut spec = rope(pairs, n % 5 == 0);
            spec.magnitude = [1.0, 1.25][(n + 1) % 2];
            let longest = [70, 130][draws.below(2)];
            cases.push(Case {
                heads: group * kv_heads,
                kv_heads,
                dim,
                window: [None, Some(1), Some(20), Some(65)][n % 4],
                softcap: [None, None, Some(5.0)][n % 3],
                rope: spec,
                norms: [None, Some(NormKind::Plain), Some(NormKind::UnitOffset)][(n + 1) % 3],
                kv_dtype: PLAIN[n % 3],
                block_size: [16, 1, 32, 7][n % 4],
                lengths: [60, 9, longest].map(|n| 1 + draws.below(n)).to_vec(),
            });
        }
    }
    cases
}

/// Against the reference, in steps that mix prompts, chunks and single tokens; and each token
/// alone, to the bit.
pub(crate) fn attention<B: Backend>(backend: &B) {
    let mut draws = Draws(21);
    for case in cases() {
        let mut mixed = World::new(backend, &case, 30);
        let results = mixed.run_mixed(&mut draws);
        check_rope(&mixed, &results);
        check_attention(&mixed, &results);
        let mut alone = World::new(backend, &case, 31);
        for seq in 0..case.lengths.len() {
            for start in 0..case.lengths[seq] {
                let row = alone.run(&[Chunk { seq, start, len: 1 }]).remove(0);
                let same = results.iter().find(|r| r.seq == seq && r.position == start);
                let same = same.expect("both runs have all rows");
                assert_eq!(bits(&row.qkv), bits(&same.qkv), "{case:?}: row {seq}/{start}");
                assert_eq!(bits(&row.out), bits(&same.out), "{case:?}: row {seq}/{start}");
            }
        }
    }
}

/// Contexts of some hundred tokens, in steps of few and of many rows: the same bits.
pub(crate) fn long_contexts<B: Backend>(backend: &B) {
    for (kv_heads, window) in [(1, None), (2, Some(450))] {
        let mut case = cases().remove(8);
        (case.heads, case.kv_heads, case.window) = (2 * kv_heads, kv_heads, window);
        (case.block_size, case.lengths) = (16, vec![1000, 420]);
        let mut whole = World::new(backend, &case, 33);
        let mut results = Vec::new();
        for (seq, len) in [(0, 230), (1, 200), (0, 230), (1, 220), (0, 230), (0, 230), (0, 80)] {
            let start = results.iter().filter(|r: &&RowResult| r.seq == seq).count();
            results.extend(whole.run(&[Chunk { seq, start, len }]));
        }
        check_attention(&whole, &results);
        for result in results.iter().step_by(37).chain(results.iter().rev().take(5)) {
            let again = Chunk { seq: result.seq, start: result.position, len: 1 };
            let again = whole.run(&[again]).remove(0);
            assert_eq!(bits(&again.out), bits(&result.out), "{case:?}: {}", result.position);
        }
    }
}

/// A copied block holds what the original holds, in every layer.
pub(crate) fn copy_blocks<B: Backend>(backend: &B) {
    let mut case = cases().remove(9);
    case.lengths = vec![case.block_size * 3 + 1];
    case.window = None;
    let length = case.lengths[0];
    let mut world = World::new(backend, &case, 32);
    let whole = Chunk { seq: 0, start: 0, len: length - 1 };
    let last = Chunk { seq: 0, start: length - 1, len: 1 };
    world.run(&[whole]);
    let want = world.run(&[last]).remove(0);
    // Other blocks, copied from the first ones, give the same.
    let from = world.tables[0].clone();
    let total = world.blocks_total();
    let free = (0..total).map(BlockId).filter(|b| !from.contains(b));
    world.tables[0] = free.take(from.len()).collect();
    let copies = from.iter().zip(&world.tables[0]).map(|(&from, &to)| BlockCopy { from, to });
    let plan = StepPlan { copies: copies.collect(), ..StepPlan::default() };
    backend.copy_blocks(&plan, &mut world.kv);
    let got = world.run(&[last]).remove(0);
    assert_eq!(bits(&got.out), bits(&want.out));
}

impl<'a, B: Backend> World<'a, B> {
    fn new(backend: &'a B, case: &'a Case, seed: u64) -> Self {
        let width = (case.heads + 2 * case.kv_heads) * case.dim;
        let mut data = Draws(40);
        let qkv = case.lengths.iter().map(|n| data.values(n * width)).collect();
        let norm_weights = (data.values(case.dim), data.values(case.dim));
        let mut world = World {
            backend,
            case,
            params: AttentionParams {
                layer: LAYERS - 1,
                heads: case.heads as u32,
                kv_heads: case.kv_heads as u32,
                head_dim: case.dim as u32,
                rope: 0,
                scale: 1.0 / (case.dim as f32).sqrt() * 3.0,
                window_tokens: case.window,
                softcap: case.softcap,
                norm_eps: 1e-6,
            },
            kv: backend.kv_cache(&Self::shape(case)).expect("a cache"),
            tables: Vec::new(),
            qkv,
            norm_weights,
        };
        // Blocks in an order of their own, so that neighbours in a sequence are none in memory.
        let mut free: Vec<u32> = (0..world.blocks_total()).collect();
        let mut draws = Draws(seed);
        for length in &case.lengths {
            let take = |_| BlockId(free.swap_remove(draws.below(free.len())));
            let table = (0..length.div_ceil(case.block_size)).map(take).collect();
            world.tables.push(table);
        }
        world
    }

    fn shape(case: &Case) -> KvShape {
        let used: usize = case.lengths.iter().map(|n| n.div_ceil(case.block_size)).sum();
        KvShape {
            layers: LAYERS,
            blocks: 2 * used as u32 + 3,
            block_size_tokens: case.block_size as u32,
            kv_heads: case.kv_heads as u32,
            head_dim: case.dim as u32,
            dtype: case.kv_dtype,
        }
    }

    fn blocks_total(&self) -> u32 {
        Self::shape(self.case).blocks
    }

    fn width(&self) -> usize {
        (self.case.heads + 2 * self.case.kv_heads) * self.case.dim
    }

    /// All tokens, in steps that take some of every sequence.
    fn run_mixed(&mut self, draws: &mut Draws) -> Vec<RowResult> {
        let mut done = vec![0; self.case.lengths.len()];
        let mut results = Vec::new();
        while done != self.case.lengths {
            let mut chunks = Vec::new();
            for (seq, done) in done.iter_mut().enumerate() {
                let left = self.case.lengths[seq] - *done;
                let len = [0, 1, 1, 1 + draws.below(60)][draws.below(4)].min(left);
                if len > 0 {
                    chunks.push(Chunk { seq, start: *done, len });
                    *done += len;
                }
            }
            if !chunks.is_empty() {
                results.extend(self.run(&chunks));
            }
        }
        results
    }

    fn plan(&self, chunks: &[Chunk]) -> StepPlan {
        let mut plan = StepPlan { step: 1, ..StepPlan::default() };
        for chunk in chunks {
            let table = &self.tables[chunk.seq];
            plan.spans.push(Span {
                seq: SeqId(chunk.seq as u64),
                slot: SlotId(chunk.seq as u32),
                row_start: plan.rows() as u32,
                row_count: chunk.len as u32,
                context_tokens: (chunk.start + chunk.len) as u32,
                table_start: plan.block_tables.len() as u32,
                table_len: table.len() as u32,
            });
            plan.block_tables.extend(table);
            for position in chunk.start..chunk.start + chunk.len {
                let size = self.case.block_size;
                let slot = table[position / size].index() * size + position % size;
                plan.kv_slots.push(slot as u32);
                plan.positions.push(position as u32);
                plan.inputs.push(Input::Token(TokenId(0)));
            }
        }
        plan.check(self.case.block_size as u32, self.blocks_total());
        plan
    }

    fn run(&mut self, chunks: &[Chunk]) -> Vec<RowResult> {
        let (case, width) = (self.case, self.width());
        let plan = self.plan(chunks);
        let step = Step::new(self.backend, &plan, 1, std::slice::from_ref(&case.rope));
        let values: Vec<f32> = chunks
            .iter()
            .flat_map(|c| &self.qkv[c.seq][c.start * width..(c.start + c.len) * width])
            .copied()
            .collect();
        let mut qkv = rows(self.backend, &values, width);
        let norms = case.norms.map(|kind| {
            let (q, k) = &self.norm_weights;
            (vector(self.backend, q), vector(self.backend, k), kind)
        });
        let norms = norms.as_ref().map(|(q, k, kind)| (q, k, *kind));
        self.backend.rope_store_kv(&step.batch, &self.params, norms, &mut qkv, &mut self.kv);
        let mut out = empty(self.backend, case.heads * case.dim);
        self.backend.attend(&step.batch, &self.params, &qkv, &self.kv, &mut out);
        let (qkv, out) = (read(self.backend, &qkv), read(self.backend, &out));
        let places = chunks.iter().flat_map(|c| (c.start..c.start + c.len).map(|p| (c.seq, p)));
        places
            .zip(qkv.chunks_exact(width).zip(out.chunks_exact(case.heads * case.dim)))
            .map(|((seq, position), (qkv, out))| RowResult {
                seq,
                position,
                qkv: qkv.to_vec(),
                out: out.to_vec(),
            })
            .collect()
    }
}

fn check_rope<B: Backend>(world: &World<'_, B>, results: &[RowResult]) {
    let (case, width) = (world.case, world.width());
    for result in results {
        let before = &world.qkv[result.seq][result.position * width..][..width];
        for (head, before) in before.chunks_exact(case.dim).enumerate() {
            let got = &result.qkv[head * case.dim..][..case.dim];
            let mut want: Vec<f64> = before.iter().map(|&v| f64::from(v)).collect();
            if head < case.heads + case.kv_heads {
                if let Some(kind) = case.norms {
                    let (q, k) = &world.norm_weights;
                    let weight = if head < case.heads { q } else { k };
                    want = reference::rms_norm(before, weight, kind, world.params.norm_eps);
                }
                reference::rotate(&mut want, result.position as u32, &case.rope);
            }
            close("rope_store_kv", got, &want, 1.0, 2e-6);
        }
    }
}

fn check_attention<B: Backend>(world: &World<'_, B>, results: &[RowResult]) {
    let case = world.case;
    let at: HashMap<_, _> = results.iter().map(|r| ((r.seq, r.position), r)).collect();
    for result in results {
        let start = case.window.map_or(0, |w| (result.position + 1).saturating_sub(w as usize));
        let seen: Vec<&RowResult> =
            (start..=result.position).map(|position| at[&(result.seq, position)]).collect();
        for head in 0..case.heads {
            let kv_head = head / (case.heads / case.kv_heads);
            let part = |at: usize| -> Vec<Vec<f32>> {
                let stored = |r: &&RowResult| {
                    let values = r.qkv[at * case.dim..][..case.dim].iter();
                    values.map(|&v| reference::round_to(case.kv_dtype, v)).collect()
                };
                seen.iter().map(stored).collect()
            };
            let (keys, values) =
                (part(case.heads + kv_head), part(case.heads + case.kv_heads + kv_head));
            let query = &result.qkv[head * case.dim..][..case.dim];
            let params = &world.params;
            let want = reference::attend(query, &keys, &values, params.scale, params.softcap);
            let got = &result.out[head * case.dim..][..case.dim];
            close(&format!("attend {case:?}"), got, &want, 1.0, 5e-6);
        }
    }
}
