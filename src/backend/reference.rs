//! Every op once more, in the plainest way and in f64: what backends are measured against.

use half::{bf16, f16};

use super::{Activation, DType, HostTensor, NormKind};
use crate::device::SamplingParams;

/// Decodes a tensor. Block formats: `dequantize_row_*` of ggml's `ggml-quants.c`.
pub(super) fn decode(tensor: &HostTensor) -> Vec<f32> {
    let dtype = tensor.dtype();
    let blocks = tensor.data().chunks_exact(dtype.block_bytes());
    blocks.flat_map(|block| decode_block(dtype, block)).collect()
}

fn decode_block(dtype: DType, b: &[u8]) -> Vec<f32> {
    match dtype {
        DType::F32 => vec![f32::from_le_bytes([b[0], b[1], b[2], b[3]])],
        DType::F16 => vec![half(b)],
        DType::BF16 => vec![bf16::from_le_bytes([b[0], b[1]]).to_f32()],
        DType::Q8_0 => b[2..].iter().map(|&q| half(b) * f32::from(q as i8)).collect(),
        DType::Q4_0 => {
            let low = b[2..].iter().map(|q| q & 15);
            let high = b[2..].iter().map(|q| q >> 4);
            low.chain(high).map(|q| half(b) * (f32::from(q) - 8.0)).collect()
        }
        DType::Q4K => decode_k4(b, &b[16..], |_, _| 0),
        DType::Q5K => decode_k4(b, &b[48..], |l, part| (b[16 + l] >> part & 1) * 16),
        DType::Q6K => decode_q6k(b),
    }
}

fn half(b: &[u8]) -> f32 {
    f16::from_le_bytes([b[0], b[1]]).to_f32()
}

fn decode_k4(b: &[u8], qs: &[u8], high_bit: impl Fn(usize, usize) -> u8) -> Vec<f32> {
    let (d, dmin, scales) = (half(b), half(&b[2..]), &b[4..16]);
    let mut out = Vec::new();
    for part in 0..8 {
        let (scale, min) = if part < 4 {
            (scales[part] & 63, scales[part + 4] & 63)
        } else {
            (
                (scales[part + 4] & 0xF) | ((scales[part - 4] >> 6) << 4),
                (scales[part + 4] >> 4) | ((scales[part] >> 6) << 4),
            )
        };
        let (factor, offset) = (d * f32::from(scale), dmin * f32::from(min));
        for l in 0..32 {
            let byte = qs[part / 2 * 32 + l];
            let low = if part % 2 == 0 { byte & 0xF } else { byte >> 4 };
            out.push(factor * f32::from(low + high_bit(l, part)) - offset);
        }
    }
    out
}

fn decode_q6k(b: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; 256];
    let d = half(&b[208..]);
    for n in 0..2 {
        let (ql, qh) = (&b[64 * n..], &b[128 + 32 * n..]);
        let scales = &b[192 + 8 * n..];
        for l in 0..32 {
            let q = [
                (ql[l] & 0xF) | ((qh[l] & 3) << 4),
                (ql[l + 32] & 0xF) | (((qh[l] >> 2) & 3) << 4),
                (ql[l] >> 4) | (((qh[l] >> 4) & 3) << 4),
                (ql[l + 32] >> 4) | ((qh[l] >> 6) << 4),
            ];
            for (part, q) in q.into_iter().enumerate() {
                let scale = f32::from(scales[l / 16 + 2 * part] as i8);
                out[128 * n + 32 * part + l] = d * scale * (f32::from(q) - 32.0);
            }
        }
    }
    out
}

/// A value as a KV cache of this type holds it.
pub(super) fn round_to(dtype: DType, value: f32) -> f32 {
    match dtype {
        DType::F16 => f16::from_f32(value).to_f32(),
        DType::BF16 => bf16::from_f32(value).to_f32(),
        _ => value,
    }
}

/// The dot product and the sum of its terms' sizes, to which rounding errors are relative.
pub(super) fn dot(x: &[f32], w: &[f32]) -> (f64, f64) {
    let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
    terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()))
}

pub(super) fn rms_norm(x: &[f32], weight: &[f32], kind: NormKind, eps: f32) -> Vec<f64> {
    let squares: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
    let inverse = 1.0 / (squares / x.len() as f64 + f64::from(eps)).sqrt();
    let offset = if kind == NormKind::UnitOffset { 1.0 } else { 0.0 };
    x.iter().zip(weight).map(|(x, w)| f64::from(*x) * inverse * (f64::from(*w) + offset)).collect()
}

pub(super) fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::GeluErf => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
    }
}

/// The error function by its Maclaurin series, whose terms are exact enough below 5 in f64.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

/// Rotates a head; the angle is formed in f32, as [`super::RopeSpec`] says.
pub(super) fn rotate(head: &mut [f64], position: u32, spec: &super::RopeSpec) {
    let pairs = spec.inv_freq.len();
    for (i, frequency) in spec.inv_freq.iter().enumerate() {
        let angle = f64::from(position as f32 * frequency);
        let (sin, cos) = angle.sin_cos();
        let (sin, cos) = (sin * f64::from(spec.magnitude), cos * f64::from(spec.magnitude));
        let (a, b) = if spec.interleaved { (2 * i, 2 * i + 1) } else { (i, i + pairs) };
        let (x, y) = (head[a], head[b]);
        (head[a], head[b]) = (x * cos - y * sin, y * cos + x * sin);
    }
}

/// Softmax attention of one query over keys and values.
pub(super) fn attend(
    query: &[f32],
    keys: &[Vec<f32>],
    values: &[Vec<f32>],
    scale: f32,
    softcap: Option<f32>,
) -> Vec<f64> {
    let score = |key: &Vec<f32>| {
        let score = dot(query, key).0 * f64::from(scale);
        softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
    };
    let scores: Vec<f64> = keys.iter().map(score).collect();
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    let of = |d: usize| {
        let terms = weights.iter().zip(values).map(|(w, v)| w * f64::from(v[d]));
        terms.sum::<f64>() / total
    };
    (0..query.len()).map(of).collect()
}

/// The tokens that may be drawn and their probabilities, most probable first, after everything
/// that [`SamplingParams`] says; `prompt` and `output` are what the sequence holds.
pub(super) fn distribution(
    params: &SamplingParams,
    logits: &[f32],
    prompt: &[u32],
    output: &[u32],
) -> Vec<(u32, f64)> {
    let mut logits: Vec<f64> = logits.iter().map(|&l| f64::from(l)).collect();
    for (token, bias) in &params.bias {
        logits[token.index()] += f64::from(*bias);
    }
    if output.len() < params.min_tokens as usize {
        for token in &params.banned {
            logits[token.index()] = f64::NEG_INFINITY;
        }
    }
    for (token, logit) in logits.iter_mut().enumerate() {
        let token = token as u32;
        let count = output.iter().filter(|&&t| t == token).count();
        if count > 0 || prompt.contains(&token) {
            let repetition = f64::from(params.repetition_penalty);
            *logit = if *logit > 0.0 { *logit / repetition } else { *logit * repetition };
        }
        *logit -= f64::from(params.frequency_penalty) * count as f64;
        *logit -= if count > 0 { f64::from(params.presence_penalty) } else { 0.0 };
    }
    let mut ranked: Vec<(u32, f64)> = (0..).zip(logits).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if params.temperature == 0.0 {
        return vec![(ranked[0].0, 1.0)];
    }
    let largest = ranked[0].1;
    for entry in &mut ranked {
        entry.1 = ((entry.1 - largest) / f64::from(params.temperature)).exp();
    }
    cut(params, &mut ranked);
    let total: f64 = ranked.iter().map(|(_, p)| p).sum();
    ranked.into_iter().map(|(token, p)| (token, p / total)).collect()
}

fn cut(params: &SamplingParams, ranked: &mut Vec<(u32, f64)>) {
    ranked.retain(|(_, p)| *p > 0.0);
    if params.top_k > 0 {
        ranked.truncate(params.top_k as usize);
    }
    if params.top_p < 1.0 {
        let target = f64::from(params.top_p) * ranked.iter().map(|(_, p)| p).sum::<f64>();
        let mut mass = 0.0;
        let reached = ranked.iter().position(|(_, p)| {
            mass += p;
            mass >= target
        });
        ranked.truncate(reached.map_or(ranked.len(), |place| place + 1));
    }
    ranked.retain(|(_, p)| *p >= f64::from(params.min_p));
}
