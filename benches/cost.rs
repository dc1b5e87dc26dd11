//! How well the cost model predicts steps of the CPU backend: the demo model, and random weights
//! in the shape of Qwen2.5-0.5B.
//!
//! Requests of all sizes come and go, crowded and not; after 500 steps the errors of the next 500
//! predictions are counted. Run with `cargo bench --bench cost`, or `... -- demo` or `... -- 0.5b`
//! for one model, `... -- 3` for three runs and `... -- csv` for each step.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use weir::backend::DType;
use weir::backend::cpu::{CpuBackend, CpuOptions};
use weir::clock::{Clock, SystemClock};
use weir::device::SamplingParams;
use weir::engine::{
    Engine, EngineConfig, EngineHandle, ReplyStream, Share, Stops, Submission, reply_channel,
};
use weir::ids::{RequestId, TenantId, TokenId};
use weir::model::source::{SourceOptions, resolve};
use weir::model::weights::DummyWeights;
use weir::model::{KvMemory, OpenOptions, open};

const WARM_UP_STEPS: u64 = 500;
const STEPS: u64 = 500;
/// Qwen2.5-0.5B's.
const HALF_BILLION: &str = r#"{
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
    "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "tie_word_embeddings": true,
    "torch_dtype": "bfloat16", "vocab_size": 151936, "bos_token_id": 151643,
    "eos_token_id": 151645
}"#;

/// A model and a load that its steps get through in time.
struct Case {
    name: &'static str,
    step_rows_max: u32,
    context_tokens: u32,
    prompt_tokens_max: u32,
}

const CASES: [Case; 2] = [
    Case { name: "demo", step_rows_max: 256, context_tokens: 512, prompt_tokens_max: 400 },
    Case { name: "0.5b", step_rows_max: 64, context_tokens: 1024, prompt_tokens_max: 300 },
];

struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1442);
        ((self.0 >> 33) % u64::from(bound)) as u32
    }
}

/// Callers that ask now much and now little.
struct Callers {
    handle: EngineHandle,
    clock: Arc<dyn Clock>,
    streams: Vec<ReplyStream>,
    rng: Rng,
    vocab: u32,
    prompt_tokens_max: u32,
    next_id: u64,
    /// Requests at once, drawn anew now and then.
    wanted: usize,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runs = args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(1);
    let named = CASES.iter().any(|case| args.iter().any(|arg| arg == case.name));
    for case in CASES.iter().filter(|case| !named || args.iter().any(|arg| arg == case.name)) {
        for run in 0..runs {
            let said = |word| args.iter().any(|arg| arg == word);
            measure(case, run, said("csv"));
        }
    }
}

fn measure(case: &Case, run: u64, csv: bool) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (mut engine, handle, vocab) = engine(case, Arc::clone(&clock));
    let mut callers = Callers {
        handle,
        clock: Arc::clone(&clock),
        streams: Vec::new(),
        rng: Rng(run + 1),
        vocab,
        prompt_tokens_max: case.prompt_tokens_max,
        next_id: 0,
        wanted: 4,
    };
    let mut errors: Vec<f64> = Vec::new();
    let (mut steps, mut prefills, mut rows) = (0, 0, 0);
    let start = Instant::now();
    while steps < WARM_UP_STEPS + STEPS {
        callers.refill();
        let Some(step) = engine.turn(clock.as_ref()).step else { continue };
        steps += 1;
        prefills += u64::from(step.prefill_rows > 0);
        rows += u64::from(step.rows);
        if steps > WARM_UP_STEPS {
            errors.extend(step.prediction_error);
        }
        if csv {
            let (rows, prefill, decode) = (step.rows, step.prefill_rows, step.decode_rows);
            let (sequences, ns) = (step.sequences, step.elapsed.as_nanos());
            let error = step.prediction_error.unwrap_or(f64::NAN);
            println!("csv,{steps},{rows},{prefill},{decode},{sequences},{ns},{error}");
        }
    }
    let bias = errors.iter().sum::<f64>() / errors.len() as f64;
    errors.iter_mut().for_each(|error| *error = error.abs());
    errors.sort_by(f64::total_cmp);
    let at = |q: f64| 100.0 * errors[((errors.len() - 1) as f64 * q) as usize];
    println!(
        "{}: {} steps in {:.0} s, {:.1} rows each, {} with prefill; errors of the last {}: median \
         {:.1} %, p95 {:.1} %, mean {:+.1} %",
        case.name,
        steps,
        start.elapsed().as_secs_f64(),
        rows as f64 / steps as f64,
        prefills,
        errors.len(),
        at(0.5),
        at(0.95),
        100.0 * bias,
    );
    println!("  {:?}", callers.handle.load().cost.prices());
}

fn engine(case: &Case, clock: Arc<dyn Clock>) -> (Engine, EngineHandle, u32) {
    let demo = case.name == "demo";
    let model = if demo { PathBuf::from("demo") } else { config_folder() };
    let dummy = (!demo).then(|| DummyWeights::new(DType::BF16, 1).unwrap());
    let options = SourceOptions { dummy, ..SourceOptions::default() };
    let files = resolve(model.to_str().unwrap(), &options).unwrap();
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let backend = CpuBackend::new(&CpuOptions { threads, ..CpuOptions::default() }).unwrap();
    let options = OpenOptions {
        context_tokens_max: Some(case.context_tokens),
        sequences_max: 32,
        step_tokens_max: case.step_rows_max,
        block_size_tokens: 16,
        kv_memory: KvMemory::AtMost(1 << 30),
        kv_dtype: None,
    };
    let opened = open(&files.checkpoint, &options, backend, clock).unwrap();
    let vocab = opened.info.vocab_size;
    let config = EngineConfig {
        step_rows_max: case.step_rows_max,
        running_max: 32,
        ..EngineConfig::new([1; 32])
    };
    let (engine, handle) = Engine::new(config, Box::new(opened.runner));
    (engine, handle, vocab)
}

fn config_folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("half-billion");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config.json"), HALF_BILLION).unwrap();
    folder
}

impl Callers {
    fn refill(&mut self) {
        self.streams.retain_mut(|stream| {
            loop {
                match stream.try_next() {
                    Some(event) if event.is_terminal() => break false,
                    Some(_) => {}
                    None => break true,
                }
            }
        });
        if self.rng.below(40) == 0 {
            self.wanted = 1 + self.rng.below(24) as usize;
        }
        while self.streams.len() < self.wanted {
            self.submit();
        }
    }

    fn submit(&mut self) {
        self.next_id += 1;
        let id = RequestId(self.next_id);
        let most = if self.rng.below(2) == 0 { self.prompt_tokens_max } else { 20 };
        let length = 1 + self.rng.below(most);
        let prompt: Arc<[TokenId]> =
            (0..length).map(|_| TokenId(self.rng.below(self.vocab))).collect();
        let max_tokens = 1 + self.rng.below(80);
        let (reply, stream) = reply_channel(id, prompt.len(), 1, max_tokens, self.handle.cancels());
        let submission = Submission {
            id,
            tenant: TenantId(0),
            share: Share::default(),
            cache_salt: Arc::from(""),
            prompt,
            params: vec![Arc::new(SamplingParams::greedy())],
            max_tokens,
            stops: Stops::default(),
            score_prompt: None,
            priority: 0,
            arrived: self.clock.now(),
            promise: None,
            deadline: None,
            tpot: None,
            reply,
        };
        self.handle.submit(submission).unwrap();
        self.streams.push(stream);
    }
}
