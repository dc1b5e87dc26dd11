//! The one table: every refusal and error to status, type, code, message, parameter and retry
//! headers, in OpenAI's error body.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::json;
use thiserror::Error;

use super::state::{PoolError, Seeds};
use crate::engine::SubmitError;
use crate::gate::Refusal;
use crate::metrics::Outcome;
use crate::text::TextError;

/// Everything that a request can be answered with instead of what it asked for.
#[derive(Debug, Error)]
pub(super) enum ApiError {
    /// A parameter is not as it has to be.
    #[error("{}", .0.message)]
    Invalid(Invalid),
    /// The body could not be read as JSON.
    #[error("{0}")]
    Body(#[from] BodyError),
    /// No such path.
    #[error("unknown route: {method} {path}; see GET /v1/models, POST /v1/chat/completions")]
    UnknownRoute {
        /// The request's method.
        method: Method,
        /// The request's path, shortened.
        path: String,
    },
    /// The path exists, with other methods.
    #[error("{method} is not allowed here; the allow header names the methods that are")]
    MethodNotAllowed {
        /// The request's method.
        method: Method,
    },
    /// The model is not one of ours.
    #[error("the model `{name}` does not exist here; {served}")]
    ModelNotFound {
        /// As asked for, shortened.
        name: String,
        /// What there is, as a sentence.
        served: String,
    },
    /// Prompt and output do not fit.
    #[error("{0}")]
    ContextLength(#[from] ContextLength),
    /// The gate says no.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The prompt could not be turned into tokens.
    #[error("{error}")]
    Text {
        /// The parameter that the text came from.
        param: &'static str,
        /// What is wrong.
        error: TextError,
    },
    /// The engine did not take it.
    #[error("{0}; retry later")]
    Submit(#[from] SubmitError),
    /// There was no thread to prepare the prompt.
    #[error("{0}")]
    Pool(#[from] PoolError),
    /// Settings or keys could not be read again.
    #[error("nothing was changed: {reason}")]
    Reload {
        /// What is wrong with them.
        reason: String,
    },
    /// The engine gave up.
    #[error("{0}")]
    Engine(#[from] EngineFailure),
}

/// A parameter is not as it has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Invalid {
    /// Its path in the body, like `messages[3].content`.
    pub(super) param: String,
    /// What kind of mistake.
    pub(super) fault: Fault,
    /// What happened, what was expected, what to do.
    pub(super) message: String,
}

/// Kinds of mistakes in parameters, named by their codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Of another JSON type than expected.
    Type,
    /// Of the right type, with a value that is not possible.
    Value,
    /// Required and not there.
    Missing,
    /// Not a parameter of this endpoint.
    Unknown,
    /// A parameter that is known and that this server does not obey.
    Unsupported,
}

/// Why a body is not JSON.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum BodyError {
    /// Declared as something else.
    #[error("the content-type has to be application/json, not {0}")]
    MediaType(String),
    /// Too many bytes.
    #[error("the body is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// Not JSON, or JSON that two readers may read differently.
    #[error("the body is not valid JSON: {0}")]
    Json(String),
    /// JSON, but not an object.
    #[error("the body has to be a JSON object, not {0}")]
    NotObject(&'static str),
    /// It came too slowly.
    #[error("the body came too slowly; send it in one piece")]
    Slow,
    /// It ended early.
    #[error("the body ended before it was complete")]
    Broken,
}

/// The prompt, or prompt and output together, are longer than the model's context.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "This model's maximum context length is {limit} tokens{}. However, you requested {} tokens \
     ({prompt} in the prompt, {output} for the output); shorten the prompt or ask for less output.",
    .of_tenant.as_ref().map_or(String::new(), |name| {
        format!(" for the tenant `{name}` (max-context-tokens)")
    }),
    u64::from(*prompt) + u64::from(*output)
)]
pub(super) struct ContextLength {
    /// `max_model_len`, or the tenant's own limit.
    pub(super) limit: u32,
    /// The tenant whose limit it is.
    pub(super) of_tenant: Option<Arc<str>>,
    /// Tokens of the prompt.
    pub(super) prompt: u32,
    /// Tokens of output asked for.
    pub(super) output: u32,
    /// The parameter that holds the prompt.
    pub(super) param: &'static str,
}

/// How an admitted request can fail.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum EngineFailure {
    /// The engine said so.
    #[error("the engine could not finish this request: {0}")]
    Failed(String),
    /// The engine ended without a word.
    #[error("the engine stopped before this request was finished; retry")]
    Lost,
    /// The server was shut down.
    #[error("the server was shut down before this request was finished; retry")]
    Aborted,
    /// The request's deadline passed.
    #[error("the request's deadline passed before it was finished")]
    Deadline,
    /// It waited longer than was predicted when it was admitted.
    #[error("the server is overloaded: the request waited longer than its objective; retry later")]
    Late,
}

/// A row of the table.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) status: StatusCode,
    pub(super) kind: &'static str,
    pub(super) code: &'static str,
    pub(super) param: Option<String>,
    pub(super) retry: Retry,
}

/// What the retry headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// Nothing: the SDKs' own rules are right.
    Unsaid,
    /// Do not, it cannot succeed.
    Never,
    /// After this long, which the answer varies by a quarter.
    AfterMs(u64),
    /// After exactly this long.
    ExactlyMs(u64),
}

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";
/// Retry time named when nothing better is known.
const RETRY_MS: u64 = 1000;

impl ApiError {
    /// The row of this error.
    pub(super) fn row(&self) -> Row {
        let row =
            |status, kind, code| Row { status, kind, code, param: None, retry: Retry::Unsaid };
        match self {
            ApiError::Invalid(invalid) => Row {
                param: Some(invalid.param.clone()),
                ..row(StatusCode::BAD_REQUEST, INVALID, invalid.fault.code())
            },
            ApiError::Body(error) => error.row(),
            ApiError::UnknownRoute { .. } => row(StatusCode::NOT_FOUND, INVALID, "unknown_route"),
            ApiError::MethodNotAllowed { .. } => {
                row(StatusCode::METHOD_NOT_ALLOWED, INVALID, "method_not_allowed")
            }
            ApiError::ModelNotFound { .. } => Row {
                param: Some("model".to_owned()),
                ..row(StatusCode::NOT_FOUND, INVALID, "model_not_found")
            },
            ApiError::ContextLength(error) => Row {
                param: Some(error.param.to_owned()),
                ..row(StatusCode::BAD_REQUEST, INVALID, "context_length_exceeded")
            },
            ApiError::Refused(refusal) => refusal_row(refusal),
            ApiError::Text { param, error } => text_row(param, error),
            ApiError::Submit(SubmitError::Full) => Row {
                retry: Retry::AfterMs(RETRY_MS),
                ..row(StatusCode::SERVICE_UNAVAILABLE, SERVER, "queue_full")
            },
            ApiError::Submit(SubmitError::Stopped) => Row {
                retry: Retry::AfterMs(RETRY_MS),
                ..row(StatusCode::SERVICE_UNAVAILABLE, SERVER, "engine_not_ready")
            },
            ApiError::Pool(PoolError::Full) => Row {
                retry: Retry::AfterMs(RETRY_MS),
                ..row(StatusCode::SERVICE_UNAVAILABLE, SERVER, "queue_full")
            },
            ApiError::Pool(PoolError::Panicked) => {
                row(StatusCode::INTERNAL_SERVER_ERROR, SERVER, "internal_error")
            }
            ApiError::Reload { .. } => {
                row(StatusCode::UNPROCESSABLE_ENTITY, INVALID, "reload_refused")
            }
            ApiError::Engine(failure) => failure.row(),
        }
    }

    /// How this ending is counted.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            ApiError::Refused(_)
            | ApiError::Submit(_)
            | ApiError::Pool(PoolError::Full)
            | ApiError::Engine(EngineFailure::Aborted | EngineFailure::Late) => Outcome::Refused,
            ApiError::Invalid(_)
            | ApiError::Body(_)
            | ApiError::UnknownRoute { .. }
            | ApiError::MethodNotAllowed { .. }
            | ApiError::ModelNotFound { .. }
            | ApiError::Reload { .. }
            | ApiError::ContextLength(_) => Outcome::Invalid,
            ApiError::Text { .. } if self.row().status.is_client_error() => Outcome::Invalid,
            ApiError::Text { .. } | ApiError::Pool(PoolError::Panicked) | ApiError::Engine(_) => {
                Outcome::Failed
            }
        }
    }

    /// The error body: all four keys, always.
    pub(super) fn body(&self) -> String {
        let row = self.row();
        let message = self.to_string();
        json!({
            "error": { "message": message, "type": row.kind, "param": row.param, "code": row.code }
        })
        .to_string()
    }

    /// The whole answer. `seeds` varies the retry time.
    pub(super) fn response(&self, seeds: &Seeds) -> Response<Body> {
        let row = self.row();
        let mut response = Response::new(Body::from(self.body()));
        *response.status_mut() = row.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match row.retry {
            Retry::Unsaid => {}
            Retry::Never => {
                headers.insert("x-should-retry", HeaderValue::from_static("false"));
            }
            Retry::AfterMs(ms) | Retry::ExactlyMs(ms) => {
                let varied = matches!(row.retry, Retry::AfterMs(_));
                let ms = if varied { seeds.jitter_ms(ms).max(1) } else { ms };
                headers.insert("x-should-retry", HeaderValue::from_static("true"));
                headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
                headers.insert("retry-after-ms", HeaderValue::from(ms));
            }
        }
        if row.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // The rest of a body that was not read to its end would be taken for the next request. And
        // a client that comes back to a server that drains has to be sent to another one, which a
        // balancer does only with new connections.
        if matches!(
            self,
            ApiError::Body(BodyError::TooLarge { .. } | BodyError::Slow)
                | ApiError::Refused(Refusal::Draining { .. })
        ) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        ApiError::Invalid(invalid)
    }
}

impl Fault {
    fn code(self) -> &'static str {
        match self {
            Fault::Type => "invalid_type",
            Fault::Value => "invalid_value",
            Fault::Missing => "missing_required_parameter",
            Fault::Unknown => "unknown_parameter",
            Fault::Unsupported => "unsupported_parameter",
        }
    }
}

impl BodyError {
    fn row(&self) -> Row {
        let (status, code, param) = match self {
            BodyError::MediaType(_) => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "content-type")
            }
            BodyError::TooLarge { .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", "body")
            }
            BodyError::Json(_) => (StatusCode::BAD_REQUEST, "invalid_json", "body"),
            BodyError::NotObject(_) => (StatusCode::BAD_REQUEST, "invalid_type", "body"),
            BodyError::Slow => (StatusCode::REQUEST_TIMEOUT, "body_too_slow", "body"),
            BodyError::Broken => (StatusCode::BAD_REQUEST, "incomplete_body", "body"),
        };
        let param = Some(param.to_owned());
        Row { status, kind: INVALID, code, param, retry: Retry::Unsaid }
    }
}

impl EngineFailure {
    fn row(&self) -> Row {
        let (status, code, retry) = match self {
            EngineFailure::Failed(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "engine_error", Retry::Unsaid)
            }
            EngineFailure::Lost => {
                (StatusCode::INTERNAL_SERVER_ERROR, "engine_stopped", Retry::Unsaid)
            }
            EngineFailure::Aborted => {
                (StatusCode::SERVICE_UNAVAILABLE, "draining", Retry::AfterMs(RETRY_MS))
            }
            EngineFailure::Deadline => {
                (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded", Retry::Never)
            }
            EngineFailure::Late => {
                (StatusCode::SERVICE_UNAVAILABLE, "late", Retry::AfterMs(RETRY_MS))
            }
        };
        Row { status, kind: SERVER, code, param: None, retry }
    }
}

fn refusal_row(refusal: &Refusal) -> Row {
    let (status, kind, code) = match refusal {
        Refusal::MissingKey => (StatusCode::UNAUTHORIZED, INVALID, "missing_api_key"),
        Refusal::InvalidKey => (StatusCode::UNAUTHORIZED, INVALID, "invalid_api_key"),
        Refusal::ExpiredKey => (StatusCode::UNAUTHORIZED, INVALID, "expired_api_key"),
        Refusal::RevokedKey => (StatusCode::UNAUTHORIZED, INVALID, "revoked_api_key"),
        Refusal::UnknownTenant => (StatusCode::FORBIDDEN, INVALID, "unknown_tenant"),
        Refusal::MissingScope { .. } => (StatusCode::FORBIDDEN, INVALID, "missing_scope"),
        Refusal::Draining { .. } => (StatusCode::SERVICE_UNAVAILABLE, SERVER, "draining"),
        Refusal::NotReady { .. } => (StatusCode::SERVICE_UNAVAILABLE, SERVER, "engine_not_ready"),
        Refusal::PredictedLate { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, SERVER, "predicted_late")
        }
        Refusal::QueueFull { .. } => (StatusCode::SERVICE_UNAVAILABLE, SERVER, "queue_full"),
        Refusal::QueuedTokensFull { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, SERVER, "queued_tokens_full")
        }
        Refusal::Rate(exceeded) => {
            (StatusCode::TOO_MANY_REQUESTS, exceeded.unit().name(), "rate_limit_exceeded")
        }
        // OpenAI's two meanings of 429: come back later, and do not come back.
        Refusal::Budget(shortage) if shortage.is_final() => {
            (StatusCode::TOO_MANY_REQUESTS, "insufficient_quota", "insufficient_quota")
        }
        Refusal::Budget(_) => (StatusCode::TOO_MANY_REQUESTS, "tokens", "rate_limit_exceeded"),
        Refusal::LedgerReadOnly => (StatusCode::SERVICE_UNAVAILABLE, SERVER, "ledger_read_only"),
        Refusal::LedgerBusy { .. } => (StatusCode::SERVICE_UNAVAILABLE, SERVER, "ledger_busy"),
    };
    let retry = match refusal.retry_after_ms() {
        _ if refusal.is_final() => Retry::Never,
        Some(ms) if refusal.is_exact() => Retry::ExactlyMs(ms),
        Some(ms) => Retry::AfterMs(ms),
        None => Retry::Unsaid,
    };
    Row { status, kind, code, param: None, retry }
}

fn text_row(param: &'static str, error: &TextError) -> Row {
    let (status, kind, code) = match error {
        TextError::Tokenizer(_) => (StatusCode::INTERNAL_SERVER_ERROR, SERVER, "tokenizer_error"),
        TextError::NoTemplate => (StatusCode::BAD_REQUEST, INVALID, "no_chat_template"),
        TextError::Template(_) => (StatusCode::BAD_REQUEST, INVALID, "chat_template_error"),
        TextError::TemplateLimit { .. } => {
            (StatusCode::BAD_REQUEST, INVALID, "chat_template_limit")
        }
        TextError::Untokenizable | TextError::UnknownToken { .. } => {
            (StatusCode::BAD_REQUEST, INVALID, "invalid_value")
        }
    };
    Row { status, kind, code, param: Some(param.to_owned()), retry: Retry::Unsaid }
}
