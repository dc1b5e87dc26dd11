//! Buckets against an exact reference, and the limits of a tenant together.

use super::*;

const SECOND: u64 = 1_000_000_000;

/// The virtual-scheduling form of the same algorithm, in rational numbers: the theoretical arrival
/// time as a fraction of nanoseconds over the limit.
struct Reference {
    limit: u64,
    /// Theoretical arrival time, times `limit`.
    tat: u128,
}

impl Reference {
    fn admit(&mut self, amount: u64, now: Time) -> Result<(), Option<u128>> {
        let scaled_now = u128::from(now.0) * u128::from(self.limit);
        let minute = 60 * u128::from(SECOND) * u128::from(self.limit);
        // One request is worth 60 s / limit; scaled by the limit that is 60 s.
        let cost = u128::from(amount) * 60 * u128::from(SECOND);
        if cost > minute {
            return Err(None);
        }
        let tat = self.tat.max(scaled_now) + cost;
        if tat > scaled_now + minute {
            let wait_scaled = tat - minute - scaled_now;
            return Err(Some(wait_scaled.div_ceil(u128::from(self.limit))));
        }
        self.tat = tat;
        Ok(())
    }
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn enter(
    rates: &mut TenantRates,
    tenant: TenantId,
    settings: &TenantSettings,
    need: Need,
    now: Time,
) -> Result<(), RateExceeded> {
    rates.check(tenant, settings, need, now)?;
    rates.take(tenant, settings, need, now);
    Ok(())
}

#[test]
fn a_bucket_decides_as_the_exact_cell_rate_algorithm_does() {
    for seed in 1..=400u64 {
        let mut rng = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let limit = 1 + random(&mut rng) % [7, 60, 1000, 1_000_000][(seed % 4) as usize];
        let (mut bucket, mut reference) = (Bucket::default(), Reference { limit, tat: 0 });
        let mut now = Time(0);
        for step in 0..500 {
            now.0 += random(&mut rng) % (240 * SECOND / limit.min(240));
            let amount = 1 + random(&mut rng) % (limit + limit / 4 + 1).min(1 + step * limit / 100);
            let got = bucket.room(limit, amount, now);
            if got.is_ok() {
                bucket.add(limit, amount, now);
            }
            let expected = reference.admit(amount, now);
            let got = got.map_err(|wait| wait.map(|wait| wait.as_nanos()));
            assert_eq!(got, expected, "seed {seed}, step {step}, limit {limit}");
            if let Err(Some(wait_ns)) = got {
                let at = |ns: u128| Time(now.0 + ns as u64);
                assert_eq!(bucket.room(limit, amount, at(wait_ns)), Ok(()), "seed {seed}");
                assert!(bucket.room(limit, amount, at(wait_ns - 1)).is_err(), "seed {seed}");
            }
            let status = bucket.status(limit, now);
            assert!(bucket.room(limit, status.remaining, now).is_ok(), "seed {seed}");
            assert!(bucket.room(limit, status.remaining + 1, now).is_err(), "seed {seed}");
            let reset = bucket.status(limit, now.plus(status.reset));
            assert_eq!(reset.remaining, limit, "seed {seed}: all of it at the reset");
        }
    }
}

#[test]
fn tokens_that_were_not_used_are_given_back() {
    let settings = TenantSettings { tokens_per_min: Some(600), ..TenantSettings::default() };
    let (mut rates, tenant, now) = (TenantRates::default(), TenantId(3), Time(5 * SECOND));
    let need = Need { prompts: 1, tokens: 500 };
    enter(&mut rates, tenant, &settings, need, now).expect("the bucket is empty");
    let refused = enter(&mut rates, tenant, &settings, Need { tokens: 200, ..need }, now);
    assert_eq!(
        refused,
        Err(RateExceeded::PerMinute {
            unit: Unit::Tokens,
            limit: 600,
            used: 500,
            asked: 200,
            retry_after_ms: 10_000
        })
    );
    rates.started(tenant);
    rates.ended(tenant, false, 450);
    let (requests, tokens) = rates.status(tenant, &settings, now);
    let reset = Duration::from_secs(5);
    assert_eq!((requests, tokens), (None, Some(RateStatus { limit: 600, remaining: 550, reset })));
    assert_eq!(rates.open(tenant), (0, 0));
    let large = enter(&mut rates, tenant, &settings, Need { tokens: 601, ..need }, now);
    assert_eq!(large, Err(RateExceeded::TooLarge { limit: 600, asked: 601 }));
}

#[test]
fn a_refused_request_takes_nothing() {
    let settings = TenantSettings {
        requests_per_min: Some(2),
        tokens_per_min: Some(1000),
        concurrent_requests_max: Some(3),
        queued_requests_max: Some(2),
        ..TenantSettings::default()
    };
    let (mut rates, tenant, now) = (TenantRates::default(), TenantId(0), Time(0));
    let need = Need { prompts: 1, tokens: 10 };
    let three = Need { prompts: 3, ..need };
    let refused = enter(&mut rates, tenant, &settings, three, now);
    assert_eq!(refused, Err(RateExceeded::Queue { waiting: 0, limit: 2 }));
    for _ in 0..2 {
        enter(&mut rates, tenant, &settings, need, now).expect("room");
        rates.started(tenant);
    }
    let refused = rates.check(tenant, &settings, Need::LEAST, now).expect_err("two a minute");
    let RateExceeded::PerMinute { retry_after_ms, .. } = refused else { panic!("{refused}") };
    assert_eq!(retry_after_ms, 30_000);
    let before = rates.status(tenant, &settings, now);
    enter(&mut rates, tenant, &settings, need, now).expect_err("two a minute");
    assert_eq!(rates.status(tenant, &settings, now), before);
    rates.ended(tenant, false, 10);
    let later = Time(30 * SECOND);
    rates.check(tenant, &settings, Need::LEAST, later).expect("half a minute is one of two");
    let four = Need { prompts: 3, tokens: 1 };
    let refused = enter(&mut rates, tenant, &settings, four, later);
    assert_eq!(refused, Err(RateExceeded::Concurrency { open: 1, limit: 3 }));
}

#[test]
fn a_lower_limit_counts_what_is_there_as_a_full_bucket() {
    let mut bucket = Bucket::default();
    bucket.add(6000, 6000, Time(0));
    assert_eq!(bucket.room(60, 1, Time(0)), Err(Some(Duration::from_secs(1))));
    bucket.add(60, 0, Time(0));
    assert_eq!(bucket.status(60, Time(30 * SECOND)).remaining, 30);
    assert_eq!(bucket.status(60, Time(u64::MAX)).remaining, 60);
}

#[test]
fn states_of_idle_tenants_are_forgotten() {
    let settings = TenantSettings { requests_per_min: Some(2), ..TenantSettings::default() };
    let mut rates = TenantRates::default();
    let need = Need { prompts: 1, tokens: 1 };
    for tenant in 0..IDLE_TENANTS_MAX as u32 + 1 {
        enter(&mut rates, TenantId(tenant), &settings, need, Time(0)).expect("room");
        if tenant > 0 {
            rates.ended(TenantId(tenant), true, 0);
        }
    }
    enter(&mut rates, TenantId(9), &settings, need, Time(61 * SECOND)).expect("room");
    assert_eq!(rates.tenants.len(), 2, "the one whose request runs, and the new one");
    assert_eq!(rates.open(TenantId(0)), (1, 1));
}
