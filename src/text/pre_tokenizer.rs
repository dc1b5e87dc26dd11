//! How byte-level vocabularies cut a text before they merge, by the names that GGUF files use.

use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

use super::TextError;

/// How the tokenizers of one family treat text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Family {
    /// `tokenizer.ggml.pre`.
    names: &'static [&'static str],
    /// Regular expressions, each applied to what the ones before it left.
    splits: &'static [&'static str],
    /// A whole word that is in the vocabulary is that token, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// A BOS is added where the file does not say.
    pub(super) add_bos: bool,
    /// Characters are composed first (NFC), which GGUF files do not say.
    pub(super) compose: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const DEEPSEEK3: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const PLAIN: Family =
    Family { names: &[], splits: &[], ignore_merges: false, add_bos: false, compose: false };

/// The families, from the `tokenizer.json` of the models that the names are of.
const FAMILIES: [Family; 9] = [
    Family {
        names: &[
            "default",
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "exaone4",
            "jina-es",
            "jina-de",
            "jina-v2-es",
            "jina-v2-de",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "roberta-bpe",
        ],
        splits: &[GPT2],
        ..PLAIN
    },
    Family {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2"],
        splits: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    Family { names: &["dbrx", "smaug-bpe", "chatglm-bpe", "glm4"], splits: &[LLAMA3], ..PLAIN },
    Family {
        names: &["qwen2", "stablelm2", "deepseek-r1-qwen", "hunyuan", "megrez", "grok-2"],
        splits: &[QWEN2],
        compose: true,
        ..PLAIN
    },
    Family {
        names: &["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"],
        splits: &[r"\p{N}", GPT2],
        ..PLAIN
    },
    Family { names: &["tekken"], splits: &[TEKKEN], ignore_merges: true, add_bos: true, ..PLAIN },
    Family { names: &["gpt-4o", "llama4"], splits: &[GPT4O], ..PLAIN },
    Family {
        names: &["deepseek-v3", "hunyuan-dense"],
        splits: &[r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3],
        ..PLAIN
    },
    Family {
        names: &["deepseek-coder"],
        splits: &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"],
        ..PLAIN
    },
];

impl Family {
    /// The family that a file names; a file that names none is taken for GPT-2's.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] with the names that are known.
    pub(super) fn named(name: Option<&str>) -> Result<&'static Self, TextError> {
        let name = name.unwrap_or("default");
        FAMILIES.iter().find(|family| family.names.contains(&name)).ok_or_else(|| {
            let mut known: Vec<&str> =
                FAMILIES.iter().flat_map(|family| family.names.iter().copied()).collect();
            known.sort_unstable();
            TextError::Tokenizer(format!(
                "tokenizer.ggml.pre: {name:?} is not supported; supported are {}",
                known.join(", ")
            ))
        })
    }

    /// The splits, then bytes as characters.
    pub(super) fn pre_tokenizer(&self) -> Result<PreTokenizerWrapper, TextError> {
        let mut parts = Vec::new();
        for split in self.splits {
            let pattern = SplitPattern::Regex((*split).to_owned());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
            parts.push(split.map_err(super::tokenizer::broken)?.into());
        }
        parts.push(ByteLevel::new(false, false, false).into());
        Ok(Sequence::new(parts).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_known_once_and_its_expressions_are_valid() {
        let mut names: Vec<&str> = FAMILIES.iter().flat_map(|f| f.names.iter().copied()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for family in &FAMILIES {
            family.pre_tokenizer().unwrap();
        }
        assert_eq!(Family::named(None).unwrap(), Family::named(Some("gpt-2")).unwrap());
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let error = Family::named(Some("klingon")).unwrap_err().to_string();
        assert!(error.contains("klingon") && error.contains("llama-bpe, llama-v3"), "{error}");
    }
}
