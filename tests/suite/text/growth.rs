//! Texts that grow token by token: the pieces are the text, whatever the tokens are.

use std::sync::Arc;

use proptest::prelude::*;
use weir::ids::TokenId;
use weir::text::{DetokenizerOptions, Piece};

use super::{FOLDERS, TEXTS, fixtures, ids, open_folder, read_json};

/// Random ids as fractions of a vocabulary, every third from its first sixth, where a
/// SentencePiece vocabulary has its byte tokens.
fn tokens(vocab_size: u32, random: &[u32]) -> Vec<TokenId> {
    let id = |r: u32| if r.is_multiple_of(3) { r % (vocab_size / 6) } else { r % vocab_size };
    random.iter().map(|&random| TokenId(id(random))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn pieces_add_up_to_the_whole_text(
        which in 0usize..8,
        random in prop::collection::vec(any::<u32>(), 0..40),
        skip_special: bool,
    ) {
        let (name, text) = &TEXTS[which];
        let tokens = tokens(text.vocab_size(), &random);
        let options = DetokenizerOptions { skip_special, ..DetokenizerOptions::default() };
        let mut detokenizer = text.detokenizer(&[], options);
        let mut whole = String::new();
        for &token in &tokens {
            whole.push_str(&detokenizer.push(token).text);
        }
        whole.push_str(&detokenizer.finish());
        prop_assert_eq!(whole, text.decode(&tokens, skip_special).unwrap(), "{}", name);
    }

    #[test]
    fn a_stop_string_out_of_the_text_itself_ends_it(
        which in 0usize..8,
        random in prop::collection::vec(any::<u32>(), 1..30),
        (from, length) in (0usize..40, 1usize..12),
        include_stop: bool,
    ) {
        let (name, text) = &TEXTS[which];
        let tokens = tokens(text.vocab_size(), &random);
        let whole = text.decode(&tokens, false).unwrap();
        let valid = whole.split('\u{FFFD}').max_by_key(|part| part.len()).unwrap_or_default();
        prop_assume!(!valid.is_empty());
        let from = from % valid.chars().count();
        let stop: String = valid.chars().skip(from).take(length).collect();
        let start = whole.find(&stop).unwrap();
        let expected = &whole[..if include_stop { start + stop.len() } else { start }];
        let options =
            DetokenizerOptions { stop: vec![stop], include_stop, skip_special: false };
        let mut detokenizer = text.detokenizer(&[], options);
        let (mut shown, mut stopped) = (String::new(), false);
        for &token in &tokens {
            let piece = detokenizer.push(token);
            prop_assert!(!stopped || piece == Piece::default());
            shown.push_str(&piece.text);
            stopped |= piece.stopped.is_some();
            prop_assert!(expected.starts_with(&shown), "{}: {:?}", name, shown);
        }
        prop_assert!(stopped, "{}", name);
        shown.push_str(&detokenizer.finish());
        prop_assert_eq!(shown, expected, "{}", name);
    }
}

#[test]
fn characters_of_several_tokens_come_whole() {
    for name in FOLDERS {
        let text = Arc::new(open_folder(name, None));
        let cases = read_json(fixtures().join("text").join(name).join("cases.json"));
        for case in cases["split"].as_array().unwrap() {
            let mut detokenizer = text.detokenizer(&[], DetokenizerOptions::default());
            let mut shown = String::new();
            for (id, prefix) in ids(&case["ids"]).iter().zip(case["prefixes"].as_array().unwrap()) {
                shown.push_str(&detokenizer.push(*id).text);
                // The reference decodes each prefix on its own, and shows what is cut as U+FFFD:
                // for SentencePiece the whole run of byte tokens, else the character.
                let prefix = prefix.as_str().unwrap();
                let complete = prefix.trim_end_matches('\u{FFFD}');
                if name.starts_with("bpe") || complete == prefix {
                    assert_eq!(shown, complete, "{name}: {case}");
                }
                assert!(!shown.contains('\u{FFFD}'), "{name}: {case}");
            }
            let last = case["prefixes"].as_array().unwrap().last().unwrap();
            assert_eq!(&(shown + &detokenizer.finish()), last, "{name}");
        }
    }
}

#[test]
fn an_answer_goes_on_where_the_prompt_ends() {
    for (name, text) in TEXTS.iter() {
        let prompt = text.encode("The river", true).unwrap();
        let whole = text.encode("The river carries water", true).unwrap();
        let options = DetokenizerOptions { skip_special: true, ..DetokenizerOptions::default() };
        let mut detokenizer = text.detokenizer(&prompt, options);
        let pieces: String =
            whole[prompt.len()..].iter().map(|&token| detokenizer.push(token).text).collect();
        assert_eq!(pieces, " carries water", "{name}");
    }
}
