//! Before a run: is the server there, does it let us in, does it know the model, and how does it
//! count tokens? All of that is found out with tiny requests, before anything is measured.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::answer::error_of;
use crate::client::Client;
use crate::clock::Clock;
use crate::connection::Dialer;
use crate::error::Error;
use crate::plan::{Behaviour, Pacing, Plan, PlannedRequest, Prompt, Tenant};
use crate::progress::Progress;
use crate::prompt::{TokenFit, probe_text, probe_words};
use crate::record::{Outcome, RequestRecord};
use crate::target::{Limits, Target, address, shape_of};

/// Words of the request that tries a key.
const SHORT_WORDS: usize = 8;
/// Keys that are tried before a run.
const KEYS_MAX: usize = 32;
/// An answer before a run must come within this.
const PREFLIGHT: Duration = Duration::from_secs(60);
/// A busy server gets so many more tries.
const PREFLIGHT_RETRIES: u32 = 4;
/// Of a list of models.
const MODELS_BYTES_MAX: usize = 4 << 20;

/// How the server is reached and what is sent to it.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// `--base-url`.
    pub base_url: String,
    /// `--endpoint`.
    pub endpoint: String,
    /// Name of the model in requests; without it the server's first.
    pub model: Option<String>,
    /// Headers of every request.
    pub headers: HeaderMap,
    /// Fields of every request.
    pub fields: Map<String, Value>,
    /// Sends a tenant's class as `service_tier`.
    pub send_class: bool,
    /// Limits of an attempt.
    pub limits: Limits,
    /// Authorities that are trusted besides the Web's.
    pub cacert: Option<PathBuf>,
    /// Sends tiny requests before the run.
    pub preflight: bool,
    /// Finds out how the server counts tokens.
    pub calibrate: bool,
}

/// A server that is ready for a run.
#[derive(Debug)]
pub struct Ready {
    /// Where requests go.
    pub target: Target,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Finds out what a run needs to know of the server.
///
/// # Errors
/// Nobody answers, or the server refuses the key, the model or the request.
pub async fn prepare(wishes: &Wishes, tenants: &[Tenant]) -> Result<Ready, Error> {
    let (base, endpoint) = address(&wishes.base_url, &wishes.endpoint)?;
    let mut target = Target {
        base,
        shape: shape_of(&endpoint)?,
        endpoint,
        model: wishes.model.clone().unwrap_or_default(),
        headers: wishes.headers.clone(),
        fields: wishes.fields.clone(),
        send_class: wishes.send_class,
        fit: TokenFit::ONE_TO_ONE,
        limits: wishes.limits,
        cacert: wishes.cacert.clone(),
    };
    if wishes.model.is_none() {
        target.model = first_model(&target, tenants).await?;
    }
    let mut notes = Vec::new();
    if wishes.preflight {
        let scout = Scout::new(&target, tenants).await?;
        scout.try_keys(&mut notes).await?;
        if wishes.calibrate {
            target.fit = scout.fit(&mut notes).await;
        }
    }
    Ok(Ready { target, notes })
}

/// Sends requests before a run.
struct Scout {
    client: Client,
}

impl Scout {
    async fn new(target: &Target, tenants: &[Tenant]) -> Result<Self, Error> {
        let mut target = target.clone();
        target.limits.whole = target.limits.whole.min(PREFLIGHT);
        let plan = Plan {
            seed: 0,
            pacing: Pacing::Open,
            tenants: tenants.to_vec(),
            requests: Vec::new(),
            warmup_ns: 0,
            cooldown_ns: 0,
            duration_ns: None,
        };
        let client = Client {
            dialer: Dialer::new(&target.base, target.cacert.as_deref()).await?,
            target,
            clock: Clock::start(),
            plan: Arc::new(plan),
            progress: Arc::new(Progress::new(0, None)),
        };
        Ok(Self { client })
    }

    async fn ask(&self, tenant: usize, words: usize) -> RequestRecord {
        let request = PlannedRequest {
            index: words as u32,
            tenant: tenant as u16,
            scheduled_ns: self.client.clock.now_ns(),
            prompt: Prompt::Text(probe_text(words).into()),
            output_tokens: 1,
            behaviour: Behaviour { retries_max: PREFLIGHT_RETRIES, ..Behaviour::default() },
        };
        let (_keep, never_cut) = watch::channel(false);
        self.client.run(&request, request.scheduled_ns, never_cut).await
    }

    /// A request with each distinct key.
    async fn try_keys(&self, notes: &mut Vec<String>) -> Result<(), Error> {
        let tenants = &self.client.plan.tenants;
        let mut tried: Vec<Option<&str>> = Vec::new();
        for (index, tenant) in tenants.iter().enumerate() {
            let key = tenant.api_key.as_deref();
            if tried.contains(&key) || tried.len() >= KEYS_MAX {
                continue;
            }
            tried.push(key);
            let record = self.ask(index, SHORT_WORDS).await;
            self.judge(&record, tenant, notes)?;
        }
        Ok(())
    }

    fn judge(
        &self,
        record: &RequestRecord,
        tenant: &Tenant,
        notes: &mut Vec<String>,
    ) -> Result<(), Error> {
        let target = &self.client.target;
        let message = record.message.clone().unwrap_or_default();
        match record.outcome {
            Outcome::Unreachable => {
                Err(Error::Unreachable { url: target.base.to_string(), cause: message })
            }
            Outcome::ClientError => Err(refused(
                format!("{} (tenant {})", target.base, tenant.name),
                record.status.unwrap_or_default(),
                record.code.clone().unwrap_or_default(),
                message,
            )),
            Outcome::Completed => Ok(()),
            _ => {
                let code = record.code.as_deref().unwrap_or("no answer");
                notes.push(format!(
                    "the request before the run did not complete ({code}: {message}); the run \
                     begins all the same"
                ));
                Ok(())
            }
        }
    }

    /// From all words once and all words twice, so that the slope is the mean of the words that
    /// prompts are drawn from: words differ in their tokens.
    async fn fit(&self, notes: &mut Vec<String>) -> TokenFit {
        let mut points = [(probe_words(), 0), (2 * probe_words(), 0)];
        for (words, tokens) in &mut points {
            let record = self.ask(0, *words).await;
            let Some(counted) = record.prompt_tokens else {
                let why = match (record.outcome, record.message) {
                    (Outcome::Completed, _) => "it sends no usage".to_owned(),
                    (_, message) => message.unwrap_or_default(),
                };
                notes.push(format!(
                    "how the server counts tokens is unknown ({why}): a word is taken for a token"
                ));
                return TokenFit::ONE_TO_ONE;
            };
            *tokens = counted;
        }
        let [once, twice] = points;
        TokenFit::through(once, twice).unwrap_or_else(|| {
            notes.push(format!(
                "how the server counts tokens is unknown ({} words are {} tokens, {} words {}): a \
                 word is taken for a token",
                once.0, once.1, twice.0, twice.1
            ));
            TokenFit::ONE_TO_ONE
        })
    }
}

async fn first_model(target: &Target, tenants: &[Tenant]) -> Result<String, Error> {
    #[derive(Deserialize)]
    struct Models {
        data: Vec<Model>,
    }
    #[derive(Deserialize)]
    struct Model {
        id: String,
    }
    let root = target.endpoint.trim_end_matches("/completions").trim_end_matches("/chat");
    let path = format!("{root}/models");
    let key = tenants.first().and_then(|tenant| tenant.api_key.as_deref());
    let (status, body) = fetch(target, target.request(Method::GET, &path, key)).await?;
    if !status.is_success() {
        let error = error_of(&body);
        let (code, message) = (error.code.unwrap_or_default(), error.message.unwrap_or_default());
        return Err(refused(format!("{}{path}", target.base), status.as_u16(), code, message));
    }
    let models: Option<Models> = serde_json::from_slice(&body).ok();
    let first = models.and_then(|models| models.data.into_iter().next());
    first.map(|model| model.id).ok_or_else(|| {
        Error::Usage(format!("GET {}{path} lists no model: give --model", target.base))
    })
}

async fn fetch(
    target: &Target,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Error> {
    let unreachable = |cause: String| Error::Unreachable { url: target.base.to_string(), cause };
    let dialer = Dialer::new(&target.base, target.cacert.as_deref()).await?;
    let answer = async {
        let mut connection = dialer.fresh().await.map_err(|cause| cause.to_string())?;
        let response: Response<_> =
            connection.sender.send_request(request).await.map_err(|cause| cause.to_string())?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MODELS_BYTES_MAX).collect();
        let body = body.await.map_err(|cause| cause.to_string())?;
        Ok::<_, String>((head.status, body.to_bytes()))
    };
    match timeout(PREFLIGHT.min(target.limits.whole), answer).await {
        Ok(answer) => answer.map_err(unreachable),
        Err(_) => Err(unreachable("no answer in time".to_owned())),
    }
}

fn refused(url: String, status: u16, code: String, message: String) -> Error {
    let fix = match status {
        401 | 403 => ". Give the right key with --api-key, OPENAI_API_KEY or in --tenants",
        404 => ". Check --model and --endpoint",
        _ => "",
    };
    Error::Refused { url, status, code, message, fix }
}
