//! One attempt on the wire.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep_until, timeout};

use crate::answer::{Answer, error_of};
use crate::client::Client;
use crate::connection::Connection;
use crate::plan::PlannedRequest;
use crate::record::{Outcome, RequestRecord};
use crate::sse::{SseEvent, SseParser};

/// A connection that was unused for longer may have been closed by the server, as its keep-alive
/// time allows; then the request is sent again on a new one and the server is not blamed.
const STALE_AFTER_NS: u64 = 1_000_000_000;
/// Of an error's body, and of an answer that is not streamed.
const ERROR_BYTES_MAX: usize = 64 << 10;
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Chunks of one answer, when it asked for few tokens.
const CHUNKS_MAX: usize = 1 << 16;
/// After the stream's end the connection may take so long to become free again.
const DRAIN: Duration = Duration::from_millis(50);
/// The same words as the official SDKs'.
const RETRY_COUNT: HeaderName = HeaderName::from_static("x-stainless-retry-count");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// One attempt on the wire; what it learns goes into the record.
pub struct Exchange<'a> {
    client: &'a Client,
    request: &'a PlannedRequest,
    record: &'a mut RequestRecord,
    watchdog: Pin<Box<Sleep>>,
    deadline_ns: u64,
    heard_ns: u64,
}

/// Why an attempt was no answer.
#[derive(Debug)]
pub enum Broken {
    /// Before the head of an answer.
    Connection {
        /// How the request ended if it is not tried again.
        outcome: Outcome,
        /// A word.
        code: &'static str,
        /// A sentence.
        message: String,
    },
    /// After the head.
    Stream {
        /// A word.
        code: String,
        /// A sentence.
        message: String,
    },
    /// The answer is an error.
    Refusal {
        /// Its status.
        status: StatusCode,
        /// Its headers.
        headers: Box<HeaderMap>,
        /// Its code.
        code: String,
        /// Its sentence.
        message: String,
    },
    /// The client left on purpose.
    Left,
}

/// What a stream has said so far.
#[derive(Default)]
struct Told {
    done: bool,
    finished: bool,
    error: Option<(String, String)>,
}

/// What happened while something of the server was awaited.
enum Heard<T> {
    Something(T),
    TimedOut(&'static str, String),
}

impl<'a> Exchange<'a> {
    /// An attempt that begins now.
    pub fn new(
        client: &'a Client,
        request: &'a PlannedRequest,
        record: &'a mut RequestRecord,
    ) -> Self {
        let now_ns = client.clock.now_ns();
        let limits = client.target.limits;
        let deadline_ns = now_ns + limits.whole.as_nanos() as u64;
        record.attempts += 1;
        record.sent_ns = record.sent_ns.or(Some(now_ns));
        record.last_sent_ns = Some(now_ns);
        record.headers_ns = None;
        record.chunks_ns.clear();
        record.prompt_tokens = None;
        record.cached_tokens = None;
        record.output_tokens = None;
        record.finish_reason = None;
        let first_check_ns = deadline_ns.min(now_ns + limits.idle.as_nanos() as u64);
        let watchdog = Box::pin(sleep_until(client.clock.at(first_check_ns).into()));
        Self { client, request, record, watchdog, deadline_ns, heard_ns: now_ns }
    }

    /// Sends the request and reads its answer.
    ///
    /// # Errors
    /// Why there is no whole answer.
    pub async fn run(mut self) -> Result<(), Broken> {
        let (mut connection, response) = self.send().await?;
        self.record.status = Some(response.status().as_u16());
        self.record.headers_ns = Some(self.heard());
        if !response.status().is_success() {
            let refusal = self.read_refusal(response, connection).await;
            return Err(refusal);
        }
        let json = response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
        let mut body = response.into_body();
        if json {
            self.read_whole(&mut body).await?;
        } else {
            self.read_stream(&mut body).await?;
        }
        // The answer is whole; now only the connection is waited for, so that it can be used again.
        let end = timeout(DRAIN, async { while let Some(Ok(_)) = body.frame().await {} });
        if end.await.is_ok() {
            connection.idle_since_ns = None;
            self.client.dialer.give_back(connection, self.client.clock.now_ns());
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(Connection, Response<Incoming>), Broken> {
        let tenant = &self.client.plan.tenants[usize::from(self.request.tenant)];
        let body = self.client.target.body(self.request, tenant);
        if let Some(connection) = self.client.dialer.reused().await {
            let idle_ns =
                connection.idle_since_ns.map_or(0, |since| self.heard_ns.saturating_sub(since));
            match self.send_on(connection, body.clone()).await {
                Err(Broken::Connection { outcome: Outcome::Broken, .. })
                    if idle_ns >= STALE_AFTER_NS => {}
                result => return result,
            }
        }
        let client = self.client;
        let connection = match self.hear(client.dialer.fresh()).await {
            Heard::Something(Ok(connection)) => connection,
            Heard::Something(Err(cause)) => return Err(unreachable_server(&cause)),
            Heard::TimedOut(code, message) => {
                return Err(Broken::Connection { outcome: Outcome::TimedOut, code, message });
            }
        };
        self.send_on(connection, body).await
    }

    async fn send_on(
        &mut self,
        mut connection: Connection,
        body: Bytes,
    ) -> Result<(Connection, Response<Incoming>), Broken> {
        let tenant = &self.client.plan.tenants[usize::from(self.request.tenant)];
        let mut request = self.client.target.post(body, tenant);
        let name = format!("loadtest-{:x}-{}", self.client.plan.seed, self.request.index);
        if let Ok(value) = HeaderValue::from_str(&name) {
            request.headers_mut().entry(REQUEST_ID).or_insert(value);
        }
        if self.request.behaviour.retries_max > 0 {
            let retries = HeaderValue::from(self.record.attempts - 1);
            request.headers_mut().insert(RETRY_COUNT, retries);
        }
        match self.hear(connection.sender.send_request(request)).await {
            Heard::Something(Ok(response)) => Ok((connection, response)),
            Heard::Something(Err(cause)) => Err(Broken::Connection {
                outcome: Outcome::Broken,
                code: code_of(&cause),
                message: format!("no answer: {}", told(&cause)),
            }),
            Heard::TimedOut(code, message) => {
                Err(Broken::Connection { outcome: Outcome::TimedOut, code, message })
            }
        }
    }

    async fn read_refusal(
        &mut self,
        response: Response<Incoming>,
        connection: Connection,
    ) -> Broken {
        let (head, mut body) = response.into_parts();
        let whole = self.collect(&mut body, ERROR_BYTES_MAX).await;
        self.record.end_ns = self.heard_ns;
        let error = whole.as_deref().map(error_of).unwrap_or_default();
        if whole.is_ok() {
            self.client.dialer.give_back(connection, self.client.clock.now_ns());
        }
        let reason = head.status.canonical_reason().unwrap_or("error");
        Broken::Refusal {
            status: head.status,
            headers: Box::new(head.headers),
            code: error.code.unwrap_or_else(|| reason.to_lowercase().replace(' ', "_")),
            message: error.message.unwrap_or_else(|| reason.to_owned()),
        }
    }

    /// A server that answers at once although a stream was asked for: one chunk at its end.
    async fn read_whole(&mut self, body: &mut Incoming) -> Result<(), Broken> {
        let bytes = self.collect(body, ANSWER_BYTES_MAX).await?;
        let at_ns = self.heard_ns;
        self.record.end_ns = at_ns;
        let mut told = Told::default();
        let event = SseEvent { data: &bytes, is_error: false };
        self.read_event(event, at_ns, &mut told);
        match told.error {
            Some((code, message)) => Err(Broken::Stream { code, message }),
            None => Ok(()),
        }
    }

    async fn collect(&mut self, body: &mut Incoming, bytes_max: usize) -> Result<Vec<u8>, Broken> {
        let mut bytes = Vec::new();
        while let Some(frame) = self.frame(body).await? {
            bytes.extend_from_slice(&frame);
            if bytes.len() > bytes_max {
                let message = format!("the answer is longer than {bytes_max} bytes");
                return Err(Broken::Stream { code: "answer_too_long".to_owned(), message });
            }
        }
        Ok(bytes)
    }

    async fn read_stream(&mut self, body: &mut Incoming) -> Result<(), Broken> {
        let mut parser = SseParser::default();
        let mut told = Told::default();
        let chunks_max = CHUNKS_MAX.max(4 * self.request.output_tokens as usize);
        let begun_ns = self.heard_ns;
        let hint = (self.request.output_tokens as usize + 1).min(512);
        self.record.chunks_ns.reserve(hint);
        let body_bytes_before = self.record.body_bytes;
        while let Some(frame) = self.frame(body).await? {
            let at_ns = self.heard_ns;
            let fed = parser.feed(&frame, |event| self.read_event(event, at_ns, &mut told));
            fed.map_err(|error| malformed(error.to_string()))?;
            self.progress_of(&told, chunks_max)?;
            if told.done {
                self.record.end_ns = at_ns;
                return Ok(());
            }
            if let Some(rate) = self.request.behaviour.read_bytes_per_s {
                let read = self.record.body_bytes - body_bytes_before;
                let until_ns = begun_ns + read.saturating_mul(1_000_000_000) / u64::from(rate);
                sleep_until(self.client.clock.at(until_ns).into()).await;
                self.heard();
            }
        }
        let at_ns = self.heard();
        let fed = parser.finish(|event| self.read_event(event, at_ns, &mut told));
        fed.map_err(|error| malformed(error.to_string()))?;
        self.progress_of(&told, chunks_max)?;
        self.record.end_ns = at_ns;
        if told.done || told.finished {
            return Ok(());
        }
        let message = "the stream ended without [DONE] or a finish_reason".to_owned();
        Err(Broken::Stream { code: "unfinished_stream".to_owned(), message })
    }

    /// Whether what was read so far lets the client go on.
    fn progress_of(&mut self, told: &Told, chunks_max: usize) -> Result<(), Broken> {
        if let Some((code, message)) = &told.error {
            return Err(Broken::Stream { code: code.clone(), message: message.clone() });
        }
        let chunks = self.record.chunks_ns.len();
        let leaves_after = self.request.behaviour.disconnect_after_chunks;
        if !told.done && leaves_after.is_some_and(|leaves| chunks >= leaves as usize) {
            return Err(Broken::Left);
        }
        if chunks > chunks_max {
            let message = format!(
                "the stream went on after {chunks_max} chunks, though {} tokens were asked for",
                self.request.output_tokens
            );
            return Err(Broken::Stream { code: "endless_stream".to_owned(), message });
        }
        Ok(())
    }

    fn read_event(&mut self, event: SseEvent<'_>, at_ns: u64, told: &mut Told) {
        if event.data == b"[DONE]" {
            told.done = true;
            return;
        }
        if told.error.is_some() || told.done {
            return;
        }
        if event.is_error {
            let error = error_of(event.data);
            told.error = Some((
                error.code.unwrap_or_else(|| "stream_error".to_owned()),
                error.message.unwrap_or_else(|| "an error event in the stream".to_owned()),
            ));
            return;
        }
        let answer: Answer = match serde_json::from_slice(event.data) {
            Ok(answer) => answer,
            Err(error) => {
                let start: String = String::from_utf8_lossy(event.data).chars().take(80).collect();
                let message = format!("an event is no chunk: {error}: {start}");
                told.error = Some(("malformed_stream".to_owned(), message));
                return;
            }
        };
        if let Some(error) = answer.error {
            told.error = Some((
                error.code.unwrap_or_else(|| "stream_error".to_owned()),
                error.message.unwrap_or_else(|| "an error event in the stream".to_owned()),
            ));
            return;
        }
        if answer.choices.has_text {
            if self.record.chunks_ns.is_empty() {
                let ttft_ns = at_ns.saturating_sub(self.record.scheduled_ns);
                self.client.progress.first_token(ttft_ns);
            }
            self.record.chunks_ns.push(at_ns);
            self.client.progress.chunk();
        }
        if let Some(reason) = answer.choices.finish_reason {
            told.finished = true;
            self.record.finish_reason.get_or_insert(reason);
        }
        if let Some(usage) = answer.usage {
            self.record.prompt_tokens = usage.prompt_tokens.or(self.record.prompt_tokens);
            self.record.output_tokens = usage.completion_tokens.or(self.record.output_tokens);
            let details = usage.prompt_tokens_details.unwrap_or_default();
            self.record.cached_tokens = details.cached_tokens.or(self.record.cached_tokens);
        }
    }

    /// The next bytes of a body; `None` at its end.
    async fn frame(&mut self, body: &mut Incoming) -> Result<Option<Bytes>, Broken> {
        loop {
            let frame = match self.hear(body.frame()).await {
                Heard::Something(frame) => frame,
                Heard::TimedOut(code, message) => {
                    return Err(Broken::Stream { code: code.to_owned(), message });
                }
            };
            self.heard();
            match frame {
                None => return Ok(None),
                Some(Err(cause)) => {
                    return Err(Broken::Stream {
                        code: code_of(&cause).to_owned(),
                        message: format!("the answer broke off: {}", told(&cause)),
                    });
                }
                Some(Ok(frame)) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    self.record.body_bytes += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
            }
        }
    }

    /// Awaits something of the server within the limits. One timer serves both limits and is set
    /// again only when it fires: setting it for each chunk would cost more than reading it.
    async fn hear<T>(&mut self, something: impl Future<Output = T>) -> Heard<T> {
        tokio::pin!(something);
        loop {
            tokio::select! {
                biased;
                heard = &mut something => return Heard::Something(heard),
                () = &mut self.watchdog => {}
            }
            let now_ns = self.client.clock.now_ns();
            let limits = self.client.target.limits;
            let quiet_until_ns = self.heard_ns + limits.idle.as_nanos() as u64;
            if now_ns >= self.deadline_ns {
                let message =
                    format!("no end of the answer after {} s", limits.whole.as_secs_f64());
                return Heard::TimedOut("client_timeout", message);
            }
            if now_ns >= quiet_until_ns {
                let message = format!("no byte for {} s", limits.idle.as_secs_f64());
                return Heard::TimedOut("idle_timeout", message);
            }
            let next = self.client.clock.at(self.deadline_ns.min(quiet_until_ns));
            self.watchdog.as_mut().reset(next.into());
        }
    }

    fn heard(&mut self) -> u64 {
        self.heard_ns = self.client.clock.now_ns();
        self.heard_ns
    }
}

fn malformed(message: String) -> Broken {
    Broken::Stream { code: "malformed_stream".to_owned(), message }
}

fn unreachable_server(cause: &io::Error) -> Broken {
    // These are limits of the machine that the load comes from, and no fault of the server.
    let ours = matches!(cause.raw_os_error(), Some(EMFILE | ENFILE | EADDRNOTAVAIL));
    let code = if ours { "local_limit" } else { "connect" };
    Broken::Connection { outcome: Outcome::Unreachable, code, message: cause.to_string() }
}

const ENFILE: i32 = rustix::io::Errno::NFILE.raw_os_error();
const EMFILE: i32 = rustix::io::Errno::MFILE.raw_os_error();
const EADDRNOTAVAIL: i32 = rustix::io::Errno::ADDRNOTAVAIL.raw_os_error();

fn code_of(error: &hyper::Error) -> &'static str {
    if error.is_parse() {
        "malformed_answer"
    } else if error.is_timeout() {
        "client_timeout"
    } else {
        "reset"
    }
}

fn told(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
