//! Every metric: name, unit, labels, buckets and help, declared in one table and kept in one
//! struct. Handles are registered once; recording is a few atomic operations.

mod budget;
mod table;

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

pub use table::{Kind, METRICS, Metric, VLLM_METRICS};

/// All metrics of a server. Each server has its own, so that tests can run several.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    model: String,
    compat: bool,
    ours: Handles,
    vllm: Option<Box<Handles>>,
    steps: StepHandles,
    tenants: budget::TenantLabels,
}

/// What is recorded in every step and only in our names: the engine's thread looks nothing up.
struct StepHandles {
    total: Counter,
    duration: Histogram,
    sequences: Histogram,
    prediction_error: Histogram,
}

/// One table's hot handles, in our names; the second set has vLLM's.
struct Handles {
    running: Gauge,
    waiting: Gauge,
    ttft: Histogram,
    itl: Histogram,
    e2e: Histogram,
    queue: Histogram,
    step_tokens: Histogram,
    prompt_tokens: Histogram,
    output_tokens: Histogram,
    preemptions: Counter,
    cache_queries: Counter,
    cache_hits: Counter,
}

/// How a request ended, as a label: a small closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered in full.
    Ok,
    /// Refused by the gate: key, limits, overload.
    Refused,
    /// A bad request.
    Invalid,
    /// The server failed.
    Failed,
    /// The client left.
    Cancelled,
}

/// A request, when it has ended.
#[derive(Clone, Debug)]
pub struct RequestFacts {
    /// The matched route, never the path.
    pub endpoint: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// The error's code, or "" when there was none; from the error table.
    pub code: &'static str,
    /// Why generation ended: "stop", "length", "abort", "error".
    pub finished_reason: &'static str,
    /// Tokens of the prompt; 0 when it never was tokenised.
    pub prompt_tokens: u32,
    /// Of these, from the prefix cache.
    pub cached_tokens: u32,
    /// Tokens generated, all choices.
    pub output_tokens: u32,
    /// The most that one choice generated.
    pub longest_output_tokens: u32,
    /// Choices asked for.
    pub choices: u32,
    /// Output limit of a choice.
    pub max_tokens: u32,
    /// From admission to the first step, if it came to that.
    pub queue: Option<Duration>,
    /// From the end of the body to the first token, if one came.
    pub ttft: Option<Duration>,
    /// From the end of the body to the last token.
    pub e2e: Duration,
}

/// A completed engine step.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepFacts {
    /// Rows.
    pub tokens: u32,
    /// Sequences.
    pub sequences: u32,
    /// Device time.
    pub elapsed: Duration,
    /// By how much of its time it took longer than predicted, if it was predicted.
    pub prediction_error: Option<f64>,
    /// Sequences preempted while planning it.
    pub preemptions: u32,
    /// Prompt tokens looked up in the prefix cache while planning it.
    pub cache_query_tokens: u32,
    /// Of these, found.
    pub cache_hit_tokens: u32,
}

/// The state of the engine, from its published snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadFacts {
    /// Sequences with blocks.
    pub running: u32,
    /// Requests waiting.
    pub waiting: u32,
    /// Prompt tokens waiting.
    pub waiting_prompt_tokens: u64,
    /// Blocks owned by sequences.
    pub blocks_used: u32,
    /// Blocks only the prefix cache holds.
    pub blocks_cached: u32,
    /// All blocks.
    pub blocks_total: u32,
    /// Restarts of the engine's thread.
    pub restarts: u32,
    /// Whether `/readyz` would answer 200.
    pub ready: bool,
    /// Open connections.
    pub connections: u32,
    /// Tenants whose service is remembered.
    pub tenants: u32,
    /// For each class, the part of an objective that may be promised.
    pub promise_margins: [(&'static str, f64); 3],
    /// Median and 95th percentile of the recent errors of predicted step times.
    pub prediction_errors: [f64; 2],
}

/// The state of the ledger of token budgets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerFacts {
    /// Requests that hold tokens.
    pub holds_open: u64,
    /// Tokens that they hold.
    pub held_tokens: u64,
    /// Prompt tokens of settled requests since start.
    pub settled_prompt_tokens: u64,
    /// Of these, the ones from the prefix cache.
    pub settled_cached_tokens: u64,
    /// Output tokens of settled requests since start.
    pub settled_output_tokens: u64,
    /// Tokens charged to budgets since start.
    pub charged_tokens: u64,
    /// Entries made durable since start.
    pub entries: u64,
    /// Entries that wait to be made durable.
    pub pending_entries: u64,
    /// Whether the log cannot be written any more.
    pub is_read_only: bool,
}

/// What was read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadOf {
    /// The settings file, and the key file with it.
    Settings,
    /// The key file, because it had changed.
    Keys,
}

impl Outcome {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Refused => "refused",
            Outcome::Invalid => "invalid",
            Outcome::Failed => "failed",
            Outcome::Cancelled => "cancelled",
        }
    }
}

impl Metrics {
    /// Registers everything. `model` is the label of vLLM's names; `compat` turns those on.
    ///
    /// # Errors
    /// When a histogram of the table has no bounds: a mistake in the table.
    pub fn new(model: &str, compat: bool) -> Result<Self, BuildError> {
        let tables: &[&[Metric]] = if compat { &[METRICS, VLLM_METRICS] } else { &[METRICS] };
        let mut builder = PrometheusBuilder::new();
        for metric in tables.iter().copied().flatten() {
            if let Kind::Histogram(bounds) = metric.kind {
                builder = builder
                    .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), bounds)?;
            }
        }
        let recorder = builder.build_recorder();
        for metric in tables.iter().copied().flatten() {
            describe(&recorder, metric);
        }
        let ours = Handles::ours(&recorder);
        let vllm = compat.then(|| Box::new(Handles::vllm(&recorder, model)));
        let steps = StepHandles {
            total: counter(&recorder, "weir_steps_total", Vec::new()),
            duration: histogram(&recorder, "weir_step_duration_seconds"),
            sequences: histogram(&recorder, "weir_step_sequences"),
            prediction_error: histogram(&recorder, "weir_step_prediction_error_ratio"),
        };
        let handle = recorder.handle();
        let model = model.to_owned();
        let tenants = budget::TenantLabels::default();
        let metrics = Self { recorder, handle, model, compat, ours, vllm, steps, tenants };
        let version = Label::new("version", env!("CARGO_PKG_VERSION"));
        gauge(&metrics.recorder, "weir_build_info", vec![version]).set(1.0);
        Ok(metrics)
    }

    /// The text that `/metrics` answers (Prometheus exposition format 0.0.4).
    pub fn render(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }

    /// Moves recorded samples into their buckets. Samples are kept singly until then, so this has
    /// to be called every few seconds on a server that nobody scrapes.
    pub fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// Counts an ended request.
    pub fn request(&self, facts: &RequestFacts) {
        let labels = vec![
            Label::from_static_parts("endpoint", facts.endpoint),
            Label::from_static_parts("outcome", facts.outcome.as_str()),
            Label::from_static_parts("code", facts.code),
        ];
        counter(&self.recorder, "weir_requests_total", labels).increment(1);
        for (kind, tokens) in [
            ("prompt", facts.prompt_tokens),
            ("cached", facts.cached_tokens),
            ("output", facts.output_tokens),
        ] {
            let labels = vec![Label::from_static_parts("kind", kind)];
            counter(&self.recorder, "weir_tokens_total", labels).increment(u64::from(tokens));
        }
        self.ours.request(facts);
        if let Some(vllm) = &self.vllm {
            vllm.request(facts);
            self.vllm_request(facts);
        }
    }

    /// The time between two tokens of a choice.
    pub fn token_gap(&self, gap: Duration) {
        self.ours.itl.record(gap.as_secs_f64());
        if let Some(vllm) = &self.vllm {
            vllm.itl.record(gap.as_secs_f64());
        }
    }

    /// A request that an SDK sent again (`x-stainless-retry-count` above 0).
    pub fn sdk_retry(&self) {
        counter(&self.recorder, "weir_sdk_retries_total", Vec::new()).increment(1);
    }

    /// Counts a reload, and whether what was read is in force now.
    pub fn reload(&self, of: ReloadOf, ok: bool) {
        let source = match of {
            ReloadOf::Settings => "settings",
            ReloadOf::Keys => "keys",
        };
        let labels = vec![
            Label::from_static_parts("source", source),
            Label::from_static_parts("result", if ok { "ok" } else { "refused" }),
        ];
        counter(&self.recorder, "weir_config_reloads_total", labels).increment(1);
    }

    /// A connection that was closed at accept because of the named limit.
    pub fn connection_refused(&self, limit: &'static str) {
        let labels = vec![Label::from_static_parts("limit", limit)];
        counter(&self.recorder, "weir_connections_refused_total", labels).increment(1);
    }

    /// A completed step.
    pub fn step(&self, facts: &StepFacts) {
        self.steps.total.increment(1);
        self.steps.duration.record(facts.elapsed.as_secs_f64());
        self.steps.sequences.record(f64::from(facts.sequences));
        if let Some(error) = facts.prediction_error {
            self.steps.prediction_error.record(error.abs());
        }
        self.ours.step(facts);
        if let Some(vllm) = &self.vllm {
            vllm.step(facts);
        }
    }

    /// Sets the gauges; called before each scrape.
    pub fn load(&self, load: &LoadFacts) {
        let set = |name, value: f64| gauge(&self.recorder, name, Vec::new()).set(value);
        set("weir_waiting_prompt_tokens", load.waiting_prompt_tokens as f64);
        set("weir_tenants_known", f64::from(load.tenants));
        set("weir_kv_blocks_limit", f64::from(load.blocks_total));
        set("weir_connections_open", f64::from(load.connections));
        set("weir_ready", f64::from(u8::from(load.ready)));
        set("weir_engine_restarts", f64::from(load.restarts));
        for (quantile, error) in ["0.5", "0.95"].into_iter().zip(load.prediction_errors) {
            let labels = vec![Label::from_static_parts("quantile", quantile)];
            gauge(&self.recorder, "weir_step_prediction_error_recent_ratio", labels).set(error);
        }
        let free = load.blocks_total.saturating_sub(load.blocks_used + load.blocks_cached);
        for (state, blocks) in
            [("used", load.blocks_used), ("cached", load.blocks_cached), ("free", free)]
        {
            let labels = vec![Label::from_static_parts("state", state)];
            gauge(&self.recorder, "weir_kv_blocks", labels).set(f64::from(blocks));
        }
        for (class, margin) in load.promise_margins {
            let labels = vec![Label::from_static_parts("class", class)];
            gauge(&self.recorder, "weir_promise_margin_ratio", labels).set(margin);
        }
        self.ours.load(load);
        if let Some(vllm) = &self.vllm {
            vllm.load(load);
            let share = f64::from(load.blocks_used) / f64::from(load.blocks_total.max(1));
            gauge(&self.recorder, "vllm:kv_cache_usage_perc", self.vllm_labels()).set(share);
        }
    }

    /// Publishes vLLM's `cache_config_info`, whose labels are `settings`, and that there are no
    /// adapters.
    pub fn cache_config(&self, settings: &[(&'static str, String)]) {
        if self.compat {
            let mut labels = vec![Label::from_static_parts("engine", "0")];
            labels.extend(settings.iter().map(|(k, v)| Label::new(*k, v.clone())));
            gauge(&self.recorder, "vllm:cache_config_info", labels).set(1.0);
            // Routers take a missing series for a broken server; there are no adapters to name.
            let adapters = ["running_lora_adapters", "waiting_lora_adapters"];
            let mut labels = vec![Label::from_static_parts("max_lora", "0")];
            labels.extend(adapters.map(|name| Label::from_static_parts(name, "")));
            gauge(&self.recorder, "vllm:lora_requests_info", labels).set(0.0);
        }
    }

    fn vllm_labels(&self) -> Vec<Label> {
        vllm_labels(&self.model)
    }

    fn vllm_request(&self, facts: &RequestFacts) {
        let add = |name, value: u32| {
            counter(&self.recorder, name, self.vllm_labels()).increment(u64::from(value));
        };
        add("vllm:prompt_tokens_total", facts.prompt_tokens);
        add("vllm:generation_tokens_total", facts.output_tokens);
        add("vllm:prompt_tokens_cached_total", facts.cached_tokens);
        let observe = |name, value: f64| {
            self.recorder
                .register_histogram(&Key::from_parts(name, self.vllm_labels()), &METADATA)
                .record(value);
        };
        if facts.outcome == Outcome::Refused {
            let mut labels = vec![Label::new("model_name", self.model.clone())];
            labels.push(Label::from_static_parts("reason", facts.code));
            counter(&self.recorder, "vllm:admission_rejections_total", labels).increment(1);
            return;
        }
        let mut labels = self.vllm_labels();
        labels.push(Label::from_static_parts("finished_reason", facts.finished_reason));
        counter(&self.recorder, "vllm:request_success_total", labels).increment(1);
        observe("vllm:request_params_n", f64::from(facts.choices));
        observe("vllm:request_params_max_tokens", f64::from(facts.max_tokens));
        observe("vllm:request_max_num_generation_tokens", f64::from(facts.longest_output_tokens));
        let (Some(ttft), Some(queue)) = (facts.ttft, facts.queue) else { return };
        let decode = facts.e2e.saturating_sub(ttft);
        observe("vllm:request_inference_time_seconds", (facts.e2e - queue).as_secs_f64());
        observe("vllm:request_prefill_time_seconds", ttft.saturating_sub(queue).as_secs_f64());
        observe("vllm:request_decode_time_seconds", decode.as_secs_f64());
        if facts.longest_output_tokens > 1 {
            let gaps = f64::from(facts.longest_output_tokens - 1);
            observe("vllm:request_time_per_output_token_seconds", decode.as_secs_f64() / gaps);
        }
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").field("model", &self.model).field("compat", &self.compat).finish()
    }
}

impl Handles {
    fn ours(recorder: &PrometheusRecorder) -> Self {
        Self {
            running: gauge(recorder, "weir_requests_running", Vec::new()),
            waiting: gauge(recorder, "weir_requests_waiting", Vec::new()),
            ttft: histogram(recorder, "weir_ttft_seconds"),
            itl: histogram(recorder, "weir_itl_seconds"),
            e2e: histogram(recorder, "weir_e2e_seconds"),
            queue: histogram(recorder, "weir_queue_seconds"),
            step_tokens: histogram(recorder, "weir_step_tokens"),
            prompt_tokens: histogram(recorder, "weir_request_prompt_tokens"),
            output_tokens: histogram(recorder, "weir_request_output_tokens"),
            preemptions: counter(recorder, "weir_preemptions_total", Vec::new()),
            cache_queries: counter(recorder, "weir_prefix_cache_query_tokens_total", Vec::new()),
            cache_hits: counter(recorder, "weir_prefix_cache_hit_tokens_total", Vec::new()),
        }
    }

    fn vllm(recorder: &PrometheusRecorder, model: &str) -> Self {
        let h = |name| {
            recorder.register_histogram(&Key::from_parts(name, vllm_labels(model)), &METADATA)
        };
        let g = |name| gauge(recorder, name, vllm_labels(model));
        let c = |name| counter(recorder, name, vllm_labels(model));
        Self {
            running: g("vllm:num_requests_running"),
            waiting: g("vllm:num_requests_waiting"),
            ttft: h("vllm:time_to_first_token_seconds"),
            itl: h("vllm:inter_token_latency_seconds"),
            e2e: h("vllm:e2e_request_latency_seconds"),
            queue: h("vllm:request_queue_time_seconds"),
            step_tokens: h("vllm:iteration_tokens_total"),
            prompt_tokens: h("vllm:request_prompt_tokens"),
            output_tokens: h("vllm:request_generation_tokens"),
            preemptions: c("vllm:num_preemptions_total"),
            cache_queries: c("vllm:prefix_cache_queries_total"),
            cache_hits: c("vllm:prefix_cache_hits_total"),
        }
    }

    fn request(&self, facts: &RequestFacts) {
        if let Some(queue) = facts.queue {
            self.queue.record(queue.as_secs_f64());
        }
        if let Some(ttft) = facts.ttft {
            self.ttft.record(ttft.as_secs_f64());
        }
        if facts.outcome == Outcome::Ok {
            self.e2e.record(facts.e2e.as_secs_f64());
            self.prompt_tokens.record(f64::from(facts.prompt_tokens));
            self.output_tokens.record(f64::from(facts.output_tokens));
        }
    }

    fn step(&self, facts: &StepFacts) {
        self.step_tokens.record(f64::from(facts.tokens));
        self.preemptions.increment(u64::from(facts.preemptions));
        self.cache_queries.increment(u64::from(facts.cache_query_tokens));
        self.cache_hits.increment(u64::from(facts.cache_hit_tokens));
    }

    fn load(&self, load: &LoadFacts) {
        self.running.set(f64::from(load.running));
        self.waiting.set(f64::from(load.waiting));
    }
}

static METADATA: Metadata<'static> = Metadata::new("weir", Level::INFO, None);

fn vllm_labels(model: &str) -> Vec<Label> {
    vec![Label::new("model_name", model.to_owned()), Label::from_static_parts("engine", "0")]
}

fn counter(recorder: &PrometheusRecorder, name: &'static str, labels: Vec<Label>) -> Counter {
    recorder.register_counter(&Key::from_parts(name, labels), &METADATA)
}

fn gauge(recorder: &PrometheusRecorder, name: &'static str, labels: Vec<Label>) -> Gauge {
    recorder.register_gauge(&Key::from_parts(name, labels), &METADATA)
}

fn histogram(recorder: &PrometheusRecorder, name: &'static str) -> Histogram {
    recorder.register_histogram(&Key::from_static_name(name), &METADATA)
}

fn describe(recorder: &PrometheusRecorder, metric: &Metric) {
    let unit = metric.name.contains("_seconds").then_some(Unit::Seconds);
    let (name, help) = (metric.name.into(), metric.help.into());
    match metric.kind {
        Kind::Counter => recorder.describe_counter(name, unit, help),
        Kind::Gauge => recorder.describe_gauge(name, unit, help),
        Kind::Histogram(_) => recorder.describe_histogram(name, unit, help),
    }
}
