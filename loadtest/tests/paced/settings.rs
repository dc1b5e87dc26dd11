//! What the server does, as flags of the example and as a value for tests.

use std::str::FromStr;

use super::fault::Fault;

/// How the server answers.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// The model's name; requests for others are answered 404 `model_not_found`
    #[arg(long, default_value = "paced")]
    pub model: String,
    /// Ask for this key; without it, or with another, the answer is 401 `invalid_api_key`
    #[arg(long)]
    pub api_key: Option<String>,
    /// From a request's arrival (with --capacity: its admission) to its first chunk
    #[arg(long, default_value_t = 200.0)]
    pub ttft_ms: f64,
    /// From each chunk's due time to the next's
    #[arg(long, default_value_t = 40.0)]
    pub gap_ms: f64,
    /// Tokens of an answer; a smaller `max_tokens` cuts it, `ignore_eos` takes `max_tokens` whole
    #[arg(long, default_value_t = 64)]
    pub tokens: u32,
    /// Tokens in each chunk
    #[arg(long, default_value_t = 1)]
    pub tokens_per_chunk: u32,
    /// Send the role in an own chunk with empty content, so long after arrival; by default it
    /// comes with the first content
    #[arg(long)]
    pub role_at_ms: Option<f64>,
    /// AT:FOR in seconds, repeatable: from AT (since the first request) nothing is delivered by
    /// any stream; what is late comes at the end of it
    #[arg(long = "stall", value_name = "AT:FOR")]
    pub stalls: Vec<Stall>,
    /// What goes wrong for which requests, repeatable; the first that fits counts. A selector
    /// (every=N, first=K, tries=T) and one damage: status=S[,code=C][,retry-after-ms=MS]
    /// [,should-retry=BOOL], drop-after=CHUNKS, hang-after=CHUNKS, end-after=CHUNKS, endless=true,
    /// malformed-at=CHUNK or error-event-at=CHUNK[,code=C]
    #[arg(long = "fault", value_name = "SPEC")]
    pub faults: Vec<Fault>,
    /// Never send `usage`
    #[arg(long)]
    pub no_usage: bool,
    /// Answer `stream: true` with one JSON body, as servers without streaming do
    #[arg(long)]
    pub whole_only: bool,
    /// Streams at once; further requests queue
    #[arg(long)]
    pub capacity: Option<u32>,
    /// With --capacity: answer 429 `queue_full` to further requests instead of letting them queue
    #[arg(long, requires = "capacity")]
    pub refuse_when_full: bool,
    /// A prompt counts as many tokens as it has words, and so many more
    #[arg(long, default_value_t = 8)]
    pub prompt_overhead_tokens: u32,
}

/// A time in which nothing is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// Since the first request arrived.
    pub at_ns: u64,
    /// How long.
    pub for_ns: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            model: "paced".to_owned(),
            api_key: None,
            ttft_ms: 200.0,
            gap_ms: 40.0,
            tokens: 64,
            tokens_per_chunk: 1,
            role_at_ms: None,
            stalls: Vec::new(),
            faults: Vec::new(),
            no_usage: false,
            whole_only: false,
            capacity: None,
            refuse_when_full: false,
            prompt_overhead_tokens: 8,
        }
    }
}

impl Settings {
    /// When chunk `index` is due, since the request's arrival.
    pub fn chunk_offset_ns(&self, index: u32) -> u64 {
        ns(self.ttft_ms + f64::from(index) * self.gap_ms)
    }

    /// When something that is due (both since the first request) is delivered: at once, or at the
    /// end of the stall that it falls into.
    pub fn delivered_ns(&self, due_ns: u64) -> u64 {
        let mut time_ns = due_ns;
        // A stall may end inside the next one; as many passes as stalls settle every order.
        for _ in &self.stalls {
            for stall in &self.stalls {
                let end_ns = stall.at_ns + stall.for_ns;
                if (stall.at_ns..end_ns).contains(&time_ns) {
                    time_ns = end_ns;
                }
            }
        }
        time_ns
    }

    /// Chunks of an answer of so many tokens.
    pub fn chunks(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.tokens_per_chunk.max(1))
    }
}

impl FromStr for Stall {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}`: a stall is AT:FOR in seconds, for example 5:2");
        let (at, length) = text.split_once(':').ok_or_else(wrong)?;
        let seconds = |part: &str| {
            let value = part.parse::<f64>().ok().filter(|value| (0.0..1e6).contains(value));
            value.map(|value| ns(value * 1e3)).ok_or_else(wrong)
        };
        Ok(Self { at_ns: seconds(at)?, for_ns: seconds(length)? })
    }
}

/// Milliseconds as whole nanoseconds.
pub fn ns(ms: f64) -> u64 {
    (ms * 1e6).round() as u64
}
