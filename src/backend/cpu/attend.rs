//! `rope_store_kv` and `attend`: which thread does what for which head and rows.
//!
//! Attention goes over keys in tiles of [`KEY_TILE`] positions that begin at multiples of it, and
//! starts its sums anew at multiples of [`SEGMENT`]; segments are merged in order. So a row's sums
//! are formed in an order that its position (and window) alone decides, and the segments of a long
//! context can go to different threads where there are too few rows to keep them busy.
#![allow(unsafe_code, reason = "threads write disjoint heads of one buffer")]

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::{AttentionParams, NormKind};
use super::batch::Batch;
use super::kernels::{
    CHUNK, FillPanel, Format, KernelSet, MultiplyPanel, Norm, NormWeight, Out, Softmax,
    SoftmaxState, WeighValues, WithFormat, with_format,
};
use super::kv::{Half, Kv, SharedKv};
use super::pool::Pool;
use super::rows::{Rows, SharedRows};
use super::scratch::Scratches;
use super::weight::Vector;
use crate::device::Span;

/// Key positions of a tile: a multiple of every [`super::kernels`] tile width, and of the vectors.
const KEY_TILE: usize = 48;

/// Key positions of a segment: long enough that merging costs little, short enough that a context
/// of some thousand tokens feeds many threads.
const SEGMENT: usize = 8 * KEY_TILE;

/// Query vectors (rows times query heads of a KV head) that share a tile of keys, at most, unless
/// one row alone has more.
const QUERY_TILE: usize = 64;

/// A thread's working memory; grows to what the model's heads need in the first step.
#[derive(Debug, Default)]
pub(super) struct AttendScratch {
    /// `[queries, padded head]`.
    queries: Vec<f32>,
    /// `[KEY_TILE, stride]`.
    keys: Vec<f32>,
    /// `[KEY_TILE, stride]`.
    values: Vec<f32>,
    /// `[queries, KEY_TILE]`.
    scores: Vec<f32>,
    /// Of the segment that is being summed.
    segment: Sums,
    /// Of the segments so far.
    total: Sums,
}

/// What attention has summed up for some query vectors.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// `[queries, padded head]`: values, weighted relative to each query's maximum.
    values: Vec<f32>,
    states: Vec<SoftmaxState>,
}

/// The sums of segments that different threads made, one for each task.
pub(super) type Partials = Vec<Mutex<Sums>>;

/// Norm weights of query and key heads.
pub(super) type HeadNorms<'a> = Option<(&'a Vector, &'a Vector, NormKind)>;

/// Rows of a span whose queries of one KV head share the keys that they read.
#[derive(Clone, Copy)]
struct Queries<'a> {
    span: &'a Span,
    /// Rows of the step.
    first: usize,
    rows: usize,
    kv_head: usize,
}

/// What all tasks of an attention op share.
struct Attention<'a> {
    kernels: KernelSet,
    batch: &'a Batch,
    params: &'a AttentionParams,
    qkv: &'a Rows,
    kv: &'a Kv,
    out: SharedRows<'a>,
    /// Query heads of a KV head.
    group: usize,
    /// Values of a head.
    dim: usize,
    /// The same, padded to whole chunks.
    padded: usize,
}

/// See [`super::super::Backend::rope_store_kv`].
pub(super) fn rope_store_kv(
    (kernels, pool): (KernelSet, &Pool),
    batch: &Batch,
    params: &AttentionParams,
    norms: HeadNorms<'_>,
    qkv: &mut Rows,
    kv: &mut Kv,
) {
    let (heads, kv_heads) = (params.heads as usize, params.kv_heads as usize);
    let dim = params.head_dim as usize;
    check_heads(params, qkv, kv);
    assert!(batch.rope(params.rope).rotary_dim() <= dim, "a head holds what is rotated");
    let (qkv, kv) = (qkv.share(), kv.share());
    pool.run(kv_heads, &|_, kv_head| {
        let group = heads / kv_heads;
        for row in 0..qkv.count() {
            // SAFETY: each task has its own KV head and the query heads that belong to it.
            unsafe {
                for head in kv_head * group..(kv_head + 1) * group {
                    let q = qkv.part(row, head * dim, dim);
                    turn(kernels, batch, params, norms.map(|(q, _, kind)| (q, kind)), row, q);
                }
                let k = qkv.part(row, (heads + kv_head) * dim, dim);
                turn(kernels, batch, params, norms.map(|(_, k, kind)| (k, kind)), row, k);
                let v = qkv.part(row, (heads + kv_heads + kv_head) * dim, dim);
                store(&kv, batch, params, row, kv_head, (k, v));
            }
        }
    });
}

/// Normalises and rotates a head.
fn turn(
    kernels: KernelSet,
    batch: &Batch,
    params: &AttentionParams,
    norm: Option<(&Vector, NormKind)>,
    row: usize,
    head: &mut [f32],
) {
    if let Some((weight, kind)) = norm {
        let weight = NormWeight { values: weight.values(), offset: super::norm::offset(kind) };
        kernels.run(Norm { x: head, weight, eps: params.norm_eps });
    }
    batch.rope(params.rope).rotate(row, head);
}

/// # Safety
/// No other thread writes this head.
unsafe fn store(
    kv: &SharedKv<'_>,
    batch: &Batch,
    params: &AttentionParams,
    row: usize,
    head: usize,
    (k, v): (&[f32], &[f32]),
) {
    let (layer, slot) = (params.layer as usize, batch.kv_slots[row] as usize);
    // SAFETY: the caller's promise.
    unsafe {
        kv.store(layer, Half::Keys, slot, head, k);
        kv.store(layer, Half::Values, slot, head, v);
    }
}

/// See [`super::super::Backend::attend`].
pub(super) fn attend(
    (kernels, pool, scratches): (KernelSet, &Pool, &Scratches),
    batch: &Batch,
    params: &AttentionParams,
    qkv: &Rows,
    kv: &Kv,
    out: &mut Rows,
) {
    check_heads(params, qkv, kv);
    let dim = params.head_dim as usize;
    assert_eq!(out.width(), params.heads as usize * dim, "the output has all query heads");
    out.set_count(qkv.count());
    let kv_heads = params.kv_heads as usize;
    let group = params.heads as usize / kv_heads;
    let padded = dim.next_multiple_of(CHUNK);
    let out = out.share();
    let attention = Attention { kernels, batch, params, qkv, kv, out, group, dim, padded };
    let tasks = attention.tiles() * kv_heads;
    let segments = attention.segments_max();
    if segments == 1 || tasks >= 2 * pool.threads() {
        pool.run(tasks, &|thread, task| {
            let queries = attention.queries(task);
            attention.run(queries, &mut scratches.lock(thread).attend);
        });
        return;
    }
    let partials = &mut *scratches.partials();
    if partials.len() < tasks * segments {
        partials.resize_with(tasks * segments, Mutex::default);
    }
    pool.run(tasks * segments, &|thread, task| {
        let queries = attention.queries(task / segments);
        let scratch = &mut scratches.lock(thread).attend;
        attention.sum_segment(&queries, task % segments, scratch);
        std::mem::swap(&mut *lock(&partials[task]), &mut scratch.segment);
    });
    pool.run(tasks, &|thread, task| {
        let queries = attention.queries(task);
        let total = &mut scratches.lock(thread).attend.total;
        total.start(queries.rows * group, padded);
        for partial in &partials[task * segments..(task + 1) * segments] {
            total.merge(&lock(partial));
        }
        attention.scatter(&queries, total);
    });
}

/// A panic ends the step, and the next one overwrites what it left behind.
fn lock(sums: &Mutex<Sums>) -> MutexGuard<'_, Sums> {
    sums.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check_heads(params: &AttentionParams, qkv: &Rows, kv: &Kv) {
    let (heads, kv_heads) = (params.heads as usize, params.kv_heads as usize);
    let (dim, layout) = (params.head_dim as usize, kv.layout());
    assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads), "KV heads divide query heads");
    assert_eq!(qkv.width(), (heads + 2 * kv_heads) * dim, "queries, keys and values of all heads");
    assert_eq!((layout.heads, layout.head_dim), (kv_heads, dim), "the cache has these heads");
}

impl<'a> Attention<'a> {
    /// The first position that the query at `position` sees.
    fn window_start(&self, position: usize) -> usize {
        let window = self.params.window_tokens.map_or(usize::MAX, |w| w as usize);
        (position + 1).saturating_sub(window)
    }

    /// Rows of a tile: all that one task does for a KV head.
    fn tile_rows(&self) -> usize {
        (QUERY_TILE / self.group).max(1)
    }

    fn tiles(&self) -> usize {
        self.batch.spans.iter().map(|s| (s.row_count as usize).div_ceil(self.tile_rows())).sum()
    }

    /// Segments of the longest context.
    fn segments_max(&self) -> usize {
        let longest = self.batch.spans.iter().map(|s| s.context_tokens as usize).max();
        longest.unwrap_or(0).div_ceil(SEGMENT).max(1)
    }

    /// The rows and the KV head of a task, heads first.
    fn queries(&self, task: usize) -> Queries<'a> {
        let kv_heads = self.params.kv_heads as usize;
        let (mut tile, kv_head) = (task / kv_heads, task % kv_heads);
        for span in &self.batch.spans {
            let tiles = (span.row_count as usize).div_ceil(self.tile_rows());
            if tile < tiles {
                let start = tile * self.tile_rows();
                let rows = self.tile_rows().min(span.row_count as usize - start);
                return Queries { span, first: span.row_start as usize + start, rows, kv_head };
            }
            tile -= tiles;
        }
        unreachable!("task {task} is below the number of tasks")
    }

    /// The positions that any of the rows sees.
    fn seen(&self, queries: &Queries<'_>) -> Range<usize> {
        let first = self.batch.positions[queries.first] as usize;
        self.window_start(first)..first + queries.rows
    }

    fn run(&self, queries: Queries<'_>, scratch: &mut AttendScratch) {
        scratch.total.start(queries.rows * self.group, self.padded);
        let seen = self.seen(&queries);
        for segment in seen.start / SEGMENT..seen.end.div_ceil(SEGMENT) {
            self.sum_segment(&queries, segment, scratch);
            scratch.total.merge(&scratch.segment);
        }
        self.scatter(&queries, &scratch.total);
    }

    /// Attends to the keys of one segment; they may be none.
    fn sum_segment(&self, queries: &Queries<'_>, segment: usize, scratch: &mut AttendScratch) {
        scratch.start(queries.rows * self.group, self.padded);
        self.gather(queries, scratch);
        let seen = self.seen(queries);
        let start = seen.start.max(segment * SEGMENT);
        let end = seen.end.min((segment + 1) * SEGMENT);
        if start >= end {
            return;
        }
        for tile in start / KEY_TILE..end.div_ceil(KEY_TILE) {
            let origin = tile * KEY_TILE;
            let keys = start.max(origin) - origin..end.min(origin + KEY_TILE) - origin;
            self.fill(queries, origin, keys.clone(), Half::Keys, &mut scratch.keys);
            self.fill(queries, origin, keys.clone(), Half::Values, &mut scratch.values);
            self.tile(queries, origin, keys, scratch);
        }
    }

    /// Copies the queries of the rows' heads, one after the other.
    fn gather(&self, queries: &Queries<'_>, scratch: &mut AttendScratch) {
        let mut to = scratch.queries.chunks_exact_mut(self.padded);
        for row in queries.first..queries.first + queries.rows {
            let heads = &self.qkv.row(row)[queries.kv_head * self.group * self.dim..];
            for (head, to) in heads.chunks_exact(self.dim).take(self.group).zip(&mut to) {
                to[..self.dim].copy_from_slice(head);
                to[self.dim..].fill(0.0);
            }
        }
    }

    /// Brings the keys or values of a tile's positions `origin + keys` into f32, whatever blocks
    /// hold them.
    fn fill(
        &self,
        queries: &Queries<'_>,
        origin: usize,
        keys: Range<usize>,
        half: Half,
        panel: &mut [f32],
    ) {
        let table = self.batch.table(queries.span);
        let size = self.kv.layout().block_size_tokens;
        let mut key = keys.start;
        while key < keys.end {
            let (block, offset) = ((origin + key) / size, (origin + key) % size);
            let rows = (size - offset).min(keys.end - key);
            let place = (self.params.layer as usize, table[block].index());
            let weights = self.kv.rows(place.0, half, place.1, queries.kv_head, offset);
            let stride = panel_stride(self.padded);
            let panel = &mut panel[key * stride..];
            let fill =
                FillPanel::<()> { weights, rows, start: 0, panel, stride, format: PhantomData };
            with_format(self.kv.dtype(), FillTile { kernels: self.kernels, fill });
            key += rows;
        }
    }

    fn tile(
        &self,
        queries: &Queries<'_>,
        origin: usize,
        keys: Range<usize>,
        scratch: &mut AttendScratch,
    ) {
        let stride = panel_stride(self.padded);
        self.kernels.run(MultiplyPanel {
            x: &scratch.queries,
            x_stride: self.padded,
            x_rows: scratch.segment.states.len(),
            panel: &scratch.keys,
            panel_stride: stride,
            columns: KEY_TILE,
            values: self.padded,
            // SAFETY: the scores are this thread's own and hold `KEY_TILE` for each query.
            out: unsafe { Out::new(scratch.scores.as_mut_ptr(), KEY_TILE, false) },
        });
        let scores = scratch.scores.chunks_exact_mut(KEY_TILE);
        for (i, (scores, state)) in scores.zip(&mut scratch.segment.states).enumerate() {
            let position = self.batch.positions[queries.first + i / self.group] as usize;
            let seen = self.window_start(position).max(origin)..(position + 1).max(origin);
            let end = (seen.end - origin).min(KEY_TILE);
            let visible = (seen.start - origin).min(end)..end;
            let (scale, softcap) = (self.params.scale, self.params.softcap);
            self.kernels.run(Softmax { scores, visible, scale, softcap, state });
        }
        self.kernels.run(WeighValues {
            weights: &scratch.scores,
            weights_stride: KEY_TILE,
            states: &scratch.segment.states,
            keys,
            values: &scratch.values,
            values_stride: stride,
            width: self.padded,
            out: &mut scratch.segment.values,
        });
    }

    /// Divides by the sums of weights and writes the heads' outputs.
    fn scatter(&self, queries: &Queries<'_>, total: &Sums) {
        let sums = total.values.chunks_exact(self.padded).zip(&total.states);
        for (i, (sums, state)) in sums.enumerate() {
            let head = queries.kv_head * self.group + i % self.group;
            let row = queries.first + i / self.group;
            // SAFETY: each task has its own rows and heads.
            let out = unsafe { self.out.part(row, head * self.dim, self.dim) };
            let inverse = 1.0 / state.sum;
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum * inverse);
        }
    }
}

impl AttendScratch {
    fn start(&mut self, queries: usize, padded: usize) {
        let panel = KEY_TILE * panel_stride(padded);
        self.keys.resize(panel, 0.0);
        self.values.resize(panel, 0.0);
        self.queries.resize(queries * padded, 0.0);
        self.scores.resize(queries * KEY_TILE, 0.0);
        self.segment.start(queries, padded);
    }
}

impl Sums {
    fn start(&mut self, queries: usize, padded: usize) {
        self.values.clear();
        self.values.resize(queries * padded, 0.0);
        self.states.clear();
        self.states.resize(queries, SoftmaxState::START);
    }

    /// Adds the sums of the keys that follow. The first keys leave them as they are, to the bit.
    fn merge(&mut self, next: &Sums) {
        let width = self.values.len() / self.states.len().max(1);
        let ours = self.values.chunks_exact_mut(width).zip(&mut self.states);
        for ((values, state), (added, next)) in
            ours.zip(next.values.chunks_exact(width).zip(&next.states))
        {
            // No key of the segment was seen.
            if next.sum == 0.0 {
                continue;
            }
            let maximum = state.maximum.max(next.maximum);
            let (a, b) = ((state.maximum - maximum).exp(), (next.maximum - maximum).exp());
            for (value, added) in values.iter_mut().zip(added) {
                *value = *value * a + added * b;
            }
            state.sum = state.sum * a + next.sum * b;
            state.maximum = maximum;
        }
    }
}

/// Values from one key of a tile to the next: not a power of two, which would put keys into the
/// same cache sets.
fn panel_stride(padded: usize) -> usize {
    padded + 16
}

struct FillTile<'a> {
    kernels: KernelSet,
    fill: FillPanel<'a, ()>,
}

impl WithFormat for FillTile<'_> {
    type Output = ();

    fn with<F: Format>(self) {
        let FillPanel { weights, rows, start, panel, stride, .. } = self.fill;
        self.kernels.run(FillPanel::<F> {
            weights,
            rows,
            start,
            panel,
            stride,
            format: PhantomData,
        });
    }
}
