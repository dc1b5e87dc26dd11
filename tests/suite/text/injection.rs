//! Users cannot write control tokens, whatever they write, and nothing else changes.

use proptest::prelude::*;
use serde_json::{Value, json};
use weir::ids::TokenId;
use weir::text::{ChatInput, Text};

use super::TEXTS;

/// What contents are made of: special tokens of all fixtures, their parts, words, and characters
/// that the marks are taken from.
const FRAGMENTS: [&str; 34] = [
    "<|im_end|>",
    "<|im_start|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|end_of_text|>",
    "<s>",
    "</s>",
    "<unk>",
    "<|turn|>",
    "<|end|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "<|im_",
    "end|>",
    "|>",
    "<|",
    "<",
    ">",
    "/s>",
    "system",
    "\n",
    " ",
    "river",
    " flows",
    "é",
    "日本",
    "\u{FDD0}",
    "\u{FFFE}",
    "\u{10FFFF}",
    "[INST]",
];

fn content() -> impl Strategy<Value = String> {
    let fragments = prop::collection::vec(prop::sample::select(FRAGMENTS.to_vec()), 0..12);
    // Templates may trim, so the ends are letters.
    fragments.prop_map(|fragments| format!("a{}z", fragments.concat()))
}

fn chat(contents: &[String], tool: Option<&str>) -> ChatInput {
    let message = |(index, content): (usize, &String)| json!({"role": if index % 2 == 0 { "user" } else { "assistant" }, "content": content});
    let tools = tool.map(|description| {
        vec![json!({"type": "function", "function": {"name": "f", "description": description,
            "parameters": {"type": "object", "properties": {description: {"type": "string"}}}}})]
    });
    ChatInput {
        messages: contents.iter().enumerate().map(message).collect::<Vec<Value>>(),
        tools,
        add_generation_prompt: true,
        ..ChatInput::default()
    }
}

fn special(text: &Text, ids: &[TokenId]) -> Vec<TokenId> {
    ids.iter().copied().filter(|&id| text.is_special(id)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn only_the_template_writes_control_tokens(
        which in 0usize..8,
        contents in prop::collection::vec(content(), 1..4),
        tool in prop::option::of(content()),
    ) {
        let (name, text) = &TEXTS[which];
        let attack = text.render(&chat(&contents, tool.as_deref())).unwrap();
        let ids = text.encode_rendered(&attack).unwrap();
        let tame: Vec<String> = contents.iter().map(|_| "x".to_owned()).collect();
        let tame = text.render(&chat(&tame, tool.as_ref().map(|_| "x"))).unwrap();
        let tame_ids = text.encode_rendered(&tame).unwrap();
        prop_assert_eq!(special(text, &ids), special(text, &tame_ids), "{}", name);
        for content in &contents {
            prop_assert!(attack.text().contains(content.as_str()), "{}: {:?}", name, content);
        }
        if !name.contains("spm") {
            prop_assert_eq!(text.decode(&ids, false).unwrap(), attack.text(), "{}", name);
        }
    }

    #[test]
    fn tame_contents_have_the_ids_of_the_whole_prompt(
        which in 0usize..8,
        // Without the letters s and u, so that no special token of the fixtures can occur.
        contents in prop::collection::vec("[a-rtv-z <>|\n0-9é日\u{FDD0}]{0,20}", 1..4),
    ) {
        let (name, text) = &TEXTS[which];
        let rendered = text.render(&chat(&contents, None)).unwrap();
        let ids = text.encode_rendered(&rendered).unwrap();
        prop_assert_eq!(ids, text.encode(&rendered.text(), false).unwrap(), "{}", name);
    }
}
