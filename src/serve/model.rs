//! From settings to a device that runs the model, the text room that speaks for it, and its card.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::backend::cpu::{CpuBackend, CpuOptions, available_bytes};
use crate::backend::{Backend, DType};
use crate::clock::Clock;
use crate::config::{Config, DeviceChoice, FloatType, LoadFormat};
use crate::device::sim::{Pace, SimConfig, SimCost, SimDevice, SimFaults};
use crate::device::{Device, DeviceLimits};
use crate::http::{ModelCard, SamplingDefaults};
use crate::ids::TokenId;
use crate::model::source::{self, ModelFiles, SourceOptions, TokenizerFiles};
use crate::model::weights::DummyWeights;
use crate::model::{KvMemory, ModelInfo, OpenOptions};
use crate::text::{Text, TextLimits, TokenizerSource, Vocabulary};

/// Context of the simulated device when --max-model-len says nothing.
const SIM_CONTEXT_TOKENS: u32 = 8192;
/// What a machine is taken to have when it does not say how much memory is free.
const UNKNOWN_MEMORY_BYTES: u64 = 4 << 30;
/// Bounds of what a request's text may cost (R12): a long conversation under a large template
/// takes some hundred thousand instructions.
const TEXT_LIMITS: TextLimits =
    TextLimits { template_fuel: 10_000_000, rendered_bytes_max: 8 << 20 };

/// A model, ready to be joined with the rooms above it.
pub(super) struct Loaded {
    pub(super) device: Box<dyn Device>,
    pub(super) text: Arc<Text>,
    pub(super) card: ModelCard,
    /// For the greeting: what it is, in one line.
    pub(super) summary: String,
    /// Labels of vLLM's `cache_config_info`.
    pub(super) cache_labels: Vec<(&'static str, String)>,
}

/// Finds and loads the model that the settings name.
pub(super) fn load(config: &Config, clock: Arc<dyn Clock>) -> Result<Loaded> {
    let files = source::resolve(&config.model.model, &source_options(config)?)?;
    let template = config.model.chat_template.as_deref().map(read_template).transpose()?;
    if config.engine.device == DeviceChoice::Sim {
        return simulated(config, clock, files, template);
    }
    let generation = files.checkpoint.generation_config.clone();
    let (device, info) = open(config, Arc::clone(&clock), &files)?;
    for warning in &info.warnings {
        tracing::warn!("{warning}");
    }
    let source = tokenizer_source(files.tokenizer, info.vocab_size);
    let text = Arc::new(Text::open(source, template, TEXT_LIMITS)?);
    let card = ModelCard {
        names: names(config, &info.name),
        max_model_len: info.context_tokens,
        vocab_size: info.vocab_size,
        created_unix_s: clock.unix_s(),
        eos: eos(&info.eos, &text),
        defaults: sampling_defaults(generation.as_ref()),
        fingerprint: fingerprint(&info),
    };
    let summary = format!(
        "{} ({}, {} parameters, {:?}, context {} tokens, KV cache {} MiB)",
        card.name(),
        info.architecture,
        count(info.parameters),
        info.dtype,
        info.context_tokens,
        info.kv_bytes >> 20,
    );
    let cache_labels = cache_labels(config, device.limits(), &format!("{:?}", info.kv_dtype));
    Ok(Loaded { device, text, card, summary, cache_labels })
}

fn open(
    config: &Config,
    clock: Arc<dyn Clock>,
    files: &ModelFiles,
) -> Result<(Box<dyn Device>, ModelInfo)> {
    let mut options = CpuOptions::default();
    if let Some(threads) = config.engine.threads.and_then(|n| NonZeroUsize::new(n as usize)) {
        options.threads = threads;
    }
    let backend = CpuBackend::new(&options)?;
    tracing::info!(backend = backend.describe(), "the model runs on the CPU");
    let opened = crate::model::open(&files.checkpoint, &open_options(config), backend, clock)?;
    Ok((Box::new(opened.runner), opened.info))
}

fn open_options(config: &Config) -> OpenOptions {
    let engine = &config.engine;
    let free = available_bytes().unwrap_or(UNKNOWN_MEMORY_BYTES);
    let share = (free as f64 * engine.memory_share) as u64;
    OpenOptions {
        context_tokens_max: config.model.context_tokens_max,
        sequences_max: engine.sequences_max,
        step_tokens_max: engine.step_tokens_max,
        block_size_tokens: engine.block_size_tokens,
        kv_memory: engine.kv_bytes.map_or(KvMemory::AtMost(share), KvMemory::Bytes),
        kv_dtype: float_type(engine.kv_dtype),
    }
}

/// The simulated device: the model's tokenizer, no weights, steps that take the time they cost.
fn simulated(
    config: &Config,
    clock: Arc<dyn Clock>,
    files: ModelFiles,
    template: Option<String>,
) -> Result<Loaded> {
    let vocab = files.checkpoint.config.get("vocab_size").and_then(Value::as_u64);
    let vocab = vocab.and_then(|n| u32::try_from(n).ok()).unwrap_or(256);
    let text =
        Arc::new(Text::open(tokenizer_source(files.tokenizer, vocab), template, TEXT_LIMITS)?);
    let vocab_size = text.vocab_size();
    let (engine, sim) = (&config.engine, config.engine.sim);
    let limits = DeviceLimits {
        block_size_tokens: engine.block_size_tokens,
        blocks_total: sim.blocks,
        step_rows_max: engine.step_tokens_max,
        slots_total: engine.sequences_max,
        context_tokens_max: config.model.context_tokens_max.unwrap_or(SIM_CONTEXT_TOKENS),
        vocab_size,
        steps_in_flight_max: 1,
        computes_in_submit: false,
    };
    let cost = SimCost {
        fixed: micros(sim.step_us),
        per_prefill_row: micros(sim.prefill_token_us),
        per_sequence: micros(sim.sequence_us),
        per_1024_context_tokens: micros(sim.context_token_ns * 1.024),
    };
    let device = SimDevice::new(
        SimConfig {
            limits: limits.clone(),
            cost,
            faults: SimFaults { seed: sim.seed, ..SimFaults::default() },
            sampled: plain_tokens(&text),
            eos: None,
            verify: false,
        },
        Pace::Wall(Arc::clone(&clock)),
    );
    let card = ModelCard {
        names: names(config, &files.checkpoint.name),
        max_model_len: limits.context_tokens_max,
        vocab_size,
        created_unix_s: clock.unix_s(),
        eos: eos(&[], &text),
        defaults: SamplingDefaults::default(),
        fingerprint: format!("sim-{:x}", sim.seed),
    };
    let summary = format!(
        "{} on a simulated device ({} KV blocks; its answers mean nothing)",
        card.name(),
        limits.blocks_total
    );
    let cache_labels = cache_labels(config, &limits, "sim");
    Ok(Loaded { device: Box::new(device), text, card, summary, cache_labels })
}

/// The longest run of ids that are text, so that simulated answers can be read.
fn plain_tokens(text: &Text) -> std::ops::Range<u32> {
    let (mut best, mut start) = (0..1, 0);
    for id in 0..=text.vocab_size() {
        let token = TokenId(id);
        let plain = id < text.vocab_size()
            && !text.is_special(token)
            && std::str::from_utf8(&text.token_bytes(token)).is_ok_and(|t| !t.is_empty());
        if !plain {
            if id - start > best.end - best.start {
                best = start..id;
            }
            start = id + 1;
        }
    }
    best
}

fn source_options(config: &Config) -> Result<SourceOptions> {
    let dummy = match config.model.load_format {
        LoadFormat::Auto => None,
        LoadFormat::Dummy => {
            let dtype = float_type(config.model.dtype).unwrap_or(DType::BF16);
            Some(DummyWeights::new(dtype, config.model.seed)?)
        }
    };
    Ok(SourceOptions {
        hub_cache: config.model.hub_cache.clone(),
        tokenizer: config.model.tokenizer.clone(),
        dummy,
    })
}

fn read_template(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("--chat-template {}", path.display()))
}

fn tokenizer_source(files: TokenizerFiles, vocab_size: u32) -> TokenizerSource {
    match files {
        TokenizerFiles::HuggingFace {
            tokenizer_json,
            tokenizer_config,
            special_tokens_map,
            chat_template,
        } => TokenizerSource::HuggingFace {
            tokenizer_json,
            tokenizer_config,
            special_tokens_map,
            chat_template,
        },
        TokenizerFiles::Gguf(tables) => TokenizerSource::Vocabulary(Box::new(Vocabulary {
            model: tables.model,
            pre: tables.pre,
            tokens: tables.tokens,
            scores: tables.scores,
            types: tables.types,
            merges: tables.merges,
            bos: tables.bos,
            eos: tables.eos,
            unknown: tables.unknown,
            padding: tables.padding,
            add_bos: tables.add_bos,
            add_eos: tables.add_eos,
            add_space_prefix: tables.add_space_prefix,
            chat_template: tables.chat_template,
        })),
        TokenizerFiles::None => TokenizerSource::Bytes { vocab_size },
    }
}

/// The names that requests may use: those given, else the model's own and, where it is longer, what
/// the user wrote after `--model`.
fn names(config: &Config, own: &str) -> Vec<String> {
    if !config.model.served_names.is_empty() {
        return config.model.served_names.clone();
    }
    let mut names = vec![own.to_owned()];
    if config.model.model != own {
        names.push(config.model.model.clone());
    }
    names
}

fn eos(of_model: &[TokenId], text: &Text) -> Arc<[TokenId]> {
    let mut all = of_model.to_vec();
    all.extend(text.eos());
    all.sort_unstable();
    all.dedup();
    all.into()
}

/// The model's own sampling settings, as every peer reads them from generation_config.json.
fn sampling_defaults(generation: Option<&Value>) -> SamplingDefaults {
    let default = SamplingDefaults::default();
    let Some(generation) = generation else { return default };
    let number = |name: &str| generation.get(name).and_then(Value::as_f64).map(|n| n as f32);
    let top_k = generation.get("top_k").and_then(Value::as_u64);
    SamplingDefaults {
        temperature: number("temperature").unwrap_or(default.temperature),
        top_p: number("top_p").unwrap_or(default.top_p),
        top_k: top_k.and_then(|k| u32::try_from(k).ok()).unwrap_or(default.top_k),
        min_p: number("min_p").unwrap_or(default.min_p),
        repetition_penalty: number("repetition_penalty").unwrap_or(default.repetition_penalty),
    }
}

/// Differs whenever the same seed may give other tokens.
fn fingerprint(info: &ModelInfo) -> String {
    let what = format!(
        "{} {} {} {:?} {:?} {} {}",
        env!("CARGO_PKG_VERSION"),
        info.architecture,
        info.parameters,
        info.dtype,
        info.kv_dtype,
        info.weight_bytes,
        info.name,
    );
    format!("fp_{}", &blake3::hash(what.as_bytes()).to_hex()[..12])
}

fn cache_labels(
    config: &Config,
    limits: &DeviceLimits,
    dtype: &str,
) -> Vec<(&'static str, String)> {
    let tokens = u64::from(limits.blocks_total) * u64::from(limits.block_size_tokens);
    vec![
        ("block_size", limits.block_size_tokens.to_string()),
        ("num_gpu_blocks", limits.blocks_total.to_string()),
        ("cache_dtype", dtype.to_lowercase()),
        ("enable_prefix_caching", config.engine.prefix_caching.to_string()),
        ("gpu_memory_utilization", config.engine.memory_share.to_string()),
        ("kv_cache_size_tokens", tokens.to_string()),
    ]
}

fn float_type(choice: FloatType) -> Option<DType> {
    match choice {
        FloatType::Auto => None,
        FloatType::Float16 => Some(DType::F16),
        FloatType::Bfloat16 => Some(DType::BF16),
        FloatType::Float32 => Some(DType::F32),
    }
}

fn micros(us: f64) -> Duration {
    Duration::from_nanos((us * 1000.0) as u64)
}

/// 4,194,304 as "4.2 M".
fn count(number: u64) -> String {
    match number {
        0..1_000_000 => number.to_string(),
        1_000_000..1_000_000_000 => format!("{:.1} M", number as f64 / 1e6),
        _ => format!("{:.1} B", number as f64 / 1e9),
    }
}
