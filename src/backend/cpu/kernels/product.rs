//! Matrix products. Every output is one dot product whose sum has a fixed order, however many rows
//! of activations there are: the values of a section of [`SECTION`] go to a vector's lanes by
//! their index modulo the lane count, one multiply-add after the other; the lanes are reduced; the
//! sections are added up in order. [`dot_rows`] and [`tile`] are the two ways to do that.
#![allow(unsafe_code, reason = "kernels read weights and activations through pointers")]

use std::marker::PhantomData;

use super::formats::Format;
use super::simd::{CHUNK, Kernel, REDUCED, Simd};

/// Values of a dot product that are summed before they are reduced: 4 KiB of activations.
pub(crate) const SECTION: usize = 1024;

/// Weight rows of a panel at most: a multiple of every [`Simd::TILE`]. With [`SECTION`] values
/// each they take 192 KiB, which leaves room in a second-level cache for the activations.
pub(crate) const PANEL_ROWS: usize = 48;

/// Values from one row of a panel to the next. A whole section of 4,096 bytes would put the
/// rows' values of equal index into the same cache set.
pub(crate) const PANEL_STRIDE: usize = SECTION + 16;

/// Weight rows that [`dot_rows`] reads side by side.
const DOT_COLUMNS: usize = REDUCED;

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// From the block that a panel is filled from to what is asked for meanwhile.
const FILL_AHEAD_BYTES: usize = 2048;

/// Rows of activations that [`tile`] multiplies at a time.
const TILE_ROWS: usize = REDUCED;

/// Consecutive weight rows in their stored type, and the activations that they are multiplied
/// with: values from one row to the next, and how many there are.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub bytes: &'a [u8],
    pub row_bytes: usize,
    /// Values in a row.
    pub values: usize,
}

/// `out[m, n] = x[m] · weights[n]` for a few rows of activations, whose sums fit into registers:
/// each weight is decoded there and forgotten.
pub(crate) struct DotRows<'a, F> {
    pub weights: Weights<'a>,
    /// Weight rows.
    pub columns: usize,
    /// `x_rows` rows, padded to whole chunks with zeros.
    pub x: &'a [f32],
    /// Values from one row of `x` to the next.
    pub x_stride: usize,
    pub x_rows: usize,
    pub out: Out,
    pub format: PhantomData<F>,
}

/// Some weight rows and some rows of activations.
#[derive(Clone, Copy)]
struct Dots<const M: usize> {
    rows: [*const u8; DOT_COLUMNS],
    x: [*const f32; M],
    values: usize,
    /// From a chunk that is read to what is asked for meanwhile.
    ahead_bytes: usize,
}

impl<F: Format> Kernel for DotRows<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Weights { bytes, row_bytes, values } = self.weights;
        let padded = values.next_multiple_of(CHUNK);
        assert!(bytes.len() >= self.columns * row_bytes, "the weights have all rows");
        assert!(padded <= self.x_stride, "activations are padded");
        assert!(self.x.len() >= self.x_rows * self.x_stride, "x has all rows");
        for first in (0..self.columns).step_by(DOT_COLUMNS) {
            let mut m = 0;
            while m < self.x_rows {
                m += match self.x_rows - m {
                    1 => self.group::<S, 1>(simd, m, first),
                    2 | 3 => self.group::<S, 2>(simd, m, first),
                    // Four times four sums only fit into 32 registers.
                    _ if S::LANES == 16 => self.group::<S, 4>(simd, m, first),
                    _ => self.group::<S, 2>(simd, m, first),
                };
            }
        }
    }
}

impl<F: Format> DotRows<'_, F> {
    /// Rows `m..m + M` of activations with up to [`DOT_COLUMNS`] weight rows; returns `M`.
    #[inline(always)]
    fn group<S: Simd, const M: usize>(&self, simd: S, m: usize, first: usize) -> usize {
        let Weights { bytes, row_bytes, values } = self.weights;
        let mut dots = Dots {
            rows: [bytes.as_ptr(); DOT_COLUMNS],
            x: [self.x.as_ptr(); M],
            values,
            // The rows of a group lie one after the other: while they are read side by side, the
            // same places of the next group are asked for in the order of memory.
            ahead_bytes: DOT_COLUMNS * row_bytes,
        };
        for (i, start) in dots.rows.iter_mut().enumerate() {
            // The last group repeats its last row and drops what it gives.
            let row = (first + i).min(self.columns - 1);
            *start = bytes[row * row_bytes..].as_ptr();
        }
        for (i, start) in dots.x.iter_mut().enumerate() {
            *start = self.x[(m + i) * self.x_stride..].as_ptr();
        }
        let count = (self.columns - first).min(DOT_COLUMNS);
        // SAFETY: each start has `row_bytes` bytes after it, and each row of `x` whole chunks;
        // `out` has these values, as its maker promises.
        unsafe {
            let sums = dot_rows::<S, F, M>(simd, &dots);
            for (i, sums) in sums.iter().enumerate() {
                let to = self.out.start.add((m + i) * self.out.stride + first);
                std::ptr::copy_nonoverlapping(sums.as_ptr(), to, count);
            }
        }
        M
    }
}

/// # Safety
/// `rows` point to rows of `values` values and `x` to as many, padded with zeros to whole chunks.
#[inline(always)]
unsafe fn dot_rows<S: Simd, F: Format, const M: usize>(
    simd: S,
    dots: &Dots<M>,
) -> [[f32; DOT_COLUMNS]; M] {
    let Dots { rows, x, values, ahead_bytes } = *dots;
    let mut total = [[0.0; DOT_COLUMNS]; M];
    let mut start = 0;
    while start < values {
        let end = (start + SECTION).min(values);
        let mut sums = [[simd.splat(0.0); DOT_COLUMNS]; M];
        let block_values = F::CHUNKS * CHUNK;
        for block in start / block_values..end / block_values {
            let ahead = block * F::BLOCK_BYTES * DOT_COLUMNS + ahead_bytes;
            for line in (0..F::BLOCK_BYTES * DOT_COLUMNS).step_by(LINE_BYTES) {
                simd.prefetch(rows[0].wrapping_add(ahead + line));
            }
            // SAFETY: the block lies below `values` in all rows and in `x`.
            unsafe {
                let mut blocks = rows;
                let mut shared = [F::Shared::default(); DOT_COLUMNS];
                for (block_start, shared) in blocks.iter_mut().zip(&mut shared) {
                    *block_start = block_start.add(block * F::BLOCK_BYTES);
                    *shared = F::share(simd, *block_start);
                }
                for part in 0..F::CHUNKS {
                    let at = block * block_values + part * CHUNK;
                    let mut xs = [simd.load_f32(x[0].add(at).cast()); M];
                    for m in 1..M {
                        xs[m] = simd.load_f32(x[m].add(at).cast());
                    }
                    for column in 0..DOT_COLUMNS {
                        let w = F::decode(simd, blocks[column], &shared[column], part);
                        for (sums, x) in sums.iter_mut().zip(xs) {
                            sums[column] = simd.multiply_add(sums[column], w, x);
                        }
                    }
                }
            }
        }
        if end % CHUNK != 0 {
            for (column, row) in rows.into_iter().enumerate() {
                // SAFETY: `x` is padded to the end of this chunk; the row has the values up to
                // `values`, which `decode_tail` keeps to.
                unsafe {
                    let w = decode_tail::<S, F>(simd, row, values);
                    for (sums, x) in sums.iter_mut().zip(x) {
                        let x = simd.load_f32(x.add(end / CHUNK * CHUNK).cast());
                        sums[column] = simd.multiply_add(sums[column], w, x);
                    }
                }
            }
        }
        for (total, sums) in total.iter_mut().zip(sums) {
            for (total, sum) in total.iter_mut().zip(simd.reduce(sums)) {
                *total += sum;
            }
        }
        start = end;
    }
    total
}

/// The last, partial chunk of a row, with zeros after its end.
///
/// # Safety
/// `row` points to a row of `values` values.
#[inline(always)]
unsafe fn decode_tail<S: Simd, F: Format>(simd: S, row: *const u8, values: usize) -> S::Chunk {
    let value_bytes = F::VALUE_BYTES.expect("rows of block formats are whole chunks");
    let (first, count) = (values / CHUNK * CHUNK, values % CHUNK);
    let mut tail = [0_u8; CHUNK * 4];
    // SAFETY: the row has `count` values from `first` on; the array holds a chunk of the widest.
    unsafe {
        let from = row.add(first * value_bytes);
        std::ptr::copy_nonoverlapping(from, tail.as_mut_ptr(), count * value_bytes);
        let shared = F::share(simd, tail.as_ptr());
        F::decode(simd, tail.as_ptr(), &shared, 0)
    }
}

/// Decodes a section of `rows` weight rows into a panel: `panel[r * stride + i]` is value
/// `start + i` of row `r`, with zeros up to a whole chunk.
pub(crate) struct FillPanel<'a, F> {
    pub weights: Weights<'a>,
    pub rows: usize,
    pub start: usize,
    pub panel: &'a mut [f32],
    /// Values from one row of the panel to the next.
    pub stride: usize,
    pub format: PhantomData<F>,
}

impl<F: Format> Kernel for FillPanel<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Weights { bytes, row_bytes, values } = self.weights;
        let end = (self.start + SECTION).min(values);
        assert!(bytes.len() >= self.rows * row_bytes, "the weights have all rows");
        assert!(self.panel.len() >= self.rows * self.stride, "the panel has all rows");
        let padded = (end - self.start).next_multiple_of(CHUNK);
        assert!(padded <= self.stride, "a row of the panel holds the section");
        for (row, panel) in self.panel.chunks_exact_mut(self.stride).take(self.rows).enumerate() {
            let from = bytes[row * row_bytes..].as_ptr();
            let mut to = panel.as_mut_ptr();
            // SAFETY: the chunks lie below `values`, and a row of the panel holds all of them.
            unsafe {
                let block_values = F::CHUNKS * CHUNK;
                for block in self.start / block_values..end / block_values {
                    let block = from.add(block * F::BLOCK_BYTES);
                    for line in (0..F::BLOCK_BYTES).step_by(LINE_BYTES) {
                        simd.prefetch(block.wrapping_add(FILL_AHEAD_BYTES + line));
                    }
                    let shared = F::share(simd, block);
                    for part in 0..F::CHUNKS {
                        simd.store_chunk(to, F::decode(simd, block, &shared, part));
                        to = to.add(CHUNK);
                    }
                }
                if end % CHUNK != 0 {
                    simd.store_chunk(to, decode_tail::<S, F>(simd, from, values));
                }
            }
        }
    }
}

/// `out[m, n] (+)= x[m] · panel[n]` over one section, for `m < x_rows`, `n < columns`.
pub(crate) struct MultiplyPanel<'a> {
    /// From the section's first value of the first row on.
    pub x: &'a [f32],
    /// Values from one row of `x` to the next.
    pub x_stride: usize,
    pub x_rows: usize,
    /// Rows up to a multiple of [`Simd::TILE`] have defined values.
    pub panel: &'a [f32],
    /// Values from one row of the panel to the next.
    pub panel_stride: usize,
    pub columns: usize,
    /// Values of the section: a multiple of [`CHUNK`].
    pub values: usize,
    pub out: Out,
}

/// Where [`MultiplyPanel`] writes.
#[derive(Clone, Copy)]
pub(crate) struct Out {
    /// Of `[0, 0]`.
    start: *mut f32,
    /// Values from one row to the next.
    stride: usize,
    /// Whether to add to what is there.
    add: bool,
}

impl Out {
    /// # Safety
    /// While this is in use, nobody else reads or writes the values that the product writes: its
    /// `x_rows` rows of `columns` values, `stride` apart.
    pub unsafe fn new(start: *mut f32, stride: usize, add: bool) -> Self {
        Self { start, stride, add }
    }
}

impl Kernel for MultiplyPanel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // A tile's width has to be a constant that an associated one cannot give.
        match S::TILE {
            6 => self.run_tiles::<S, 6>(simd),
            _ => self.run_tiles::<S, 2>(simd),
        }
    }
}

impl MultiplyPanel<'_> {
    fn check<S: Simd>(&self) {
        let last = |rows: usize, stride: usize| rows.saturating_sub(1) * stride + self.values;
        assert!(self.values.is_multiple_of(CHUNK), "sections are padded to whole chunks");
        assert!(self.x.len() >= last(self.x_rows, self.x_stride), "x has all rows");
        let tiled = self.columns.next_multiple_of(S::TILE);
        assert!(self.panel.len() >= last(tiled, self.panel_stride), "the panel has all rows");
    }

    #[inline(always)]
    fn run_tiles<S: Simd, const N: usize>(&self, simd: S) {
        assert_eq!(N, S::TILE);
        self.check::<S>();
        let mut m = 0;
        while m < self.x_rows {
            let rows = match self.x_rows - m {
                1 => 1,
                2 | 3 => 2,
                _ => TILE_ROWS,
            };
            let mut n = 0;
            while n < self.columns {
                // SAFETY: the rows from `m` on lie in `x`, those from `n` on in the panel; `Out`
                // is made by who owns its values.
                unsafe {
                    match rows {
                        1 => tile::<S, 1, N>(simd, self, m, n),
                        2 => tile::<S, 2, N>(simd, self, m, n),
                        _ => tile::<S, TILE_ROWS, N>(simd, self, m, n),
                    }
                }
                n += N;
            }
            m += rows;
        }
    }
}

/// The products of `M` rows of `x` from `m` with `N` rows of the panel from `n`.
///
/// # Safety
/// The rows lie in `x` and the panel; `out` has room for those below `columns`, and nobody else
/// reads or writes them.
#[inline(always)]
unsafe fn tile<S: Simd, const M: usize, const N: usize>(
    simd: S,
    p: &MultiplyPanel<'_>,
    m: usize,
    n: usize,
) {
    let mut sums = [[simd.splat(0.0); REDUCED]; N];
    // SAFETY: all reads are below the lengths that `check` asserts; writes by the caller's promise.
    unsafe {
        let x = p.x.as_ptr().add(m * p.x_stride);
        let w = p.panel.as_ptr().add(n * p.panel_stride);
        let mut i = 0;
        while i < p.values {
            let mut xs = [simd.splat(0.0); M];
            for (row, x_row) in xs.iter_mut().enumerate() {
                *x_row = simd.load(x.add(row * p.x_stride + i));
            }
            for (column, sums) in sums.iter_mut().enumerate() {
                let w = simd.load(w.add(column * p.panel_stride + i));
                for (sum, x_row) in sums.iter_mut().zip(xs) {
                    *sum = simd.fma(w, x_row, *sum);
                }
            }
            i += S::LANES;
        }
        for (column, sums) in sums.into_iter().enumerate() {
            let sums = simd.reduce(sums);
            if n + column < p.columns {
                for (row, sum) in sums.into_iter().enumerate().take(M) {
                    let to = p.out.start.add((m + row) * p.out.stride + n + column);
                    *to = if p.out.add { *to + sum } else { 0.0 + sum };
                }
            }
        }
    }
}
