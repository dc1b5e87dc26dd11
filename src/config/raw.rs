//! Settings as a person writes them: flags, environment (`WEIR_…`) and one TOML file whose keys
//! are the flags' names. Flags win over the environment, that over the file, that over defaults.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;

use super::command::{KeysArgs, UsageArgs};
use super::secret::Secret;
use super::size::Count;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version,
    about = "Serves open LLMs to many tenants and keeps its promises",
    long_about = "Serves open LLMs over an OpenAI-compatible HTTP API.\n\n\
        Without arguments it serves the built-in demo model on http://127.0.0.1:8000/v1.",
    args_conflicts_with_subcommands = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What to do; without one, `serve`.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Settings of `serve`.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a model (what `weir` alone does with the demo model)
    Serve(Box<ServeArgs>),
    /// Create, show, rotate, revoke and expire API keys
    Keys(KeysArgs),
    /// Show what tenants have used, from the ledger; also while the server runs
    Usage(UsageArgs),
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Model to serve, as --model
    #[arg(value_name = "MODEL", conflicts_with = "model")]
    pub positional_model: Option<String>,
    /// TOML file with settings under the long names of these flags, and with tenants
    /// ([tenants.NAME], [tenant-defaults]); SIGHUP reads tenants and keys again
    #[arg(long, value_name = "FILE", env = "WEIR_CONFIG")]
    pub config: Option<PathBuf>,
    /// Print the settings in force and exit
    #[arg(long)]
    pub print_config: bool,
    /// Turn prefix caching off, as --enable-prefix-caching=false
    #[arg(long, conflicts_with = "enable_prefix_caching")]
    pub no_enable_prefix_caching: bool,
    /// The settings that a file may hold too.
    #[command(flatten)]
    pub settings: RawConfig,
}

/// What runs the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DeviceChoice {
    /// The best there is: today always the CPU
    Auto,
    /// The CPU
    Cpu,
    /// A simulated device: no model is computed, steps take the time that --sim-* say
    Sim,
}

/// Where weights come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LoadFormat {
    /// The model's files
    Auto,
    /// Seeded random weights of the shapes that config.json asks for
    Dummy,
}

/// A float type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum FloatType {
    /// As the model's weights
    Auto,
    /// IEEE half
    #[value(alias = "half", alias = "f16")]
    #[serde(alias = "half", alias = "f16")]
    Float16,
    /// bfloat16
    #[value(alias = "bf16")]
    #[serde(alias = "bf16")]
    Bfloat16,
    /// IEEE single
    #[value(alias = "float", alias = "f32")]
    #[serde(alias = "float", alias = "f32")]
    Float32,
}

/// Whose metric names are added to our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum MetricsCompat {
    /// vLLM's
    Vllm,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people
    Text,
    /// For machines
    Json,
}

macro_rules! settings {
    ($($(#[$meta:meta])* $name:ident: $type:ty,)*) => {
        /// Settings, each absent unless somebody gave it.
        #[derive(Clone, Debug, Default, PartialEq, Args, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct RawConfig {
            $($(#[$meta])* pub $name: Option<$type>,)*
        }

        impl RawConfig {
            /// Names of all settings.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];

            /// These settings, and where one is absent that of `lower`.
            #[must_use]
            pub fn or(self, lower: RawConfig) -> RawConfig {
                RawConfig { $($name: self.$name.or(lower.$name),)* }
            }

            /// Names of the settings that differ from `other`'s, as flags are written.
            pub fn differences(&self, other: &RawConfig) -> Vec<String> {
                let mut names = Vec::new();
                $(if self.$name != other.$name {
                    names.push(stringify!($name).replace('_', "-"));
                })*
                names
            }
        }
    };
}

settings! {
    /// Model: a folder in Hugging Face layout, a .gguf file, a hub id in the local Hugging Face
    /// cache, or "demo"
    #[arg(long, short, env = "WEIR_MODEL", help_heading = "Model")]
    model: String,
    /// Name(s) that requests use for the model; the first is the one that answers carry
    #[arg(long, alias = "alias", env = "WEIR_SERVED_MODEL_NAME", value_delimiter = ',', num_args = 1.., help_heading = "Model")]
    served_model_name: Vec<String>,
    /// Tokenizer folder or tokenizer.json, when it is not with the model
    #[arg(long, env = "WEIR_TOKENIZER", help_heading = "Model")]
    tokenizer: PathBuf,
    /// Jinja file that replaces the model's chat template
    #[arg(long, env = "WEIR_CHAT_TEMPLATE", value_name = "FILE", help_heading = "Model")]
    chat_template: PathBuf,
    /// Where weights come from
    #[arg(long, env = "WEIR_LOAD_FORMAT", value_enum, help_heading = "Model")]
    load_format: LoadFormat,
    /// Type of --load-format dummy weights; weights from files keep their stored type
    #[arg(long, env = "WEIR_DTYPE", value_enum, help_heading = "Model")]
    dtype: FloatType,
    /// Accepted for vLLM's sake: quantised weights are recognised from their file, so only "gguf"
    /// (for a .gguf file) and "none" are valid
    #[arg(long, short, env = "WEIR_QUANTIZATION", help_heading = "Model")]
    quantization: String,
    /// Longest context (prompt plus output) in tokens, e.g. 4096 or 32k [default: the model's]
    #[arg(long, alias = "ctx-size", env = "WEIR_MAX_MODEL_LEN", help_heading = "Model")]
    max_model_len: Count,
    /// Seed of dummy weights, and of requests that name none (0: fresh randomness for those)
    #[arg(long, env = "WEIR_SEED", help_heading = "Model")]
    seed: u64,

    /// What runs the model
    #[arg(long, env = "WEIR_DEVICE", value_enum, help_heading = "Engine")]
    device: DeviceChoice,
    /// CPU threads [default: all cores]
    #[arg(long, env = "WEIR_THREADS", help_heading = "Engine")]
    threads: u32,
    /// Sequences that run at once
    #[arg(long, env = "WEIR_MAX_NUM_SEQS", help_heading = "Engine")]
    max_num_seqs: Count,
    /// Tokens of one step
    #[arg(long, env = "WEIR_MAX_NUM_BATCHED_TOKENS", help_heading = "Engine")]
    max_num_batched_tokens: Count,
    /// Tokens of a KV block
    #[arg(long, env = "WEIR_BLOCK_SIZE", help_heading = "Engine")]
    block_size: u32,
    /// Memory of the KV cache in bytes [default: what --gpu-memory-utilization leaves]
    #[arg(long, env = "WEIR_KV_CACHE_MEMORY_BYTES", help_heading = "Engine")]
    kv_cache_memory_bytes: Count,
    /// Share of free memory that weights and KV cache may take together
    #[arg(long, env = "WEIR_GPU_MEMORY_UTILIZATION", help_heading = "Engine")]
    gpu_memory_utilization: f64,
    /// Type of the KV cache
    #[arg(long, env = "WEIR_KV_CACHE_DTYPE", value_enum, help_heading = "Engine")]
    kv_cache_dtype: FloatType,
    /// Reuse the KV blocks of equal prompt beginnings (of one tenant)
    #[arg(long, env = "WEIR_ENABLE_PREFIX_CACHING", num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = "Engine")]
    enable_prefix_caching: bool,
    /// GPUs per model: only 1 today
    #[arg(long, short_alias = 't', env = "WEIR_TENSOR_PARALLEL_SIZE", help_heading = "Engine")]
    tensor_parallel_size: u32,

    /// Address to listen on
    #[arg(long, env = "WEIR_HOST", help_heading = "Server")]
    host: IpAddr,
    /// Port to listen on; 0 takes a free one
    #[arg(long, env = "WEIR_PORT", help_heading = "Server")]
    port: u16,
    /// API key(s) of the tenant "default"; see `weir keys` for keys of other tenants. Without any
    /// key only loopback addresses are served unless --insecure-no-auth says otherwise
    #[arg(long, env = "WEIR_API_KEY", value_delimiter = ',', num_args = 1.., hide_env_values = true, help_heading = "Server")]
    api_key: Vec<Secret>,
    /// Serve other than loopback addresses without any API key
    #[arg(long, env = "WEIR_INSECURE_NO_AUTH", num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = "Server")]
    insecure_no_auth: bool,
    /// Folder of keys and ledger [default: $XDG_STATE_HOME/weir or ~/.local/state/weir]
    #[arg(long, env = "WEIR_STATE_DIR", value_name = "DIR", help_heading = "Server")]
    state_dir: PathBuf,
    /// Port of the admin routes (/admin/v1), which are served nowhere without it; 0 takes a free
    /// one
    #[arg(long, env = "WEIR_ADMIN_PORT", value_name = "PORT", help_heading = "Server")]
    admin_port: u16,
    /// Address of the admin routes [default: 127.0.0.1]
    #[arg(long, env = "WEIR_ADMIN_HOST", value_name = "HOST", help_heading = "Server")]
    admin_host: IpAddr,
    /// Port of /metrics and /load, which are served beside the inference routes without it
    #[arg(long, env = "WEIR_METRICS_PORT", value_name = "PORT", help_heading = "Server")]
    metrics_port: u16,
    /// Address of /metrics and /load where they have a port of their own [default: 127.0.0.1]
    #[arg(long, env = "WEIR_METRICS_HOST", value_name = "HOST", help_heading = "Server")]
    metrics_host: IpAddr,
    /// Requests that may wait; one more is refused with 503
    #[arg(long, env = "WEIR_MAX_NUM_QUEUED_REQS", help_heading = "Server")]
    max_num_queued_reqs: Count,
    /// Prompt tokens that may wait; more are refused with 503
    #[arg(long, env = "WEIR_MAX_NUM_QUEUED_TOKENS", help_heading = "Server")]
    max_num_queued_tokens: Count,
    /// Seconds that running answers get to finish after Ctrl-C or SIGTERM
    #[arg(long, alias = "shutdown-timeout", env = "WEIR_DRAIN_TIMEOUT", help_heading = "Server")]
    drain_timeout: f64,
    /// Also emit another server's metric names
    #[arg(long, env = "WEIR_METRICS_COMPAT", value_enum, help_heading = "Server")]
    metrics_compat: MetricsCompat,
    /// Log lines for people or for machines
    #[arg(long, env = "WEIR_LOG_FORMAT", value_enum, help_heading = "Server")]
    log_format: LogFormat,
    /// Log filter, e.g. "info" or "weir=debug"
    #[arg(long, env = "WEIR_LOG_LEVEL", help_heading = "Server")]
    log_level: String,

    /// Choices of one request (n)
    #[arg(long, env = "WEIR_MAX_CHOICES", help_heading = "Limits of a request")]
    max_choices: u32,
    /// Bytes of a request's body
    #[arg(long, env = "WEIR_MAX_BODY_BYTES", help_heading = "Limits of a request")]
    max_body_bytes: Count,
    /// Output tokens of a request that names no maximum
    #[arg(long, env = "WEIR_DEFAULT_MAX_TOKENS", help_heading = "Limits of a request")]
    default_max_tokens: Count,
    /// Highest logprobs, top_logprobs and prompt_logprobs
    #[arg(long, env = "WEIR_MAX_LOGPROBS", help_heading = "Limits of a request")]
    max_logprobs: u32,
    /// Stop strings of one request
    #[arg(long, env = "WEIR_MAX_STOPS", help_heading = "Limits of a request")]
    max_stops: u32,
    /// Open connections
    #[arg(long, env = "WEIR_MAX_CONNECTIONS", help_heading = "Limits of a request")]
    max_connections: Count,
    /// Open connections of one peer address
    #[arg(long, env = "WEIR_MAX_CONNECTIONS_PER_ADDRESS", help_heading = "Limits of a request")]
    max_connections_per_address: Count,
    /// Seconds that a reader may take nothing before it is cut off
    #[arg(long, env = "WEIR_WRITE_STALL_TIMEOUT", help_heading = "Limits of a request")]
    write_stall_timeout: f64,

    /// Microseconds of every simulated step
    #[arg(long, env = "WEIR_SIM_STEP_US", help_heading = "Simulated device")]
    sim_step_us: f64,
    /// Microseconds that each prefill token adds
    #[arg(long, env = "WEIR_SIM_PREFILL_TOKEN_US", help_heading = "Simulated device")]
    sim_prefill_token_us: f64,
    /// Microseconds that each decoding sequence adds
    #[arg(long, env = "WEIR_SIM_SEQUENCE_US", help_heading = "Simulated device")]
    sim_sequence_us: f64,
    /// Nanoseconds that each token of context adds
    #[arg(long, env = "WEIR_SIM_CONTEXT_TOKEN_NS", help_heading = "Simulated device")]
    sim_context_token_ns: f64,
    /// KV blocks of the simulated device
    #[arg(long, env = "WEIR_SIM_BLOCKS", help_heading = "Simulated device")]
    sim_blocks: Count,
    /// Seed of simulated tokens
    #[arg(long, env = "WEIR_SIM_SEED", help_heading = "Simulated device")]
    sim_seed: u64,
}
