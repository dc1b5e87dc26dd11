//! The server under load and what every request to it has in common.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use serde_json::{Map, Value};

use crate::error::Error;
use crate::plan::{PlannedRequest, Tenant};
use crate::prompt::{TokenFit, append_json};

/// Which of the two request shapes an endpoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `messages`.
    Chat,
    /// `prompt`.
    Completions,
}

/// The server under load and what every request to it has in common.
#[derive(Clone, Debug)]
pub struct Target {
    /// Scheme, host, port.
    pub base: Uri,
    /// Path of the requests.
    pub endpoint: String,
    /// Of the endpoint.
    pub shape: Shape,
    /// Name of the model in requests.
    pub model: String,
    /// Headers of every request.
    pub headers: HeaderMap,
    /// Fields of every request besides model, prompt and `max_tokens`.
    pub fields: Map<String, Value>,
    /// Sends a tenant's class as `service_tier`.
    pub send_class: bool,
    /// How the server counts tokens.
    pub fit: TokenFit,
    /// Limits of an attempt.
    pub limits: Limits,
    /// Authorities that are trusted besides the Web's.
    pub cacert: Option<PathBuf>,
}

/// Limits of an attempt.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From sending to the end of the answer.
    pub whole: Duration,
    /// Without a byte from the server.
    pub idle: Duration,
}

/// Address and path of a server, from what users write.
///
/// # Errors
/// It is no http(s) address.
pub fn address(base_url: &str, endpoint: &str) -> Result<(Uri, String), Error> {
    let refuse = |why: &str| {
        Err(Error::Usage(format!(
            "--base-url {base_url}: {why}; expected for example http://127.0.0.1:8000"
        )))
    };
    let Ok(uri) = base_url.trim_end_matches('/').parse::<Uri>() else {
        return refuse("is no URL");
    };
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
        return refuse("is no http:// or https:// URL");
    }
    if !endpoint.starts_with('/') {
        return Err(Error::Usage(format!("--endpoint {endpoint}: must begin with /")));
    }
    // OpenAI's base URLs end in /v1, vLLM's do not; both are understood.
    let prefix = uri.path().trim_end_matches('/');
    let prefix = if endpoint.starts_with("/v1/") {
        prefix.strip_suffix("/v1").unwrap_or(prefix)
    } else {
        prefix
    };
    let path = format!("{prefix}{endpoint}");
    Ok((uri, path))
}

/// The shape that an endpoint's path says.
///
/// # Errors
/// It says none.
pub fn shape_of(endpoint: &str) -> Result<Shape, Error> {
    if endpoint.ends_with("/chat/completions") {
        Ok(Shape::Chat)
    } else if endpoint.ends_with("/completions") {
        Ok(Shape::Completions)
    } else {
        Err(Error::Usage(format!(
            "--endpoint {endpoint}: expected a path that ends in /chat/completions or /completions"
        )))
    }
}

impl Target {
    /// The request body for a planned request.
    pub fn body(&self, request: &PlannedRequest, tenant: &Tenant) -> Bytes {
        let tokens = request.prompt.tokens_wanted().unwrap_or(256) as usize;
        let mut json = Vec::with_capacity(tokens * 6 + 512);
        json.extend_from_slice(b"{\"model\":");
        write_json(&mut json, &self.model);
        json.extend_from_slice(match self.shape {
            Shape::Chat => b",\"messages\":[{\"role\":\"user\",\"content\":\"".as_slice(),
            Shape::Completions => b",\"prompt\":\"".as_slice(),
        });
        append_json(&request.prompt, &self.fit, &mut json);
        json.extend_from_slice(match self.shape {
            Shape::Chat => b"\"}]".as_slice(),
            Shape::Completions => b"\"".as_slice(),
        });
        if !self.fields.contains_key("max_completion_tokens") {
            json.extend_from_slice(b",\"max_tokens\":");
            write_json(&mut json, &request.output_tokens);
        }
        for (name, value) in &self.fields {
            json.push(b',');
            write_json(&mut json, name);
            json.push(b':');
            write_json(&mut json, value);
        }
        if let (true, Some(class)) = (self.send_class, &tenant.class) {
            json.extend_from_slice(b",\"service_tier\":");
            write_json(&mut json, class);
        }
        json.push(b'}');
        Bytes::from(json)
    }

    /// A POST of a body for a tenant.
    pub fn post(&self, body: Bytes, tenant: &Tenant) -> Request<Full<Bytes>> {
        let mut request = self.request(Method::POST, &self.endpoint, tenant.api_key.as_deref());
        *request.body_mut() = Full::new(body);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request
    }

    /// A request without a body.
    pub fn request(&self, method: Method, path: &str, key: Option<&str>) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::default());
        *request.method_mut() = method;
        *request.uri_mut() =
            path.parse().expect("the path was parsed as part of a URL when the run was set up");
        let headers = request.headers_mut();
        headers.reserve(self.headers.len() + 5);
        let host = self.base.authority().map(|authority| authority.as_str()).unwrap_or_default();
        headers.insert(HOST, HeaderValue::from_str(host).expect("a parsed authority is ASCII"));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        // A key that was checked at the start is a valid header.
        if let Some(value) = key.and_then(bearer) {
            headers.insert(AUTHORIZATION, value);
        }
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        request
    }
}

const AGENT: &str = concat!("loadtest/", env!("CARGO_PKG_VERSION"));

/// The header that carries a key; `None` when it has characters that headers must not.
pub fn bearer(key: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {key}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A header as `name=value` or `name: value`.
///
/// # Errors
/// It is none.
pub fn header(text: &str) -> Result<(HeaderName, HeaderValue), Error> {
    let parts = text.split_once('=').or_else(|| text.split_once(':'));
    let parsed = parts.and_then(|(name, value)| {
        let name = name.trim().parse::<HeaderName>().ok()?;
        Some((name, value.trim().parse::<HeaderValue>().ok()?))
    });
    parsed.ok_or_else(|| Error::Usage(format!("--header {text}: expected NAME=VALUE")))
}

fn write_json<T: serde::Serialize + ?Sized>(json: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(json, value).expect("writing to memory does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Behaviour, Prompt, PromptPiece};

    fn target(endpoint: &str) -> Target {
        let (base, endpoint) = address("http://127.0.0.1:8000/v1/", endpoint).unwrap();
        let fields = serde_json::json!({"stream": true, "temperature": 0.5});
        Target {
            base,
            shape: shape_of(&endpoint).unwrap(),
            endpoint,
            model: "a\"b".to_owned(),
            headers: HeaderMap::new(),
            fields: fields.as_object().unwrap().clone(),
            send_class: true,
            fit: TokenFit::ONE_TO_ONE,
            limits: Limits { whole: Duration::from_secs(1), idle: Duration::from_secs(1) },
            cacert: None,
        }
    }

    #[test]
    fn bodies_are_the_json_that_servers_read() {
        let request = PlannedRequest {
            index: 0,
            tenant: 0,
            scheduled_ns: 0,
            prompt: Prompt::Synthetic(vec![PromptPiece { seed: 1, tokens: 5 }]),
            output_tokens: 9,
            behaviour: Behaviour::default(),
        };
        let tenant = Tenant {
            name: "t".to_owned(),
            api_key: Some("k".to_owned()),
            class: Some("flex".to_owned()),
            share: 1.0,
            abusive: false,
        };
        let chat: Value =
            serde_json::from_slice(&target("/v1/chat/completions").body(&request, &tenant))
                .unwrap();
        assert_eq!(chat["model"], "a\"b");
        assert_eq!(chat["max_tokens"], 9);
        assert_eq!(chat["stream"], true);
        assert_eq!(chat["service_tier"], "flex");
        let text = chat["messages"][0]["content"].as_str().unwrap();
        assert_eq!(text.split(' ').count(), 5);
        let completions = target("/v1/completions");
        let body: Value = serde_json::from_slice(&completions.body(&request, &tenant)).unwrap();
        assert_eq!(body["prompt"], text);
        let post = completions.post(Bytes::new(), &tenant);
        assert_eq!(post.uri().path(), "/v1/completions");
        assert_eq!(post.headers()[AUTHORIZATION], "Bearer k");
        assert_eq!(post.headers()[HOST], "127.0.0.1:8000");
    }

    #[test]
    fn addresses_are_understood_or_refused_with_an_example() {
        let path = |base: &str, endpoint: &str| address(base, endpoint).map(|(_, path)| path);
        assert_eq!(path("http://h:1", "/v1/completions").unwrap(), "/v1/completions");
        assert_eq!(path("http://h:1/api/v1", "/v1/completions").unwrap(), "/api/v1/completions");
        assert_eq!(path("http://h:1/api", "/completions").unwrap(), "/api/completions");
        for bad in ["127.0.0.1:8000", "ftp://h", "http://", "nonsense"] {
            let refusal = path(bad, "/v1/completions").unwrap_err().to_string();
            assert!(refusal.contains("http://127.0.0.1:8000"), "{refusal}");
        }
        assert!(shape_of("/v1/embeddings").is_err());
        assert!(header("x-a=b").is_ok() && header("x-a: b").is_ok() && header("nothing").is_err());
    }
}
