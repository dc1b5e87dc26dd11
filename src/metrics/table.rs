//! The declarations: the one place where a metric's name, unit and buckets are written.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only rises; the name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// With these upper bounds.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Full name, with base unit.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// One sentence.
    pub help: &'static str,
}

/// Finer than vLLM's: 3 ms and 9 ms between tokens are different experiences.
const TOKEN_GAP_S: &[f64] = &[
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2,
    0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0,
];
const FIRST_TOKEN_S: &[f64] = &[
    0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0,
    5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0,
];
const REQUEST_S: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0,
    40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0,
];
const STEP_S: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15,
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
const RATIO: &[f64] = &[0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 0.75, 1.0];
const COMMIT_S: &[f64] = &[
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
];
const POWERS_OF_TWO: &[f64] =
    &[1., 2., 4., 8., 16., 32., 64., 128., 256., 512., 1024., 2048., 4096., 8192., 16384.];
const TOKENS: &[f64] = &[
    1., 2., 5., 10., 20., 50., 100., 200., 500., 1000., 2000., 5000., 10_000., 20_000., 50_000.,
    100_000., 200_000.,
];

/// vLLM's bounds (0.33.0): dashboards compute quantiles from them, so they are copied exactly.
const VLLM_REQUEST_S: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];
const VLLM_TTFT_S: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];
const VLLM_GAP_S: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
];
const VLLM_STEP_TOKENS: &[f64] =
    &[1., 8., 16., 32., 64., 128., 256., 512., 1024., 2048., 4096., 8192., 16384.];

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, help }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, help }
}

const fn histogram(name: &'static str, bounds: &'static [f64], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram(bounds), help }
}

/// Weir's own metrics.
pub const METRICS: &[Metric] = &[
    counter(
        "weir_requests_total",
        "Answered requests by endpoint, outcome (ok, refused, invalid, failed, cancelled) and error code.",
    ),
    counter("weir_tokens_total", "Tokens by kind: prompt (computed or cached), cached, output."),
    counter("weir_preemptions_total", "Sequences that lost their KV blocks to another one."),
    counter("weir_prefix_cache_query_tokens_total", "Prompt tokens looked up in the prefix cache."),
    counter("weir_prefix_cache_hit_tokens_total", "Prompt tokens found in the prefix cache."),
    counter("weir_steps_total", "Completed engine steps."),
    counter("weir_sdk_retries_total", "Requests that an SDK marked as a retry of its own."),
    counter(
        "weir_refusals_total",
        "Requests that the gate refused, by error code and tenant (the first 1,000 tenants).",
    ),
    counter(
        "weir_budget_settled_tokens_total",
        "Tokens of settled requests by kind: prompt, cached (of these), output, charged.",
    ),
    counter("weir_ledger_entries_total", "Entries of the ledger that were made durable."),
    counter("weir_connections_refused_total", "Connections closed at accept, by limit."),
    counter(
        "weir_config_reloads_total",
        "Reloads by source (settings, keys) and result (ok, refused).",
    ),
    gauge("weir_requests_running", "Sequences that hold KV blocks."),
    gauge("weir_requests_waiting", "Requests that wait for their first step or were preempted."),
    gauge("weir_waiting_prompt_tokens", "Prompt tokens not yet computed."),
    gauge("weir_tenants_known", "Tenants whose share of the device is remembered."),
    gauge(
        "weir_promise_margin_ratio",
        "Part of a latency objective that is promised at admission, by class; falls when admitted requests are late.",
    ),
    gauge("weir_kv_blocks", "KV blocks by state: used, cached, free."),
    gauge("weir_kv_blocks_limit", "All KV blocks."),
    gauge("weir_connections_open", "Open connections."),
    gauge("weir_budget_holds_open", "Requests that hold tokens of a budget."),
    gauge("weir_budget_held_tokens", "Tokens that requests hold and have not used."),
    gauge("weir_ledger_pending_entries", "Entries of the ledger that wait to be made durable."),
    gauge("weir_ledger_read_only", "1 when the ledger cannot be written any more."),
    gauge("weir_ready", "1 when /readyz answers 200."),
    gauge("weir_engine_restarts", "Restarts of the engine's thread since start."),
    gauge(
        "weir_step_prediction_error_recent_ratio",
        "Recent errors of predicted step times as a share of the measured ones, by quantile.",
    ),
    gauge("weir_build_info", "1, with the version as a label."),
    histogram(
        "weir_ttft_seconds",
        FIRST_TOKEN_S,
        "From the end of the request's body to its first token.",
    ),
    histogram("weir_itl_seconds", TOKEN_GAP_S, "Between one token of a choice and its next."),
    histogram(
        "weir_e2e_seconds",
        REQUEST_S,
        "From the end of the request's body to its last token.",
    ),
    histogram("weir_queue_seconds", REQUEST_S, "From admission to the first step."),
    histogram("weir_ledger_commit_seconds", COMMIT_S, "Time to make a group of entries durable."),
    histogram("weir_step_duration_seconds", STEP_S, "Device time of an engine step."),
    histogram(
        "weir_step_prediction_error_ratio",
        RATIO,
        "Difference of an engine step's predicted and measured time, as a share of the latter.",
    ),
    histogram("weir_step_tokens", POWERS_OF_TWO, "Rows (tokens) in an engine step."),
    histogram("weir_step_sequences", POWERS_OF_TWO, "Sequences in an engine step (batch size)."),
    histogram("weir_request_prompt_tokens", TOKENS, "Prompt tokens of an answered request."),
    histogram("weir_request_output_tokens", TOKENS, "Output tokens of an answered request."),
];

/// vLLM's names, for its dashboards and for routers (`--metrics-compat vllm`).
pub const VLLM_METRICS: &[Metric] = &[
    gauge("vllm:num_requests_running", "Requests in the running batch."),
    gauge("vllm:num_requests_waiting", "Requests that wait."),
    gauge("vllm:kv_cache_usage_perc", "Share of KV blocks in use, 0 to 1."),
    gauge("vllm:cache_config_info", "1, with the cache's settings as labels."),
    gauge("vllm:lora_requests_info", "Running adapters; none, so always empty."),
    counter("vllm:prompt_tokens_total", "Prompt tokens."),
    counter("vllm:generation_tokens_total", "Generated tokens."),
    counter("vllm:prompt_tokens_cached_total", "Prompt tokens taken from the prefix cache."),
    counter("vllm:prefix_cache_queries_total", "Tokens looked up in the prefix cache."),
    counter("vllm:prefix_cache_hits_total", "Tokens found in the prefix cache."),
    counter("vllm:num_preemptions_total", "Preemptions."),
    counter("vllm:request_success_total", "Finished requests by finished_reason."),
    counter("vllm:admission_rejections_total", "Requests refused at admission by reason."),
    histogram("vllm:time_to_first_token_seconds", VLLM_TTFT_S, "Time to first token."),
    histogram("vllm:inter_token_latency_seconds", VLLM_GAP_S, "Time between tokens."),
    histogram(
        "vllm:request_time_per_output_token_seconds",
        VLLM_GAP_S,
        "Mean time per output token after the first.",
    ),
    histogram("vllm:e2e_request_latency_seconds", VLLM_REQUEST_S, "Whole request."),
    histogram("vllm:request_queue_time_seconds", VLLM_REQUEST_S, "Time in the queue."),
    histogram("vllm:request_inference_time_seconds", VLLM_REQUEST_S, "Time in the engine."),
    histogram("vllm:request_prefill_time_seconds", VLLM_REQUEST_S, "Time in prefill."),
    histogram("vllm:request_decode_time_seconds", VLLM_REQUEST_S, "Time in decode."),
    histogram("vllm:request_prompt_tokens", TOKENS, "Prompt tokens of a request."),
    histogram("vllm:request_generation_tokens", TOKENS, "Generated tokens of a request."),
    histogram(
        "vllm:request_max_num_generation_tokens",
        TOKENS,
        "Generated tokens of a request's longest choice.",
    ),
    histogram("vllm:request_params_n", &[1., 2., 5., 10., 20.], "Choices asked for."),
    histogram("vllm:request_params_max_tokens", TOKENS, "Output limit asked for."),
    histogram("vllm:iteration_tokens_total", VLLM_STEP_TOKENS, "Tokens in an engine step."),
];
