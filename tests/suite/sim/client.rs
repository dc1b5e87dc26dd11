//! Clients: they ask, read, retry as the stock SDKs do, lose patience, leave.

use std::sync::Arc;
use std::time::Duration;

use weir::clock::{Clock, Moment, Time};
use weir::device::SamplingParams;
use weir::engine::{
    Event, FinishReason, ReplyStream, Share, Stops, Submission, Usage, reply_channel,
};
use weir::gate::{Demand, Permit, Refusal, Terms};
use weir::ids::{RequestId, TokenId};

use super::setup::{EOS, NAN, POISON, SAMPLED};
use super::tally::Ending;
use super::traffic::Wish;
use super::world::{What, World};

/// A client with a wish, from its first attempt to its last.
pub struct Job {
    pub wish: Wish,
    /// Tells it from an earlier job in the same place.
    pub serial: u64,
    pub attempts: u32,
    pub attempt: Option<Attempt>,
}

/// An admitted attempt.
pub struct Attempt {
    pub request: u64,
    /// One; a list, so that it can be taken out.
    pub permits: Vec<Permit>,
    stream: ReplyStream,
    began: Time,
    first: Option<Time>,
    last: Time,
    started: bool,
    /// A choice was ended by the clock.
    cut: bool,
    tokens: u32,
    finished: u32,
}

/// What an event meant.
enum Read {
    GoOn,
    Served(Usage),
    /// Ended by the server before it was answered in full.
    Failed,
}

impl World {
    pub(super) fn begin(&mut self, wish: Wish) {
        let serial = self.tally.offered_requests();
        let job = Job { wish, serial, attempts: 0, attempt: None };
        let index = match self.free_jobs.pop() {
            Some(index) => {
                self.jobs[index as usize] = Some(job);
                index
            }
            None => {
                self.jobs.push(Some(job));
                self.jobs.len() as u32 - 1
            }
        };
        if let Some(leaves_in) = wish.leaves_in {
            self.after(leaves_in, What::Leaving { job: index, serial });
        }
        self.attempt(index, serial);
    }

    pub(super) fn attempt(&mut self, index: u32, serial: u64) {
        let now = self.moment();
        let Some(job) = self.jobs[index as usize].as_mut().filter(|job| job.serial == serial)
        else {
            return;
        };
        job.attempts += 1;
        let wish = job.wish;
        self.tally.attempts += 1;
        match self.enter(&wish, now) {
            Ok(attempt) => {
                self.tally.admitted(&wish);
                let request = attempt.request;
                if let Some(job) = &mut self.jobs[index as usize] {
                    job.attempt = Some(attempt);
                }
                self.live.push(index);
                self.after(self.setup.client.patience, What::Impatience { job: index, request });
            }
            Err(refusal) => {
                self.tally.refused(&wish);
                self.note(refusal.retry_after_ms().unwrap_or(1));
                match refusal.retry_after_ms() {
                    // The server varies what it says by a quarter.
                    Some(ms) => {
                        let varied = ms as f64 * (0.75 + 0.5 * self.chance.unit());
                        self.retry(index, Some(Duration::from_secs_f64(varied / 1e3)));
                    }
                    None => self.give_up(index),
                }
            }
        }
    }

    fn enter(&mut self, wish: &Wish, now: Moment) -> Result<Attempt, Refusal> {
        let tenant = Arc::clone(&self.tenants[wish.tenant as usize]);
        let load = self.handle.load();
        let deadline = wish.deadline_in.map(|wait| now.at.plus(wait));
        let terms = Terms { flex: wish.flex, deadline };
        self.gate.precheck(&tenant, &load, now)?;
        self.gate.foresee(&tenant, terms, &load, now)?;
        let demand = Demand {
            prompt_tokens: wish.prompt_tokens,
            output_tokens_max: u64::from(wish.output_max) * u64::from(wish.choices),
        };
        let entry = self.gate.admit(&tenant, &[demand], terms, &load, now)?;
        self.assert_within_budget(wish.tenant);
        self.next_request += 1;
        let id = RequestId(self.next_request);
        let cancels = self.handle.cancels();
        let tokens = wish.prompt_tokens as usize;
        let (reply, stream) = reply_channel(id, tokens, wish.choices, wish.output_max, cancels);
        let settings = &tenant.settings;
        let sampling = |choice: u32| {
            let seed = wish.name ^ u64::from(choice);
            Arc::new(SamplingParams { temperature: 1.0, seed, ..SamplingParams::greedy() })
        };
        let submission = Submission {
            id,
            tenant: tenant.id,
            share: Share {
                class: entry.class,
                weight: settings.weight,
                kv_share: settings.kv_share,
            },
            cache_salt: Arc::from(""),
            prompt: prompt(wish),
            params: (0..wish.choices).map(sampling).collect(),
            max_tokens: wish.output_max,
            stops: Stops { eos: Arc::from([EOS]), ..Stops::default() },
            score_prompt: None,
            priority: wish.priority,
            arrived: now.at,
            promise: entry.promise,
            deadline,
            tpot: settings.tpot,
            reply,
        };
        self.handle.submit(submission).expect("what the gate admits the mailbox holds");
        Ok(Attempt {
            request: id.0,
            permits: entry.permits,
            stream,
            began: now.at,
            first: None,
            last: now.at,
            started: false,
            cut: false,
            tokens: 0,
            finished: 0,
        })
    }

    /// I5: settled and held together are within every limit at each admission.
    fn assert_within_budget(&self, tenant: u32) {
        let tenant = &self.tenants[tenant as usize];
        let settings = &tenant.settings;
        let limits = [settings.tokens_per_hour, settings.tokens_per_day, settings.tokens_per_month];
        if limits.iter().all(Option::is_none) {
            return;
        }
        let balances = self.gate.ledger().balances(tenant.name(), self.moment().unix_s);
        for (balance, limit) in balances.iter().zip(limits) {
            let Some(limit) = limit else { continue };
            assert!(balance.settled + balance.held <= limit, "{balance:?} of {limit}");
        }
    }

    /// Reads what came for a job; true when its attempt has ended.
    pub(super) fn read(&mut self, index: u32) -> bool {
        let now = self.clock.now();
        let mut hashed = Vec::new();
        let Some(job) = &mut self.jobs[index as usize] else { return true };
        let (choices, output_max) = (job.wish.choices, job.wish.output_max);
        let Some(attempt) = &mut job.attempt else { return true };
        let request = attempt.request;
        let mut read = Read::GoOn;
        while let Some(event) = attempt.stream.try_next() {
            assert!(matches!(read, Read::GoOn), "{event:?} after the terminal event (I4)");
            hashed.push(attempt.hashed(&event, now));
            read = attempt.take(event, now);
            assert!(attempt.tokens <= choices * output_max, "generation stops at the hold");
        }
        for value in hashed {
            self.note(request.wrapping_mul(31) ^ value);
        }
        match read {
            Read::GoOn => false,
            Read::Served(usage) => {
                self.served(index, usage);
                true
            }
            Read::Failed => {
                self.end_attempt(index);
                self.tally.late(&self.wish(index));
                self.retry(index, Some(Duration::from_secs(1)));
                true
            }
        }
    }

    fn wish(&self, index: u32) -> Wish {
        self.jobs[index as usize].as_ref().map(|job| job.wish).expect("the job is there")
    }

    /// Ends a job's attempt, with the books told what it used.
    fn end_attempt(&mut self, index: u32) -> Option<Attempt> {
        let job = self.jobs[index as usize].as_mut()?;
        let tenant = job.wish.tenant;
        let mut attempt = job.attempt.take()?;
        let permille = self.tenants[tenant as usize].settings.cached_token_permille;
        for permit in attempt.permits.drain(..) {
            let used = permit.used();
            assert_eq!(used.output_tokens, attempt.tokens, "tokens streamed are charged (I12)");
            self.books.ended(tenant, used, permille);
        }
        Some(attempt)
    }

    fn served(&mut self, index: u32, usage: Usage) {
        let attempt = self.end_attempt(index).expect("it was answered");
        let job = self.jobs[index as usize].take().expect("a live job");
        self.free_jobs.push(index);
        assert_eq!(usage.generated_tokens, attempt.tokens, "tokens streamed are counted (I12)");
        assert!(usage.preemptions <= 2, "preempted {} times (I11)", usage.preemptions);
        assert_eq!(attempt.finished, job.wish.choices, "each choice has ended once (I3)");
        let first = attempt.first.unwrap_or(attempt.last);
        let ttft = first.since(attempt.began);
        let gaps = attempt.tokens.saturating_sub(1);
        let tpot = if gaps > 0 { attempt.last.since(first) / gaps } else { Duration::ZERO };
        let settings = &self.setup.tenants[job.wish.tenant as usize];
        let per_1k = settings.ttft_per_1k_tokens.unwrap_or_default();
        let own = per_1k.mul_f64(f64::from(job.wish.prompt_tokens) / 1000.0);
        let allowed = self.setup.ttft_objective + own;
        let in_time = ttft <= allowed;
        let ending = Ending {
            ttft,
            in_time,
            good: in_time && tpot <= self.setup.tpot_objective,
            tokens: job.wish.prompt_tokens + attempt.tokens,
            allowed,
        };
        self.tally.served(&job.wish, ending);
    }

    pub(super) fn lose_patience(&mut self, index: u32, request: u64) {
        let attempt = self.jobs[index as usize].as_ref().and_then(|job| job.attempt.as_ref());
        let waits = |attempt: &&Attempt| attempt.request == request && attempt.first.is_none();
        if attempt.filter(waits).is_some() {
            self.tally.late(&self.wish(index));
            self.abandon(index);
            self.retry(index, None);
        }
    }

    /// A client that does not come back.
    pub(super) fn leave(&mut self, index: u32, serial: u64) {
        if self.jobs[index as usize].as_ref().is_some_and(|job| job.serial == serial) {
            self.abandon(index);
            self.give_up(index);
        }
    }

    fn abandon(&mut self, index: u32) {
        if self.end_attempt(index).is_some() {
            self.live.retain(|live| *live != index);
        }
    }

    fn give_up(&mut self, index: u32) {
        if let Some(job) = self.jobs[index as usize].take() {
            self.free_jobs.push(index);
            self.tally.lost(&job.wish);
        }
    }

    /// As the stock SDKs: what the server says, else half a second, doubled, up to eight seconds,
    /// less up to a quarter.
    pub(super) fn retry(&mut self, index: u32, said: Option<Duration>) {
        let Some(job) = &self.jobs[index as usize] else { return };
        if job.attempts > self.setup.client.retries_max {
            self.give_up(index);
            return;
        }
        let serial = job.serial;
        let own = (0.5 * f64::from(1u32 << (job.attempts - 1).min(8))).min(8.0)
            * (1.0 - 0.25 * self.chance.unit());
        let wait = said.unwrap_or(Duration::from_secs_f64(own));
        self.after(wait, What::Attempt { job: index, serial });
    }
}

impl Attempt {
    fn take(&mut self, event: Event, now: Time) -> Read {
        let permit = self.permits.first_mut().expect("a live attempt has its permit");
        match event {
            Event::Started { cached_tokens } => {
                // After a panic of the engine a request may start a second time.
                permit.started(cached_tokens, now);
                self.started = true;
            }
            Event::Token { .. } => {
                assert!(self.started, "a token before the start");
                permit.generated();
                if self.first.is_none() {
                    permit.first_token(now);
                    self.first = Some(now);
                }
                self.last = now;
                self.tokens += 1;
            }
            Event::Finished { reason: FinishReason::Late, .. } => {
                assert!(!self.started, "only a request that has not started is late");
                permit.late();
                self.cut = true;
            }
            Event::Finished { reason: FinishReason::Deadline, .. } => self.cut = true,
            Event::Failed { .. } => return Read::Failed,
            Event::Done(_) if self.cut => return Read::Failed,
            Event::Finished { .. } => self.finished += 1,
            Event::PromptScores(_) => {}
            Event::Done(usage) => return Read::Served(usage),
        }
        Read::GoOn
    }

    /// An event as a number.
    fn hashed(&self, event: &Event, now: Time) -> u64 {
        let what = match event {
            Event::Started { cached_tokens } => 1 << 32 | u64::from(*cached_tokens),
            Event::Token { choice, sampled } => {
                2 << 40 | u64::from(*choice) << 32 | u64::from(sampled.token.0)
            }
            Event::Finished { choice, .. } => 3 << 32 | u64::from(*choice),
            Event::PromptScores(scores) => 4 << 32 | scores.len() as u64,
            Event::Done(usage) => 5 << 32 | u64::from(usage.generated_tokens),
            Event::Failed { message } => 6 << 32 | message.len() as u64,
        };
        what.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ now.0
    }
}

/// The tokens of a prompt: a beginning that its tenant's prompts share, then its own.
fn prompt(wish: &Wish) -> Arc<[TokenId]> {
    let token = |salt: u64, at: u64| {
        TokenId(((salt ^ at).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32 % SAMPLED)
    };
    let shared = u64::from(wish.shared_tokens);
    let mut tokens: Vec<TokenId> = (0..u64::from(wish.prompt_tokens))
        .map(|at| token(if at < shared { u64::from(wish.tenant) } else { wish.name }, at))
        .collect();
    let middle = tokens.len() / 2;
    if wish.nan {
        tokens[middle] = NAN;
    }
    if wish.poison {
        tokens[middle] = POISON;
    }
    tokens.into()
}
