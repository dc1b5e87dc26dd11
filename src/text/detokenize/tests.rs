use proptest::prelude::*;

use super::*;

/// Tokens that cut characters, hold several, hold none, and a special one.
fn table(start: StartRule) -> Arc<TokenTable> {
    let mut table = TokenTable::new(start);
    let words: [&[u8]; 14] = [
        b"a",
        b"b",
        b"ab",
        b" a",
        b" ",
        b"",
        b"\xE2",
        b"\x82",
        b"\xAC",
        b"\xE2\x82\xACb",
        b"\xF0\x9F\x98",
        b"\x80",
        b"\xFF",
        b"<s>",
    ];
    for word in words {
        table.push(word, word == b"<s>");
    }
    Arc::new(table)
}

fn tokens() -> impl Strategy<Value = Vec<TokenId>> {
    prop::collection::vec((0u32..14).prop_map(TokenId), 0..24)
}

fn starts() -> impl Strategy<Value = StartRule> {
    let rules =
        [StartRule::Keep, StartRule::Strip(1), StartRule::Strip(2), StartRule::StripFirstToken];
    prop::sample::select(rules.to_vec())
}

/// What the stop strings leave of a text: the match that ends first, then the longest.
fn stopped_naively(text: &str, stop: &[String], include: bool) -> (String, Option<usize>) {
    let mut best: Option<(usize, usize, usize)> = None;
    for (index, stop) in stop.iter().enumerate().filter(|(_, stop)| !stop.is_empty()) {
        let found = (0..text.len()).find(|&at| text.as_bytes()[at..].starts_with(stop.as_bytes()));
        if let Some(start) = found {
            let key = (start + stop.len(), start, index);
            best = Some(best.map_or(key, |best| best.min(key)));
        }
    }
    match best {
        Some((end, start, index)) => {
            (text[..if include { end } else { start }].to_owned(), Some(index))
        }
        None => (text.to_owned(), None),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn pieces_add_up_to_the_whole_text(
        tokens in tokens(), start in starts(), skip_special: bool,
    ) {
        let table = table(start);
        let options = DetokenizerOptions { skip_special, ..Default::default() };
        let mut detokenizer = Detokenizer::new(Arc::clone(&table), &[], &options);
        let mut text: String = tokens.iter().map(|&t| detokenizer.push(t).text).collect();
        text.push_str(&detokenizer.finish());
        prop_assert_eq!(text, table.decode(&tokens, skip_special).unwrap());
    }

    #[test]
    fn a_prompt_is_context_and_no_text(
        prompt in tokens(), tokens in tokens(), start in starts(), skip_special: bool,
    ) {
        let table = table(start);
        let options = DetokenizerOptions { skip_special, ..Default::default() };
        let mut detokenizer = Detokenizer::new(Arc::clone(&table), &prompt, &options);
        let mut text: String = tokens.iter().map(|&t| detokenizer.push(t).text).collect();
        text.push_str(&detokenizer.finish());
        // A character that the prompt leaves open belongs to the answer.
        let whole = table.decode(&[prompt.clone(), tokens].concat(), skip_special).unwrap();
        let before = table.decode(&prompt, skip_special).unwrap();
        let closed = before.strip_suffix('\u{FFFD}').unwrap_or(&before);
        prop_assert!(
            whole == format!("{before}{text}") || whole == format!("{closed}{text}"),
            "{whole:?} is not {before:?} and {text:?}"
        );
    }

    #[test]
    fn stop_strings_never_leak_and_nothing_else_is_lost(
        tokens in tokens(),
        stop in prop::collection::vec("[ab €\u{FFFD}]{0,4}", 0..4),
        include_stop: bool,
    ) {
        let table = table(StartRule::Keep);
        let whole = table.decode(&tokens, false).unwrap();
        let (expected, expected_stop) = stopped_naively(&whole, &stop, include_stop);
        let options = DetokenizerOptions { stop: stop.clone(), include_stop, skip_special: false };
        let mut detokenizer = Detokenizer::new(Arc::clone(&table), &[], &options);
        let (mut text, mut stopped) = (String::new(), None);
        for &token in &tokens {
            let piece = detokenizer.push(token);
            prop_assert!(stopped.is_none() || piece == Piece::default());
            text.push_str(&piece.text);
            stopped = stopped.or(piece.stopped);
            // What was shown is never taken back.
            prop_assert!(expected.starts_with(&text));
        }
        text.push_str(&detokenizer.finish());
        prop_assert_eq!(text, expected);
        // A stop string that only U+FFFD at the end completes is met in `finish`.
        let in_finish = stopped.is_none() && whole.ends_with('\u{FFFD}');
        prop_assert!(stopped == expected_stop || in_finish);
    }
}

#[test]
fn a_character_in_three_tokens_comes_when_it_is_complete() {
    let table = table(StartRule::Keep);
    let mut detokenizer = Detokenizer::new(table, &[], &DetokenizerOptions::default());
    let texts = [6, 7, 8, 6].map(|id| detokenizer.push(TokenId(id)).text);
    assert_eq!(texts, ["", "", "€", ""]);
    assert_eq!(detokenizer.finish(), "\u{FFFD}");
    assert_eq!(detokenizer.finish(), "");
}

#[test]
fn ids_beyond_the_vocabulary_have_no_text() {
    let table = table(StartRule::Keep);
    let mut detokenizer = Detokenizer::new(table, &[], &DetokenizerOptions::default());
    assert_eq!(detokenizer.push(TokenId(u32::MAX)), Piece::default());
}
