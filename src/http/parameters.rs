//! Every documented body field of OpenAI's and vLLM's endpoints, and what becomes of it here. The
//! no-silence contract: a field is in a table or it is refused as unknown.

use super::fields::{Field, Unless, obeyed, refused};

const LATER: &str = "It is planned; leave it out for now.";
const NO_TOOLS: &str = "Tool calls are not implemented yet; leave it out or send an empty list.";
const TEXT_ONLY: &str = "This server takes and gives text only.";
const NO_STORE: &str = "This server keeps no requests; leave it out.";
const NO_STRUCTURE: &str =
    "Structured output is not implemented yet; use {\"type\": \"text\"} or leave it out.";
const OLD_GUIDED: &str = "Structured output is not implemented yet; leave it out.";
const NO_BEAMS: &str = "Only sampling is implemented.";
const OWN_TEMPLATE: &str =
    "Templates come with the model or from the operator; use 'chat_template_kwargs'.";

/// Fields that chat and completions share.
pub(super) const COMMON: &[Field] = &[
    obeyed("service_tier"),
    obeyed("model"),
    obeyed("frequency_penalty"),
    obeyed("presence_penalty"),
    obeyed("logit_bias"),
    obeyed("logprobs"),
    obeyed("max_tokens"),
    obeyed("n"),
    obeyed("seed"),
    obeyed("stop"),
    obeyed("stream"),
    obeyed("stream_options"),
    obeyed("temperature"),
    obeyed("top_p"),
    obeyed("user"),
    // vLLM's.
    obeyed("top_k"),
    obeyed("min_p"),
    obeyed("repetition_penalty"),
    obeyed("min_tokens"),
    obeyed("ignore_eos"),
    obeyed("stop_token_ids"),
    obeyed("include_stop_str_in_output"),
    obeyed("skip_special_tokens"),
    obeyed("prompt_logprobs"),
    obeyed("priority"),
    obeyed("cache_salt"),
    obeyed("return_token_ids"),
    refused("spaces_between_special_tokens", Unless::Bool(true), "Leave it out."),
    refused("use_beam_search", Unless::Bool(false), NO_BEAMS),
    refused("length_penalty", Unless::Integer(1), NO_BEAMS),
    refused("truncate_prompt_tokens", Unless::Null, "Prompts are never cut; shorten it."),
    refused("return_tokens_as_token_ids", Unless::Bool(false), "Use 'return_token_ids'."),
    refused("allowed_token_ids", Unless::Null, "Use 'logit_bias'."),
    refused("bad_words", Unless::Empty, "Use 'logit_bias'."),
    refused("logits_processors", Unless::Empty, "Code in requests is never run."),
    refused("structured_outputs", Unless::Null, OLD_GUIDED),
    refused("guided_json", Unless::Null, OLD_GUIDED),
    refused("guided_regex", Unless::Null, OLD_GUIDED),
    refused("guided_choice", Unless::Null, OLD_GUIDED),
    refused("guided_grammar", Unless::Null, OLD_GUIDED),
    refused("guided_decoding_backend", Unless::Null, OLD_GUIDED),
    refused("response_format", Unless::Type("text"), NO_STRUCTURE),
    refused("kv_transfer_params", Unless::Null, "Leave it out."),
    refused("vllm_xargs", Unless::Empty, "Leave it out."),
    refused("request_id", Unless::Null, "Send the header x-request-id instead."),
];

/// Fields of chat completions alone.
pub(super) const CHAT: &[Field] = &[
    obeyed("messages"),
    obeyed("max_completion_tokens"),
    obeyed("top_logprobs"),
    obeyed("metadata"),
    obeyed("safety_identifier"),
    // A hint about where a prefix may be cached: one engine with one cache always follows it.
    obeyed("prompt_cache_key"),
    obeyed("chat_template_kwargs"),
    obeyed("add_generation_prompt"),
    obeyed("continue_final_message"),
    // Without tools there is nothing to choose from or to run in parallel.
    obeyed("parallel_tool_calls"),
    refused("tools", Unless::Empty, NO_TOOLS),
    refused("tool_choice", Unless::OneOf(&["none", "auto"]), NO_TOOLS),
    refused("functions", Unless::Empty, NO_TOOLS),
    refused("function_call", Unless::OneOf(&["none", "auto"]), NO_TOOLS),
    refused("store", Unless::Bool(false), NO_STORE),
    refused("reasoning_effort", Unless::Null, "Use 'chat_template_kwargs' if the model has one."),
    refused("include_reasoning", Unless::Bool(true), LATER),
    refused("thinking_token_budget", Unless::Null, LATER),
    refused("verbosity", Unless::OneOf(&["medium"]), "Say it in the prompt."),
    refused("modalities", Unless::Only("text"), TEXT_ONLY),
    refused("audio", Unless::Null, TEXT_ONLY),
    refused("prediction", Unless::Null, LATER),
    refused("web_search_options", Unless::Null, "This server searches nothing."),
    refused("moderation", Unless::Null, "This server moderates nothing."),
    refused(
        "prompt_cache_retention",
        Unless::OneOf(&["in_memory", "in-memory"]),
        "The cache lives in memory; use \"in_memory\".",
    ),
    refused("best_of", Unless::Integer(1), "Use 'n'."),
    refused("echo", Unless::Bool(false), "Use /v1/completions."),
    refused("add_special_tokens", Unless::Bool(false), "The template adds them."),
    refused("chat_template", Unless::Null, OWN_TEMPLATE),
    refused("documents", Unless::Empty, "Put them into a message."),
    refused("mm_processor_kwargs", Unless::Empty, TEXT_ONLY),
];

/// Fields of completions alone.
pub(super) const COMPLETIONS: &[Field] = &[
    obeyed("prompt"),
    obeyed("echo"),
    obeyed("best_of"),
    obeyed("add_special_tokens"),
    refused("suffix", Unless::Empty, "Filling a gap is not implemented; leave it out."),
    refused("prompt_embeds", Unless::Null, "Send text or token ids."),
];

/// Fields of `stream_options`.
pub(super) const STREAM_OPTIONS: &[Field] =
    &[obeyed("include_usage"), obeyed("include_obfuscation"), obeyed("continuous_usage_stats")];

/// Fields of `POST /tokenize`.
pub(super) const TOKENIZE: &[Field] = &[
    obeyed("model"),
    obeyed("prompt"),
    obeyed("messages"),
    obeyed("add_special_tokens"),
    obeyed("return_token_strs"),
    obeyed("add_generation_prompt"),
    obeyed("continue_final_message"),
    obeyed("chat_template_kwargs"),
    refused("tools", Unless::Empty, NO_TOOLS),
    refused("chat_template", Unless::Null, OWN_TEMPLATE),
    refused("mm_processor_kwargs", Unless::Empty, TEXT_ONLY),
];

/// Fields of `POST /detokenize`.
pub(super) const DETOKENIZE: &[Field] = &[obeyed("model"), obeyed("tokens")];

/// Fields of a message of any role; which of them a role has is the message's own matter.
pub(super) const MESSAGE: &[Field] = &[
    obeyed("role"),
    obeyed("content"),
    obeyed("name"),
    obeyed("tool_calls"),
    obeyed("tool_call_id"),
    obeyed("refusal"),
    obeyed("reasoning_content"),
    obeyed("reasoning"),
    // The SDKs send an answer's message back as it came, with all its empty fields.
    refused("annotations", Unless::Empty, TEXT_ONLY),
    refused("audio", Unless::Null, TEXT_ONLY),
    refused("function_call", Unless::Null, "Use 'tool_calls'."),
];

/// Fields of a content part.
pub(super) const PART: &[Field] = &[
    obeyed("type"),
    obeyed("text"),
    obeyed("refusal"),
    refused("annotations", Unless::Empty, TEXT_ONLY),
    refused("image_url", Unless::Null, TEXT_ONLY),
    refused("input_audio", Unless::Null, TEXT_ONLY),
    refused("file", Unless::Null, TEXT_ONLY),
    refused("video_url", Unless::Null, TEXT_ONLY),
    refused("audio_url", Unless::Null, TEXT_ONLY),
    // A breakpoint for a cache that here finds shared prefixes by itself.
    refused("cache_control", Unless::Null, "Prefixes are cached without it."),
];

/// Fields of an assistant's earlier tool call.
pub(super) const TOOL_CALL: &[Field] =
    &[obeyed("id"), obeyed("type"), obeyed("function"), obeyed("index")];

/// Fields of a tool call's function.
pub(super) const FUNCTION: &[Field] = &[obeyed("name"), obeyed("arguments")];
