//! An admitted request: its prompts' submissions, its permits, and the one pipeline from engine
//! events to pieces of the answer. Dropping it cancels what still runs.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::account::Account;
use super::ask::Ask;
use super::choice::{Choice, Delta, Finish, Scored, finish_of};
use super::error::{ApiError, EngineFailure};
use super::shutdown::Phase;
use super::state::AppState;
use crate::clock::Time;
use crate::device::TokenLogprob;
use crate::engine::{Event, FinishReason, ReplyStream, Share, Stops, Submission, reply_channel};
use crate::gate::{Demand, Permit, Tenant, Terms};
use crate::ids::TokenId;

/// A prompt, ready to be scheduled.
#[derive(Clone, Debug)]
pub(super) struct Prompt {
    /// Its tokens; at least one.
    pub(super) tokens: Arc<[TokenId]>,
    /// Output tokens of each choice at most.
    pub(super) max_tokens: u32,
    /// With `echo`: its text, which then begins the answer's.
    pub(super) echo: Option<String>,
}

/// Who wants to enter with what.
#[derive(Clone, Copy)]
pub(super) struct Entrant<'a> {
    pub(super) tenant: &'a Arc<Tenant>,
    pub(super) ask: &'a Ask,
    pub(super) terms: Terms,
}

/// What the answer tells beside text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Detail {
    /// Pieces carry the generated tokens.
    pub(super) with_tokens: bool,
    /// The first piece of an echo carries the prompt's tokens.
    pub(super) with_prompt_tokens: bool,
    /// Score the prompt, with this many alternatives.
    pub(super) score_prompt: Option<u32>,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Step {
    /// A prompt's first rows are in a step. Comes once for each prompt.
    Started,
    /// A piece of a choice.
    Delta(Delta),
    /// Terminal: every choice has ended.
    Done,
    /// Terminal: it cannot be finished.
    Failed(ApiError),
}

/// Tokens used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) prompt_tokens: u32,
    pub(super) cached_tokens: u32,
    pub(super) output_tokens: u32,
}

/// See the file's head.
pub(super) struct Generation {
    state: Arc<AppState>,
    account: Arc<Account>,
    runs: Vec<Run>,
    stops: Stops,
    show_stop_tokens: bool,
    detail: Detail,
    admitted: Time,
    predicted_ttft: Duration,
    /// The run to look at first.
    cursor: usize,
    ready: VecDeque<Step>,
    aborted: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: bool,
}

/// One prompt's submission.
struct Run {
    /// None once it has ended.
    reply: Option<ReplyStream>,
    permit: Permit,
    prompt: Prompt,
    choices: Vec<Choice>,
    /// Scores of the prompt's positions from 1 on.
    scores: Vec<TokenLogprob>,
    started: bool,
    cached_tokens: u32,
    echoed: bool,
}

impl Generation {
    /// Admits and submits a request: all of its prompts or none.
    ///
    /// # Errors
    /// [`ApiError::Refused`] and [`ApiError::Submit`].
    pub(super) fn start(
        state: &Arc<AppState>,
        account: Arc<Account>,
        Entrant { tenant, ask, terms }: Entrant<'_>,
        prompts: Vec<Prompt>,
        detail: Detail,
    ) -> Result<Self, ApiError> {
        let now = state.clock.moment();
        let (admitted, load) = (now.at, state.engine.load());
        let demand = |prompt: &Prompt| Demand {
            prompt_tokens: count(prompt.tokens.len()),
            output_tokens_max: u64::from(prompt.max_tokens) * u64::from(ask.choices),
        };
        let demands: Vec<Demand> = prompts.iter().map(demand).collect();
        let entry = state.gate.admit(tenant, &demands, terms, &load, now)?;
        let mut generation = Self {
            state: Arc::clone(state),
            account,
            runs: Vec::with_capacity(prompts.len()),
            stops: ask.stops.clone(),
            show_stop_tokens: ask.detokenizing.include_stop,
            detail,
            admitted,
            predicted_ttft: entry.predicted_ttft,
            cursor: 0,
            ready: VecDeque::new(),
            aborted: Box::pin(state.shutdown.reached(Phase::Aborting)),
            ended: false,
        };
        let settings = &tenant.settings;
        let share =
            Share { class: entry.class, weight: settings.weight, kv_share: settings.kv_share };
        for (prompt, permit) in prompts.into_iter().zip(entry.permits) {
            let (max_tokens, cancels) = (prompt.max_tokens, state.engine.cancels());
            let id = state.seeds.next_request();
            let (reply, stream) =
                reply_channel(id, prompt.tokens.len(), ask.choices, max_tokens, cancels);
            state.engine.submit(Submission {
                id,
                tenant: tenant.id,
                share,
                cache_salt: Arc::clone(&ask.cache_salt),
                prompt: Arc::clone(&prompt.tokens),
                // Prompts are independent requests: each is answered as if it came alone.
                params: ask.params(&state.seeds),
                max_tokens,
                stops: ask.stops.clone(),
                score_prompt: detail.score_prompt,
                priority: ask.priority,
                arrived: admitted,
                promise: entry.promise,
                deadline: terms.deadline,
                tpot: settings.tpot.filter(|_| !terms.flex),
                reply,
            })?;
            generation.add_run(prompt, permit, stream, ask);
        }
        generation.note_request(ask);
        Ok(generation)
    }

    /// The time to its first token, as it was predicted when it was admitted.
    pub(super) fn predicted_ttft(&self) -> Duration {
        self.predicted_ttft
    }

    /// Tokens used so far.
    pub(super) fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for run in &self.runs {
            tally.prompt_tokens += count(run.prompt.tokens.len());
            tally.cached_tokens += run.cached_tokens;
            tally.output_tokens += run.choices.iter().map(|c| c.generated_tokens).sum::<u32>();
        }
        tally
    }

    /// Tokens used so far by the prompt and one of its choices.
    pub(super) fn choice_tally(&self, index: u32) -> Tally {
        let (run, choice) = self.place(index);
        let run = &self.runs[run];
        Tally {
            prompt_tokens: count(run.prompt.tokens.len()),
            cached_tokens: run.cached_tokens,
            output_tokens: run.choices[choice].generated_tokens,
        }
    }

    /// How many choices the answer has.
    pub(super) fn choices(&self) -> u32 {
        count(self.runs.iter().map(|run| run.choices.len()).sum())
    }

    /// The prompt of a choice.
    pub(super) fn prompt(&self, index: u32) -> &Prompt {
        &self.runs[self.place(index).0].prompt
    }

    /// Scores of the positions from 1 on of a choice's prompt; all of them once it has ended.
    pub(super) fn prompt_scores(&self, index: u32) -> &[TokenLogprob] {
        &self.runs[self.place(index).0].scores
    }

    /// The next step; pending as long as the engine has nothing new. Not to be called after a
    /// terminal one.
    pub(super) fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            if let Some(step) = self.ready.pop_front() {
                return Poll::Ready(step);
            }
            if self.ended {
                return Poll::Pending;
            }
            if let Poll::Ready((run, event)) = self.poll_event(cx) {
                self.take(run, event);
            } else if self.aborted.as_mut().poll(cx).is_ready() {
                self.fail(EngineFailure::Aborted.into());
            } else {
                return Poll::Pending;
            }
        }
    }

    /// The next event of any run, fairly.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<(usize, Option<Event>)> {
        for turn in 0..self.runs.len() {
            let run = (self.cursor + turn) % self.runs.len();
            let Some(reply) = &mut self.runs[run].reply else { continue };
            if let Poll::Ready(event) = reply.poll_next(cx) {
                self.cursor = run + 1;
                return Poll::Ready((run, event));
            }
        }
        Poll::Pending
    }

    fn take(&mut self, run: usize, event: Option<Event>) {
        match event {
            Some(Event::Started { cached_tokens }) => self.take_start(run, cached_tokens),
            Some(Event::PromptScores(scores)) => {
                let scores = scores.into_iter().map(|score| score.logprob);
                self.runs[run].scores.extend(scores);
            }
            Some(Event::Token { choice, sampled }) => self.take_token(run, choice, sampled),
            Some(Event::Finished { choice, reason }) => match finish_of(reason) {
                Some(finish) => self.finish_choice(run, choice as usize, finish),
                None if reason == FinishReason::Late => self.fail_late(run),
                None => self.fail(EngineFailure::Deadline.into()),
            },
            Some(Event::Done(_)) => {
                for choice in 0..self.runs[run].choices.len() {
                    self.finish_choice(run, choice, Finish::Length);
                }
                self.runs[run].reply = None;
                self.end_if_all_ended();
            }
            Some(Event::Failed { message }) => self.fail(EngineFailure::Failed(message).into()),
            None => self.fail(EngineFailure::Lost.into()),
        }
    }

    fn take_start(&mut self, run: usize, cached_tokens: u32) {
        let run = &mut self.runs[run];
        // A request that lost its blocks starts again, and then finds its own ones in the cache.
        if run.started {
            return;
        }
        run.started = true;
        run.cached_tokens = cached_tokens;
        let now = self.state.clock.now();
        run.permit.started(cached_tokens, now);
        let waited = now.since(self.admitted);
        self.account.ledger().facts.queue.get_or_insert(waited);
        self.ready.push_back(Step::Started);
    }

    fn take_token(&mut self, run: usize, choice: u32, sampled: crate::device::SampledToken) {
        let now = self.state.clock.now();
        self.echo(run);
        let stops = &self.stops;
        let run = &mut self.runs[run];
        let Some(running) = run.choices.get_mut(choice as usize) else { return };
        if running.finish.is_some() {
            return;
        }
        run.permit.generated();
        match running.last_token.replace(now) {
            Some(last) => self.account.token_gap(now.since(last)),
            None => {
                if run.permit.used().output_tokens == 1 {
                    run.permit.first_token(now);
                }
                let mut ledger = self.account.ledger();
                let ttft = now.since(ledger.arrived);
                ledger.facts.ttft.get_or_insert(ttft);
            }
        }
        let pushed = running.push(sampled, stops, self.show_stop_tokens);
        self.ready.extend(pushed.delta.map(Step::Delta));
        if pushed.stopped {
            if let Some(reply) = &run.reply {
                reply.stop_choice(choice);
            }
            self.end_if_all_ended();
        }
    }

    fn finish_choice(&mut self, run: usize, choice: usize, finish: Finish) {
        self.echo(run);
        let Some(choice) = self.runs[run].choices.get_mut(choice) else { return };
        let delta = choice.end(finish);
        self.ready.extend(delta.map(Step::Delta));
        self.end_if_all_ended();
    }

    /// Before a prompt's first output: the prompt itself, if it is to be echoed. Its scores are
    /// complete by then.
    fn echo(&mut self, run: usize) {
        let run = &mut self.runs[run];
        let Some(text) = &run.prompt.echo else { return };
        if std::mem::replace(&mut run.echoed, true) {
            return;
        }
        let mut prompt = Vec::new();
        if self.detail.with_prompt_tokens {
            // The first token follows nothing, so it has no probability.
            let scores = std::iter::once(None).chain(run.scores.iter().cloned().map(Some));
            let tokens = run.prompt.tokens.iter().copied();
            prompt = tokens.zip(scores).map(|(token, logprob)| Scored { token, logprob }).collect();
        }
        for choice in &run.choices {
            let (index, text, prompt) = (choice.index, text.clone(), prompt.clone());
            self.ready.push_back(Step::Delta(Delta { index, text, prompt, ..Delta::default() }));
        }
    }

    /// Ends when every choice has ended. What the engine computed beyond a stop string is not
    /// waited for: dropping the reply streams ends it.
    fn end_if_all_ended(&mut self) {
        let all = self.runs.iter().all(|run| run.choices.iter().all(|c| c.finish.is_some()));
        if !all || self.ended {
            return;
        }
        self.ended = true;
        for run in &mut self.runs {
            // Mostly the engine's last event is there already, and nothing is left to cancel.
            if let Some(mut reply) = run.reply.take() {
                while reply.try_next().is_some() {}
            }
        }
        self.ready.push_back(Step::Done);
        let mut choices = self.runs.iter().flat_map(|run| &run.choices);
        let any_length = choices.any(|choice| choice.finish == Some(Finish::Length));
        let mut ledger = self.account.ledger();
        ledger.facts.outcome = crate::metrics::Outcome::Ok;
        ledger.facts.finished_reason =
            if any_length { Finish::Length.as_str() } else { Finish::Stop.as_str() };
        ledger.ended = Some(self.state.clock.now());
    }

    fn fail_late(&mut self, run: usize) {
        self.runs[run].permit.late();
        self.fail(EngineFailure::Late.into());
    }

    fn fail(&mut self, error: ApiError) {
        self.ended = true;
        self.account.failed(&error);
        tracing::warn!(error = error.row().code, "a request failed: {error}");
        for run in &mut self.runs {
            run.reply = None;
        }
        self.ready.push_back(Step::Failed(error));
    }

    fn add_run(&mut self, prompt: Prompt, permit: Permit, stream: ReplyStream, ask: &Ask) {
        let first = self.choices();
        let choice = |choice: u32| {
            let detokenizer = self.state.text.detokenizer(&prompt.tokens, ask.detokenizing.clone());
            Choice::new(first + choice, detokenizer, self.detail.with_tokens)
        };
        let choices = (0..ask.choices).map(choice).collect();
        self.runs.push(Run {
            reply: Some(stream),
            permit,
            prompt,
            choices,
            scores: Vec::new(),
            started: false,
            cached_tokens: 0,
            echoed: false,
        });
    }

    fn note_request(&self, ask: &Ask) {
        let mut ledger = self.account.ledger();
        ledger.facts.choices = ask.choices;
        ledger.facts.max_tokens = self.runs.iter().map(|r| r.prompt.max_tokens).max().unwrap_or(0);
    }

    /// The run and the place in it of a choice of the answer.
    fn place(&self, index: u32) -> (usize, usize) {
        let each = self.runs[0].choices.len();
        (index as usize / each, index as usize % each)
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        let tally = self.tally();
        let choices = self.runs.iter().flat_map(|run| &run.choices);
        let longest = choices.map(|choice| choice.generated_tokens).max().unwrap_or(0);
        let mut ledger = self.account.ledger();
        ledger.facts.prompt_tokens = tally.prompt_tokens;
        ledger.facts.cached_tokens = tally.cached_tokens;
        ledger.facts.output_tokens = tally.output_tokens;
        ledger.facts.longest_output_tokens = longest;
    }
}

/// Counts of a request fit, since its body is bounded.
fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
