//! The same answers when the engine decides what runs when: through submissions and events.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use weir::backend::DType;
use weir::backend::cpu::{CpuBackend, CpuOptions};
use weir::clock::{ManualClock, Time};
use weir::device::{SampledToken, SamplingParams};
use weir::engine::{
    Engine, EngineConfig, EngineHandle, Event, ReplyStream, Share, Stops, Submission, TurnReport,
    reply_channel,
};
use weir::ids::{RequestId, TenantId, TokenId};
use weir::model::{Checkpoint, KvMemory, OpenOptions, open};

use super::driver::{BLOCK_SIZE, OPTIONS};
use super::fixture::{MODELS, expected, folder};
use super::greedy::stranger;

const OTHERS: u32 = 63;

/// An engine over a runner, turned by hand.
struct Rig {
    engine: Engine,
    handle: EngineHandle,
    requests: u64,
    preemptions: u32,
    turns: u64,
    clock: Arc<ManualClock>,
}

/// A request's answer.
struct Answer {
    cached_tokens: u32,
    choices: Vec<Vec<SampledToken>>,
}

impl Rig {
    fn new(name: &str, options: &OpenOptions, change: impl Fn(&mut EngineConfig)) -> Self {
        let checkpoint = Checkpoint::open_folder(&folder(name)).unwrap();
        let cpu = CpuOptions { threads: NonZeroUsize::MIN, ..CpuOptions::default() };
        let backend = CpuBackend::new(&cpu).unwrap();
        let clock = Arc::new(ManualClock::default());
        let runner = open(&checkpoint, options, backend, Arc::clone(&clock) as _).unwrap().runner;
        let mut config = EngineConfig { check_every_steps: 1, ..EngineConfig::new([7; 32]) };
        change(&mut config);
        let (engine, handle) = Engine::new(config, Box::new(runner));
        Self { engine, handle, requests: 0, preemptions: 0, turns: 0, clock }
    }

    fn exact(name: &str) -> Self {
        Self::new(name, &exact(), |_| {})
    }

    fn submit(
        &mut self,
        prompt: &[TokenId],
        params: Vec<SamplingParams>,
        max_tokens: u32,
    ) -> ReplyStream {
        self.requests += 1;
        let id = RequestId(self.requests);
        let choices = params.len() as u32;
        let cancels = self.handle.cancels();
        let (reply, stream) = reply_channel(id, prompt.len(), choices, max_tokens, cancels);
        let submission = Submission {
            id,
            tenant: TenantId(1),
            share: Share::default(),
            cache_salt: Arc::from(""),
            prompt: Arc::from(prompt),
            params: params.into_iter().map(Arc::new).collect(),
            max_tokens,
            stops: Stops::default(),
            score_prompt: None,
            priority: 0,
            arrived: Time(self.turns),
            promise: None,
            deadline: None,
            tpot: None,
            reply,
        };
        self.handle.submit(submission).unwrap();
        stream
    }

    fn turn(&mut self) -> TurnReport {
        self.turns += 1;
        self.clock.advance(Duration::from_millis(1));
        let report = self.engine.turn(self.clock.as_ref());
        self.preemptions += report.preemptions;
        report
    }

    fn finish(&mut self) {
        while !self.engine.is_idle() {
            self.turn();
            assert!(self.turns < 20_000, "the engine makes progress");
        }
    }

    /// Runs until everything has ended and returns the answer of `stream`.
    fn answer(&mut self, mut stream: ReplyStream) -> Answer {
        self.finish();
        let mut answer = Answer { cached_tokens: 0, choices: Vec::new() };
        while let Some(event) = stream.try_next() {
            match event {
                Event::Started { cached_tokens } => answer.cached_tokens = cached_tokens,
                Event::Token { choice, sampled } => {
                    let choice = choice as usize;
                    answer.choices.resize(answer.choices.len().max(choice + 1), Vec::new());
                    answer.choices[choice].push(sampled);
                }
                Event::Failed { message } => panic!("{message}"),
                Event::PromptScores(_) | Event::Finished { .. } | Event::Done(_) => {}
            }
        }
        answer
    }

    /// The greedy answer to a prompt, and how much of the prompt was cached.
    fn greedy(&mut self, prompt: &[TokenId], tokens: usize) -> (Vec<TokenId>, u32) {
        let stream = self.submit(prompt, vec![SamplingParams::greedy()], tokens as u32);
        let answer = self.answer(stream);
        (answer.tokens(), answer.cached_tokens)
    }
}

/// A token, the bits of its log-probability, and those of the highest ones.
type TokenBits = (u32, u32, Vec<(u32, u32)>);

impl Answer {
    fn tokens(&self) -> Vec<TokenId> {
        self.choices[0].iter().map(|sampled| sampled.token).collect()
    }

    /// Tokens and the bits of all log-probabilities of every choice.
    fn bits(&self) -> Vec<Vec<TokenBits>> {
        let one = |sampled: &SampledToken| {
            let logprob = sampled.logprob.as_ref().unwrap();
            let top = logprob.top.iter().map(|(token, p)| (token.0, p.to_bits())).collect();
            (sampled.token.0, logprob.logprob.to_bits(), top)
        };
        self.choices.iter().map(|choice| choice.iter().map(one).collect()).collect()
    }
}

/// An exact KV cache, and memory for every sequence.
fn exact() -> OpenOptions {
    OpenOptions { kv_dtype: Some(DType::F32), ..OPTIONS }
}

/// Every sampling parameter in use.
fn busy(seed: u64) -> SamplingParams {
    SamplingParams {
        temperature: 0.9,
        top_p: 0.95,
        top_k: 60,
        min_p: 0.01,
        presence_penalty: 0.3,
        frequency_penalty: 0.2,
        repetition_penalty: 1.1,
        bias: vec![(TokenId(17), 1.5), (TokenId(40), -2.0)],
        banned: vec![TokenId(2)],
        min_tokens: 10,
        seed,
        logprobs: Some(4),
    }
}

#[test]
fn greedy_tokens_are_the_references_alone_and_on_a_prefix_hit() {
    for name in MODELS {
        let expected = expected(name);
        let mut rig = Rig::exact(name);
        let (tokens, cached) = rig.greedy(&expected.prompt, expected.greedy.len());
        assert_eq!((tokens, cached), (expected.greedy.clone(), 0), "{name}");
        let (tokens, cached) = rig.greedy(&expected.prompt, expected.greedy.len());
        assert!(cached >= expected.prompt.len() as u32 - BLOCK_SIZE, "{name}: {cached} cached");
        assert_eq!(tokens, expected.greedy, "{name} on a prefix hit");
        // A longer prompt that continues with the first answer hits its blocks too.
        let longer: Vec<TokenId> = expected.sequence()[..expected.prompt.len() + 20].to_vec();
        let (tokens, cached) = rig.greedy(&longer, expected.greedy.len() - 20);
        assert!(cached > expected.prompt.len() as u32, "{name}: {cached} cached");
        assert_eq!(tokens, expected.greedy[20..], "{name} continued");
    }
}

#[test]
fn greedy_tokens_are_the_references_in_steps_of_every_size() {
    for name in ["gemma3", "mistral", "qwen3-moe", "phi3"] {
        let expected = expected(name);
        for rows in 1..=17 {
            let mut rig = Rig::new(name, &exact(), |config| config.step_rows_max = rows);
            let (tokens, _) = rig.greedy(&expected.prompt, expected.greedy.len());
            assert_eq!(tokens, expected.greedy, "{name} with steps of {rows} rows");
        }
    }
}

#[test]
fn greedy_tokens_are_the_references_among_sixteen_others_and_after_preemption() {
    for name in MODELS {
        let expected = expected(name);
        let tokens = expected.greedy.len();
        // Three of 17 contexts fit: sequences lose their blocks and are computed again.
        let checkpoint = Checkpoint::open_folder(&folder(name)).unwrap();
        let block_bytes = checkpoint.spec(Some(128)).unwrap().kv_bytes_per_token(4) * 8;
        let tight = OpenOptions { kv_memory: KvMemory::Bytes(45 * block_bytes), ..exact() };
        for (options, preempts) in [(exact(), false), (tight, true)] {
            let mut rig = Rig::new(name, &options, |config| config.step_rows_max = 40);
            let mut others = VecDeque::new();
            let mut stream = None;
            for index in 0..16 {
                if index == 5 {
                    let params = vec![SamplingParams::greedy()];
                    stream = Some(rig.submit(&expected.prompt, params, tokens as u32));
                }
                let prompt = stranger(index, 10 + 3 * index as usize);
                others.push_back(rig.submit(&prompt, vec![busy(u64::from(index))], 50));
                rig.turn();
            }
            let answer = rig.answer(stream.unwrap());
            assert_eq!(answer.tokens(), expected.greedy, "{name}, preempting: {preempts}");
            assert_eq!(rig.preemptions > 0, preempts, "{name}: {} preemptions", rig.preemptions);
        }
    }
}

#[test]
fn seeded_answers_have_the_same_bits_alone_among_63_others_and_after_preemption() {
    for name in ["llama3", "gemma2", "qwen3-moe", "llama-bf16"] {
        let prompt = stranger(1000, 30);
        // Two choices, so that blocks are shared and copied on write.
        let params = || vec![busy(42), busy(43)];
        let mut alone = Rig::exact(name);
        let stream = alone.submit(&prompt, params(), 60);
        let alone = alone.answer(stream).bits();
        assert_ne!(alone[0], alone[1], "{name}: choices differ");

        let checkpoint = Checkpoint::open_folder(&folder(name)).unwrap();
        let block_bytes = checkpoint.spec(Some(128)).unwrap().kv_bytes_per_token(4) * 8;
        let tight = OpenOptions { kv_memory: KvMemory::Bytes(60 * block_bytes), ..exact() };
        for (options, preempts) in [(exact(), false), (tight, true)] {
            let mut rig = Rig::new(name, &options, |config| config.step_rows_max = 100);
            let mut others = Vec::new();
            for index in 0..OTHERS / 2 {
                let prompt = stranger(index, 1 + index as usize);
                others.push(rig.submit(&prompt, vec![busy(u64::from(index))], 40));
            }
            rig.turn();
            let stream = rig.submit(&prompt, params(), 60);
            for index in OTHERS / 2..OTHERS {
                let prompt = stranger(index, 1 + index as usize);
                others.push(rig.submit(&prompt, vec![busy(u64::from(index))], 40));
            }
            let found = rig.answer(stream).bits();
            assert_eq!(found, alone, "{name}, preempting: {preempts}");
            assert_eq!(rig.preemptions > 0, preempts, "{name}: {} preemptions", rig.preemptions);
        }
    }
}
