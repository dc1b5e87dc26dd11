//! Norms, activations, soft-caps, and the choice of rows.

use super::super::reference;
use super::super::{Activation, Backend, NormKind};
use super::*;
use crate::device::SampleKind;

const WIDTHS: [usize; 9] = [1, 5, 16, 31, 33, 80, 896, 1000, 4097];

pub(crate) fn norms<B: Backend>(backend: &B) {
    let mut draws = Draws(10);
    for width in WIDTHS {
        let count = [1, 2, 9, 40][draws.below(4)];
        let (x, y) = (draws.values(count * width), draws.values(count * width));
        let w = draws.values(width);
        let weight = vector(backend, &w);
        for (kind, eps) in [(NormKind::Plain, 1e-6), (NormKind::UnitOffset, 1e-5)] {
            let mut out = empty(backend, width);
            let mut residual = rows(backend, &x, width);
            backend.rms_norm(&residual, &weight, kind, eps, &mut out);
            let want = |x: &[f32]| -> Vec<f64> {
                x.chunks_exact(width).flat_map(|x| reference::rms_norm(x, &w, kind, eps)).collect()
            };
            close("rms_norm", &read(backend, &out), &want(&x), 1e-6, 2e-6);
            let added = rows(backend, &y, width);
            backend.add_rms_norm(&mut residual, &added, &weight, kind, eps, &mut out);
            let sums: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
            assert_eq!(bits(&read(backend, &residual)), bits(&sums));
            close("add_rms_norm", &read(backend, &out), &want(&sums), 1e-6, 2e-6);
        }
    }
}

pub(crate) fn activations<B: Backend>(backend: &B) {
    let mut draws = Draws(11);
    let specials = [0.0, -0.0, 1e-20, 5.0, -5.0, 20.0, -20.0, 90.0, -90.0, 1e4, -1e4];
    for activation in [Activation::Silu, Activation::GeluTanh, Activation::GeluErf] {
        for width in WIDTHS {
            let count = [1, 3, 17][draws.below(3)];
            let mut both = draws.values(count * 2 * width);
            both.iter_mut().for_each(|v| *v *= 8.0);
            let some = specials.len().min(width);
            both[..some].copy_from_slice(&specials[..some]);
            let mut out = empty(backend, width);
            backend.gated_activation(activation, &rows(backend, &both, 2 * width), &mut out);
            let want: Vec<f64> = both
                .chunks_exact(2 * width)
                .flat_map(|row| {
                    let (gate, up) = row.split_at(width);
                    let one = move |(g, u): (&f32, &f32)| {
                        reference::activate(activation, f64::from(*g)) * f64::from(*u)
                    };
                    gate.iter().zip(up).map(one)
                })
                .collect();
            close(&format!("{activation:?}"), &read(backend, &out), &want, 8.0, 1e-6);
        }
    }
}

pub(crate) fn softcap<B: Backend>(backend: &B) {
    let mut draws = Draws(12);
    for width in WIDTHS {
        let x: Vec<f32> = draws.values(3 * width).iter().map(|v| v * 100.0).collect();
        let mut x_rows = rows(backend, &x, width);
        backend.softcap(&mut x_rows, 30.0);
        let want: Vec<f64> = x.iter().map(|x| 30.0 * (f64::from(*x) / 30.0).tanh()).collect();
        close("softcap", &read(backend, &x_rows), &want, 10.0, 1e-6);
    }
}

pub(crate) fn take_rows<B: Backend>(backend: &B) {
    let mut draws = Draws(13);
    let (width, count) = (37, 9);
    let x = draws.values(count * width);
    // The choices of one request sample from the same row.
    let taken = [0, 3, 3, 3, 7, 8];
    let kind = SampleKind::Next { output_index: 0 };
    let sample = |row: &u32| SampleRow { row: *row, slot: SlotId(0), kind };
    let tokens: Vec<u32> = (0..count as u32).collect();
    let plan = plan_of(&tokens, taken.iter().map(sample).collect());
    let step = Step::new(backend, &plan, count, &[]);
    let mut out = empty(backend, width);
    for (first, samples) in [(0, 6), (2, 3), (5, 1), (6, 0)] {
        backend.take_rows(&step.batch, first, samples, &rows(backend, &x, width), &mut out);
        let named = &taken[first as usize..(first + samples) as usize];
        let want: Vec<f32> =
            named.iter().flat_map(|&r| &x[r as usize * width..][..width]).copied().collect();
        assert_eq!(read(backend, &out), want);
    }
}
