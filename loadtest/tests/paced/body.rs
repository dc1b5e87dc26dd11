//! The streamed answer: a body that gives each chunk at its time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};

use super::fault::Damage;
use super::request::{Ask, Endpoint};
use super::service::Shared;
use super::settings::ns;
use super::truth::RequestTruth;

/// The word that every token is.
const TOKEN: &str = " word";

/// A streamed answer.
pub struct PacedBody {
    shared: Arc<Shared>,
    record: RequestTruth,
    damage: Option<Damage>,
    texts: Texts,
    next: Step,
    timer: Pin<Box<Sleep>>,
    set_for: Option<Step>,
    _place: Option<OwnedSemaphorePermit>,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Role,
    Chunk(u32),
    Tail,
    End,
}

/// The events of an answer, made once; cloning `Bytes` is cheap.
struct Texts {
    role: Bytes,
    first: Bytes,
    middle: Bytes,
    last: Bytes,
    tail: Bytes,
    chunks: u32,
    tokens_per_chunk: u32,
    tokens: u32,
}

impl PacedBody {
    /// An answer that begins now: `record` has the times of arrival and admission.
    pub fn new(
        shared: Arc<Shared>,
        ask: &Ask,
        record: RequestTruth,
        damage: Option<Damage>,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let settings = &shared.settings;
        let texts = Texts::new(
            ask,
            &record,
            settings.chunks(ask.output_tokens),
            settings.tokens_per_chunk.max(1),
            settings.role_at_ms.is_some(),
        );
        let next = if settings.role_at_ms.is_some() { Step::Role } else { Step::Chunk(0) };
        let timer = Box::pin(sleep_until(Instant::from_std(shared.clock.at(0))));
        shared.truth.begin();
        Self { shared, record, damage, texts, next, timer, set_for: None, _place: place }
    }

    fn due_ns(&self, step: Step) -> u64 {
        let settings = &self.shared.settings;
        let offset_ns = match step {
            Step::Role => ns(settings.role_at_ms.unwrap_or(0.0)),
            Step::Chunk(index) => settings.chunk_offset_ns(index),
            Step::Tail | Step::End => settings.chunk_offset_ns(self.texts.chunks - 1),
        };
        self.shared.delivered_ns(self.record.admitted_ns + offset_ns)
    }

    /// The chunk's event, or how the stream ends instead.
    fn chunk(&mut self, index: u32) -> Poll<Option<io::Result<Bytes>>> {
        if self.damage.as_ref().and_then(Damage::chunks_before) == Some(index) {
            return self.fail();
        }
        let malformed = self.damage == Some(Damage::MalformedAt(index));
        let last = index + 1 == self.texts.chunks && self.damage != Some(Damage::Endless);
        self.next = if last { Step::Tail } else { Step::Chunk(index + 1) };
        if malformed {
            return Poll::Ready(Some(Ok(Bytes::from_static(b"data: {\"choices\": [{\"del\n\n"))));
        }
        self.record.chunks_ns.push(self.shared.clock.now_ns());
        let texts = &self.texts;
        let most = if last { texts.tokens } else { u32::MAX };
        self.record.output_tokens = most.min((index + 1).saturating_mul(texts.tokens_per_chunk));
        let event = match index {
            _ if last => &texts.last,
            0 => &texts.first,
            _ => &texts.middle,
        };
        Poll::Ready(Some(Ok(event.clone())))
    }

    fn fail(&mut self) -> Poll<Option<io::Result<Bytes>>> {
        match &self.damage {
            Some(Damage::HangAfter(_)) => Poll::Pending,
            Some(Damage::DropAfter(_)) => {
                Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::ConnectionReset))))
            }
            Some(Damage::ErrorEventAt { code, .. }) => {
                let error = json!({"error": {
                    "message": "an error in the middle of a stream", "type": "server_error",
                    "param": null, "code": code
                }});
                self.next = Step::End;
                Poll::Ready(Some(Ok(event(&error))))
            }
            _ => {
                self.next = Step::End;
                Poll::Ready(None)
            }
        }
    }
}

impl Body for PacedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let step = self.next;
        if self.set_for != Some(step) && step != Step::End {
            let due_ns = self.due_ns(step);
            let due = Instant::from_std(self.shared.clock.at(due_ns));
            self.timer.as_mut().reset(due);
            self.set_for = Some(step);
        }
        if step != Step::End {
            ready!(self.timer.as_mut().poll(context));
        }
        let bytes = match step {
            Step::Role => {
                self.next = Step::Chunk(0);
                Poll::Ready(Some(Ok(self.texts.role.clone())))
            }
            Step::Chunk(index) => self.chunk(index),
            Step::Tail => {
                self.next = Step::End;
                self.record.completed = self.damage.is_none();
                Poll::Ready(Some(Ok(self.texts.tail.clone())))
            }
            Step::End => Poll::Ready(None),
        };
        bytes.map(|bytes| bytes.map(|bytes| bytes.map(Frame::data)))
    }
}

impl Drop for PacedBody {
    fn drop(&mut self) {
        let mut record = std::mem::take(&mut self.record);
        record.end_ns = self.shared.clock.now_ns();
        self.shared.truth.end(record);
    }
}

impl Texts {
    fn new(
        ask: &Ask,
        record: &RequestTruth,
        chunks: u32,
        tokens_per_chunk: u32,
        role_apart: bool,
    ) -> Self {
        let id = format!("paced-{}-{}", record.request, record.attempt);
        let text = |tokens: u32| TOKEN.repeat(tokens as usize);
        let last_tokens = ask.output_tokens - (chunks - 1) * tokens_per_chunk;
        let delta = |tokens: u32, role: bool| match (ask.endpoint, role) {
            (Endpoint::Completions, _) => json!({"text": text(tokens)}),
            (Endpoint::Chat, false) => json!({"delta": {"content": text(tokens)}}),
            (Endpoint::Chat, true) => {
                json!({"delta": {"role": "assistant", "content": text(tokens)}})
            }
        };
        let one = |delta: Value| event(&envelope(ask, &id, Some(with_index(delta, None)), None));
        let role = !role_apart;
        let end = match ask.endpoint {
            Endpoint::Chat => json!({"delta": {}}),
            Endpoint::Completions => json!({"text": ""}),
        };
        let finish = with_index(end, Some(ask.finish_reason));
        let mut tail = event(&envelope(ask, &id, Some(finish), None)).to_vec();
        if ask.usage {
            tail.extend_from_slice(&event(&envelope(ask, &id, None, Some(usage(ask)))));
        }
        tail.extend_from_slice(b"data: [DONE]\n\n");
        Self {
            role: one(delta(0, true)),
            first: one(delta(tokens_per_chunk, role)),
            middle: one(delta(tokens_per_chunk, false)),
            last: one(delta(last_tokens, role && chunks == 1)),
            tail: Bytes::from(tail),
            chunks,
            tokens_per_chunk,
            tokens: ask.output_tokens,
        }
    }
}

/// The answer in one JSON body.
pub fn whole(ask: &Ask, record: &RequestTruth) -> Value {
    let text = TOKEN.repeat(ask.output_tokens as usize);
    let choice = match ask.endpoint {
        Endpoint::Chat => json!({"message": {"role": "assistant", "content": text}}),
        Endpoint::Completions => json!({"text": text}),
    };
    let id = format!("paced-{}-{}", record.request, record.attempt);
    let choice = with_index(choice, Some(ask.finish_reason));
    let mut answer = envelope(ask, &id, Some(choice), ask.usage.then(|| usage(ask)));
    if ask.endpoint == Endpoint::Chat {
        answer["object"] = json!("chat.completion");
    }
    answer
}

fn with_index(mut choice: Value, finish_reason: Option<&str>) -> Value {
    choice["index"] = json!(0);
    choice["finish_reason"] = json!(finish_reason);
    choice
}

fn usage(ask: &Ask) -> Value {
    json!({
        "prompt_tokens": ask.prompt_tokens, "completion_tokens": ask.output_tokens,
        "total_tokens": ask.prompt_tokens + ask.output_tokens
    })
}

fn envelope(ask: &Ask, id: &str, choice: Option<Value>, usage: Option<Value>) -> Value {
    let object = match ask.endpoint {
        Endpoint::Chat => "chat.completion.chunk",
        Endpoint::Completions => "text_completion",
    };
    let choices: Vec<Value> = choice.into_iter().collect();
    let mut body = json!({
        "id": id, "object": object, "created": 1_700_000_000, "model": ask.model,
        "choices": choices
    });
    if let Some(usage) = usage {
        body["usage"] = usage;
    }
    body
}

fn event(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}
