//! `rms_norm`, `add_rms_norm`, `gated_activation` and `softcap`: rows on threads.
#![allow(unsafe_code, reason = "threads write disjoint rows of one buffer")]

use super::super::{Activation, NormKind};
use super::kernels::{Activate, AddInto, KernelSet, Norm, NormWeight, Softcap};
use super::pool::Pool;
use super::rows::Rows;
use super::weight::Vector;

/// Values that are worth a task: some microseconds of work.
const TASK_VALUES: usize = 8 << 10;

/// What is added to the values of a norm weight of this kind.
pub(super) fn offset(kind: NormKind) -> f32 {
    match kind {
        NormKind::Plain => 0.0,
        NormKind::UnitOffset => 1.0,
    }
}

/// See [`super::super::Backend::rms_norm`].
pub(super) fn rms_norm(
    (kernels, pool): (KernelSet, &Pool),
    x: &Rows,
    (weight, kind, eps): (&Vector, NormKind, f32),
    out: &mut Rows,
) {
    assert_eq!(x.width(), out.width(), "a norm keeps the width");
    out.set_count(x.count());
    let out = out.share();
    let weight = NormWeight { values: weight.values(), offset: offset(kind) };
    each_row(pool, x.count(), x.width(), &|row| {
        // SAFETY: each row is visited once.
        let out = unsafe { out.row(row) };
        out.copy_from_slice(x.row(row));
        kernels.run(Norm { x: out, weight, eps });
    });
}

/// See [`super::super::Backend::add_rms_norm`].
pub(super) fn add_rms_norm(
    (kernels, pool): (KernelSet, &Pool),
    (residual, x): (&mut Rows, &Rows),
    (weight, kind, eps): (&Vector, NormKind, f32),
    out: &mut Rows,
) {
    assert_eq!(residual.width(), x.width(), "the residual is as wide as what is added");
    assert_eq!(residual.count(), x.count(), "the residual has a row for each that is added");
    assert_eq!(x.width(), out.width(), "a norm keeps the width");
    out.set_count(x.count());
    let (residual, out) = (residual.share(), out.share());
    let weight = NormWeight { values: weight.values(), offset: offset(kind) };
    each_row(pool, x.count(), x.width(), &|row| {
        // SAFETY: each row is visited once.
        let (residual, out) = unsafe { (residual.row(row), out.row(row)) };
        kernels.run(AddInto { to: residual, from: x.row(row) });
        out.copy_from_slice(residual);
        kernels.run(Norm { x: out, weight, eps });
    });
}

/// See [`super::super::Backend::gated_activation`].
pub(super) fn gated_activation(
    (kernels, pool): (KernelSet, &Pool),
    activation: Activation,
    gate_up: &Rows,
    out: &mut Rows,
) {
    assert_eq!(gate_up.width(), 2 * out.width(), "gate and up are as wide as the output");
    out.set_count(gate_up.count());
    let out = out.share();
    each_row(pool, gate_up.count(), gate_up.width(), &|row| {
        let (gate, up) = gate_up.row(row).split_at(out.width());
        // SAFETY: each row is visited once.
        let out = unsafe { out.row(row) };
        kernels.run(Activate { activation, gate, up, out });
    });
}

/// See [`super::super::Backend::softcap`].
pub(super) fn softcap((kernels, pool): (KernelSet, &Pool), logits: &mut Rows, cap: f32) {
    let (count, width) = (logits.count(), logits.width());
    let logits = logits.share();
    each_row(pool, count, width, &|row| {
        // SAFETY: each row is visited once.
        let x = unsafe { logits.row(row) };
        kernels.run(Softcap { x, cap });
    });
}

/// Runs `job` once for each row, several rows to a task where they are short.
fn each_row(pool: &Pool, rows: usize, width: usize, job: &(dyn Fn(usize) + Sync)) {
    let task_rows = (TASK_VALUES / width.max(1)).max(1);
    pool.run(rows.div_ceil(task_rows), &|_, task| {
        let first = task * task_rows;
        (first..rows.min(first + task_rows)).for_each(job);
    });
}
