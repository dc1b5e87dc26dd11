//! An engine on a simulated device, its callers, and what each of them would get alone.

use std::sync::Arc;
use std::time::Duration;

use weir::clock::{Clock, ManualClock, Time};
use weir::device::sim::{Pace, SimConfig, SimCost, SimDevice, SimFaults};
use weir::device::{DeviceLimits, SamplingParams};
use weir::engine::{
    Engine, EngineConfig, EngineHandle, Event, FinishReason, Promise, ReplyStream, Share, Stops,
    Submission, TurnReport, Usage, reply_channel,
};
use weir::ids::{RequestId, TenantId, TokenId};

pub const VOCAB: u32 = 1000;
/// Sampled tokens are below this; the ones from here on are for prompts with a special effect.
pub const SAMPLED: u32 = 990;
pub const POISON: TokenId = TokenId(998);
pub const NAN: TokenId = TokenId(999);
/// Sampled now and then, so that answers stop by themselves.
pub const EOS: TokenId = TokenId(7);

/// What a caller asks.
#[derive(Clone)]
pub struct Ask {
    pub tenant: u32,
    pub share: Share,
    pub salt: &'static str,
    pub prompt: Vec<TokenId>,
    pub params: Vec<SamplingParams>,
    pub max_tokens: u32,
    pub stops: Stops,
    pub score_prompt: Option<u32>,
    pub priority: i32,
    pub promise: Option<Promise>,
    pub deadline: Option<Time>,
    pub tpot: Option<Duration>,
}

/// What a caller got.
#[derive(Default)]
pub struct Got {
    pub started: u32,
    pub cached_tokens: u32,
    pub scored: Vec<f32>,
    pub tokens: Vec<Vec<TokenId>>,
    pub finished: Vec<Option<FinishReason>>,
    pub done: Option<Usage>,
    pub failed: Option<String>,
}

pub struct Caller {
    pub ask: Ask,
    pub got: Got,
    stream: Option<ReplyStream>,
}

pub struct World {
    pub engine: Engine,
    pub handle: EngineHandle,
    pub clock: Arc<ManualClock>,
    pub sim: SimConfig,
    pub callers: Vec<Caller>,
    pub last: TurnReport,
}

/// A device that is small enough to be short of everything.
pub fn limits(blocks_total: u32, block_size_tokens: u32, steps_in_flight_max: u32) -> DeviceLimits {
    DeviceLimits {
        block_size_tokens,
        blocks_total,
        step_rows_max: 64,
        slots_total: 8,
        context_tokens_max: 256,
        vocab_size: VOCAB,
        steps_in_flight_max,
        computes_in_submit: steps_in_flight_max == 1,
    }
}

pub fn sim(limits: DeviceLimits) -> SimConfig {
    SimConfig {
        cost: SimCost::default(),
        faults: SimFaults {
            poison_token: Some(POISON),
            nan_token: Some(NAN),
            ..SimFaults::default()
        },
        sampled: 0..SAMPLED,
        eos: Some((EOS, 0.02)),
        verify: true,
        ..SimConfig::new(limits)
    }
}

pub fn config() -> EngineConfig {
    EngineConfig { step_rows_max: 64, check_every_steps: 1, ..EngineConfig::new([7; 32]) }
}

/// Tokens that depend on `name` alone.
pub fn prompt(name: u32, tokens: u32) -> Vec<TokenId> {
    (0..tokens).map(|i| TokenId((name * 131 + i * 17) % SAMPLED)).collect()
}

impl Ask {
    /// One greedy choice of a prompt.
    pub fn new(prompt: Vec<TokenId>, max_tokens: u32) -> Self {
        Self {
            tenant: 0,
            share: Share::default(),
            salt: "",
            prompt,
            params: vec![SamplingParams::greedy()],
            max_tokens,
            stops: Stops::default(),
            score_prompt: None,
            priority: 0,
            promise: None,
            deadline: None,
            tpot: None,
        }
    }

    /// `n` choices that differ in their seeds.
    pub fn choices(mut self, n: u64) -> Self {
        self.params = (0..n)
            .map(|seed| SamplingParams { temperature: 1.0, seed, ..SamplingParams::greedy() })
            .collect();
        self
    }

    /// Stops at the end-of-sequence token.
    pub fn stopping(mut self) -> Self {
        self.stops = Stops { eos: Arc::from([EOS]), ..Stops::default() };
        self
    }

    /// What a choice gets when it runs alone; the reason is `None` when its logits are NaN.
    pub fn alone(&self, sim: &SimConfig, choice: usize) -> (Vec<TokenId>, Option<FinishReason>) {
        let mut context = self.prompt.clone();
        for generated in 1..=self.max_tokens {
            let token = sim.next_token(&context, &self.params[choice], generated - 1);
            let output = |context: &[TokenId]| context[self.prompt.len()..].to_vec();
            let Some(token) = token else { return (output(&context), None) };
            context.push(token);
            if self.stops.ends(token, generated) {
                return (output(&context), Some(FinishReason::Stop(token)));
            }
        }
        (context[self.prompt.len()..].to_vec(), Some(FinishReason::Length))
    }
}

impl World {
    pub fn new(config: EngineConfig, sim: SimConfig) -> Self {
        let clock = Arc::new(ManualClock::default());
        let device = SimDevice::new(sim.clone(), Pace::Virtual(Arc::clone(&clock)));
        let (engine, handle) = Engine::new(config, Box::new(device));
        Self { engine, handle, clock, sim, callers: Vec::new(), last: TurnReport::default() }
    }

    /// A world with 64 blocks of 4 tokens.
    pub fn small(steps_in_flight_max: u32) -> Self {
        Self::new(config(), sim(limits(64, 4, steps_in_flight_max)))
    }

    /// Submits; the index of the caller.
    pub fn ask(&mut self, ask: Ask) -> usize {
        let (submission, stream) = self.submission(&ask);
        self.handle.submit(submission).unwrap();
        let choices = ask.params.len();
        let got = Got {
            tokens: vec![Vec::new(); choices],
            finished: vec![None; choices],
            ..Got::default()
        };
        self.callers.push(Caller { ask, got, stream: Some(stream) });
        self.callers.len() - 1
    }

    pub fn submission(&self, ask: &Ask) -> (Submission, ReplyStream) {
        submission(&self.handle, RequestId(self.callers.len() as u64), ask, self.clock.now())
    }

    /// One turn, after which each caller reads what came.
    pub fn turn(&mut self) -> TurnReport {
        let report = self.engine.turn(self.clock.as_ref());
        self.last = report;
        for caller in &mut self.callers {
            caller.read();
        }
        report
    }

    pub fn turns(&mut self, count: u32) {
        for _ in 0..count {
            self.turn();
        }
    }

    /// Turns until nothing is left to do, then looks for leaks.
    pub fn run(&mut self) {
        let mut turns = 0;
        while !self.engine.is_idle() {
            self.turn();
            turns += 1;
            assert!(turns < 20_000, "no end after {turns} turns: {:?}", self.last);
        }
        self.assert_empty();
    }

    /// Every block is free or cached, and nothing runs or waits.
    pub fn assert_empty(&mut self) {
        self.engine.check();
        let load = self.turn().load;
        assert_eq!((load.running, load.waiting, load.blocks_used), (0, 0, 0), "{load:?}");
        assert_eq!(load.waiting_prompt_tokens, 0, "{load:?}");
        assert_eq!(load.step_began, None, "an idle device has no step: {load:?}");
    }

    /// The caller leaves.
    pub fn leave(&mut self, caller: usize) {
        self.callers[caller].stream = None;
    }

    pub fn stop_choice(&mut self, caller: usize, choice: u32) {
        if let Some(stream) = &self.callers[caller].stream {
            stream.stop_choice(choice);
        }
    }

    pub fn got(&self, caller: usize) -> &Got {
        &self.callers[caller].got
    }

    /// The caller got, to the end, what it would have got alone.
    pub fn assert_as_alone(&self, caller: usize) {
        let Caller { ask, got, .. } = &self.callers[caller];
        for choice in 0..ask.params.len() {
            let (tokens, reason) = ask.alone(&self.sim, choice);
            assert_eq!(got.tokens[choice], tokens, "caller {caller} choice {choice}");
            assert_eq!(got.finished[choice], reason, "caller {caller} choice {choice}");
        }
        let usage = got.done.expect("the request is done");
        let generated: usize = got.tokens.iter().map(Vec::len).sum();
        assert_eq!(usage.generated_tokens as usize, generated, "tokens sent are tokens counted");
        assert_eq!(usage.prompt_tokens as usize, ask.prompt.len());
        assert!(usage.preemptions <= 2, "preempted {} times", usage.preemptions);
    }

    /// What came so far is the beginning of what the caller would get alone.
    pub fn assert_prefix_of_alone(&self, caller: usize) {
        let Caller { ask, got, .. } = &self.callers[caller];
        for choice in 0..ask.params.len() {
            let (tokens, _) = ask.alone(&self.sim, choice);
            assert!(tokens.starts_with(&got.tokens[choice]), "caller {caller} choice {choice}");
        }
    }

    pub fn later(&self, by: Duration) -> Time {
        self.clock.now().plus(by)
    }
}

impl Caller {
    fn read(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        while let Some(event) = stream.try_next() {
            self.got.take(event);
        }
    }
}

impl Got {
    pub fn take(&mut self, event: Event) {
        assert!(self.done.is_none() && self.failed.is_none(), "{event:?} after the last event");
        match event {
            Event::Started { cached_tokens } => {
                self.started += 1;
                self.cached_tokens = cached_tokens;
                assert_eq!(self.started, 1, "it starts once");
            }
            Event::PromptScores(scores) => {
                self.scored.extend(scores.iter().map(|score| score.logprob.logprob));
            }
            Event::Token { choice, sampled } => {
                assert!(self.finished[choice as usize].is_none(), "a token after its choice");
                self.tokens[choice as usize].push(sampled.token);
            }
            Event::Finished { choice, reason } => {
                let finished = &mut self.finished[choice as usize];
                assert!(finished.is_none(), "a choice ends once");
                *finished = Some(reason);
            }
            Event::Done(usage) => {
                assert!(self.finished.iter().all(Option::is_some), "all choices have ended");
                self.done = Some(usage);
            }
            Event::Failed { message } => self.failed = Some(message),
        }
    }
}

pub fn submission(
    handle: &EngineHandle,
    id: RequestId,
    ask: &Ask,
    now: Time,
) -> (Submission, ReplyStream) {
    let choices = ask.params.len() as u32;
    let (reply, stream) =
        reply_channel(id, ask.prompt.len(), choices, ask.max_tokens, handle.cancels());
    let submission = Submission {
        id,
        tenant: TenantId(ask.tenant),
        share: ask.share,
        cache_salt: Arc::from(ask.salt),
        prompt: Arc::from(ask.prompt.as_slice()),
        params: ask.params.iter().cloned().map(Arc::new).collect(),
        max_tokens: ask.max_tokens,
        stops: ask.stops.clone(),
        score_prompt: ask.score_prompt,
        priority: ask.priority,
        arrived: now,
        promise: ask.promise,
        deadline: ask.deadline,
        tpot: ask.tpot,
        reply,
    };
    (submission, stream)
}
