//! Server-sent events (WHATWG HTML, section 9.2), read from pieces cut anywhere, in bounded
//! memory.

/// A line, or the data of one event, must not be longer.
pub const EVENT_BYTES_MAX: usize = 1 << 20;
/// Buffers larger than this are given back after an event.
const KEPT_BYTES: usize = 8 << 10;

/// An event was longer than [`EVENT_BYTES_MAX`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {EVENT_BYTES_MAX} bytes")]
pub struct EventTooLong;

/// Reads events from bytes.
#[derive(Debug, Default)]
pub struct SseParser {
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// Data of the event under way.
    data: Vec<u8>,
    has_data: bool,
    /// `event: error`.
    is_error: bool,
    /// The last byte was a carriage return: a line feed that follows belongs to it.
    after_cr: bool,
    /// Bytes at the very start may be a byte order mark.
    started: bool,
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SseEvent<'a> {
    /// Its data lines, joined by line feeds.
    pub data: &'a [u8],
    /// Whether its type is `error`.
    pub is_error: bool,
}

impl SseParser {
    /// Reads more bytes and hands over each event that they complete.
    ///
    /// # Errors
    /// A line or an event is too long; the stream cannot be read further.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut on_event: impl FnMut(SseEvent<'_>),
    ) -> Result<(), EventTooLong> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let Some(end) = end else {
                if self.line.len() + bytes.len() > EVENT_BYTES_MAX {
                    return Err(EventTooLong);
                }
                self.line.extend_from_slice(bytes);
                return Ok(());
            };
            self.after_cr = bytes[end] == b'\r';
            if self.line.is_empty() {
                self.line(&bytes[..end], &mut on_event)?;
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(&bytes[..end]);
                self.line(&line, &mut on_event)?;
                line.clear();
                if line.capacity() <= KEPT_BYTES {
                    self.line = line;
                }
            }
            bytes = &bytes[end + 1..];
        }
        Ok(())
    }

    /// The stream ended: hands over an event whose empty line did not come. The standard drops
    /// it; clients of these servers do not, as some end with `data: [DONE]` and nothing after.
    ///
    /// # Errors
    /// As [`Self::feed`].
    pub fn finish(&mut self, mut on_event: impl FnMut(SseEvent<'_>)) -> Result<(), EventTooLong> {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.line(&line, &mut on_event)?;
        }
        self.dispatch(&mut on_event);
        Ok(())
    }

    fn line(
        &mut self,
        mut line: &[u8],
        on_event: &mut impl FnMut(SseEvent<'_>),
    ) -> Result<(), EventTooLong> {
        if !std::mem::replace(&mut self.started, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            self.dispatch(on_event);
            return Ok(());
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            // A comment: how servers keep a quiet connection alive.
            Some(0) => return Ok(()),
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &line[line.len()..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if self.data.len() + value.len() >= EVENT_BYTES_MAX {
                    return Err(EventTooLong);
                }
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            b"event" => self.is_error = value == b"error",
            _ => {}
        }
        Ok(())
    }

    fn dispatch(&mut self, on_event: &mut impl FnMut(SseEvent<'_>)) {
        let is_error = std::mem::take(&mut self.is_error);
        if std::mem::take(&mut self.has_data) {
            on_event(SseEvent { data: &self.data, is_error });
        }
        self.data.clear();
        if self.data.capacity() > KEPT_BYTES {
            self.data = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Events = Vec<(String, bool)>;

    fn read(pieces: &[&[u8]]) -> Events {
        let mut events = Vec::new();
        let mut take = |event: SseEvent<'_>| {
            events.push((String::from_utf8_lossy(event.data).into_owned(), event.is_error));
        };
        let mut parser = SseParser::default();
        for piece in pieces {
            parser.feed(piece, &mut take).unwrap();
        }
        parser.finish(&mut take).unwrap();
        events
    }

    const STREAM: &str = "\u{feff}data: {\"a\": 1}\r\n\r\n: keep-alive\n\ndata:two\rdata: \
                          lines\r\revent: error\r\ndata: {\"error\": \"é\"}\n\nid: 3\nretry: \
                          5\n\ndata\n\ndata: [DONE]";

    #[test]
    fn a_stream_is_the_same_however_it_is_cut() {
        let bytes = STREAM.as_bytes();
        let whole = read(&[bytes]);
        let expected = [
            ("{\"a\": 1}", false),
            ("two\nlines", false),
            ("{\"error\": \"é\"}", true),
            ("", false),
            ("[DONE]", false),
        ];
        assert_eq!(whole, expected.map(|(data, is_error)| (data.to_owned(), is_error)));
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(read(&pieces), whole, "cut at {first} and {second}");
            }
        }
        let each: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(&each), whole);
    }

    #[test]
    fn a_server_that_never_ends_a_line_is_stopped() {
        let piece = vec![b'x'; 64 << 10];
        let mut parser = SseParser::default();
        let fed = (0..64).find(|_| parser.feed(&piece, |_| {}).is_err());
        assert_eq!(fed, Some(16));
        assert!(parser.line.capacity() <= 2 * EVENT_BYTES_MAX);
        let lines = b"data: abcdefgh\n".repeat(4096);
        let mut parser = SseParser::default();
        assert!((0..64).any(|_| parser.feed(&lines, |_| {}).is_err()));
        assert!(parser.data.capacity() <= 2 * EVENT_BYTES_MAX);
    }
}
