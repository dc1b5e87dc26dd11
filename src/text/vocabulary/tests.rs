use super::*;
use crate::ids::TokenId;
use crate::text::tests::LIMITS;
use crate::text::{Text, TokenizerSource};

fn open(vocabulary: Vocabulary) -> Result<Text, TextError> {
    Text::open(TokenizerSource::Vocabulary(Box::new(vocabulary)), None, LIMITS)
}

fn strings(tokens: &[&str]) -> Vec<String> {
    tokens.iter().map(|token| (*token).to_owned()).collect()
}

/// `<unk> <s> </s>`, 256 bytes, then words.
fn sentencepiece() -> Vocabulary {
    let mut tokens = strings(&["<unk>", "<s>", "</s>"]);
    tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    let mut types = vec![2, 3, 3];
    types.resize(259, 6);
    let words = ["▁", "a", "b", "ab", "▁a", "▁ab", "<keep>"];
    tokens.extend(strings(&words));
    types.extend([1, 1, 1, 1, 1, 1, 4]);
    let scores = (0..tokens.len()).map(|id| -(id as f32)).collect();
    Vocabulary {
        model: "llama".to_owned(),
        tokens,
        types,
        scores,
        bos: Some(1),
        eos: Some(2),
        unknown: Some(0),
        ..Vocabulary::default()
    }
}

fn byte_level(pre: &str) -> Vocabulary {
    let mut tokens: Vec<String> = ByteLevel::alphabet().into_iter().map(String::from).collect();
    tokens.sort_unstable();
    tokens.extend(strings(&["ab", "<|end|>"]));
    let mut types = vec![1; tokens.len() - 1];
    types.push(3);
    Vocabulary {
        model: "gpt2".to_owned(),
        pre: Some(pre.to_owned()),
        tokens,
        types,
        merges: strings(&["a b"]),
        eos: Some(257),
        ..Vocabulary::default()
    }
}

#[test]
fn sentencepiece_merges_by_score_and_falls_back_to_bytes() {
    let text = open(sentencepiece()).unwrap();
    let ids = |string: &str| text.encode(string, false).unwrap();
    // "ab" has a better score than "▁a", so it is merged first, and then with the space.
    assert_eq!(ids("ab"), [TokenId(264)]);
    assert_eq!(ids("é"), [TokenId(259), TokenId(3 + 0xC3), TokenId(3 + 0xA9)]);
    assert_eq!(ids("a</s>b<keep>"), [263, 2, 259, 261, 265].map(TokenId));
    assert_eq!(text.encode("a", true).unwrap(), [TokenId(1), TokenId(263)]);
    assert_eq!(text.decode(&ids("ab é"), false).unwrap(), "ab é");
    assert_eq!(text.eos(), Some(TokenId(2)));
    assert!(text.is_special(TokenId(0)) && !text.is_special(TokenId(265)));
}

#[test]
fn a_vocabulary_may_do_without_the_space_in_front() {
    let vocabulary = Vocabulary {
        add_space_prefix: Some(false),
        add_bos: Some(false),
        add_eos: Some(true),
        ..sentencepiece()
    };
    let text = open(vocabulary).unwrap();
    assert_eq!(text.encode("ab", true).unwrap(), [TokenId(262), TokenId(2)]);
    assert_eq!(text.decode(&[TokenId(264)], true).unwrap(), " ab");
}

#[test]
fn byte_level_vocabularies_merge_in_order() {
    let text = open(byte_level("llama-bpe")).unwrap();
    let ids = text.encode("abé<|end|>", true).unwrap();
    assert_eq!(ids.len(), 4);
    assert_eq!((ids[0], ids[3]), (TokenId(256), TokenId(257)));
    assert_eq!(text.decode(&ids, true).unwrap(), "abé");
    assert_eq!(text.info()["eos_token"], "<|end|>");
}

#[test]
fn tables_that_do_not_fit_are_refused_by_name() {
    let cases: [(Vocabulary, &str); 7] = [
        (Vocabulary { model: "bert".to_owned(), ..byte_level("gpt-2") }, "bert"),
        (byte_level("nobody"), "nobody"),
        (Vocabulary { tokens: Vec::new(), types: Vec::new(), ..byte_level("gpt-2") }, "tokens"),
        (Vocabulary { types: vec![1], ..byte_level("gpt-2") }, "token_type"),
        (Vocabulary { scores: vec![0.0], ..sentencepiece() }, "scores"),
        (Vocabulary { merges: strings(&["a a"]), ..byte_level("gpt-2") }, "a a"),
        (Vocabulary { bos: Some(u32::MAX), ..byte_level("gpt-2") }, "bos_token"),
    ];
    for (vocabulary, named) in cases {
        let error = open(vocabulary).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}
