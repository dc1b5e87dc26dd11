//! The command line, in the words of `vllm bench serve` where it has them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::arrivals::RampStrategy;
use crate::traces::TraceFormat;

const EXIT_CODES: &str = "\
Exit codes:
  0    the run is valid
  1    the run is not valid, or no request completed
  2    bad usage, or an input file that cannot be read
  3    no server at the address
  4    the server refused the request before the run (key, model)
  5    a report could not be written; the records are kept where the message says
  6    some answers broke off, never ended or had no usage; the report says which
  130  interrupted; the report is of what was measured";

/// A load generator for OpenAI-compatible servers.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, about, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one load and report
    #[command(after_help = EXIT_CODES)]
    Run(RunArgs),
    /// Find the highest rate at which the objectives are met
    #[command(after_help = EXIT_CODES)]
    Sweep(SweepArgs),
    /// Run the same loads against two servers in turn: A B A B ...
    #[command(after_help = EXIT_CODES)]
    Compare(CompareArgs),
}

/// `loadtest sweep`.
#[derive(Debug, Args)]
pub struct SweepArgs {
    /// The load, without its rate.
    #[command(flatten)]
    pub run: RunArgs,
    /// Rate to begin with, in requests a second [default: the profile's, else 1]
    #[arg(long, help_heading = "Sweep")]
    pub start_rate: Option<f64>,
    /// Highest rate to try
    #[arg(long, default_value_t = 10_000.0, help_heading = "Sweep")]
    pub max_rate: f64,
    /// The part of requests that must meet all objectives
    #[arg(long, default_value_t = 0.99, help_heading = "Sweep")]
    pub goodput_fraction: f64,
    /// Stop when the best and the next rate are closer than this part
    #[arg(long, default_value_t = 0.05, help_heading = "Sweep")]
    pub tolerance: f64,
}

/// `loadtest compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The load; --base-url is server A.
    #[command(flatten)]
    pub run: RunArgs,
    /// Server B
    #[arg(long, value_name = "URL", help_heading = "Compare")]
    pub base_url_b: String,
    /// Model of server B [default: --model, else the server's first]
    #[arg(long, help_heading = "Compare")]
    pub model_b: Option<String>,
    /// Runs of each server; every round has a plan of its own
    #[arg(long, default_value_t = 3, help_heading = "Compare")]
    pub rounds: u32,
}

/// A load and what is reported of it.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// Everything about the server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Everything about the load.
    #[command(flatten)]
    pub load: LoadArgs,
    /// Everything about prompts and answers.
    #[command(flatten)]
    pub data: DataArgs,
    /// Everything about reports.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// The server.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Server")]
pub struct ServerArgs {
    /// Address, with or without /v1
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000")]
    pub base_url: String,
    /// Path of the requests
    #[arg(long, value_name = "PATH", default_value = "/v1/chat/completions")]
    pub endpoint: String,
    /// Name of the model in requests [default: the first of GET /v1/models]
    #[arg(long)]
    pub model: Option<String>,
    /// Name of the model in requests, when it is not --model
    #[arg(long, value_name = "NAME")]
    pub served_model_name: Option<String>,
    /// Key of tenants without their own
    #[arg(long, value_name = "KEY", env = "OPENAI_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Headers of every request
    #[arg(long, value_name = "NAME=VALUE", num_args = 1..)]
    pub header: Vec<String>,
    /// PEM file with authorities that https servers may have their certificates from, besides the
    /// Web's
    #[arg(long, value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// Fields of every request body, as a JSON object
    #[arg(long, value_name = "JSON")]
    pub extra_body: Option<String>,
    /// `temperature` of the requests
    #[arg(long)]
    pub temperature: Option<f64>,
    /// `top_p` of the requests
    #[arg(long)]
    pub top_p: Option<f64>,
    /// Ask for answers of the full length
    #[arg(long)]
    pub ignore_eos: bool,
    /// An attempt must end within so many seconds
    #[arg(long, value_name = "S", default_value_t = 600.0)]
    pub timeout: f64,
    /// The server must not be silent for so many seconds
    #[arg(long, value_name = "S", default_value_t = 300.0)]
    pub idle_timeout: f64,
    /// Retries of every request, as the official SDKs do
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub retries: u32,
    /// Do not find out how the server counts tokens: a word is taken for a token
    #[arg(long)]
    pub no_calibrate: bool,
    /// Send nothing before the run; needs --model
    #[arg(long)]
    pub no_preflight: bool,
}

/// The load.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Load")]
pub struct LoadArgs {
    /// steady, burst, long-prompt, shared-prefix, noisy-neighbour, overload, hundred-users, or
    /// the path of a .toml file; flags are written over it
    #[arg(long, value_name = "NAME|FILE")]
    pub profile: Option<String>,
    /// Requests at most [default: 1000 unless --duration ends the run]
    #[arg(long, value_name = "N")]
    pub num_prompts: Option<u32>,
    /// Requests a second (open loop); `inf`: all at once, or as --max-concurrency allows (closed
    /// loop)
    #[arg(long, value_name = "RPS")]
    pub request_rate: Option<f64>,
    /// Shape of the gaps: 1 is Poisson, below 1 in bursts, above 1 more even
    #[arg(long, value_name = "SHAPE")]
    pub burstiness: Option<f64>,
    /// Process of arrivals
    #[arg(long)]
    pub arrivals: Option<ArrivalsWord>,
    /// Requests under way at most; without a rate this is a closed loop. In an open loop waiting
    /// for a place counts as latency
    #[arg(long, value_name = "N")]
    pub max_concurrency: Option<u32>,
    /// How the rate goes from --ramp-up-start-rps to --ramp-up-end-rps over the run
    #[arg(long, value_name = "STRATEGY")]
    pub ramp_up_strategy: Option<RampStrategy>,
    /// Rate at the start
    #[arg(long, value_name = "RPS")]
    pub ramp_up_start_rps: Option<f64>,
    /// Rate at the end
    #[arg(long, value_name = "RPS")]
    pub ramp_up_end_rps: Option<f64>,
    /// Sending ends after so many seconds
    #[arg(long, value_name = "S")]
    pub duration: Option<f64>,
    /// Seconds at the start that the figures leave out
    #[arg(long, value_name = "S")]
    pub warmup: Option<f64>,
    /// Seconds at the end that the figures leave out
    #[arg(long, value_name = "S")]
    pub cooldown: Option<f64>,
    /// Seconds that requests under way get after the last was sent
    #[arg(long, value_name = "S", default_value_t = 120.0)]
    pub drain: f64,
    /// TOML file with `[[tenants]]`: name, share, key, class, abusive, rate_multiple
    #[arg(long, value_name = "FILE")]
    pub tenants: Option<PathBuf>,
    /// Source of all randomness: the same seed makes the same requests at the same times
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// The run is not valid when the generator's p99 lateness is above this and above 5 % of the
    /// median TTFT
    #[arg(long, value_name = "MS", default_value_t = 5.0)]
    pub max_send_delay_ms: f64,
    /// Threads that send and read; one drives thousands of streams
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: usize,
}

/// Prompts and answers.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Prompts and answers")]
pub struct DataArgs {
    /// Where requests come from [default: random]
    #[arg(long, alias = "trace", value_name = "NAME")]
    pub dataset_name: Option<Dataset>,
    /// The trace's file
    #[arg(long, value_name = "FILE")]
    pub dataset_path: Option<PathBuf>,
    /// Times of a trace are divided by this
    #[arg(long, value_name = "FACTOR")]
    pub trace_speedup: Option<f64>,
    /// Tokens of a prompt, besides a shared prefix [default: 1024]
    #[arg(long, value_name = "TOKENS")]
    pub random_input_len: Option<u32>,
    /// Tokens of an answer [default: 128]
    #[arg(long, value_name = "TOKENS")]
    pub random_output_len: Option<u32>,
    /// Lengths are uniform in [len * (1 - ratio), len * (1 + ratio)]
    #[arg(long, value_name = "RATIO")]
    pub random_range_ratio: Option<f64>,
    /// Tokens that all prompts share at their start
    #[arg(long, value_name = "TOKENS")]
    pub random_prefix_len: Option<u32>,
}

/// Reports.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Reports")]
pub struct ReportArgs {
    /// Objectives of a good request: ttft:MS, tpot:MS, e2el:MS
    #[arg(long, value_name = "METRIC:MS", num_args = 1..)]
    pub goodput: Vec<String>,
    /// Metrics with keys in the JSON report: ttft, tpot, itl, e2el
    #[arg(long, value_name = "LIST", default_value = "ttft,tpot,itl,e2el")]
    pub percentile_metrics: String,
    /// Percentiles in the JSON report
    #[arg(long, value_name = "LIST", default_value = "99", value_delimiter = ',')]
    pub metric_percentiles: Vec<f64>,
    /// Write reports (JSON, JSONL, HTML, text); --result-dir and --result-filename imply it
    #[arg(long)]
    pub save_result: bool,
    /// Lists of every request's figures in the JSON report, too
    #[arg(long)]
    pub save_detailed: bool,
    /// Folder of the reports [default: this one]
    #[arg(long, value_name = "DIR")]
    pub result_dir: Option<PathBuf>,
    /// Name of the JSON report; the others have its name with their endings [default: from the
    /// profile and the time]
    #[arg(long, value_name = "NAME")]
    pub result_filename: Option<String>,
    /// Show nothing on stderr while running
    #[arg(long, aliases = ["disable-tqdm", "no-progress"])]
    pub quiet: bool,
}

/// Where requests come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dataset {
    /// Drawn from the seed
    Random,
    /// ShareGPT JSON
    Sharegpt,
    /// Mooncake JSON lines
    Mooncake,
    /// BurstGPT CSV
    Burstgpt,
    /// Azure LLM CSV
    Azure,
}

/// Process of arrivals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ArrivalsWord {
    /// Many independent users
    Poisson,
    /// Equal gaps
    Constant,
}

impl Dataset {
    /// The format of its file; `None` for drawn requests.
    pub fn format(self) -> Option<TraceFormat> {
        match self {
            Self::Random => None,
            Self::Sharegpt => Some(TraceFormat::Sharegpt),
            Self::Mooncake => Some(TraceFormat::Mooncake),
            Self::Burstgpt => Some(TraceFormat::Burstgpt),
            Self::Azure => Some(TraceFormat::Azure),
        }
    }
}
