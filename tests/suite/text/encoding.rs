//! Ids and texts of the fixtures in the layout of Hugging Face, as `tokenizers` has them.

use super::{FOLDERS, fixtures, ids, open_folder, read_json, user};

#[test]
fn texts_have_the_ids_of_the_reference() {
    for name in FOLDERS {
        let text = open_folder(name, None);
        let cases = read_json(fixtures().join("text").join(name).join("cases.json"));
        for case in cases["encode"].as_array().unwrap() {
            let string = case["text"].as_str().unwrap();
            let encoded = text.encode(string, false).unwrap();
            assert_eq!(encoded, ids(&case["ids"]), "{name}: {string:?}");
            let with_special = text.encode(string, true).unwrap();
            assert_eq!(with_special, ids(&case["ids_with_special"]), "{name}: {string:?}");
            assert_eq!(text.decode(&encoded, false).unwrap(), case["decoded"], "{name}");
            let skipped = text.decode(&with_special, true).unwrap();
            assert_eq!(skipped, case["decoded_skip_special"], "{name}: {string:?}");
            assert!(text.min_tokens(string.len()) <= encoded.len(), "{name}: {string:?}");
        }
    }
}

#[test]
fn special_tokens_in_messages_have_the_ids_of_their_letters() {
    for name in FOLDERS {
        let text = open_folder(name, Some("{{ messages[0].content }}".to_owned()));
        let cases = read_json(fixtures().join("text").join(name).join("cases.json"));
        for case in cases["encode"].as_array().unwrap() {
            let string = case["text"].as_str().unwrap();
            let rendered = text.render(&user(string)).unwrap();
            assert_eq!(rendered.text(), string);
            let encoded = text.encode_rendered(&rendered).unwrap();
            assert_eq!(encoded, ids(&case["ids_plain"]), "{name}: {string:?}");
        }
    }
}

#[test]
fn random_ids_have_the_text_of_the_reference() {
    for name in FOLDERS {
        let text = open_folder(name, None);
        let cases = read_json(fixtures().join("text").join(name).join("cases.json"));
        let mut compared = 0;
        for case in cases["decode"].as_array().unwrap() {
            for (key, skip) in [("decoded", false), ("decoded_skip_special", true)] {
                let expected = case[key].as_str().unwrap();
                let decoded = text.decode(&ids(&case["ids"]), skip).unwrap();
                // For a run of byte tokens that is no valid UTF-8 the reference writes one U+FFFD
                // for each byte, here only the invalid ones are lost.
                if name.starts_with("spm") && expected.contains('\u{FFFD}') {
                    assert!(decoded.contains('\u{FFFD}'), "{name}");
                    assert!(decoded.chars().count() <= expected.chars().count(), "{name}");
                } else {
                    assert_eq!(decoded, expected, "{name}: {}", case["ids"]);
                    compared += 1;
                }
            }
        }
        assert!(compared >= 10, "{name}: only {compared} cases");
    }
}
