//! Anything is tokenised in time proportional to it.

use std::time::Duration;

use weir::clock::{Clock, SystemClock};
use weir::text::{Text, TokenizerSource, Vocabulary};

use super::{LIMITS, open_folder, user};

const BYTES: usize = 1 << 16;
/// The promise is 250 ms for a mebibyte of one letter in a release build on an idle machine, which
/// the bench `text` measures. Here linear time is only told apart from time that grows with the
/// square, which would be minutes.
const LIMIT: Duration = Duration::from_secs(10);

/// What makes tokenizers slow: one long word, one long gap, and near misses of special tokens.
const SHAPES: [&str; 18] = [
    "a",
    "A",
    "aA",
    "é",
    "日",
    "👩\u{200D}",
    "e\u{301}",
    "7",
    " ",
    "\n",
    " \n",
    "\t",
    "!",
    "'s",
    "a ",
    "<",
    "<|im_",
    "<|im_end|>",
];

/// A byte-level vocabulary with the pre-tokenizer of a family, in which runs of a letter merge.
fn vocabulary(pre: &str) -> Text {
    let mut alphabet: Vec<String> = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet()
        .into_iter()
        .map(String::from)
        .collect();
    alphabet.sort_unstable();
    let (mut tokens, mut merges) = (alphabet, Vec::new());
    for letter in ["a", "A", "Ġ", "7", "!", "Ċ"] {
        for power in 0..6 {
            let half = letter.repeat(1 << power);
            merges.push(format!("{half} {half}"));
            tokens.push(half.repeat(2));
        }
    }
    tokens.push("<|im_end|>".to_owned());
    let mut types = vec![1; tokens.len() - 1];
    types.push(3);
    let vocabulary = Vocabulary {
        model: "gpt2".to_owned(),
        pre: Some(pre.to_owned()),
        tokens,
        types,
        merges,
        ..Vocabulary::default()
    };
    let template = Some("{{ messages[0].content }}".to_owned());
    Text::open(TokenizerSource::Vocabulary(Box::new(vocabulary)), template, LIMITS).unwrap()
}

fn check(name: &str, text: &Text, shape: &str) {
    let string = shape.repeat(BYTES.div_ceil(shape.len()));
    let clock = SystemClock::new();
    let start = clock.now();
    let tokens = text.encode(&string, false).unwrap().len();
    let encoding = clock.now().since(start);
    assert!(text.min_tokens(string.len()) <= tokens, "{name}: {shape:?}");
    let start = clock.now();
    let rendered = text.render(&user(&string)).unwrap();
    let rendering = clock.now().since(start);
    let start = clock.now();
    text.encode_rendered(&rendered).unwrap();
    let took = [encoding, rendering, clock.now().since(start)];
    assert!(took.iter().all(|&took| took < LIMIT), "{name}: {shape:?} took {took:?}");
}

#[test]
fn long_texts_of_any_shape_are_tokenised_in_linear_time() {
    for pre in [
        "gpt-2",
        "llama-bpe",
        "qwen2",
        "starcoder",
        "tekken",
        "gpt-4o",
        "deepseek-v3",
        "deepseek-coder",
    ] {
        let text = vocabulary(pre);
        SHAPES.iter().for_each(|shape| check(pre, &text, shape));
    }
    for name in ["spm-legacy", "spm-metaspace"] {
        let text = open_folder(name, Some("{{ messages[0].content }}".to_owned()));
        SHAPES.iter().for_each(|shape| check(name, &text, shape));
    }
}
