//! `linear` and `embed`: which thread multiplies what.
#![allow(unsafe_code, reason = "threads write disjoint parts of one buffer")]

use std::marker::PhantomData;

use super::kernels::{
    CHUNK, DotRows, FillPanel, Format, Instructions, KernelSet, MultiplyPanel, Out, PANEL_ROWS,
    PANEL_STRIDE, SECTION, WithFormat, with_format,
};
use super::pool::Pool;
use super::rows::{Rows, SharedRows};
use super::scratch::Scratches;
use super::weight::{Part, Weight};

/// Bytes of weights that one task streams, at least: about 2 µs of one core's share of memory
/// bandwidth, against the tenth of a microsecond that taking a task costs.
const TASK_BYTES: usize = 32 << 10;

/// Rows of activations up to which decoding weights again for every few rows of them costs less
/// than writing decoded weights to memory. With 32 registers, four rows share a decoded weight:
/// 16 rows then reach 0.55 of the multiply-add peak, against 0.4 by way of memory.
fn dot_rows_max(kernels: KernelSet) -> usize {
    match kernels.instructions() {
        Instructions::Avx512 => 16,
        Instructions::Avx2 | Instructions::Portable => 4,
    }
}

/// What all tasks of a product share.
#[derive(Clone, Copy)]
struct Product<'a> {
    kernels: KernelSet,
    x: &'a Rows,
    weight: &'a Weight,
    out: SharedRows<'a>,
}

/// `x [T, I]` × `weight [O, I]` + bias → `out [T, O]`.
pub(super) fn linear(
    (kernels, pool, scratches): (KernelSet, &Pool, &Scratches),
    x: &Rows,
    weight: &Weight,
    out: &mut Rows,
) {
    assert_eq!(x.width(), weight.inputs(), "activations are as wide as the weight's rows");
    assert_eq!(out.width(), weight.outputs(), "the output has a place for each output row");
    out.set_count(x.count());
    if x.count() == 0 {
        return;
    }
    let product = Product { kernels, x, weight, out: out.share() };
    let tasks = weight.parts().iter().map(|p| p.rows.div_ceil(product.task_rows(p))).sum();
    pool.run(tasks, &|thread, task| {
        let (part, first) = product.task(task);
        let rows = product.task_rows(part).min(part.rows - first);
        if product.x.count() <= dot_rows_max(kernels) {
            product.dot(part, first, rows);
        } else {
            product.multiply(part, first, rows, &mut scratches.lock(thread).panel);
        }
    });
}

impl<'a> Product<'a> {
    /// Weight rows of one task.
    fn task_rows(&self, part: &Part) -> usize {
        if self.x.count() > dot_rows_max(self.kernels) {
            return PANEL_ROWS;
        }
        (TASK_BYTES / part.row_bytes()).next_multiple_of(4).clamp(4, part.rows.max(4))
    }

    /// A task's part and the first of its rows in it.
    fn task(&self, task: usize) -> (&'a Part, usize) {
        let mut first = task;
        for part in self.weight.parts() {
            let tasks = part.rows.div_ceil(self.task_rows(part));
            if first < tasks {
                return (part, first * self.task_rows(part));
            }
            first -= tasks;
        }
        unreachable!("task {task} is below the number of tasks")
    }

    /// A few rows of activations: weights are decoded in registers.
    fn dot(&self, part: &Part, first: usize, rows: usize) {
        let (to, stride) = self.out.place(0, part.first + first);
        // SAFETY: each task has its own output columns, and `out` has `x`'s row count.
        let out = unsafe { Out::new(to, stride, false) };
        with_format(part.dtype, Dot { product: self, part, first, rows, out });
        self.add_bias(part.first + first, rows);
    }

    /// Several rows of activations: weights are decoded once into a panel that all rows use.
    fn multiply(&self, part: &Part, first: usize, rows: usize, panel: &mut [f32]) {
        let (column, inputs) = (part.first + first, self.x.width());
        for start in (0..inputs).step_by(SECTION) {
            let fill = Fill { kernels: self.kernels, part, first, rows, start, panel };
            with_format(part.dtype, fill);
            let (to, stride) = self.out.place(0, column);
            self.kernels.run(MultiplyPanel {
                x: &self.x.all()[start..],
                x_stride: self.x.stride(),
                x_rows: self.x.count(),
                panel,
                panel_stride: PANEL_STRIDE,
                columns: rows,
                values: (inputs - start).min(SECTION).next_multiple_of(CHUNK),
                // SAFETY: each task has its own output columns, and `out` has `x`'s row count.
                out: unsafe { Out::new(to, stride, start > 0) },
            });
        }
        self.add_bias(column, rows);
    }

    fn add_bias(&self, column: usize, columns: usize) {
        let Some(bias) = self.weight.bias(column) else { return };
        for row in 0..self.x.count() {
            // SAFETY: each task has its own output columns.
            let out = unsafe { self.out.part(row, column, columns) };
            out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
        }
    }
}

struct Dot<'a> {
    product: &'a Product<'a>,
    part: &'a Part,
    first: usize,
    rows: usize,
    out: Out,
}

impl WithFormat for Dot<'_> {
    type Output = ();

    fn with<F: Format>(self) {
        self.product.kernels.run(DotRows::<F> {
            weights: self.part.weights(self.first),
            columns: self.rows,
            x: self.product.x.all(),
            x_stride: self.product.x.stride(),
            x_rows: self.product.x.count(),
            out: self.out,
            format: PhantomData,
        });
    }
}

struct Fill<'a> {
    kernels: KernelSet,
    part: &'a Part,
    first: usize,
    rows: usize,
    start: usize,
    panel: &'a mut [f32],
}

impl WithFormat for Fill<'_> {
    type Output = ();

    fn with<F: Format>(self) {
        self.kernels.run(FillPanel::<F> {
            weights: self.part.weights(self.first),
            rows: self.rows,
            start: self.start,
            panel: self.panel,
            stride: PANEL_STRIDE,
            format: PhantomData,
        });
    }
}

/// Rows `tokens` of `table [V, H]`, each value times `scale`, → `out [T, H]`.
pub(super) fn embed(
    (kernels, pool): (KernelSet, &Pool),
    tokens: &[u32],
    table: &Weight,
    scale: f32,
    out: &mut Rows,
) {
    assert_eq!(out.width(), table.inputs(), "the output is as wide as the table's rows");
    out.set_count(tokens.len());
    let shared = out.share();
    pool.run(tokens.len(), &|_, row| {
        // SAFETY: each task has its own row.
        let values = unsafe { shared.padded(row) };
        let token = tokens[row] as usize;
        assert!(token < table.outputs(), "token {token} of {} in the table", table.outputs());
        let part = table.part_of(token);
        with_format(part.dtype, Lookup { kernels, part, row: token - part.first, values });
        if scale != 1.0 {
            values.iter_mut().for_each(|v| *v *= scale);
        }
    });
}

struct Lookup<'a> {
    kernels: KernelSet,
    part: &'a Part,
    row: usize,
    values: &'a mut [f32],
}

impl WithFormat for Lookup<'_> {
    type Output = ();

    fn with<F: Format>(self) {
        for (section, values) in self.values.chunks_mut(SECTION).enumerate() {
            let stride = values.len();
            self.kernels.run(FillPanel::<F> {
                weights: self.part.weights(self.row),
                rows: 1,
                start: section * SECTION,
                panel: values,
                stride,
                format: PhantomData,
            });
        }
    }
}
