//! `embed`, `linear` and `moe`.

use super::super::reference;
use super::super::{Activation, Backend, BackendError, DType, HostTensor, MoeParams, MoeWeights};
use super::*;

/// Relative to the sum of the terms' sizes: some roundings of f32 (6e-8 each), whose number grows
/// with the logarithm of the sum's length.
const DOT_TOLERANCE: f64 = 1e-6;

/// Decoding is exact: an embedding is the reference's value, to the bit.
pub(crate) fn embed<B: Backend>(backend: &B) {
    let mut draws = Draws(1);
    for dtype in PLAIN.into_iter().chain(BLOCK) {
        let widths: &[usize] = match dtype.block_values() {
            1 => &[1, 7, 31, 32, 33, 80, 1000, 1024, 1025, 2100],
            32 => &[32, 96, 1024, 1056, 2080],
            _ => &[256, 1024, 1280, 2304],
        };
        for &width in widths {
            let parts =
                [draws.matrix("a", dtype, 5, width), draws.matrix("b", DType::F32, 2, width)];
            let table = backend.weight(&parts, &[]).expect("a table");
            let tokens = [6, 0, 4, 4, 2, 5];
            let step = Step::new(backend, &plan_of(&tokens, Vec::new()), 7, &[]);
            let mut out = empty(backend, width);
            let all = parts.iter().flat_map(reference::decode).collect::<Vec<_>>();
            for scale in [1.0, 11.5] {
                backend.embed(&step.batch, &table, scale, &mut out);
                let row = |t: &u32| &all[*t as usize * width..][..width];
                let want: Vec<f32> = tokens.iter().flat_map(row).map(|v| v * scale).collect();
                let got = read(backend, &out);
                assert_eq!(bits(&got), bits(&want), "{dtype:?}, width {width}, scale {scale}");
            }
        }
    }
}

/// Blocks and values that gguf-py made (`tests/fixtures/gguf_blocks.py`), to the bit.
pub(crate) fn blocks_are_what_gguf_says<B: Backend>(backend: &B) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/gguf/blocks.safetensors");
    let file = std::fs::read(path).expect("the fixture is there");
    let file = safetensors::SafeTensors::deserialize(&file).expect("a safetensors file");
    let types = [
        ("Q8_0", DType::Q8_0),
        ("Q4_0", DType::Q4_0),
        ("Q4_K", DType::Q4K),
        ("Q5_K", DType::Q5K),
        ("Q6_K", DType::Q6K),
    ];
    for (name, dtype) in types {
        let raw = file.tensor(&format!("{name}.raw")).expect("the blocks");
        let values = file.tensor(&format!("{name}.values")).expect("the values");
        let shape = values.shape().to_vec();
        let table = tensor(name, dtype, shape.clone(), Bytes::copy_from_slice(raw.data()));
        let want = tensor(name, DType::F32, shape, Bytes::copy_from_slice(values.data()));
        let want = reference::decode(&want);
        assert_eq!(bits(&reference::decode(&table)), bits(&want), "{name}: the reference");
        let width = table.shape()[1];
        let step = Step::new(backend, &plan_of(&[0, 1], Vec::new()), 2, &[]);
        let table = backend.weight(&[table], &[]).expect("a table");
        let mut out = empty(backend, width);
        backend.embed(&step.batch, &table, 1.0, &mut out);
        assert_eq!(bits(&read(backend, &out)), bits(&want), "{name}");
    }
}

/// Every type, odd shapes, fused parts, with and without bias.
pub(crate) fn linear<B: Backend>(backend: &B) {
    let mut draws = Draws(2);
    for dtype in PLAIN.into_iter().chain(BLOCK) {
        let inputs: &[usize] = match dtype.block_values() {
            1 => &[1, 3, 17, 32, 45, 96, 1023, 1024, 1061, 2050],
            32 => &[32, 64, 96, 1024, 1120],
            _ => &[256, 768, 1024, 1280],
        };
        for &inputs in inputs {
            for outputs in [1, 2, 5, 48, 49, 131] {
                let rows = [1, 2, 3, 4, 5, 7, 19, 33][draws.below(8)];
                check_linear(backend, &mut draws, dtype, (rows, inputs, outputs));
            }
        }
    }
}

fn check_linear<B: Backend>(
    backend: &B,
    draws: &mut Draws,
    dtype: DType,
    (count, inputs, outputs): (usize, usize, usize),
) {
    let x = draws.values(count * inputs);
    // A second, narrow part of another type.
    let parts = [
        draws.matrix("first", dtype, outputs, inputs),
        draws.matrix("second", DType::F16, 3, inputs),
    ];
    let bias = [draws.values(outputs), draws.values(3)];
    let with_bias = count.is_multiple_of(2);
    let tensors: Vec<HostTensor> = if with_bias {
        bias.iter().map(|b| floats("bias", vec![b.len()], b)).collect()
    } else {
        Vec::new()
    };
    let weight = backend.weight(&parts, &tensors).expect("a weight");
    let mut out = empty(backend, outputs + 3);
    backend.linear(&rows(backend, &x, inputs), &weight, &mut out);
    let got = read(backend, &out);
    let weights: Vec<f32> = parts.iter().flat_map(reference::decode).collect();
    assert_eq!(got.len(), count * (outputs + 3));
    let bias = bias.concat();
    for (i, got) in got.iter().enumerate() {
        let (row, output) = (i / (outputs + 3), i % (outputs + 3));
        let w = &weights[output * inputs..][..inputs];
        let (mut want, mut size) = reference::dot(&x[row * inputs..][..inputs], w);
        if with_bias {
            want += f64::from(bias[output]);
            size += f64::from(bias[output]).abs();
        }
        let error = (f64::from(*got) - want).abs();
        assert!(
            error <= DOT_TOLERANCE * size + 1e-30,
            "{dtype:?} [{count}, {inputs}] x [{outputs}, {inputs}]: row {row}, output {output} is \
             {got}, not {want}"
        );
    }
}

/// The contract that makes answers independent of the batch: each row's bits are the same alone
/// and among any number of others.
pub(crate) fn linear_is_batch_invariant<B: Backend>(backend: &B) {
    let mut draws = Draws(3);
    for dtype in PLAIN.into_iter().chain(BLOCK) {
        let (inputs, outputs) = (if dtype.block_values() == 1 { 1100 } else { 1280 }, 67);
        let tensor = draws.matrix("weight", dtype, outputs, inputs);
        let bias = floats("bias", vec![outputs], &draws.values(outputs));
        let weight = backend.weight(&[tensor], &[bias]).expect("a weight");
        let x = draws.values(70 * inputs);
        let mut out = empty(backend, outputs);
        let mut alone = Vec::new();
        for row in x.chunks_exact(inputs) {
            backend.linear(&rows(backend, row, inputs), &weight, &mut out);
            alone.extend(bits(&read(backend, &out)));
        }
        for count in 1..=70 {
            let first = draws.below(71 - count);
            let part = &x[first * inputs..(first + count) * inputs];
            backend.linear(&rows(backend, part, inputs), &weight, &mut out);
            let want = &alone[first * outputs..(first + count) * outputs];
            assert_eq!(bits(&read(backend, &out)), want, "{dtype:?}, {count} rows from {first}");
        }
    }
}

pub(crate) fn weights_of_a_wrong_shape_are_refused<B: Backend>(backend: &B) {
    let matrix = |rows, columns| Draws(4).matrix("m", DType::F32, rows, columns);
    let line = |n| floats("line", vec![n], &vec![0.0; n]);
    let cases: [(&[HostTensor], &[HostTensor]); 6] = [
        (&[], &[]),
        (&[line(4)], &[]),
        (&[matrix(2, 4), matrix(2, 5)], &[]),
        (&[matrix(0, 4)], &[]),
        (&[matrix(2, 4)], &[line(3)]),
        (&[matrix(2, 4), matrix(3, 4)], &[line(2)]),
    ];
    for (parts, bias) in cases {
        let refused = backend.weight(parts, bias).err();
        let shapes: Vec<_> = parts.iter().chain(bias).map(HostTensor::shape).collect();
        assert!(matches!(refused, Some(BackendError::Unsupported { .. })), "{shapes:?}");
    }
    assert!(backend.vector(&matrix(2, 4)).is_err());
    assert!(backend.vector(&Draws(4).matrix("q", DType::Q8_0, 1, 32)).is_err());
}

/// Routed experts, against the reference and each row alone.
pub(crate) fn moe<B: Backend>(backend: &B) {
    let mut draws = Draws(5);
    for (experts, used, normalise) in [(4, 1, true), (8, 2, true), (5, 3, false), (3, 3, false)] {
        let (hidden, inner, count) = (64, 40, 11);
        let params = MoeParams { experts_per_token: used, normalise, activation: Activation::Silu };
        let router = draws.matrix("router", DType::F32, experts, hidden);
        let mut matrices = |rows, columns| -> Vec<HostTensor> {
            (0..experts).map(|_| draws.matrix("e", DType::BF16, rows, columns)).collect()
        };
        let (gate_up, down) = (matrices(2 * inner, hidden), matrices(hidden, inner));
        let one = |t: &HostTensor| backend.weight(std::slice::from_ref(t), &[]).expect("a weight");
        let weights = MoeWeights {
            router: one(&router),
            gate_up: gate_up.iter().map(one).collect(),
            down: down.iter().map(one).collect(),
        };
        let x = draws.values(count * hidden);
        let mut out = empty(backend, hidden);
        backend.moe(&params, &weights, &rows(backend, &x, hidden), &mut out);
        let got = read(backend, &out);
        for (x, got) in x.chunks_exact(hidden).zip(got.chunks_exact(hidden)) {
            let want = moe_reference(&params, (&router, &gate_up, &down), x);
            close("moe", got, &want, 1.0, 1e-5);
            backend.moe(&params, &weights, &rows(backend, x, hidden), &mut out);
            assert_eq!(bits(&read(backend, &out)), bits(got), "a row alone");
        }
    }
}

fn moe_reference(
    params: &MoeParams,
    (router, gate_up, down): (&HostTensor, &[HostTensor], &[HostTensor]),
    x: &[f32],
) -> Vec<f64> {
    let product = |w: &HostTensor, x: &[f32]| -> Vec<f64> {
        reference::decode(w).chunks_exact(x.len()).map(|w| reference::dot(x, w).0).collect()
    };
    let scores: Vec<f64> = product(router, x).into_iter().map(f64::exp).collect();
    let mut best: Vec<usize> = (0..scores.len()).collect();
    best.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    best.truncate(params.experts_per_token as usize);
    let chosen = |e: &usize| scores[*e];
    let total: f64 =
        if params.normalise { best.iter().map(chosen).sum() } else { scores.iter().sum() };
    let mut out = vec![0.0; x.len()];
    for e in best {
        let both = product(&gate_up[e], x);
        let (gate, up) = both.split_at(both.len() / 2);
        let hidden: Vec<f32> = gate
            .iter()
            .zip(up)
            .map(|(g, u)| (reference::activate(params.activation, *g) * u) as f32)
            .collect();
        for (out, y) in out.iter_mut().zip(product(&down[e], &hidden)) {
            *out += scores[e] / total * y;
        }
    }
    out
}
