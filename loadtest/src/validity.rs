//! Whether a run measured the server and not the generator, and what to keep in mind.

use std::collections::HashSet;

use crate::distribution::Gathering;
use crate::measure::{Measured, Window};
use crate::plan::{Pacing, Plan, Prompt};
use crate::randomness::mix;
use crate::record::{Outcome, RequestRecord};
use crate::summary::{Group, RunFacts, Validity};

/// Lateness of this part of the median TTFT does no harm.
const SEND_DELAY_PART_OF_TTFT: f64 = 0.05;
/// Prompts that are off by more than this part of what was wanted are told.
const PROMPT_TOKENS_OFF: f64 = 0.05;
/// A server whose cache knew so much more than the plan shares, in parts of all prompt tokens, saw
/// the prompts before. Template and beginning of text are shared by all prompts.
const CACHED_MORE_THAN_SHARED: f64 = 0.2;
/// A 99th percentile of fewer requests is no more than their maximum.
const REQUESTS_FOR_P99: u64 = 100;

/// Judges a run.
pub fn judge(measured: &Measured<'_>, window: &Window, total: &Group, run: &RunFacts) -> Validity {
    let mut wrong = generator_faults(measured, total);
    if total.requests == 0 {
        wrong.push(format!(
            "No request was due in the measured window ({:.1} s to {:.1} s): shorten --warmup or \
             --cooldown, or run longer.",
            window.from_ns as f64 / 1e9,
            (window.end_ns as f64 / 1e9).max(run.elapsed_s)
        ));
    } else if !total.outcomes.contains_key("completed") {
        let most = total.failures.iter().max_by_key(|(_, count)| **count);
        let most = most.map(|(what, count)| format!(" Most often ({count}): {what}."));
        wrong.push(format!("No request completed.{}", most.unwrap_or_default()));
    }
    let valid = wrong.is_empty();
    wrong.extend(notes(measured, total, run));
    Validity { valid, reasons: wrong }
}

fn generator_faults(measured: &Measured<'_>, total: &Group) -> Vec<String> {
    let mut wrong = Vec::new();
    let of_ttft = total.ttft.percentile(50.0).unwrap_or(0.0) * SEND_DELAY_PART_OF_TTFT;
    let limit_ms = measured.send_delay_ms_max.max(of_ttft);
    let sent = measured.lateness_ns.len();
    let late = measured.lateness_ns.iter().filter(|ns| **ns as f64 / 1e6 > limit_ms).count();
    // In a short run the p99 is the maximum, and one hiccup of the machine says nothing.
    if late > (sent / 100).max(1) {
        let lateness: Gathering = measured.lateness_ns.iter().copied().collect();
        wrong.push(format!(
            "The generator was late: p99 send delay {:.1} ms, limit {limit_ms:.1} ms. Its machine \
             is too busy for this load: use more --threads, a faster or a less shared machine, or \
             a lower rate.",
            lateness.quantile_ms(0.99)
        ));
    }
    let local = count(measured.records, |record| record.code.as_deref() == Some("local_limit"));
    if local > 0 {
        wrong.push(format!(
            "{local} requests could not be sent because this machine ran out of open files or \
             ports: raise `ulimit -n`, or lower the concurrency."
        ));
    }
    wrong
}

fn notes(measured: &Measured<'_>, total: &Group, run: &RunFacts) -> Vec<String> {
    let mut notes = Vec::new();
    if run.interrupted {
        let in_warmup = measured.plan.warmup_ns > 0 && run.warmup_s == 0.0;
        let of = if in_warmup { " within the warm-up, which the figures are of" } else { "" };
        notes.push(format!("Interrupted after {:.1} s{of}.", run.elapsed_s));
    }
    let of = |outcome: &str| total.outcomes.get(outcome).copied().unwrap_or(0);
    let (completed, cut) = (of("completed"), of("cut"));
    if cut > 0 {
        notes.push(format!(
            "{cut} requests had no end when the run was over: they are missing from the \
             distributions, whose true tails are longer."
        ));
    }
    if (1..REQUESTS_FOR_P99).contains(&completed) {
        notes.push(format!("{completed} requests are few: their p99 is close to their maximum."));
    }
    if total.without_usage > 0 {
        notes.push(format!(
            "{} answers came without usage: their output is counted in chunks, and their prompts \
             not at all.",
            total.without_usage
        ));
    }
    if total.output_mismatches > 0 {
        notes.push(format!(
            "{} of {completed} answers had another number of tokens than was asked for; \
             --ignore-eos makes servers that know it go on to the end.",
            total.output_mismatches
        ));
    }
    notes.extend(prompt_note(measured.records));
    notes.extend(cache_note(measured, total));
    let planned = measured.plan.requests.len();
    let closed_by_time =
        measured.plan.duration_ns.is_some() && measured.plan.pacing != Pacing::Open;
    if closed_by_time && measured.records.len() >= planned {
        notes.push(format!(
            "The server answered all {planned} requests before the time was over: give a larger \
             --num-prompts."
        ));
    }
    notes
}

fn prompt_note(records: &[RequestRecord]) -> Option<String> {
    let completed = records.iter().filter(|record| record.outcome == Outcome::Completed);
    let both =
        completed.filter_map(|record| Some((record.prompt_tokens?, record.prompt_tokens_wanted?)));
    let (counted, wanted) = both.fold((0.0, 0.0), |(counted, wanted), (got, asked)| {
        (counted + f64::from(got), wanted + f64::from(asked))
    });
    let off = counted / wanted - 1.0;
    (wanted > 0.0 && off.abs() > PROMPT_TOKENS_OFF).then(|| {
        format!(
            "Prompts were {:.0} % {} than asked for by the server's count.",
            off.abs() * 100.0,
            if off > 0.0 { "longer" } else { "shorter" }
        )
    })
}

/// A server that remembers prompts of an earlier run with the same seed looks faster than it is.
fn cache_note(measured: &Measured<'_>, total: &Group) -> Option<String> {
    let shared = shared_part(measured.plan)?;
    let cached = total.cached_tokens as f64 / total.prompt_tokens as f64;
    (cached > shared + CACHED_MORE_THAN_SHARED).then(|| {
        format!(
            "{:.0} % of the prompt tokens came from the server's cache, though prompts share only \
             {:.0} %: it has probably seen this seed before; give another --seed.",
            cached * 100.0,
            shared * 100.0
        )
    })
}

/// The part of all prompt tokens that an earlier prompt of the plan began with, too; `None` when
/// there are texts, of which nothing is known.
fn shared_part(plan: &Plan) -> Option<f64> {
    let (mut shared, mut all) = (0u64, 0u64);
    let mut seen = HashSet::new();
    for request in &plan.requests {
        let Prompt::Synthetic(pieces) = &request.prompt else { return None };
        let mut chain = 0;
        for piece in pieces {
            // Which pieces came before belongs to what a cache knows a piece by.
            chain = mix(&mut (chain ^ piece.seed)) ^ u64::from(piece.tokens);
            all += u64::from(piece.tokens);
            shared += if seen.insert(chain) { 0 } else { u64::from(piece.tokens) };
        }
    }
    Some(shared as f64 / all.max(1) as f64)
}

fn count(records: &[RequestRecord], is: impl Fn(&RequestRecord) -> bool) -> usize {
    records.iter().filter(|record| is(record)).count()
}
