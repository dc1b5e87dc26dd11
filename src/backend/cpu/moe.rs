//! `moe`: the router's choice, then each expert in ascending order on the rows that chose it.

use super::super::{MoeParams, MoeWeights};
use super::kernels::KernelSet;
use super::linear::linear;
use super::norm::gated_activation;
use super::pool::Pool;
use super::rows::Rows;
use super::scratch::Scratches;
use super::weight::Weight;

/// Working memory of the op; grows to what the model and the step's size need.
#[derive(Debug, Default)]
pub(super) struct MoeScratch {
    buffers: Option<Buffers>,
    /// The choices of all rows, in ascending order of expert and row.
    choices: Vec<Choice>,
    order: Vec<(f32, u32)>,
}

#[derive(Debug)]
struct Buffers {
    capacity: usize,
    logits: Rows,
    x: Rows,
    gate_up: Rows,
    hidden: Rows,
    y: Rows,
}

/// A row uses an expert.
#[derive(Clone, Copy, Debug)]
struct Choice {
    expert: u32,
    row: u32,
    weight: f32,
}

/// See [`super::super::Backend::moe`].
pub(super) fn moe(
    (kernels, pool, scratches): (KernelSet, &Pool, &Scratches),
    params: &MoeParams,
    weights: &MoeWeights<Weight>,
    x: &Rows,
    out: &mut Rows,
    scratch: &mut MoeScratch,
) {
    assert_eq!(weights.gate_up.len(), weights.down.len(), "each expert has both matrices");
    assert_eq!(weights.router.outputs(), weights.down.len(), "the router knows the experts");
    out.set_count(x.count());
    for row in 0..x.count() {
        out.row_mut(row).fill(0.0);
    }
    let MoeScratch { buffers, choices, order } = scratch;
    let buffers = sized(buffers, weights, x.count());
    let runner = (kernels, pool, scratches);
    linear(runner, x, &weights.router, &mut buffers.logits);
    choices.clear();
    for row in 0..x.count() {
        choose(params, buffers.logits.row(row), row as u32, order, choices);
    }
    choices.sort_unstable_by_key(|c| (c.expert, c.row));
    for group in choices.chunk_by(|a, b| a.expert == b.expert) {
        let expert = group[0].expert as usize;
        buffers.x.set_count(group.len());
        for (i, choice) in group.iter().enumerate() {
            buffers.x.row_mut(i).copy_from_slice(x.row(choice.row as usize));
        }
        let gate_up = &weights.gate_up[expert];
        linear(runner, &buffers.x, gate_up, &mut buffers.gate_up);
        gated_activation((kernels, pool), params.activation, &buffers.gate_up, &mut buffers.hidden);
        let down = &weights.down[expert];
        linear(runner, &buffers.hidden, down, &mut buffers.y);
        for (i, choice) in group.iter().enumerate() {
            let out = out.row_mut(choice.row as usize);
            for (out, y) in out.iter_mut().zip(buffers.y.row(i)) {
                *out += choice.weight * y;
            }
        }
    }
}

/// The best experts of a row: softmax over all, the largest (the lower of equals), and their
/// probabilities, divided by their sum where that is asked for.
fn choose(
    params: &MoeParams,
    logits: &[f32],
    row: u32,
    order: &mut Vec<(f32, u32)>,
    choices: &mut Vec<Choice>,
) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    order.clear();
    order.extend(logits.iter().zip(0..).map(|(&l, expert)| ((l - largest).exp(), expert)));
    let total: f32 = order.iter().map(|(p, _)| p).sum();
    order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let best = &order[..order.len().min(params.experts_per_token as usize)];
    let divisor = if params.normalise { best.iter().map(|(p, _)| p).sum() } else { total };
    choices.extend(best.iter().map(|&(p, expert)| Choice { expert, row, weight: p / divisor }));
}

/// The working memory for a step of `rows` rows. It is small beside the activation buffers that
/// were reserved at start, and the first step of the largest size is the last to take memory.
fn sized<'a>(
    buffers: &'a mut Option<Buffers>,
    weights: &MoeWeights<Weight>,
    rows: usize,
) -> &'a mut Buffers {
    let inner = weights.down.first().map_or(0, Weight::inputs);
    let (experts, width) = (weights.router.outputs(), weights.router.inputs());
    let fits = |b: &Buffers| {
        let widths = (b.logits.width(), b.x.width(), b.hidden.width());
        b.capacity >= rows && widths == (experts, width, inner)
    };
    if !buffers.as_ref().is_some_and(fits) {
        let new = |width| Rows::new(rows, width, None).expect("memory for the experts' rows");
        *buffers = Some(Buffers {
            capacity: rows,
            logits: new(experts),
            x: new(width),
            gate_up: new(2 * inner),
            hidden: new(inner),
            y: new(width),
        });
    }
    buffers.as_mut().expect("made above")
}
