//! One planned request, from its schedule to its record: attempts, retries, and what its client
//! does besides reading.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

use crate::clock::Clock;
use crate::connection::Dialer;
use crate::exchange::{Broken, Exchange};
use crate::plan::{Plan, PlannedRequest};
use crate::progress::Progress;
use crate::randomness::{Purpose, stream};
use crate::record::{Outcome, RequestRecord};
use crate::retry::{self, Failure};
use crate::target::Target;

/// Code of a request whose client gave up by plan.
pub const GAVE_UP: &str = "gave_up";

/// Sends requests.
#[derive(Debug)]
pub struct Client {
    /// Where to.
    pub target: Target,
    /// On what.
    pub dialer: Dialer,
    /// The run's time.
    pub clock: Clock,
    /// What the run will do; names the tenants.
    pub plan: Arc<Plan>,
    /// What the live view shows.
    pub progress: Arc<Progress>,
}

impl Client {
    /// Carries out one request. `cut` becomes true when the run is over.
    pub async fn run(
        &self,
        request: &PlannedRequest,
        scheduled_ns: u64,
        mut cut: watch::Receiver<bool>,
    ) -> RequestRecord {
        let mut record = planned(request, scheduled_ns);
        let sent_ns = self.clock.now_ns();
        let give_up = request
            .behaviour
            .give_up_after_ms
            .map(|ms| sleep_until(self.clock.at(sent_ns + u64::from(ms) * 1_000_000).into()));
        let given_up = async {
            match give_up {
                Some(sleep) => sleep.await,
                None => std::future::pending().await,
            }
        };
        let is_cut = async {
            // An error means that the driver is gone, which ends the run as well.
            drop(cut.wait_for(|cut| *cut).await);
        };
        self.progress.began(sent_ns.saturating_sub(scheduled_ns));
        tokio::select! {
            biased;
            () = self.attempts(request, &mut record) => {}
            () = given_up => {
                let message = "the client gave up as planned";
                self.fail(&mut record, Outcome::TimedOut, GAVE_UP, message);
            }
            () = is_cut => {
                let message = "the run ended before the answer did";
                self.fail(&mut record, Outcome::Cut, "cut", message);
            }
        }
        record.chunks_ns.shrink_to_fit();
        self.progress.ended(&record);
        record
    }

    async fn attempts(&self, request: &PlannedRequest, record: &mut RequestRecord) {
        let mut rng = stream(self.plan.seed, Purpose::Retries, request.index);
        loop {
            let retries_done = record.attempts;
            let result = Exchange::new(self, request, record).run().await;
            let Err(broken) = result else {
                record.code = None;
                record.message = None;
                record.outcome = Outcome::Completed;
                return;
            };
            let failure = match &broken {
                Broken::Connection { .. } => Some(Failure::Connection),
                // The official SDKs read streams without retries: what broke after the head of
                // the answer is the caller's.
                Broken::Refusal { status, headers, .. } => {
                    Some(Failure::Answer { status: *status, headers })
                }
                _ => None,
            };
            let wait = failure.filter(|_| retries_done < request.behaviour.retries_max).and_then(
                |failure| retry::wait(failure, retries_done, Clock::wall_now(), &mut rng),
            );
            self.note(record, broken);
            match wait {
                Some(wait) => self.pause(wait).await,
                None => return,
            }
        }
    }

    async fn pause(&self, wait: Duration) {
        self.progress.retried();
        sleep(wait).await;
    }

    fn note(&self, record: &mut RequestRecord, broken: Broken) {
        let (outcome, code, message) = match broken {
            Broken::Connection { outcome, code, message } => (outcome, code.to_owned(), message),
            Broken::Stream { code, message } => {
                let late = matches!(code.as_str(), "client_timeout" | "idle_timeout");
                (if late { Outcome::TimedOut } else { Outcome::Broken }, code, message)
            }
            Broken::Left => {
                let message = "the client left as planned".to_owned();
                (Outcome::Disconnected, "client_left".to_owned(), message)
            }
            Broken::Refusal { status, code, message, .. } => {
                (outcome_of(status.as_u16()), code, message)
            }
        };
        self.fail(record, outcome, &code, &message);
    }

    fn fail(&self, record: &mut RequestRecord, outcome: Outcome, code: &str, message: &str) {
        record.outcome = outcome;
        record.code = Some(code.to_owned());
        record.message = Some(message.to_owned());
        record.end_ns = self.clock.now_ns();
    }
}

/// The record of a request of which nothing has happened.
pub fn planned(request: &PlannedRequest, scheduled_ns: u64) -> RequestRecord {
    RequestRecord {
        index: request.index,
        tenant: request.tenant,
        scheduled_ns,
        sent_ns: None,
        end_ns: scheduled_ns,
        outcome: Outcome::NotSent,
        status: None,
        code: None,
        message: None,
        attempts: 0,
        last_sent_ns: None,
        headers_ns: None,
        chunks_ns: Vec::new(),
        prompt_tokens: None,
        cached_tokens: None,
        output_tokens: None,
        prompt_tokens_wanted: request.prompt.tokens_wanted(),
        output_tokens_wanted: request.output_tokens,
        body_bytes: 0,
        finish_reason: None,
    }
}

fn outcome_of(status: u16) -> Outcome {
    match status {
        429 | 503 => Outcome::Refused,
        400..=499 => Outcome::ClientError,
        500..=599 => Outcome::ServerError,
        _ => Outcome::Broken,
    }
}

#[cfg(test)]
mod tests;
