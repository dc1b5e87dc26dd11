//! Settings: raw flags and file in, one checked value out, immutable afterwards.

mod command;
mod foreign;
mod limits;
mod raw;
mod secret;
mod size;
mod source;
mod span;
mod tenancy;
mod tenant;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

pub use command::{KeysAction, KeysArgs, UsageArgs, UsageFormat};
pub use limits::{LedgerLimits, ListenerLimits, QueueLimits, RequestLimits};
pub use raw::{
    Cli, Command, DeviceChoice, FloatType, LoadFormat, LogFormat, MetricsCompat, RawConfig,
    ServeArgs,
};
pub use secret::Secret;
pub use size::Count;
pub use source::{KeysRequest, Places, Request, Source, UsageRequest, read};
pub use span::Span;
pub use tenant::{Class, Tenancy, TenantSettings};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Bytes of a key of `--api-key`: what clients send is hashed, so it has to be short.
pub const API_KEY_BYTES_MAX: usize = 512;

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
    /// Where all this came from, to read it again; `None`: from a program's own code.
    pub source: Option<Source>,
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
    /// Where the admin routes are served; `None`: nowhere.
    pub admin: Option<SocketAddr>,
    /// Where `/metrics` and `/load` are served; `None`: beside the inference routes.
    pub metrics: Option<SocketAddr>,
    /// Keys of the tenant "default", beside those of the key file.
    pub api_keys: Vec<Secret>,
    /// Whether other than loopback addresses may be served without any key.
    pub insecure_no_auth: bool,
    /// Where keys and the ledger live; created (mode 0700) when something is first kept there.
    /// `None` when neither a setting nor the environment names a folder.
    pub state_dir: Option<PathBuf>,
    /// Where the ledger of token budgets and usage lies: in `state_dir`, when a setting names that
    /// folder or a tenant has a budget. `None`: in memory. One server at a time can use a folder,
    /// and servers that bound nobody should not have to care.
    pub ledger_dir: Option<PathBuf>,
    /// How long running answers may take to finish when the server stops.
    pub drain_timeout: Duration,
    /// Whether vLLM's metric names are added.
    pub vllm_metrics: bool,
    /// Tenants and what they may do.
    pub tenancy: Tenancy,
    /// Bounds of the queue.
    pub queue: QueueLimits,
    /// Bounds of the ledger.
    pub ledger: LedgerLimits,
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

impl Config {
    /// Checks raw settings and fills in defaults.
    ///
    /// # Errors
    /// [`ConfigError::Value`] naming the setting.
    pub fn check(raw: RawConfig, tenancy: Tenancy, places: &Places) -> Result<Self, ConfigError> {
        refuse_foreign_values(&raw)?;
        let server = server_config(&raw, tenancy, places)?;
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
            hub_cache: places.hub_cache.clone(),
        };
        Ok(Self { model, engine, server, log, source: None })
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

fn server_config(
    raw: &RawConfig,
    tenancy: Tenancy,
    places: &Places,
) -> Result<ServerConfig, ConfigError> {
    let host = raw.host.unwrap_or(LOOPBACK);
    let api_keys = raw.api_key.clone().unwrap_or_default();
    let fits = |key: &Secret| (1..=API_KEY_BYTES_MAX).contains(&key.reveal().len());
    if !api_keys.iter().all(fits) {
        let reason = format!("a key has to have 1 to {API_KEY_BYTES_MAX} bytes");
        return Err(ConfigError::Value { name: "api-key", reason });
    }
    let defaults = QueueLimits::default();
    let queue = QueueLimits {
        requests_max: count("max-num-queued-reqs", raw.max_num_queued_reqs, 1, 1 << 24)?
            .unwrap_or(defaults.requests_max),
        tokens_max: raw.max_num_queued_tokens.map_or(defaults.tokens_max, |c| c.0),
        ..defaults
    };
    let state_dir = raw.state_dir.clone().or_else(|| places.state_dir.clone());
    Ok(ServerConfig {
        host,
        port: raw.port.unwrap_or(8000),
        admin: second_listener("admin-host", raw.admin_host, "--admin-port", raw.admin_port)?,
        metrics: second_listener(
            "metrics-host",
            raw.metrics_host,
            "--metrics-port",
            raw.metrics_port,
        )?,
        api_keys,
        insecure_no_auth: raw.insecure_no_auth == Some(true),
        ledger_dir: state_dir.clone().filter(|_| raw.state_dir.is_some() || tenancy.has_budget()),
        state_dir,
        drain_timeout: seconds("drain-timeout", raw.drain_timeout, 30.0)?,
        vllm_metrics: raw.metrics_compat == Some(MetricsCompat::Vllm),
        tenancy,
        queue,
        ledger: LedgerLimits::default(),
        request: request_limits(raw)?,
        listener: listener_limits(raw)?,
    })
}

/// A listener that exists when its port is set.
fn second_listener(
    host_name: &'static str,
    host: Option<IpAddr>,
    port_flag: &str,
    port: Option<u16>,
) -> Result<Option<SocketAddr>, ConfigError> {
    if host.is_some() && port.is_none() {
        let reason = format!("it has no effect without {port_flag}");
        return Err(ConfigError::Value { name: host_name, reason });
    }
    Ok(port.map(|port| SocketAddr::new(host.unwrap_or(LOOPBACK), port)))
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
