//! Paths, keys, places, and the choice of what happens to a request.

use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::http::response::Builder;
use hyper::{Method, Request, Response};
use loadtest::clock::Clock;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::body::{PacedBody, whole};
use super::fault::{Damage, Fault};
use super::request::{Ask, Endpoint, Refusal};
use super::settings::Settings;
use super::truth::{RequestTruth, Truth};

/// A damage for the one request that carries it, in the words of `--fault`.
const FAULT_HEADER: &str = "x-paced-fault";

/// What all connections of a server share.
pub struct Shared {
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    pub(super) truth: Truth,
    places: Option<Arc<Semaphore>>,
    first_arrival_ns: OnceLock<u64>,
}

type Answer = Response<BoxBody<Bytes, io::Error>>;

impl Shared {
    /// A server that has seen no request.
    pub fn new(settings: Settings) -> Self {
        let places = settings.capacity.map(|places| Arc::new(Semaphore::new(places as usize)));
        Self {
            settings,
            clock: Clock::start(),
            truth: Truth::default(),
            places,
            first_arrival_ns: OnceLock::new(),
        }
    }

    /// Answers a request.
    pub async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let arrived_ns = self.clock.now_ns();
        let path = request.uri().path().to_owned();
        let answer = match (request.method(), path.as_str()) {
            (&Method::POST, "/v1/chat/completions") => {
                self.generate(Endpoint::Chat, request, path, arrived_ns).await
            }
            (&Method::POST, "/v1/completions") => {
                self.generate(Endpoint::Completions, request, path, arrived_ns).await
            }
            (&Method::GET, "/v1/models") => match self.check_key(&request) {
                Ok(()) => json_answer(
                    200,
                    &json!({"object": "list", "data": [{
                        "id": self.settings.model, "object": "model", "created": 1_700_000_000,
                        "owned_by": "paced", "max_model_len": 1_000_000
                    }]}),
                ),
                Err(refusal) => error_answer(&refusal),
            },
            (&Method::GET, "/health") => text_answer("ok"),
            (&Method::GET, "/metrics") => text_answer(""),
            (&Method::GET, "/truth") => json_answer(200, &json!(self.truth.requests())),
            (&Method::GET, "/truth/summary") => json_answer(200, &json!(self.truth.summary())),
            (&Method::DELETE, "/truth") => {
                self.truth.clear();
                text_answer("cleared")
            }
            _ => error_answer(&(404, "not_found", format!("nothing is at {path}"))),
        };
        Ok(answer)
    }

    /// When something that is due is delivered, both since the server's start.
    pub(super) fn delivered_ns(&self, due_ns: u64) -> u64 {
        let first_ns = *self.first_arrival_ns.get().unwrap_or(&due_ns);
        first_ns + self.settings.delivered_ns(due_ns.saturating_sub(first_ns))
    }

    async fn generate(
        self: Arc<Self>,
        endpoint: Endpoint,
        request: Request<Incoming>,
        path: String,
        arrived_ns: u64,
    ) -> Answer {
        self.first_arrival_ns.get_or_init(|| arrived_ns);
        let key = self.check_key(&request);
        let header = |name: &str| {
            let value = request.headers().get(name).and_then(|value| value.to_str().ok());
            value.map(str::to_owned)
        };
        let (request_id, own_fault) = (header("x-request-id"), header(FAULT_HEADER));
        let Ok(body) = request.into_body().collect().await.map(|body| body.to_bytes()) else {
            return error_answer(&(400, "invalid_body", "the body was cut off".to_owned()));
        };
        let (number, attempt) = self.truth.arrive(hash(&body));
        let mut record = RequestTruth {
            request: number,
            attempt,
            path,
            request_id,
            arrived_ns,
            admitted_ns: arrived_ns,
            ..RequestTruth::default()
        };
        let damage = match own_fault.map(|spec| spec.parse::<Fault>()) {
            Some(Err(message)) => return self.refuse(record, &(400, "invalid_fault", message)),
            Some(Ok(fault)) => Some(fault.damage),
            None => self.damage(number, attempt),
        };
        if let Some(Damage::Status { status, .. }) = damage {
            record.status = status;
            return self.refuse_injected(record, damage);
        }
        let ask = key.and_then(|()| Ask::read(endpoint, &body, &self.settings));
        let ask = match ask {
            Ok(ask) => ask,
            Err(refusal) => return self.refuse(record, &refusal),
        };
        let place = match self.place().await {
            Ok(place) => place,
            Err(refusal) => return self.refuse(record, &refusal),
        };
        if place.is_some() {
            record.admitted_ns = self.clock.now_ns();
        }
        (record.status, record.prompt_tokens) = (200, ask.prompt_tokens);
        if !ask.stream {
            return self.give_whole(ask, record, place).await;
        }
        let body = PacedBody::new(Arc::clone(&self), &ask, record, damage, place);
        let response = Response::builder().header(CONTENT_TYPE, "text/event-stream");
        finish(response.header("cache-control", "no-cache"), body.boxed())
    }

    async fn give_whole(
        &self,
        ask: Ask,
        mut record: RequestTruth,
        place: Option<OwnedSemaphorePermit>,
    ) -> Answer {
        let chunks = self.settings.chunks(ask.output_tokens);
        let due_ns = record.admitted_ns + self.settings.chunk_offset_ns(chunks - 1);
        sleep_until(Instant::from_std(self.clock.at(self.delivered_ns(due_ns)))).await;
        drop(place);
        record.end_ns = self.clock.now_ns();
        (record.completed, record.output_tokens) = (true, ask.output_tokens);
        let answer = json_answer(200, &whole(&ask, &record));
        self.truth.write(record);
        answer
    }

    fn check_key(&self, request: &Request<Incoming>) -> Result<(), Refusal> {
        let Some(key) = &self.settings.api_key else { return Ok(()) };
        let sent = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        if sent.and_then(|value| value.strip_prefix("Bearer ")) == Some(key) {
            return Ok(());
        }
        Err((401, "invalid_api_key", "the key is missing or wrong".to_owned()))
    }

    fn damage(&self, number: u64, attempt: u32) -> Option<Damage> {
        let faults = &self.settings.faults;
        faults.iter().find(|fault| fault.hits(number, attempt)).map(|fault| fault.damage.clone())
    }

    async fn place(&self) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        let Some(places) = self.places.clone() else { return Ok(None) };
        let full = |_| (429, "queue_full", "all places are taken".to_owned());
        if self.settings.refuse_when_full {
            return places.try_acquire_owned().map(Some).map_err(|_| full(()));
        }
        places.acquire_owned().await.map(Some).map_err(|_| full(()))
    }

    fn refuse(&self, mut record: RequestTruth, refusal: &Refusal) -> Answer {
        record.status = refusal.0;
        record.end_ns = self.clock.now_ns();
        self.truth.write(record);
        error_answer(refusal)
    }

    fn refuse_injected(&self, mut record: RequestTruth, damage: Option<Damage>) -> Answer {
        record.end_ns = self.clock.now_ns();
        self.truth.write(record);
        let Some(Damage::Status { status, code, retry_after_ms, should_retry }) = damage else {
            unreachable!("only called for a status");
        };
        let mut response = Response::builder().status(status);
        if let Some(after_ms) = retry_after_ms {
            response = response.header("retry-after-ms", after_ms);
            response = response.header("retry-after", after_ms.div_ceil(1000));
        }
        if let Some(should_retry) = should_retry {
            response = response.header("x-should-retry", should_retry.to_string());
        }
        error_with(response, &code, "an error that was asked for")
    }
}

fn hash(body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    hasher.finish()
}

fn error_answer((status, code, message): &Refusal) -> Answer {
    error_with(Response::builder().status(*status), code, message)
}

fn error_with(response: Builder, code: &str, message: &str) -> Answer {
    let error = json!({"error": {
        "message": message, "type": "invalid_request_error", "param": null, "code": code
    }});
    let response = response.header(CONTENT_TYPE, "application/json");
    finish(response, full(error.to_string()))
}

fn json_answer(status: u16, body: &serde_json::Value) -> Answer {
    let response = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
    finish(response, full(body.to_string()))
}

fn text_answer(text: &'static str) -> Answer {
    finish(Response::builder().header(CONTENT_TYPE, "text/plain"), full(text.to_owned()))
}

fn full(text: String) -> BoxBody<Bytes, io::Error> {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed()
}

fn finish(response: Builder, body: BoxBody<Bytes, io::Error>) -> Answer {
    response.body(body).expect("status and headers come from this file and are well-formed")
}
