//! Flags of vLLM that Weir does not have: named as such, with what to do instead, never ignored.

/// vLLM 0.29's `serve` flags without a counterpart here, and what to do. Flags that both have are
/// not in this table.
const VLLM_FLAGS: &[(&str, &str)] = &[
    ("allowed-origins", "put a proxy in front that answers CORS requests"),
    ("block-manager", "KV blocks need no setting here"),
    ("chat-template-content-format", "it is found out from the template"),
    ("code-revision", "no code is ever loaded with a model"),
    ("compilation-config", "there is nothing to compile here"),
    ("cpu-offload-gb", "weights are memory-mapped"),
    ("data-parallel-size", "run one process for each replica"),
    ("disable-log-requests", "requests are not logged unless --log-level says so"),
    ("disable-log-stats", "statistics are at /metrics alone"),
    ("distributed-executor-backend", "one process runs the model"),
    ("download-dir", "give --model a local folder"),
    ("enable-auto-tool-choice", "tools are not supported yet"),
    ("enable-chunked-prefill", "prefill is always chunked; see --max-num-batched-tokens"),
    ("enable-force-include-usage", "ask for it with stream_options.include_usage"),
    ("enable-log-requests", "use --log-level weir=debug"),
    ("enable-lora", "adapters are not supported yet"),
    ("enable-prompt-tokens-details", "cached tokens are always reported"),
    ("enable-request-id-headers", "x-request-id is always sent"),
    ("enforce-eager", "there is nothing to compile here"),
    ("generation-config", "generation_config.json is always read"),
    ("guided-decoding-backend", "structured output is not supported yet"),
    ("hf-overrides", "edit config.json"),
    ("hf-token", "give --model a local folder"),
    ("kv-events-config", "KV events are not supported yet"),
    ("limit-mm-per-prompt", "only text models are supported"),
    ("lora-modules", "adapters are not supported yet"),
    ("max-logprobs-mode", "log-probabilities are those of the unmodified logits"),
    ("max-parallel-loading-workers", "weights are memory-mapped"),
    ("num-gpu-blocks-override", "use --kv-cache-memory-bytes"),
    ("otlp-traces-endpoint", "traces are not supported yet"),
    ("pipeline-parallel-size", "one device runs the model"),
    ("reasoning-parser", "reasoning parsers are not supported yet"),
    ("response-role", "the role is always assistant"),
    ("revision", "give --model a local folder"),
    ("root-path", "put a proxy in front that strips it"),
    ("scheduling-policy", "requests are ordered by tenant share, then priority, then arrival"),
    ("skip-tokenizer-init", "requests may carry token ids anyway"),
    ("speculative-config", "speculative decoding is not supported yet"),
    ("ssl-certfile", "put a TLS proxy in front"),
    ("ssl-keyfile", "put a TLS proxy in front"),
    ("swap-space", "preempted sequences are recomputed, not swapped"),
    ("task", "only text generation is supported"),
    ("tokenizer-mode", "give --tokenizer a folder with tokenizer.json"),
    ("tool-call-parser", "tools are not supported yet"),
    ("trust-remote-code", "no code is ever loaded with a model"),
    ("uds", "use --host and --port"),
    ("uvicorn-log-level", "use --log-level"),
];

/// What to say about `flag` (with or without dashes, with or without a value), if vLLM has it and
/// Weir does not.
pub fn advice(flag: &str) -> Option<String> {
    let name = flag.trim_start_matches('-').split('=').next().unwrap_or_default();
    let name = name.replace('_', "-");
    let (_, instead) = VLLM_FLAGS.iter().find(|(known, _)| *known == name)?;
    Some(format!("--{name} is known in vLLM, not here: {instead}"))
}
