use super::*;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u32) -> u32 {
        (self.next() % u64::from(bound)) as u32
    }

    /// Between -1 and 1.
    fn swing(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

const TRUE: StepPrices = StepPrices {
    fixed_s: 5e-3,
    prefill_row_s: 16e-6,
    prefill_pair_s: 2e-9,
    sequence_s: 3e-6,
    context_token_s: 33e-9,
};

fn shape(rng: &mut Rng) -> StepShape {
    let mut shape = StepShape::default();
    for _ in 0..rng.below(200) {
        shape.add_decode(1 + rng.below(4000));
    }
    if rng.below(3) == 0 || shape.decode_sequences == 0 {
        shape.add_prefill(2 + rng.below(1000), rng.below(8000));
    }
    shape
}

/// Runs `steps` steps of a device that is `slowness` times as slow, with a noise of 5 % and each
/// fiftieth step held up tenfold; the errors of those that were not.
fn run(learner: &mut CostLearner, rng: &mut Rng, steps: u32, slowness: f64) -> Vec<f64> {
    let mut errors = Vec::new();
    for _ in 0..steps {
        let shape = shape(rng);
        let mut seconds = TRUE.step_s(&shape) * slowness * (1.0 + 0.05 * rng.swing());
        let held_up = rng.below(50) == 0;
        if held_up {
            seconds *= 10.0;
        }
        let error = learner.learn(&shape, Duration::from_secs_f64(seconds));
        errors.extend(error.filter(|_| !held_up).map(f64::abs));
    }
    errors.sort_by(f64::total_cmp);
    errors
}

#[test]
fn prices_are_found_within_the_noise_and_hold_ups_are_not_believed() {
    for seed in 0..20 {
        let (mut learner, mut rng) = (CostLearner::new(), Rng(seed));
        run(&mut learner, &mut rng, 500, 1.0);
        let errors = run(&mut learner, &mut rng, 300, 1.0);
        let (p50, p95) = (errors[150], errors[285 - 15]);
        assert!(p50 < 0.04 && p95 < 0.08, "seed {seed}: {p50} {p95}");
        let model = learner.model();
        let price = model.prices().prefill_row_s / TRUE.prefill_row_s;
        assert!((0.8..1.2).contains(&price), "seed {seed}: {:?}", model.prices());
        assert!(model.error_p50() < 0.05, "seed {seed}: told {}", model.error_p50());
    }
}

#[test]
fn a_device_that_gets_slower_or_faster_is_followed() {
    for (seed, slowness) in (0..20).flat_map(|seed| [(seed, 2.0), (seed, 0.5), (seed, 1.3)]) {
        let (mut learner, mut rng) = (CostLearner::new(), Rng(seed));
        run(&mut learner, &mut rng, 600, 1.0);
        run(&mut learner, &mut rng, 100, slowness);
        let errors = run(&mut learner, &mut rng, 400, slowness);
        let (p50, p95) = (errors[errors.len() / 2], errors[errors.len() * 19 / 20]);
        assert!(p50 < 0.05 && p95 < 0.15, "seed {seed}, {slowness} times: {p50} {p95}");
    }
}

#[test]
fn steps_that_are_all_alike_do_not_unlearn_the_others() {
    let (mut learner, mut rng) = (CostLearner::new(), Rng(3));
    run(&mut learner, &mut rng, 500, 1.0);
    let mut same = StepShape::default();
    (0..32).for_each(|_| same.add_decode(500));
    for _ in 0..100_000 {
        let seconds = TRUE.step_s(&same) * (1.0 + 0.05 * rng.swing());
        learner.learn(&same, Duration::from_secs_f64(seconds));
    }
    assert!(learner.covariance.iter().flatten().all(|entry| entry.is_finite()));
    let errors = run(&mut learner, &mut rng, 40, 1.0);
    assert!(errors[20] < 0.1, "half of the first varied steps: {errors:?}");
}

#[test]
fn a_device_whose_large_steps_cost_more_than_its_prices_is_predicted() {
    let (mut learner, mut rng) = (CostLearner::new(), Rng(5));
    let mut errors = Vec::new();
    for step in 0..1500 {
        let mut shape = StepShape::default();
        (0..1 + rng.below(40)).for_each(|_| shape.add_decode(1 + rng.below(500)));
        if rng.below(6) == 0 {
            shape.add_prefill(2 + rng.below(60), rng.below(500));
        }
        let kernel = if shape.rows() > 16 { 1.7 } else { 1.0 };
        let seconds = 5e-4 * f64::from(shape.rows()) * kernel * (1.0 + 0.05 * rng.swing());
        let error = learner.learn(&shape, Duration::from_secs_f64(seconds));
        errors.extend(error.filter(|_| step >= 500).map(f64::abs));
    }
    errors.sort_by(f64::total_cmp);
    let (p50, p95) = (errors[errors.len() / 2], errors[errors.len() * 19 / 20]);
    assert!(p50 < 0.06 && p95 < 0.25, "{p50} {p95}");
}

#[test]
fn rows_are_the_inverse_of_the_prediction() {
    let model = CostModel::known(TRUE, 0.1);
    let mut base = StepShape::default();
    (0..64).for_each(|_| base.add_decode(1000));
    for context_tokens in [0, 1000, 30_000] {
        let budget = Duration::from_millis(20);
        let rows = model.rows_for(budget, &base, context_tokens).expect("warm");
        let seconds = |rows: u32| {
            let mut shape = base;
            shape.add_prefill(rows, context_tokens);
            1.1 * TRUE.step_s(&shape)
        };
        assert!(seconds(rows) <= 0.020 && seconds(rows + 2) > 0.020, "{rows} rows");
    }
    assert_eq!(model.rows_for(Duration::from_millis(5), &base, 0), Some(0));
    assert_eq!(CostModel::default().rows_for(Duration::from_millis(5), &base, 0), None);
}

#[test]
fn a_cold_model_prices_a_generated_token_as_two_of_a_prompt() {
    let model = CostModel::default();
    assert!(!model.is_warm());
    assert_eq!(model.decode_us(7), model.prefill_us(2, 9));
}

/// A device that was slowed down and sped up by large factors again and again made the bound of
/// the variances grow each time it slowed down, until prices were no numbers any more.
#[test]
fn a_pace_that_goes_up_and_down_for_ever_leaves_prices_that_are_numbers() {
    let (mut learner, mut rng) = (CostLearner::new(), Rng(11));
    for round in 0..400 {
        run(&mut learner, &mut rng, 40, if round % 2 == 0 { 1.0 } else { 90.0 });
    }
    let shape = shape(&mut rng);
    let predicted = learner.model().predict(&shape).as_secs_f64();
    let ratio = predicted / (TRUE.step_s(&shape) * 90.0);
    assert!((0.3..3.0).contains(&ratio), "{ratio}");
}
