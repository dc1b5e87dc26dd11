//! Finds stop strings in a text that comes in pieces, and says how much of it may be shown.

/// Looks for several stop strings at once.
///
/// The match that ends first wins, and of those that end together the one that starts first: this
/// depends on the text alone, not on how it was cut into tokens. Text that could still become part
/// of a match is held back. Each byte costs time proportional to the number of stop strings
/// (Knuth, Morris, Pratt: Fast pattern matching in strings, 1977).
#[derive(Clone, Debug)]
pub(super) struct StopMatcher {
    patterns: Vec<Pattern>,
    /// Text that has not been given out.
    held: String,
    include_stop: bool,
    stopped: bool,
}

#[derive(Clone, Debug)]
struct Pattern {
    /// Place in the list of stop strings.
    index: usize,
    bytes: Box<[u8]>,
    /// For each length of a matched prefix, the longest shorter one that also fits.
    fallback: Box<[u32]>,
    /// Bytes of the pattern that the text so far ends with.
    matched: usize,
}

impl StopMatcher {
    /// Matches `stop`; empty strings among them never match.
    pub(super) fn new(stop: &[String], include_stop: bool) -> Self {
        let patterns = stop.iter().enumerate().filter(|(_, text)| !text.is_empty());
        Self {
            patterns: patterns.map(|(index, text)| Pattern::new(index, text)).collect(),
            held: String::new(),
            include_stop,
            stopped: false,
        }
    }

    /// Takes more text; appends what has become certain to `out`. Returns the index of the stop
    /// string that was met. After one was met, nothing more comes.
    pub(super) fn push(&mut self, text: &str, out: &mut String) -> Option<usize> {
        if self.stopped {
            return None;
        }
        if self.patterns.is_empty() {
            out.push_str(text);
            return None;
        }
        let before = self.held.len();
        self.held.push_str(text);
        for (at, byte) in text.bytes().enumerate() {
            let complete = self.patterns.iter_mut().filter_map(|p| p.advance(byte));
            // Complete patterns end at the same byte, so the longest starts first.
            if let Some((length, index)) = complete.min_by_key(|&(len, _)| usize::MAX - len) {
                let end = before + at + 1;
                self.held.truncate(if self.include_stop { end } else { end - length });
                out.push_str(&std::mem::take(&mut self.held));
                self.stopped = true;
                return Some(index);
            }
        }
        let held_bytes = self.patterns.iter().map(|p| p.matched).max().unwrap_or(0);
        out.extend(self.held.drain(..self.held.len() - held_bytes));
        None
    }

    /// No more text comes: what was held back is certain now.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Whether a stop string was met.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }
}

impl Pattern {
    fn new(index: usize, text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut fallback = vec![0u32; bytes.len()];
        let mut matched = 0;
        for at in 1..bytes.len() {
            while matched > 0 && bytes[matched] != bytes[at] {
                matched = fallback[matched - 1] as usize;
            }
            matched += usize::from(bytes[matched] == bytes[at]);
            fallback[at] = matched as u32;
        }
        Self { index, bytes: bytes.into(), fallback: fallback.into(), matched: 0 }
    }

    /// Takes a byte; returns (length, index) when the pattern is complete.
    fn advance(&mut self, byte: u8) -> Option<(usize, usize)> {
        while self.matched > 0 && self.bytes[self.matched] != byte {
            self.matched = self.fallback[self.matched - 1] as usize;
        }
        self.matched += usize::from(self.bytes[self.matched] == byte);
        (self.matched == self.bytes.len()).then_some((self.matched, self.index))
    }
}
