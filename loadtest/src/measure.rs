//! From a plan and the records of its requests to the figures. Nothing else is looked at, so a
//! report can be made again from what was kept.

use crate::clock::seconds;
use crate::distribution::Gathering;
use crate::plan::{Pacing, Plan};
use crate::record::{Outcome, RequestRecord};
use crate::summary::{Group, Objectives, RunFacts, Summary, Tick};
use crate::validity;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured<'a> {
    /// What was to be done.
    pub plan: &'a Plan,
    /// What happened.
    pub records: &'a [RequestRecord],
    /// How late the generator was with each request that it sent, in nanoseconds.
    pub lateness_ns: &'a [u64],
    /// When the user stopped it.
    pub interrupted_ns: Option<u64>,
    /// What a good request had to meet.
    pub objectives: Objectives,
    /// Percentiles besides the usual.
    pub percentiles: &'a [f64],
    /// Limit of the 99th percentile of lateness.
    pub send_delay_ms_max: f64,
}

/// The part of a run that the figures are of, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Requests from this time on count.
    pub from_ns: u64,
    /// Those that were due later do not.
    pub until_ns: u64,
    /// Until which rates are counted.
    pub end_ns: u64,
    /// Cut off at the end.
    pub cooldown_ns: u64,
}

/// All figures. Of `run`, what depends on time is filled in here.
pub fn measure(measured: &Measured<'_>, mut run: RunFacts) -> Summary {
    let window = window(measured);
    run.measured_s = seconds(window.end_ns.saturating_sub(window.from_ns));
    run.warmup_s = seconds(window.from_ns);
    run.cooldown_s = seconds(window.cooldown_ns);
    run.interrupted = measured.interrupted_ns.is_some();
    let mut total = group(measured, &window, None);
    total.name = "all".to_owned();
    let tenants = measured.plan.tenants.iter().enumerate().map(|(index, tenant)| Group {
        name: tenant.name.clone(),
        class: tenant.class.clone(),
        abusive: tenant.abusive,
        ..group(measured, &window, Some(index as u16))
    });
    let tenants = tenants.collect();
    let validity = validity::judge(measured, &window, &total, &run);
    Summary {
        run,
        validity,
        objectives: measured.objectives,
        total,
        tenants,
        timeline: timeline(measured.records),
    }
}

/// Whether a request met all objectives. Only whole answers can.
pub fn is_good(record: &RequestRecord, objectives: &Objectives) -> bool {
    let within = |value_ns: Option<u64>, limit_ms: Option<f64>| match (value_ns, limit_ms) {
        (_, None) => true,
        (Some(value_ns), Some(limit_ms)) => value_ns as f64 / 1e6 <= limit_ms,
        (None, Some(_)) => false,
    };
    // A single token has no time between tokens to be too slow.
    let tpot_ns = tpot_ns(record).or(Some(0));
    record.outcome == Outcome::Completed
        && within(ttft_ns(record), objectives.ttft_ms)
        && within(tpot_ns, objectives.tpot_ms)
        && within(Some(record.end_ns.saturating_sub(record.scheduled_ns)), objectives.e2el_ms)
}

fn window(measured: &Measured<'_>) -> Window {
    let plan = measured.plan;
    let sent = || measured.records.iter().filter(|record| record.sent_ns.is_some());
    let last_due_ns = sent().map(|record| due_ns(record, plan)).max().unwrap_or(0);
    // Who stops a run wants to see what there is: the end is not cut off then, and neither is the
    // warm-up when there is nothing else.
    let interrupted_ns = measured.interrupted_ns;
    let cooldown_ns = if interrupted_ns.is_some() { 0 } else { plan.cooldown_ns };
    let in_warmup = interrupted_ns.is_some_and(|at_ns| at_ns <= plan.warmup_ns);
    let from_ns = if in_warmup { 0 } else { plan.warmup_ns };
    let until_ns = match cooldown_ns {
        0 => interrupted_ns.unwrap_or(u64::MAX),
        cooldown_ns => last_due_ns.saturating_sub(cooldown_ns),
    };
    let end_ns = match cooldown_ns {
        0 => sent().map(last_sign_ns).max().unwrap_or(0),
        _ => until_ns,
    };
    Window { from_ns, until_ns, end_ns: end_ns.max(from_ns), cooldown_ns }
}

/// When a request counts: its scheduled time, or in a closed loop its sending.
fn due_ns(record: &RequestRecord, plan: &Plan) -> u64 {
    match plan.pacing {
        Pacing::Open => record.scheduled_ns,
        Pacing::Closed { .. } => record.sent_ns.unwrap_or(record.scheduled_ns),
    }
}

/// The last that was heard of a request. Waiting in vain at a run's end is not time in which the
/// server was measured.
fn last_sign_ns(record: &RequestRecord) -> u64 {
    match record.outcome {
        Outcome::Cut | Outcome::TimedOut | Outcome::NotSent => record
            .last_token_ns()
            .or(record.headers_ns)
            .or(record.sent_ns)
            .unwrap_or(record.scheduled_ns),
        _ => record.end_ns,
    }
}

fn ttft_ns(record: &RequestRecord) -> Option<u64> {
    Some(record.first_token_ns()?.saturating_sub(record.scheduled_ns))
}

/// Nanoseconds from the first token to the last, for each token after the first. An answer that
/// came in one piece has no such time.
fn tpot_ns(record: &RequestRecord) -> Option<u64> {
    let tokens = u64::from(record.output_tokens_counted());
    if tokens < 2 || record.chunks_ns.len() < 2 {
        return None;
    }
    let span_ns = record.last_token_ns()?.saturating_sub(record.first_token_ns()?);
    Some(span_ns / (tokens - 1))
}

fn group(measured: &Measured<'_>, window: &Window, tenant: Option<u16>) -> Group {
    let own: Vec<&RequestRecord> = measured
        .records
        .iter()
        .filter(|record| tenant.is_none_or(|tenant| record.tenant == tenant))
        .collect();
    let due: Vec<&RequestRecord> = own
        .iter()
        .filter(|record| {
            let at_ns = due_ns(record, measured.plan);
            at_ns >= window.from_ns && at_ns <= window.until_ns
        })
        .copied()
        .collect();
    let mut group = counts(&due, &measured.objectives);
    rates(&mut group, &own, window, &measured.objectives);
    distributions(&mut group, &due, measured.percentiles);
    group
}

fn counts(due: &[&RequestRecord], objectives: &Objectives) -> Group {
    let mut group = Group { requests: due.len() as u64, ..Group::default() };
    let mut good = 0u64;
    for record in due {
        *group.outcomes.entry(word(record.outcome)).or_default() += 1;
        group.attempts += u64::from(record.attempts);
        good += u64::from(is_good(record, objectives));
        if record.outcome != Outcome::Completed {
            let code = record.code.clone().unwrap_or_else(|| word(record.outcome));
            let what = match record.status {
                Some(status) => format!("{status} {code}"),
                None => code,
            };
            *group.failures.entry(what).or_default() += 1;
            continue;
        }
        group.prompt_tokens += u64::from(record.prompt_tokens.unwrap_or(0));
        group.cached_tokens += u64::from(record.cached_tokens.unwrap_or(0));
        group.output_tokens += u64::from(record.output_tokens_counted());
        group.without_usage += u64::from(record.output_tokens.is_none());
        let other = record.output_tokens.is_some_and(|got| got != record.output_tokens_wanted);
        group.output_mismatches += u64::from(other);
    }
    // A client that left as planned gave the server no chance.
    let left = due.iter().filter(|record| record.outcome == Outcome::Disconnected).count();
    let could = due.len() - left;
    group.goodput_fraction = if could == 0 { 0.0 } else { good as f64 / could as f64 };
    group
}

/// Rates are of what happened within the window's time, whenever it was asked for: counting the
/// requests that were due in it would give an overloaded server the rate that was asked of it.
fn rates(group: &mut Group, own: &[&RequestRecord], window: &Window, objectives: &Objectives) {
    let span_s = seconds(window.end_ns - window.from_ns);
    if span_s <= 0.0 {
        return;
    }
    let inside = |at_ns: u64| at_ns >= window.from_ns && at_ns <= window.end_ns;
    let completed = || own.iter().filter(|record| record.outcome == Outcome::Completed);
    let mut output_tokens = 0.0;
    for record in completed() {
        if inside(record.end_ns) {
            group.requests_per_s += 1.0;
            group.prompt_tokens_per_s += f64::from(record.prompt_tokens.unwrap_or(0));
            group.goodput_per_s += f64::from(u8::from(is_good(record, objectives)));
        }
        let tokens = f64::from(record.output_tokens_counted());
        let chunks = record.chunks_ns.len();
        output_tokens += if chunks == 0 {
            tokens * f64::from(u8::from(inside(record.end_ns)))
        } else {
            let came = record.chunks_ns.iter().filter(|at_ns| inside(**at_ns)).count();
            tokens * came as f64 / chunks as f64
        };
    }
    group.requests_per_s /= span_s;
    group.prompt_tokens_per_s /= span_s;
    group.goodput_per_s /= span_s;
    group.output_tokens_per_s = output_tokens / span_s;
}

/// Of completed requests, except for the delay of sending.
fn distributions(group: &mut Group, due: &[&RequestRecord], percentiles: &[f64]) {
    let of = |value: &dyn Fn(&RequestRecord) -> Option<u64>| {
        let completed = due.iter().filter(|record| record.outcome == Outcome::Completed);
        let values: Gathering = completed.filter_map(|record| value(record)).collect();
        values.distribution(percentiles)
    };
    let after_sending = |record: &RequestRecord, at_ns: Option<u64>| {
        Some(at_ns?.saturating_sub(record.last_sent_ns?))
    };
    group.ttft = of(&ttft_ns);
    group.ttft_from_sent = of(&|record| after_sending(record, record.first_token_ns()));
    group.tpot = of(&tpot_ns);
    group.e2el = of(&|record| Some(record.end_ns.saturating_sub(record.scheduled_ns)));
    group.e2el_from_sent = of(&|record| after_sending(record, Some(record.end_ns)));
    group.queue = of(&|record| after_sending(record, record.headers_ns));
    let gaps: Gathering = due
        .iter()
        .filter(|record| record.outcome == Outcome::Completed)
        .flat_map(|record| record.chunks_ns.windows(2).map(|pair| pair[1].saturating_sub(pair[0])))
        .collect();
    group.itl = gaps.distribution(percentiles);
    let delays: Gathering = due
        .iter()
        .filter_map(|record| Some(record.sent_ns?.saturating_sub(record.scheduled_ns)))
        .collect();
    group.send_delay = delays.distribution(percentiles);
}

fn timeline(records: &[RequestRecord]) -> Vec<Tick> {
    let second = |at_ns: u64| (at_ns / 1_000_000_000) as usize;
    let heard = records.iter().filter(|record| record.sent_ns.is_some());
    let last = heard.map(|record| second(record.end_ns)).max();
    let count = last.map_or(0, |last| last + 1);
    let mut ticks: Vec<Tick> =
        (0..count).map(|second| Tick { second: second as u32, ..Tick::default() }).collect();
    let mut first_tokens: Vec<Vec<u64>> = vec![Vec::new(); count];
    for record in records {
        if let Some(tick) = ticks.get_mut(second(record.scheduled_ns)) {
            tick.scheduled += 1;
        }
        let Some(sent_ns) = record.sent_ns else { continue };
        ticks[second(sent_ns)].sent += 1;
        let ended = &mut ticks[second(record.end_ns)];
        match record.outcome {
            Outcome::Completed => ended.completed += 1,
            _ => ended.failed += 1,
        }
        for at_ns in &record.chunks_ns {
            if let Some(tick) = ticks.get_mut(second(*at_ns)) {
                tick.chunks += 1;
            }
        }
        if let (Some(at_ns), Some(ttft_ns)) = (record.first_token_ns(), ttft_ns(record))
            && let Some(values) = first_tokens.get_mut(second(at_ns))
        {
            values.push(ttft_ns);
        }
    }
    let mut in_flight = 0;
    for (tick, mut values) in ticks.iter_mut().zip(first_tokens) {
        in_flight = (in_flight + tick.sent).saturating_sub(tick.completed + tick.failed);
        tick.in_flight = in_flight;
        values.sort_unstable();
        tick.ttft_p50_ms = nearest_rank_ms(&values, 0.5);
        tick.ttft_p99_ms = nearest_rank_ms(&values, 0.99);
    }
    ticks
}

fn nearest_rank_ms(sorted_ns: &[u64], quantile: f64) -> Option<f64> {
    let rank = (sorted_ns.len() as f64 * quantile).ceil() as usize;
    Some(*sorted_ns.get(rank.checked_sub(1)?)? as f64 / 1e6)
}

/// The name of an outcome in reports.
pub fn word(outcome: Outcome) -> String {
    let name = match outcome {
        Outcome::Completed => "completed",
        Outcome::Refused => "refused",
        Outcome::ClientError => "client_error",
        Outcome::ServerError => "server_error",
        Outcome::Broken => "broken",
        Outcome::Unreachable => "unreachable",
        Outcome::TimedOut => "timed_out",
        Outcome::Disconnected => "disconnected",
        Outcome::Cut => "cut",
        Outcome::NotSent => "not_sent",
    };
    name.to_owned()
}

#[cfg(test)]
mod tests;
