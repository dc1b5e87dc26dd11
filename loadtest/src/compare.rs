//! Two servers under the same plans, in turn: A B A B ..., so that what changes on the machine
//! over time meets both.

use std::sync::Arc;

use tokio::sync::watch;

use crate::error::Error;
use crate::live::View;
use crate::report::{Comparison, Destination};
use crate::run::{Settings, run};
use crate::setup::Ready;
use crate::summary::Summary;

/// One of the two servers.
#[derive(Debug)]
pub struct Side {
    /// How it is reached.
    pub settings: Settings,
    /// That it is ready.
    pub ready: Ready,
}

/// What a comparison left.
#[derive(Debug)]
pub struct Compared {
    /// Figures of all rounds.
    pub comparison: Comparison,
    /// What stopped it early.
    pub stopped: Option<Error>,
}

/// Runs the rounds. Each has a seed of its own, the same for both servers.
///
/// # Errors
/// A run could not begin before there was a whole round.
pub async fn compare(
    sides: [Side; 2],
    rounds: u32,
    interrupts: watch::Receiver<u32>,
    view: View,
    mut say: impl FnMut(&str, u32, &Summary),
) -> Result<Compared, Error> {
    let mut summaries: [Vec<Summary>; 2] = [Vec::new(), Vec::new()];
    let mut stopped = None;
    'rounds: for round in 0..rounds {
        for (index, (side, letter)) in sides.iter().zip(["a", "b"]).enumerate() {
            let mut own = side.settings.clone();
            own.seed = own.seed.wrapping_add(u64::from(round));
            own.destination = own.destination.map(|destination| Destination {
                name: format!("{}-{letter}{}", destination.name, round + 1),
                ..destination
            });
            let plan = Arc::new(own.plan()?);
            let ran = run(&own, plan, &side.ready, interrupts.clone(), view).await;
            let ran = match ran {
                Ok(ran) => ran,
                Err(error) if summaries[1].is_empty() => return Err(error),
                Err(error) => {
                    stopped = Some(error);
                    break 'rounds;
                }
            };
            if ran.summary.run.interrupted {
                stopped = Some(Error::Interrupted);
                break 'rounds;
            }
            if let Err(error @ Error::Report { .. }) = ran.verdict() {
                stopped.get_or_insert(error);
            }
            say(letter, round + 1, &ran.summary);
            summaries[index].push(ran.summary);
        }
    }
    // An interrupted round has only one side.
    let whole = summaries[1].len();
    summaries[0].truncate(whole);
    Ok(Compared { comparison: comparison(&sides, &summaries), stopped })
}

fn comparison(sides: &[Side; 2], summaries: &[Vec<Summary>; 2]) -> Comparison {
    let totals =
        |side: usize| summaries[side].iter().map(|summary| &summary.total).collect::<Vec<_>>();
    let mut warnings = Vec::new();
    for (own, letter) in summaries.iter().zip(["A", "B"]) {
        for (round, summary) in own.iter().enumerate().filter(|(_, one)| !one.validity.valid) {
            let why = summary.validity.reasons.first().cloned().unwrap_or_default();
            warnings.push(format!("round {} of {letter} is not valid: {why}", round + 1));
        }
    }
    let name =
        |side: &Side| format!("{} ({})", side.settings.wishes.base_url, side.ready.target.model);
    Comparison {
        name: sides[0].settings.profile.name.clone(),
        a: name(&sides[0]),
        b: name(&sides[1]),
        metrics: Comparison::metrics_of(&totals(0), &totals(1)),
        warnings,
    }
}
