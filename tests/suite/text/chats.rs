//! Chat templates against what `transformers` renders.

use serde_json::{Map, Value};
use weir::text::{ChatInput, Text, TextError, TokenizerSource};

use super::{LIMITS, fixtures, read_json};

fn open(fixture: &Value) -> Text {
    let mut config = Map::new();
    for role in ["bos_token", "eos_token"] {
        config.insert(role.to_owned(), fixture[role].clone());
    }
    let folder = fixtures().join("text/bpe-qwen2");
    let source = TokenizerSource::HuggingFace {
        tokenizer_json: std::fs::read(folder.join("tokenizer.json")).unwrap(),
        tokenizer_config: Some(Value::Object(config).to_string().into_bytes()),
        special_tokens_map: None,
        chat_template: Some(fixture["template"].as_str().unwrap().to_owned()),
    };
    Text::open(source, None, LIMITS).unwrap()
}

fn input(fixture: &Value, case: &Value) -> ChatInput {
    let now = chrono::NaiveDateTime::parse_from_str(
        fixture["now"].as_str().unwrap(),
        "%Y-%m-%dT%H:%M:%S",
    );
    ChatInput {
        messages: case["messages"].as_array().unwrap().clone(),
        tools: case["tools"].as_array().cloned(),
        add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap(),
        continue_final_message: case["continue_final_message"].as_bool().unwrap_or(false),
        kwargs: case["kwargs"].as_object().unwrap().clone(),
        unix_s: u64::try_from(now.unwrap().and_utc().timestamp()).unwrap(),
    }
}

#[test]
fn every_case_renders_as_the_reference_does() {
    let mut wrong = Vec::new();
    let mut cases = 0;
    for entry in std::fs::read_dir(fixtures().join("text/templates")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let fixture = read_json(path);
        let text = open(&fixture);
        for case in fixture["cases"].as_array().unwrap() {
            cases += 1;
            let rendered = text.render(&input(&fixture, case)).map(|rendered| rendered.text());
            let expected = match case["error"].as_str() {
                Some(message) => Err(TextError::Template(message.to_owned())),
                None => Ok(case["expected"].as_str().unwrap().to_owned()),
            };
            if rendered != expected {
                let name = (&fixture["name"], &case["name"]);
                wrong.push(format!("{name:?}\n  {rendered:?}\n  expected\n  {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {cases}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cases > 100, "only {cases} cases");
}
