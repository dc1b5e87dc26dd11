//! Settings: raw flags and file in, one checked value out, immutable afterwards.

mod foreign;
mod limits;
mod raw;
mod size;
mod tenant;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};
use thiserror::Error;

pub use limits::{ListenerLimits, QueueLimits, RequestLimits};
pub use raw::{
    Cli, Command, DeviceChoice, FloatType, LoadFormat, LogFormat, MetricsCompat, RawConfig,
    ServeArgs,
};
pub use size::Count;
pub use tenant::{Class, Tenancy, TenantSettings};

/// Why settings are not usable.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The settings file.
    #[error("settings file {path}: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A value.
    #[error("--{name}: {reason}")]
    Value {
        /// The setting.
        name: &'static str,
        /// What is wrong and what is expected.
        reason: String,
    },
}

/// All settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// What to serve.
    pub model: ModelConfig,
    /// What runs it, and how much at once.
    pub engine: EngineSettings,
    /// The HTTP side.
    pub server: ServerConfig,
    /// Log lines.
    pub log: LogConfig,
}

/// What to serve.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// As given: folder, file, hub id or "demo".
    pub model: String,
    /// Names for requests; empty: derived from `model`.
    pub served_names: Vec<String>,
    /// Tokenizer elsewhere.
    pub tokenizer: Option<PathBuf>,
    /// Template file.
    pub chat_template: Option<PathBuf>,
    /// Files or random weights.
    pub load_format: LoadFormat,
    /// Type of random weights.
    pub dtype: FloatType,
    /// Context bound; `None`: the model's.
    pub context_tokens_max: Option<u32>,
    /// Seed of random weights; requests without a seed derive theirs from it unless it is 0.
    pub seed: u64,
    /// Where the Hugging Face tools keep downloaded models.
    pub hub_cache: Option<PathBuf>,
}

/// What runs the model.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// Device.
    pub device: DeviceChoice,
    /// CPU threads; `None`: all cores.
    pub threads: Option<u32>,
    /// Sequences at once.
    pub sequences_max: u32,
    /// Tokens of a step.
    pub step_tokens_max: u32,
    /// Tokens of a KV block.
    pub block_size_tokens: u32,
    /// KV memory; `None`: by `memory_share`.
    pub kv_bytes: Option<u64>,
    /// Share of free memory for weights and KV.
    pub memory_share: f64,
    /// KV type.
    pub kv_dtype: FloatType,
    /// Whether equal prompt beginnings share blocks.
    pub prefix_caching: bool,
    /// The simulated device.
    pub sim: SimSettings,
}

/// Cost of a simulated step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SimSettings {
    /// Every step.
    pub step_us: f64,
    /// Each prefill token.
    pub prefill_token_us: f64,
    /// Each decoding sequence.
    pub sequence_us: f64,
    /// Each token of context.
    pub context_token_ns: f64,
    /// KV blocks.
    pub blocks: u32,
    /// Seed of its tokens.
    pub seed: u64,
}

/// The HTTP side.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Address.
    pub host: IpAddr,
    /// Port; 0: any free one.
    pub port: u16,
    /// Keys; empty: none needed.
    pub api_keys: Vec<String>,
    /// How long running answers may take to finish when the server stops.
    pub drain_timeout: Duration,
    /// Whether vLLM's metric names are added.
    pub vllm_metrics: bool,
    /// Tenants and what they may do.
    pub tenancy: Tenancy,
    /// Bounds of the queue.
    pub queue: QueueLimits,
    /// Bounds of a request.
    pub request: RequestLimits,
    /// Bounds of a connection.
    pub listener: ListenerLimits,
}

/// Log lines.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Text or JSON.
    pub format: LogFormat,
    /// Filter.
    pub level: String,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Request {
    /// Serve with these settings.
    Serve(Box<Config>),
    /// Print the settings and exit.
    Print(Box<Config>),
}

/// Reads the command line, the environment and the settings file it names.
///
/// # Errors
/// A `clap` error for the command line itself (help and version among them, to be printed by its
/// `exit`), or a [`ConfigError`] inside one of the same kind.
pub fn read<I, S>(args: I) -> Result<Request, clap::Error>
where
    I: IntoIterator<Item = S>,
    S: Into<std::ffi::OsString> + Clone,
{
    let matches = Cli::command().try_get_matches_from(args).map_err(explain)?;
    let cli = Cli::from_arg_matches(&matches)?;
    let args = match cli.command {
        Some(Command::Serve(args)) => *args,
        None => cli.serve,
    };
    let print = args.print_config;
    let config = resolve(args)
        .map_err(|error| Cli::command().error(ErrorKind::ValueValidation, error.to_string()))?;
    let config = Box::new(config);
    Ok(if print { Request::Print(config) } else { Request::Serve(config) })
}

/// Adds what is known of vLLM's flags to clap's "unexpected argument".
fn explain(error: clap::Error) -> clap::Error {
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg)
        && let Some(advice) = foreign::advice(flag)
    {
        return Cli::command().error(ErrorKind::UnknownArgument, advice);
    }
    error
}

fn resolve(args: ServeArgs) -> Result<Config, ConfigError> {
    let file = match &args.config {
        Some(path) => read_file(path)?,
        None => RawConfig::default(),
    };
    let mut settings = args.settings;
    settings.model = settings.model.or(args.positional_model);
    if args.no_enable_prefix_caching {
        settings.enable_prefix_caching = Some(false);
    }
    Config::check(settings.or(file), hub_cache())
}

#[allow(clippy::disallowed_methods, reason = "settings are read from the environment here")]
fn hub_cache() -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).map(PathBuf::from);
    var("HF_HUB_CACHE")
        .or_else(|| var("HF_HOME").map(|home| home.join("hub")))
        .or_else(|| var("HOME").map(|home| home.join(".cache/huggingface/hub")))
}

fn read_file(path: &Path) -> Result<RawConfig, ConfigError> {
    let wrong = |reason: String| ConfigError::File { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| wrong(e.to_string()))?;
    let mut normal = toml::Table::new();
    for (key, value) in table {
        let name = key.replace('-', "_");
        if !RawConfig::NAMES.contains(&name.as_str()) {
            let nearest = nearest(&name, RawConfig::NAMES);
            return Err(wrong(match (foreign::advice(&key), nearest) {
                (Some(advice), _) => advice,
                (None, Some(near)) => format!("unknown setting {key:?}; did you mean {near:?}?"),
                (None, None) => format!("unknown setting {key:?}; see `weir serve --help`"),
            }));
        }
        normal.insert(name, value);
    }
    normal.try_into().map_err(|e: toml::de::Error| wrong(e.to_string()))
}

/// The known name that differs least from `name`, if it is near enough to be a slip.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let near = known.iter().map(|k| (strsim::damerau_levenshtein(name, k), *k)).min()?;
    (near.0 <= 1 + name.len() / 4).then_some(near.1)
}

impl Config {
    /// Checks raw settings and fills in defaults. `hub_cache` is where downloaded models lie.
    ///
    /// # Errors
    /// [`ConfigError::Value`] naming the setting.
    pub fn check(raw: RawConfig, hub_cache: Option<PathBuf>) -> Result<Self, ConfigError> {
        refuse_foreign_values(&raw)?;
        let server = server_config(&raw)?;
        let engine = engine_settings(&raw)?;
        let log = LogConfig {
            format: raw.log_format.unwrap_or(LogFormat::Text),
            level: raw.log_level.unwrap_or_else(|| "info".to_owned()),
        };
        let context_tokens_max =
            raw.max_model_len.map(|n| bounded("max-model-len", n, 2, 1 << 24)).transpose()?;
        let model = ModelConfig {
            model: raw.model.unwrap_or_else(|| "demo".to_owned()),
            served_names: raw.served_model_name.unwrap_or_default(),
            tokenizer: raw.tokenizer,
            chat_template: raw.chat_template,
            load_format: raw.load_format.unwrap_or(LoadFormat::Auto),
            dtype: raw.dtype.unwrap_or(FloatType::Auto),
            context_tokens_max,
            seed: raw.seed.unwrap_or(0),
            hub_cache,
        };
        Ok(Self { model, engine, server, log })
    }
}

fn refuse_foreign_values(raw: &RawConfig) -> Result<(), ConfigError> {
    if raw.tensor_parallel_size.is_some_and(|n| n != 1) {
        let reason = "one device runs the model today; only 1 is valid".to_owned();
        return Err(ConfigError::Value { name: "tensor-parallel-size", reason });
    }
    if let Some(kind) = raw.quantization.as_deref()
        && !matches!(kind, "none" | "gguf")
    {
        let reason = format!(
            "{kind:?} is not supported; quantised weights are read from .gguf files (Q8_0, Q4_0, \
             Q4_K, Q5_K, Q6_K) without this flag"
        );
        return Err(ConfigError::Value { name: "quantization", reason });
    }
    let dummy = raw.load_format == Some(LoadFormat::Dummy);
    if !dummy && raw.dtype.is_some_and(|t| t != FloatType::Auto) {
        let reason = "weights from files keep their stored type; this flag sets the type of \
                      --load-format dummy weights (see also --kv-cache-dtype)"
            .to_owned();
        return Err(ConfigError::Value { name: "dtype", reason });
    }
    Ok(())
}

fn server_config(raw: &RawConfig) -> Result<ServerConfig, ConfigError> {
    let host = raw.host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let api_keys = raw.api_key.clone().unwrap_or_default();
    if api_keys.iter().any(String::is_empty) {
        let reason = "a key must not be empty".to_owned();
        return Err(ConfigError::Value { name: "api-key", reason });
    }
    if api_keys.is_empty() && !host.is_loopback() && raw.insecure_no_auth != Some(true) {
        let reason = format!(
            "{host} is not a loopback address and no --api-key is set: anybody who reaches this \
             machine could use it. Set --api-key, or say --insecure-no-auth"
        );
        return Err(ConfigError::Value { name: "host", reason });
    }
    let defaults = QueueLimits::default();
    let queue = QueueLimits {
        requests_max: count("max-num-queued-reqs", raw.max_num_queued_reqs, 1, 1 << 24)?
            .unwrap_or(defaults.requests_max),
        tokens_max: raw.max_num_queued_tokens.map_or(defaults.tokens_max, |c| c.0),
        ..defaults
    };
    Ok(ServerConfig {
        host,
        port: raw.port.unwrap_or(8000),
        api_keys,
        drain_timeout: seconds("drain-timeout", raw.drain_timeout, 30.0)?,
        vllm_metrics: raw.metrics_compat == Some(MetricsCompat::Vllm),
        tenancy: Tenancy::default(),
        queue,
        request: request_limits(raw)?,
        listener: listener_limits(raw)?,
    })
}

fn request_limits(raw: &RawConfig) -> Result<RequestLimits, ConfigError> {
    let d = RequestLimits::default();
    let body = count("max-body-bytes", raw.max_body_bytes, 1024, 1 << 30)?;
    let default_output = count("default-max-tokens", raw.default_max_tokens, 1, 1 << 24)?;
    Ok(RequestLimits {
        body_bytes_max: body.map_or(d.body_bytes_max, |n| n as usize),
        choices_max: ranged("max-choices", raw.max_choices, 1, 128)?.unwrap_or(d.choices_max),
        logprobs_max: ranged("max-logprobs", raw.max_logprobs, 0, 128)?.unwrap_or(d.logprobs_max),
        stops_max: ranged("max-stops", raw.max_stops, 1, 64)?.map_or(d.stops_max, |n| n as usize),
        default_output_tokens: default_output.unwrap_or(d.default_output_tokens),
        ..d
    })
}

fn listener_limits(raw: &RawConfig) -> Result<ListenerLimits, ConfigError> {
    let d = ListenerLimits::default();
    let total = count("max-connections", raw.max_connections, 1, 1 << 20)?;
    let single = count("max-connections-per-address", raw.max_connections_per_address, 1, 1 << 20)?;
    let stall = seconds("write-stall-timeout", raw.write_stall_timeout, 30.0)?;
    Ok(ListenerLimits {
        connections_max: total.map_or(d.connections_max, |n| n as usize),
        connections_per_address_max: single.map_or(d.connections_per_address_max, |n| n as usize),
        write_stall_timeout: stall,
        ..d
    })
}

fn engine_settings(raw: &RawConfig) -> Result<EngineSettings, ConfigError> {
    let block_size_tokens = raw.block_size.unwrap_or(16);
    if !block_size_tokens.is_power_of_two() || !(8..=256).contains(&block_size_tokens) {
        let reason = format!("{block_size_tokens} is not one of 8, 16, 32, 64, 128, 256");
        return Err(ConfigError::Value { name: "block-size", reason });
    }
    let memory_share = raw.gpu_memory_utilization.unwrap_or(0.5);
    if !(memory_share > 0.0 && memory_share <= 1.0) {
        let reason = format!("{memory_share} is not above 0 and at most 1");
        return Err(ConfigError::Value { name: "gpu-memory-utilization", reason });
    }
    let sim = SimSettings {
        step_us: cost("sim-step-us", raw.sim_step_us, 5000.0)?,
        prefill_token_us: cost("sim-prefill-token-us", raw.sim_prefill_token_us, 16.0)?,
        sequence_us: cost("sim-sequence-us", raw.sim_sequence_us, 3.0)?,
        context_token_ns: cost("sim-context-token-ns", raw.sim_context_token_ns, 33.0)?,
        blocks: count("sim-blocks", raw.sim_blocks, 1, 1 << 26)?.unwrap_or(25_000),
        seed: raw.sim_seed.unwrap_or(0),
    };
    let sequences_max = count("max-num-seqs", raw.max_num_seqs, 1, 1 << 16)?.unwrap_or(128);
    let step_tokens = count("max-num-batched-tokens", raw.max_num_batched_tokens, 1, 1 << 20)?;
    // Every running sequence has to get its token in every step, whoever else runs.
    let step_tokens_max = step_tokens.unwrap_or(sequences_max.max(512));
    if step_tokens_max < sequences_max {
        let reason = format!("{step_tokens_max} is below --max-num-seqs ({sequences_max})");
        return Err(ConfigError::Value { name: "max-num-batched-tokens", reason });
    }
    Ok(EngineSettings {
        device: raw.device.unwrap_or(DeviceChoice::Auto),
        threads: ranged("threads", raw.threads, 1, 1024)?,
        sequences_max,
        step_tokens_max,
        block_size_tokens,
        kv_bytes: raw.kv_cache_memory_bytes.map(|c| c.0),
        memory_share,
        kv_dtype: raw.kv_cache_dtype.unwrap_or(FloatType::Auto),
        prefix_caching: raw.enable_prefix_caching.unwrap_or(true),
        sim,
    })
}

fn bounded(name: &'static str, value: Count, low: u64, high: u64) -> Result<u32, ConfigError> {
    match u32::try_from(value.0) {
        Ok(n) if (low..=high).contains(&value.0) => Ok(n),
        _ => {
            let reason = format!("{} is not between {low} and {high}", value.0);
            Err(ConfigError::Value { name, reason })
        }
    }
}

fn count(
    name: &'static str,
    value: Option<Count>,
    low: u64,
    high: u64,
) -> Result<Option<u32>, ConfigError> {
    value.map(|v| bounded(name, v, low, high)).transpose()
}

fn ranged(
    name: &'static str,
    value: Option<u32>,
    low: u64,
    high: u64,
) -> Result<Option<u32>, ConfigError> {
    count(name, value.map(|v| Count(u64::from(v))), low, high)
}

fn seconds(name: &'static str, value: Option<f64>, default: f64) -> Result<Duration, ConfigError> {
    let value = value.unwrap_or(default);
    Duration::try_from_secs_f64(value).ok().filter(|d| d.as_secs() <= 86_400).ok_or_else(|| {
        let reason = format!("{value} is not a number of seconds between 0 and 86400");
        ConfigError::Value { name, reason }
    })
}

fn cost(name: &'static str, value: Option<f64>, default: f64) -> Result<f64, ConfigError> {
    let value = value.unwrap_or(default);
    if (0.0..=1e9).contains(&value) {
        return Ok(value);
    }
    let reason = format!("{value} is not between 0 and 1,000,000,000");
    Err(ConfigError::Value { name, reason })
}

#[cfg(test)]
mod tests;
