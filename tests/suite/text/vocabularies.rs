//! Tokenizers inside GGUF files, against the tokenizer.json of the same vocabulary or
//! `sentencepiece`.

use weir::ids::TokenId;
use weir::text::Text;

use super::{FILES, fixtures, ids, open_file, open_folder, read_json, user};

#[test]
fn texts_have_the_ids_of_the_reference() {
    for name in FILES {
        let text = open_file(name);
        let cases = read_json(fixtures().join("gguf").join(format!("{name}.json")));
        for case in cases["cases"].as_array().unwrap() {
            let string = case["text"].as_str().unwrap();
            let encoded = text.encode(string, false).unwrap();
            assert_eq!(encoded, ids(&case["ids"]), "{name}: {string:?}");
            let with_special = text.encode(string, true).unwrap();
            assert_eq!(with_special, ids(&case["ids_with_special"]), "{name}: {string:?}");
            assert_eq!(text.decode(&encoded, false).unwrap(), case["decoded"], "{name}");
            assert!(text.min_tokens(string.len()) <= encoded.len(), "{name}: {string:?}");
        }
        let template = cases["chat_template"].as_str().unwrap();
        let template = std::fs::read_to_string(fixtures().join(template)).unwrap();
        assert_eq!(text.info()["chat_template"], template);
        assert!(text.render(&user("hello")).is_ok());
    }
}

#[test]
fn a_file_and_a_folder_of_one_vocabulary_are_the_same_tokenizer() {
    for (file, folder) in [("tokenizer-llama-bpe", "bpe-llama3"), ("tokenizer-qwen2", "bpe-qwen2")]
    {
        let (file, folder) = (open_file(file), open_folder(folder, None));
        assert_eq!(file.vocab_size(), folder.vocab_size());
        assert_eq!(file.eos(), folder.eos());
        let of = |text: &Text| {
            let tokens = (0..text.vocab_size()).map(TokenId);
            tokens.map(|id| (text.token_bytes(id), text.is_special(id))).collect::<Vec<_>>()
        };
        assert_eq!(of(&file), of(&folder));
        let prompts = [&file, &folder].map(|text| {
            let rendered = text.render(&user("How deep is the river?")).unwrap();
            text.encode_rendered(&rendered).unwrap()
        });
        assert_eq!(prompts[0], prompts[1]);
    }
}
