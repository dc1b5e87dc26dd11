//! Routes: a path, who may use it and its handler. A route without a scope cannot be written, and
//! authorisation looks at the matched route alone, never at a path string (R26).

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::{MethodFilter, on};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, header};
use serde_json::{Map, Value};

use super::account::Account;
use super::allowance::Allowance;
use super::body;
use super::error::ApiError;
use super::rates;
use super::state::AppState;
use super::terms::{self, Tier};
use crate::clock::Time;
use crate::gate::{Caller, Scope, Tenant, Terms};

/// Bodies up to this size are parsed where they are read; larger ones in the pool.
const SMALL_BODY_BYTES: usize = 64 << 10;
const REQUEST_ID_BYTES_MAX: usize = 128;
const GENERATES: Access = Access::Needs(Scope::Inference);

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody: for health checks alone.
    Open,
    /// Whoever has a key with this scope; everybody when no keys are configured.
    Needs(Scope),
}

/// A route as it is listed, for tests and for the table of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its method; GET routes answer HEAD too.
    pub method: &'static str,
    /// Its path, as the router writes it.
    pub path: &'static str,
    /// Who may use it.
    pub access: Access,
}

/// A request on its way to a handler.
pub(super) struct Call {
    pub(super) state: Arc<AppState>,
    /// Who asks; `None` on open routes.
    caller: Option<Caller>,
    parts: Parts,
    body: Body,
    /// What the metrics will be told; only on routes that generate.
    pub(super) account: Option<Arc<Account>>,
}

/// Handlers answer or fail; failures become answers by the table in `error`.
pub(super) type Answer = Result<Response<Body>, ApiError>;

/// Collects routes.
pub(super) struct Routes {
    state: Arc<AppState>,
    router: Router,
    listed: Vec<Listed>,
}

impl Routes {
    pub(super) fn new(state: Arc<AppState>) -> Self {
        Self { state, router: Router::new(), listed: Vec::new() }
    }

    /// A route of `method`. GET routes also answer HEAD.
    pub(super) fn route<H, F>(
        mut self,
        method: &'static str,
        path: &'static str,
        access: Access,
        handler: H,
    ) -> Self
    where
        H: Fn(Call) -> F + Copy + Send + Sync + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let filter = if method == "GET" { MethodFilter::GET } else { MethodFilter::POST };
        let state = Arc::clone(&self.state);
        let endpoint =
            move |request: Request| answer(Arc::clone(&state), access, None, handler, request);
        self.router = self.router.route(path, on(filter, endpoint));
        self.listed.push(Listed { method, path, access });
        self
    }

    /// A POST route that generates tokens, and is therefore counted; `endpoint` is its label.
    pub(super) fn generate<H, F>(
        mut self,
        path: &'static str,
        endpoint: &'static str,
        handler: H,
    ) -> Self
    where
        H: Fn(Call) -> F + Copy + Send + Sync + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let state = Arc::clone(&self.state);
        let call = move |request: Request| {
            answer(Arc::clone(&state), GENERATES, Some(endpoint), handler, request)
        };
        self.router = self.router.route(path, on(MethodFilter::POST, call));
        self.listed.push(Listed { method: "POST", path, access: GENERATES });
        self
    }

    /// The router, with answers for what is not a route, and the list of its routes.
    pub(super) fn build(self) -> (Router, Vec<Listed>) {
        let state = Arc::clone(&self.state);
        let unknown = move |request: Request| no_route(Arc::clone(&state), request, false);
        let state = self.state;
        let not_allowed = move |request: Request| no_route(Arc::clone(&state), request, true);
        let router = self.router.fallback(unknown).method_not_allowed_fallback(not_allowed);
        (router, self.listed)
    }
}

impl Call {
    /// The tenant of a route that is not open.
    pub(super) fn tenant(&self) -> &Arc<Tenant> {
        &self.caller.as_ref().expect("the route is not open").tenant
    }

    /// What that tenant may ask.
    pub(super) fn allowance(&self) -> Allowance {
        Allowance::new(&self.state, self.tenant())
    }

    /// The terms of a request of this tier, refused at once if it would be late on them: before
    /// its prompt is tokenised.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] and [`ApiError::Refused`].
    pub(super) fn terms(&self, tier: Option<Tier>) -> Result<Terms, ApiError> {
        let now = self.state.clock.moment();
        let terms = Terms {
            flex: tier == Some(Tier::Flex),
            deadline: terms::deadline(&self.parts.headers, now.at)?,
        };
        self.state.gate.foresee(self.tenant(), terms, &self.state.engine.load(), now)?;
        Ok(terms)
    }

    /// What stands in the path after `marker`, percent-decoded; for routes that end in a name.
    pub(super) fn path_after(&self, marker: &str) -> String {
        let path = self.parts.uri.path();
        decode_percent(path.split_once(marker).map_or("", |(_, rest)| rest))
    }

    /// Reads the body and parses it into the fields of a JSON object.
    ///
    /// # Errors
    /// [`ApiError::Body`] and [`ApiError::Pool`].
    pub(super) async fn json(&mut self) -> Result<Map<String, Value>, ApiError> {
        let body = std::mem::take(&mut self.body);
        let limits = &self.state.limits;
        let bytes: Bytes = body::collect(&self.parts.headers, body, limits).await?;
        if let Some(account) = &self.account {
            account.ledger().arrived = self.state.clock.now();
        }
        if bytes.len() <= SMALL_BODY_BYTES {
            return Ok(body::parse(&bytes, limits)?);
        }
        let limits = limits.clone();
        Ok(self.state.cpu.run(move || body::parse(&bytes, &limits)).await??)
    }
}

/// Everything around a handler: identity, request id, counting, and errors into answers.
async fn answer<H, F>(
    state: Arc<AppState>,
    access: Access,
    counted: Option<&'static str>,
    handler: H,
    request: Request,
) -> Response<Body>
where
    H: Fn(Call) -> F,
    F: Future<Output = Answer>,
{
    let began = state.clock.now();
    let (parts, body) = request.into_parts();
    let id = request_id(&parts.headers, &state);
    let account = counted.map(|endpoint| {
        Account::open(Arc::clone(&state.metrics), Arc::clone(&state.clock), endpoint)
    });
    if counted.is_some() && is_sdk_retry(&parts.headers) {
        state.metrics.sdk_retry();
    }
    let caller = match access {
        Access::Open => Ok(None),
        Access::Needs(scope) => {
            let unix_s = state.clock.unix_s();
            state.gate.identify(bearer(&parts.headers), scope, unix_s).map(Some)
        }
    };
    let tenant = caller.as_ref().ok().and_then(Option::as_ref).map(|c| Arc::clone(&c.tenant));
    let answered = match caller {
        Ok(caller) => {
            let (state, account) = (Arc::clone(&state), account.clone());
            handler(Call { state, caller, parts, body, account }).await
        }
        Err(refusal) => Err(refusal.into()),
    };
    let mut response = answered.unwrap_or_else(|error| {
        if let Some(account) = &account {
            account.failed(&error);
        }
        if let ApiError::Refused(_) = error {
            state.metrics.refused(error.row().code, tenant.as_ref().map_or("", |t| t.name()));
        }
        error.response(&state.seeds)
    });
    if access == GENERATES
        && let Some(tenant) = tenant
    {
        let rates = state.gate.rates(&tenant, state.clock.now());
        rates::add_headers(response.headers_mut(), rates);
    }
    dress(response, id, began, &state)
}

/// The answer to a request that no route is for.
async fn no_route(state: Arc<AppState>, request: Request, is_known_path: bool) -> Response<Body> {
    let began = state.clock.now();
    let id = request_id(request.headers(), &state);
    let method = request.method().clone();
    let error = if is_known_path {
        ApiError::MethodNotAllowed { method }
    } else {
        let path = request.uri().path().chars().take(128).collect();
        ApiError::UnknownRoute { method, path }
    };
    dress(error.response(&state.seeds), id, began, &state)
}

/// Headers that every answer has.
fn dress(
    mut response: Response<Body>,
    id: HeaderValue,
    began: Time,
    state: &AppState,
) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert("x-request-id", id);
    let elapsed = state.clock.now().since(began);
    let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    headers.insert("openai-processing-ms", HeaderValue::from(ms));
    response
}

/// The client's own id when it is sane, else a new one.
fn request_id(headers: &HeaderMap, state: &AppState) -> HeaderValue {
    let is_sane = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    };
    match headers.get("x-request-id").filter(is_sane) {
        Some(id) => id.clone(),
        None => {
            let (high, low) = (state.seeds.next_u64(), state.seeds.next_u64());
            HeaderValue::from_str(&format!("req_{high:016x}{low:016x}"))
                .expect("hexadecimal digits are a header value")
        }
    }
}

/// The token of `Authorization: Bearer TOKEN`; empty where the header is there without one.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn decode_percent(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| bytes[at] == b'%') {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn is_sdk_retry(headers: &HeaderMap) -> bool {
    let count = headers.get("x-stainless-retry-count").and_then(|v| v.to_str().ok());
    count.is_some_and(|count| count.parse::<u32>().is_ok_and(|count| count > 0))
}
