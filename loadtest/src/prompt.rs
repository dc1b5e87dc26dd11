//! The text of prompts: cheap, the same for the same seeds, and of the right length in the
//! server's tokens without a tokenizer here.

use crate::plan::Prompt;
use crate::randomness::mix;

/// Common English words; most tokenizers have each, with its space, as one token.
const WORDS: &[&str] = &[
    "the", "and", "time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child",
    "world", "school", "state", "family", "student", "group", "country", "problem", "hand", "part",
    "place", "case", "week", "company", "system", "program", "question", "work", "night", "point",
    "home", "water", "room", "mother", "area", "money", "story", "fact", "month", "lot", "right",
    "study", "book", "eye", "job", "word", "business", "issue", "side", "kind", "head", "house",
    "service", "friend", "father", "power", "hour", "game", "line", "end", "member", "law", "car",
    "city", "name", "team", "minute", "idea", "body", "back", "face", "level", "office", "door",
    "health", "person", "art", "war", "history", "party", "result", "change", "morning", "reason",
    "research", "girl", "guy", "moment", "air", "teacher", "force", "good", "new", "first", "last",
    "long", "great", "little", "own", "other", "old", "big", "high", "small", "large", "next",
    "early", "young", "few", "public", "bad", "same", "able", "have", "say", "get", "make", "go",
    "know", "take", "see", "come", "think", "look", "want", "give", "use", "find", "tell", "ask",
];

/// How the server counts: `tokens = overhead + per_word * words`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenFit {
    /// Tokens around the text: chat template, beginning of text.
    pub overhead: f64,
    /// Tokens of a word.
    pub per_word: f64,
}

impl TokenFit {
    /// One word is one token: what is used when the server does not count.
    pub const ONE_TO_ONE: Self = Self { overhead: 0.0, per_word: 1.0 };

    /// The line through two measurements of (words, tokens); `None` when they make no sense.
    pub fn through(short: (usize, u32), long: (usize, u32)) -> Option<Self> {
        let words = long.0.checked_sub(short.0).filter(|words| *words > 0)?;
        let tokens = long.1.checked_sub(short.1).filter(|tokens| *tokens > 0)?;
        let per_word = f64::from(tokens) / words as f64;
        let overhead = f64::from(short.1) - per_word * short.0 as f64;
        (0.05..=50.0).contains(&per_word).then_some(Self { overhead: overhead.max(0.0), per_word })
    }
}

/// A text of so many words, each of the list as often as the others.
pub fn probe_text(words: usize) -> String {
    let text: Vec<&str> = WORDS.iter().cycle().take(words).copied().collect();
    text.join(" ")
}

/// Words in [`probe_text`] that show each word once.
pub const fn probe_words() -> usize {
    WORDS.len()
}

/// Appends a prompt to a JSON string (without its quotes).
pub fn append_json(prompt: &Prompt, fit: &TokenFit, json: &mut Vec<u8>) {
    match prompt {
        Prompt::Text(text) => {
            let escaped = serde_json::to_vec(text.as_ref()).expect("a string is valid JSON");
            json.extend_from_slice(&escaped[1..escaped.len() - 1]);
        }
        Prompt::Synthetic(pieces) => {
            // Places of pieces are rounded, not their lengths, so that errors do not add up; the
            // last one also makes room for what the server puts around the text.
            let total: u32 = pieces.iter().map(|piece| piece.tokens).sum();
            let words_total = ((f64::from(total) - fit.overhead) / fit.per_word).round().max(1.0);
            let mut written = 0.0;
            let mut tokens_before = 0u32;
            for (place, piece) in pieces.iter().enumerate() {
                tokens_before += piece.tokens;
                let until = (f64::from(tokens_before) / fit.per_word).round();
                let last = place + 1 == pieces.len();
                let until = if last { words_total } else { until.min(words_total) };
                append_words(piece.seed, (until - written).max(0.0) as u32, json);
                written = until;
            }
            json.pop_if(|byte| *byte == b' ');
        }
    }
}

fn append_words(seed: u64, words: u32, json: &mut Vec<u8>) {
    let mut state = seed;
    for _ in 0..words {
        let word = WORDS[(mix(&mut state) >> 33) as usize % WORDS.len()];
        json.extend_from_slice(word.as_bytes());
        json.push(b' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::PromptPiece;

    fn text(pieces: &[PromptPiece], fit: &TokenFit) -> String {
        let mut json = Vec::new();
        append_json(&Prompt::Synthetic(pieces.to_vec()), fit, &mut json);
        String::from_utf8(json).unwrap()
    }

    #[test]
    fn the_server_counts_what_was_wanted() {
        let fit = TokenFit::through((10, 27), (130, 177)).unwrap();
        assert_eq!(fit, TokenFit { overhead: 14.5, per_word: 1.25 });
        for tokens in [20, 100, 1000, 7777] {
            let words = text(&[PromptPiece { seed: 3, tokens }], &fit).split(' ').count();
            let counted = fit.overhead + fit.per_word * words as f64;
            assert!((counted - f64::from(tokens)).abs() <= 0.625, "{tokens} {counted}");
        }
        assert_eq!(text(&[PromptPiece { seed: 3, tokens: 2 }], &fit).split(' ').count(), 1);
        assert_eq!(TokenFit::through((10, 30), (130, 30)), None);
    }

    #[test]
    fn equal_first_pieces_are_equal_text() {
        let fit = TokenFit { overhead: 9.0, per_word: 1.3 };
        let shared = PromptPiece { seed: 77, tokens: 256 };
        let one = text(&[shared, PromptPiece { seed: 1, tokens: 40 }], &fit);
        let two = text(&[shared, PromptPiece { seed: 2, tokens: 64 }], &fit);
        let same = one.bytes().zip(two.bytes()).take_while(|(a, b)| a == b).count();
        assert!(one[..same].split(' ').count() >= 197, "{same}");
        assert!(!two.starts_with(&one[..same + 40]));
    }

    #[test]
    fn text_of_a_trace_is_escaped() {
        let mut json = Vec::new();
        append_json(&Prompt::Text("a \"b\"\n".into()), &TokenFit::ONE_TO_ONE, &mut json);
        assert_eq!(json, br#"a \"b\"\n"#);
    }
}
