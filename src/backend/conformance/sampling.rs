//! `sample`, `init_slot`, `read`, and inputs that were sampled before.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::Backend;
use super::super::reference;
use super::*;
use crate::device::{SampleKind, SampledToken, SamplingParams, StepOutput};

const VOCAB: usize = 97;

fn drawn() -> SamplingParams {
    SamplingParams { temperature: 0.8, seed: 7, ..SamplingParams::greedy() }
}

/// A row for each parameter set, sampled in one step: slot `i` samples row `i`.
fn sample<B: Backend>(
    backend: &B,
    inits: &[SlotInit],
    output_index: u32,
    logits: &[f32],
    width: usize,
) -> Vec<SampledToken> {
    let kind = SampleKind::Next { output_index };
    let row = |i: u32| SampleRow { row: i, slot: inits[i as usize].slot, kind };
    let count = inits.len() as u32;
    let tokens: Vec<u32> = (0..count).collect();
    let mut plan = plan_of(&tokens, (0..count).map(row).collect());
    plan.slot_inits = inits.to_vec();
    let mut step = Step::new(backend, &plan, width, &[]);
    let mut logits = rows(backend, logits, width);
    backend.sample(&step.batch, 0, count, &mut logits, &mut step.sampler);
    let mut output = StepOutput::default();
    backend.read(&mut step.sampler, &mut output).expect("results");
    assert!(output.scores.is_empty());
    output.sampled
}

pub(crate) fn greedy<B: Backend>(backend: &B) {
    let mut draws = Draws(50);
    for vocab in [1, 2, 15, 16, 17, 97, 4099] {
        let mut logits = draws.values(vocab);
        let best = draws.below(vocab);
        logits[best] = 3.0;
        // The first of equal maxima wins.
        logits[vocab - 1] = 3.0;
        let inits = [init(0, SamplingParams::greedy())];
        let got = sample(backend, &inits, 0, &logits, vocab);
        assert_eq!((got[0].token.index(), got[0].finite), (best, true), "of {vocab}");
        assert_eq!(got[0].logprob, None);
    }
}

/// Rows without a distribution are reported, and their neighbours are not hurt.
pub(crate) fn not_finite<B: Backend>(backend: &B) {
    let mut logits = Draws(51).values(5 * VOCAB);
    logits[VOCAB + 96] = f32::NAN;
    logits[2 * VOCAB..3 * VOCAB].fill(f32::NEG_INFINITY);
    logits[3 * VOCAB] = f32::INFINITY;
    logits[4 * VOCAB..][..50].fill(f32::NEG_INFINITY);
    for params in [SamplingParams::greedy(), drawn()] {
        let inits: Vec<SlotInit> = (0..5).map(|slot| init(slot, params.clone())).collect();
        let got = sample(backend, &inits, 0, &logits, VOCAB);
        let finite: Vec<bool> = got.iter().map(|s| s.finite).collect();
        assert_eq!(finite, [true, false, false, false, true]);
        assert!(got.iter().all(|s| s.token.index() < VOCAB));
        assert!(got[4].token.index() >= 50);
    }
}

/// Many draws have the reference's frequencies, for each parameter and all together.
pub(crate) fn distributions<B: Backend>(backend: &B) {
    let mut draws = Draws(52);
    let logits: Vec<f32> = draws.values(VOCAB).iter().map(|v| v * 4.0).collect();
    let prompt = vec![3, 5, 5, 60];
    let output = vec![5, 9, 9, 9, 11];
    let base = drawn();
    let token = TokenId;
    let cases = [
        base.clone(),
        SamplingParams { temperature: 2.5, ..base.clone() },
        SamplingParams { top_k: 1, ..base.clone() },
        SamplingParams { top_k: 10, ..base.clone() },
        SamplingParams { top_p: 0.5, ..base.clone() },
        SamplingParams { top_p: 0.0, ..base.clone() },
        SamplingParams { min_p: 0.2, ..base.clone() },
        SamplingParams { presence_penalty: 1.5, ..base.clone() },
        SamplingParams { frequency_penalty: 0.7, ..base.clone() },
        SamplingParams { repetition_penalty: 1.8, ..base.clone() },
        SamplingParams { bias: vec![(token(1), 6.0), (token(50), -9.0)], ..base.clone() },
        SamplingParams { banned: vec![token(2), token(30)], min_tokens: 9, ..base.clone() },
        SamplingParams { banned: vec![token(2), token(30)], min_tokens: 5, ..base.clone() },
        SamplingParams {
            temperature: 1.3,
            top_k: 30,
            top_p: 0.9,
            min_p: 0.02,
            presence_penalty: 0.3,
            frequency_penalty: -0.2,
            repetition_penalty: 1.2,
            bias: vec![(token(7), 2.0)],
            ..base
        },
    ];
    for params in cases {
        check_distribution(backend, &params, &logits, (&prompt, &output));
    }
}

fn check_distribution<B: Backend>(
    backend: &B,
    params: &SamplingParams,
    logits: &[f32],
    (prompt, output): (&[u32], &[u32]),
) {
    const ROWS: usize = 60;
    const ROUNDS: usize = 60;
    let want: HashMap<u32, f64> =
        reference::distribution(params, logits, prompt, output).into_iter().collect();
    let mut counts = HashMap::<u32, usize>::new();
    let all = logits.repeat(ROWS);
    for round in 0..ROUNDS {
        let one = |slot: usize| {
            let seed = (round * ROWS + slot) as u64;
            let mut init = init(slot as u32, SamplingParams { seed, ..params.clone() });
            if params.needs_history() {
                init.prompt = prompt.iter().map(|&t| TokenId(t)).collect();
                init.generated = output.iter().map(|&t| TokenId(t)).collect();
            }
            init
        };
        let inits: Vec<SlotInit> = (0..ROWS).map(one).collect();
        for got in sample(backend, &inits, output.len() as u32, &all, VOCAB) {
            *counts.entry(got.token.0).or_default() += 1;
        }
    }
    let total = (ROWS * ROUNDS) as f64;
    for (token, &count) in &counts {
        assert!(want.contains_key(token), "{params:?}: token {token} has no probability");
        let (share, p) = (count as f64 / total, want[token]);
        // Five standard deviations of a share, and one draw.
        let limit = 5.0 * (p * (1.0 - p) / total).sqrt() + 1.0 / total;
        assert!((share - p).abs() <= limit, "{params:?}: token {token}: {share}, not {p}");
    }
    let seen: f64 = counts.keys().map(|t| want[t]).sum();
    assert!(seen > 0.95, "{params:?}: tokens of probability {seen} were seen");
}

/// A row's token depends on seed, output index and logits: not on batch, slot or the row's place.
pub(crate) fn draws_are_batch_invariant<B: Backend>(backend: &B) {
    let vocab = 1000;
    let logits = Draws(53).values(40 * vocab);
    let params = |i: u32| SamplingParams {
        seed: u64::from(i),
        top_p: if i.is_multiple_of(2) { 1.0 } else { 0.8 },
        logprobs: Some(3),
        ..drawn()
    };
    for output_index in [0, 1, 500] {
        let inits: Vec<SlotInit> = (0..40).map(|i| init(i, params(i))).collect();
        let together = sample(backend, &inits, output_index, &logits, vocab);
        for (i, want) in together.iter().enumerate() {
            let row = &logits[i * vocab..][..vocab];
            let alone = sample(backend, &[init(9, params(i as u32))], output_index, row, vocab);
            assert_eq!(alone[0].token, want.token, "row {i}");
            assert_eq!(alone[0].logprob, want.logprob, "row {i}");
        }
        let distinct: std::collections::HashSet<_> = together.iter().map(|s| s.token).collect();
        assert!(distinct.len() > 10, "draws differ: {distinct:?}");
    }
}

/// Log-probabilities are of the unmodified logits, whatever the parameters do to them.
pub(crate) fn logprobs<B: Backend>(backend: &B) {
    let mut logits = Draws(54).values(VOCAB);
    logits[20] = logits[10];
    let largest = logits.iter().copied().fold(f32::MIN, f32::max);
    let total: f64 = logits.iter().map(|&l| f64::from(l - largest).exp()).sum();
    let of = |token: usize| f64::from(logits[token] - largest) - total.ln();
    let mut ranked: Vec<usize> = (0..VOCAB).collect();
    ranked.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    let bias = vec![(TokenId(33), 100.0)];
    for top in [0, 1, 5, 97, 200] {
        let params =
            SamplingParams { logprobs: Some(top), bias: bias.clone(), ..SamplingParams::greedy() };
        let got = sample(backend, &[init(0, params)], 0, &logits, VOCAB).remove(0);
        assert_eq!(got.token, TokenId(33));
        let got = got.logprob.expect("log-probabilities were asked for");
        assert_eq!(got.token, TokenId(33));
        assert!((f64::from(got.logprob) - of(33)).abs() < 1e-5);
        let tokens: Vec<usize> = got.top.iter().map(|(t, _)| t.index()).collect();
        assert_eq!(tokens, ranked[..VOCAB.min(top as usize)]);
        for (token, logprob) in got.top {
            assert!((f64::from(logprob) - of(token.index())).abs() < 1e-5);
        }
    }
}

/// Scores and samples in one plan, in their order; samples of a chunk of the plan.
pub(crate) fn scores<B: Backend>(backend: &B) {
    let logits = Draws(55).values(6 * VOCAB);
    let score = |row, token| SampleRow {
        row,
        slot: SlotId(2),
        kind: SampleKind::Score { token: TokenId(token), top: 2 },
    };
    let next = SampleRow { row: 5, slot: SlotId(2), kind: SampleKind::Next { output_index: 0 } };
    let mut plan = plan_of(&[0; 6], (0..5).map(|r| score(r, 3 * r)).chain([next]).collect());
    plan.slot_inits = vec![init(2, SamplingParams::greedy())];
    let mut step = Step::new(backend, &plan, VOCAB, &[]);
    for (first, count) in [(0, 4), (4, 2)] {
        let part = &logits[first * VOCAB..(first + count) * VOCAB];
        let mut part = rows(backend, part, VOCAB);
        backend.sample(&step.batch, first as u32, count as u32, &mut part, &mut step.sampler);
    }
    let mut output = StepOutput::default();
    backend.read(&mut step.sampler, &mut output).expect("results");
    assert_eq!((output.scores.len(), output.sampled.len()), (5, 1));
    for (row, score) in output.scores.iter().enumerate() {
        let logits = &logits[row * VOCAB..][..VOCAB];
        let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
        let want = f64::from(logits[3 * row]) - total.ln();
        assert_eq!((score.slot, score.logprob.token), (SlotId(2), TokenId(3 * row as u32)));
        assert!((f64::from(score.logprob.logprob) - want).abs() < 1e-5);
        assert_eq!(score.logprob.top.len(), 2);
    }
}

/// What a slot sampled is its next input, and counts for its penalties.
pub(crate) fn slots_remember<B: Backend>(backend: &B) {
    let greedy = SamplingParams::greedy();
    let penalised = SamplingParams { presence_penalty: 10.0, ..greedy.clone() };
    let next = |row, slot, output_index| SampleRow {
        row,
        slot: SlotId(slot),
        kind: SampleKind::Next { output_index },
    };
    let mut plan = plan_of(&[0, 0], vec![next(0, 3, 0), next(1, 5, 0)]);
    plan.slot_inits = vec![init(3, greedy), init(5, penalised.clone())];
    let mut step = Step::new(backend, &plan, 4, &[]);
    let logits = [0.0, 1.0, 3.0, 2.0, 0.0, 1.0, 3.0, 2.0];
    let mut chosen = Vec::new();
    for _ in 0..2 {
        let mut x = rows(backend, &logits, 4);
        backend.sample(&step.batch, 0, 2, &mut x, &mut step.sampler);
        let mut output = StepOutput::default();
        backend.read(&mut step.sampler, &mut output).expect("results");
        chosen.push(output.sampled.iter().map(|s| s.token.0).collect::<Vec<_>>());
    }
    assert_eq!(chosen, [[2, 2], [2, 3]], "the penalised slot does not repeat itself");
    // Each slot's last token comes back as the row of a table that names it.
    let mut again = plan_of(&[0, 0], Vec::new());
    again.inputs.fill(Input::LastSampled);
    again.spans = [3, 5]
        .into_iter()
        .zip(0..)
        .map(|(slot, row)| Span {
            slot: SlotId(slot),
            row_start: row,
            row_count: 1,
            ..plan.spans[0]
        })
        .collect();
    backend.upload(&again, &step.sampler, &mut step.batch);
    let table = floats("table", vec![4, 1], &[0.0, 1.0, 2.0, 3.0]);
    let table = backend.weight(&[table], &[]).expect("a table");
    let mut out = empty(backend, 1);
    backend.embed(&step.batch, &table, 1.0, &mut out);
    assert_eq!(read(backend, &out), [2.0, 3.0]);
    // A new sequence in the slot starts without a past.
    let init = SlotInit { prompt: Arc::from(vec![TokenId(3)]), ..init(5, penalised) };
    backend.init_slot(&mut step.sampler, &init);
    backend.upload(&plan, &step.sampler, &mut step.batch);
    let mut x = rows(backend, &logits, 4);
    backend.sample(&step.batch, 0, 2, &mut x, &mut step.sampler);
    let mut output = StepOutput::default();
    backend.read(&mut step.sampler, &mut output).expect("results");
    assert_eq!(output.sampled[1].token, TokenId(2));
}
