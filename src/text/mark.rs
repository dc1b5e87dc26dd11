//! Keeps special tokens inside values (messages, tools, template variables) text.
//!
//! A chat template pastes user strings between control tokens. If a user string contains
//! `<|im_end|>`, the tokenizer would find it and the user could end their own message and start
//! a system message. So each occurrence in a value is broken by one private character, a Unicode
//! noncharacter that occurs in none of the values, before rendering; the tokenizer looks for
//! special tokens while the mark is still there and drops it before it does anything else.
//!
//! Three places need a mark: after the first character of each special token inside a value;
//! after the first character of a beginning of one at the end of a value (`<|im_`, so that two
//! content parts cannot meet to form one); and before the end of one at the start of a value.
//! A role such as `user` is neither, so templates that write `<|` + role + `|>` still work.
//!
//! A special token of a single character cannot be broken and stays special.

use std::collections::{BTreeMap, HashSet};

/// The special tokens of a tokenizer, ready to be found in strings.
#[derive(Clone, Debug)]
pub(super) struct SpecialStrings {
    /// Trie over the tokens' bytes; the root is node 0.
    nodes: Vec<Node>,
    /// Every proper suffix of a token.
    suffixes: HashSet<Box<str>>,
    /// Bytes of the longest token.
    longest_bytes: usize,
}

#[derive(Clone, Debug, Default)]
struct Node {
    children: BTreeMap<u8, u32>,
    ends_token: bool,
}

impl SpecialStrings {
    /// Prepares the strings of special tokens.
    pub(super) fn new<'a>(tokens: impl Iterator<Item = &'a str>) -> Self {
        let mut special =
            Self { nodes: vec![Node::default()], suffixes: HashSet::new(), longest_bytes: 0 };
        for token in tokens {
            special.insert(token);
        }
        special
    }

    fn insert(&mut self, token: &str) {
        let mut at = 0;
        for &byte in token.as_bytes() {
            let next = self.nodes.len() as u32;
            at = *self.nodes[at].children.entry(byte).or_insert(next) as usize;
            if at == self.nodes.len() {
                self.nodes.push(Node::default());
            }
        }
        self.nodes[at].ends_token |= !token.is_empty();
        self.longest_bytes = self.longest_bytes.max(token.len());
        for (start, _) in token.char_indices().skip(1) {
            self.suffixes.insert(token[start..].into());
        }
    }

    /// `value` with a mark wherever a special token could otherwise form, or `None` if nowhere.
    /// Takes time proportional to `value` times the longest token.
    pub(super) fn broken(&self, value: &str, mark: char) -> Option<String> {
        let mut out = String::new();
        let mut copied = 0;
        if self.starts_with_suffix(value) {
            out.push(mark);
        }
        for (start, first) in value.char_indices() {
            if self.begins_token(&value.as_bytes()[start..]) {
                let end = start + first.len_utf8();
                out.push_str(&value[copied..end]);
                out.push(mark);
                copied = end;
            }
        }
        if out.is_empty() {
            return None;
        }
        out.push_str(&value[copied..]);
        Some(out)
    }

    fn starts_with_suffix(&self, value: &str) -> bool {
        let ends = value.char_indices().map(|(at, c)| at + c.len_utf8());
        ends.take_while(|&end| end < self.longest_bytes)
            .any(|end| self.suffixes.contains(&value[..end]))
    }

    /// Whether the bytes start with a token, or are the beginning of one.
    fn begins_token(&self, bytes: &[u8]) -> bool {
        let mut at = 0;
        for byte in bytes {
            match self.nodes[at].children.get(byte) {
                Some(&next) => at = next as usize,
                None => return false,
            }
            if self.nodes[at].ends_token {
                return true;
            }
        }
        at != 0
    }
}

/// Noncharacters that occur in some strings, out of the 66 that Unicode has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Noncharacters {
    used: u128,
}

impl Noncharacters {
    const COUNT: u32 = 66;

    /// Notes the noncharacters in `text`.
    pub(super) fn note(&mut self, text: &str) {
        if text.is_ascii() {
            return;
        }
        for index in text.chars().filter_map(Self::index) {
            self.used |= 1 << index;
        }
    }

    /// A noncharacter that no noted text contains and that was not taken before.
    pub(super) fn take_unused(&mut self) -> Option<char> {
        let index = (0..Self::COUNT).find(|index| self.used & (1 << index) == 0)?;
        self.used |= 1 << index;
        let code = match index {
            0..32 => 0xFDD0 + index,
            _ => ((index - 32) / 2) * 0x1_0000 + 0xFFFE + (index - 32) % 2,
        };
        char::from_u32(code)
    }

    fn index(c: char) -> Option<u32> {
        let code = c as u32;
        match code {
            0xFDD0..=0xFDEF => Some(code - 0xFDD0),
            _ if code & 0xFFFE == 0xFFFE => Some(32 + (code >> 16) * 2 + (code & 1)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_occurrence_is_broken_also_across_two_values() {
        let special = SpecialStrings::new(["<|end|>", "<|im_end|>", "[INST]"].into_iter());
        let broken = |value: &str| special.broken(value, '#').unwrap_or_else(|| value.to_owned());
        assert_eq!(broken("a<|end|>b<|im_end|>"), "a<#|end|>b<#|im_end|>");
        assert_eq!(broken("<|end|<|end|>"), "<|end|<#|end|>");
        assert_eq!(broken("x<|im_"), "x<#|im_");
        assert_eq!(broken("a <"), "a <#");
        assert_eq!(broken("end|> x"), "#end|> x");
        assert_eq!(broken("the end|> x"), "the end|> x");
        assert_eq!(broken("[INST"), "[#INST");
        for plain in ["", "user", "a < b", "<|", "|", "plain [text]"] {
            let with = format!("{plain}.");
            assert_eq!(broken(&with), if plain == "|" { "|." } else { with.as_str() });
        }
    }

    #[test]
    fn a_mark_is_a_noncharacter_that_the_text_lacks() {
        let mut all = Noncharacters::default();
        let mut seen = Vec::new();
        while let Some(mark) = all.take_unused() {
            let code = mark as u32;
            assert!((0xFDD0..=0xFDEF).contains(&code) || code & 0xFFFE == 0xFFFE, "{code:x}");
            seen.push(mark);
        }
        assert_eq!(seen.len(), 66);
        let mut noted = Noncharacters::default();
        noted.note(&seen[..40].iter().collect::<String>());
        assert_eq!(noted.take_unused(), Some(seen[40]));
    }
}
