//! The model families that a GGUF file can hold, and what its tensors look like in each.

use super::metadata::Metadata;
use crate::model::ModelError;

/// Longest architecture name.
const NAME_BYTES_MAX: u64 = 64;
const ARCHITECTURE_KEY: &str = "general.architecture";
const SUPPORTED: [&str; 7] =
    ["llama (Llama, Mistral, Mixtral)", "qwen2", "qwen3", "qwen3moe", "gemma2", "gemma3", "phi3"];

/// A family; GGUF has one architecture, `llama`, for three of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Llama,
    Mistral,
    Mixtral,
    Qwen2,
    Qwen3,
    Qwen3Moe,
    Gemma2,
    Gemma3,
    Phi3,
}

impl Family {
    /// The family of a file and the prefix of its metadata keys.
    ///
    /// # Errors
    /// [`ModelError`] when the file names no architecture or an unsupported one.
    pub(super) fn of(metadata: &Metadata) -> Result<(Self, String), ModelError> {
        let Some(architecture) = metadata.string(ARCHITECTURE_KEY, NAME_BYTES_MAX)? else {
            let reason = "is missing; expected the name of the architecture";
            return Err(metadata.fail(ARCHITECTURE_KEY, reason));
        };
        let family = match architecture.as_str() {
            "llama" if metadata.u32("llama.expert_count")?.is_some_and(|n| n > 0) => Self::Mixtral,
            "llama" if metadata.u32("llama.attention.sliding_window")?.is_some_and(|n| n > 0) => {
                Self::Mistral
            }
            "llama" => Self::Llama,
            "qwen2" => Self::Qwen2,
            "qwen3" => Self::Qwen3,
            "qwen3moe" => Self::Qwen3Moe,
            "gemma2" => Self::Gemma2,
            "gemma3" => Self::Gemma3,
            "phi3" => Self::Phi3,
            other => {
                let what = format!("{ARCHITECTURE_KEY} {other:?}");
                return Err(ModelError::unsupported(what, &SUPPORTED));
            }
        };
        Ok((family, architecture))
    }

    /// The class name in `architectures` and the `model_type` of config.json.
    pub(super) fn hugging_face(self) -> (&'static str, &'static str) {
        match self {
            Self::Llama => ("LlamaForCausalLM", "llama"),
            Self::Mistral => ("MistralForCausalLM", "mistral"),
            Self::Mixtral => ("MixtralForCausalLM", "mixtral"),
            Self::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
            Self::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
            Self::Qwen3Moe => ("Qwen3MoeForCausalLM", "qwen3_moe"),
            Self::Gemma2 => ("Gemma2ForCausalLM", "gemma2"),
            Self::Gemma3 => ("Gemma3ForCausalLM", "gemma3_text"),
            Self::Phi3 => ("Phi3ForCausalLM", "phi3"),
        }
    }

    /// Whether rows of q and k are ordered so that rope turns neighbouring pairs: llama.cpp's
    /// converter permutes them for the architecture `llama` alone.
    pub(super) fn rope_interleaved(self) -> bool {
        matches!(self, Self::Llama | Self::Mistral | Self::Mixtral)
    }

    /// Whether norms are `1 + w` in Hugging Face files and stored here with their 1.
    pub(super) fn norms_include_offset(self) -> bool {
        matches!(self, Self::Gemma2 | Self::Gemma3)
    }
}
