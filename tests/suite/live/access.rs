//! Every listed route of every listener, with every kind of key, by many roads: only health is open
//! (T7; vLLM's CVE-2026-48746 and LiteLLM's CVE-2026-49468 are roads of this kind).

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use weir::gate::Scope;
use weir::http::{Access, Listed, Surface, listed};

use super::client::{self, Connection, Reply};
use super::process::{Live, id_of, keys, scratch};
use crate::http::rig::Options;

const OPEN: [&str; 4] = ["/livez", "/readyz", "/health", "/ping"];
const SETTINGS: &str = "device = \"sim\"\nstate-dir = \"state\"\nadmin-port = 0\n\
    metrics-port = 0\n[tenants.acme]\n[tenants.beta]\nmodels = [\"another\"]\n[tenants.gone]\n";

/// A key, and what it gets where `scope` is needed; `None`: it is let in.
struct Credential {
    what: &'static str,
    authorization: Option<String>,
    refused: fn(Scope) -> Option<(u16, &'static str)>,
}

impl Credential {
    fn new(
        what: &'static str,
        authorization: Option<String>,
        refused: fn(Scope) -> Option<(u16, &'static str)>,
    ) -> Self {
        Self { what, authorization, refused }
    }
}

/// A way to ask for a route that must not open it.
struct Trick {
    method: String,
    target: String,
    headers: Vec<String>,
}

fn settings(folder: &Path) {
    fs::write(folder.join("weir.toml"), SETTINGS).unwrap();
}

fn make(folder: &Path, tenant: &str, scopes: &str) -> String {
    let with = ["--config", "weir.toml", "--tenant", tenant, "--scope", scopes];
    keys(folder, &[&["create"], &with[..], &["--expires", "1d"]].concat())
}

/// Keys that open nothing.
fn dead_credentials(folder: &Path) -> Vec<Credential> {
    let (expired, revoked) = (make(folder, "acme", "inference"), make(folder, "acme", "inference"));
    let with = ["--config", "weir.toml"];
    let past = "2020-01-01T00:00:00Z";
    keys(folder, &[&["expire", id_of(&expired), "--at", past], &with[..]].concat());
    keys(folder, &[&["revoke", id_of(&revoked)], &with[..]].concat());
    let gone = make(folder, "gone", "inference,models:read,metrics:read,usage:read");
    fs::write(folder.join("weir.toml"), SETTINGS.replace("[tenants.gone]\n", "")).unwrap();
    let good = make(folder, "acme", "inference,models:read");
    let wrong = format!("weir_{}.{}", id_of(&good), "0".repeat(64));
    let missing = |_| Some((401, "missing_api_key"));
    let invalid = |_| Some((401, "invalid_api_key"));
    let bearer = |key: &str| Some(format!("Bearer {key}"));
    let mut all = vec![
        Credential::new("no key", None, missing),
        Credential::new("expired", bearer(&expired), |_| Some((401, "expired_api_key"))),
        Credential::new("revoked", bearer(&revoked), |_| Some((401, "revoked_api_key"))),
        Credential::new("tenant gone", bearer(&gone), |_| Some((403, "unknown_tenant"))),
        Credential::new("wrong secret", bearer(&wrong), invalid),
        Credential::new("basic", Some(format!("Basic {good}")), missing),
        Credential::new("bare", Some(good.clone()), missing),
        Credential::new("empty", Some("Bearer ".into()), missing),
    ];
    for bad in [
        good[..good.len() - 1].to_owned(),
        format!("{good}{}", "0".repeat(4096)),
        good.to_uppercase(),
        good.replace('.', ""),
        format!("{good} {good}"),
        id_of(&good).to_owned(),
    ] {
        all.push(Credential::new("malformed", bearer(&bad), invalid));
    }
    all
}

/// Keys that open some routes.
fn live_credentials(folder: &Path) -> Vec<Credential> {
    let bearer = |tenant, scopes| Some(format!("Bearer {}", make(folder, tenant, scopes)));
    vec![
        Credential::new("inference alone", bearer("acme", "inference"), |needed| {
            scoped(needed, &[Scope::Inference])
        }),
        Credential::new("readers alone", bearer("acme", "models:read,usage:read"), |needed| {
            scoped(needed, &[Scope::ModelsRead, Scope::UsageRead])
        }),
        Credential::new("admin:write alone", bearer("default", "admin:write"), |needed| {
            scoped(needed, &[Scope::AdminWrite])
        }),
        Credential::new("watchers", bearer("default", "admin:read,metrics:read"), |needed| {
            scoped(needed, &[Scope::AdminRead, Scope::MetricsRead])
        }),
    ]
}

fn scoped(needed: Scope, has: &[Scope]) -> Option<(u16, &'static str)> {
    (!has.contains(&needed)).then_some((403, "missing_scope"))
}

/// The path of a listed route, with its wildcard filled in.
fn path_of(route: &Listed) -> String {
    route.path.replace("{*id}", "demo")
}

/// Roads to a route that a reader of path strings, of Host or of forwarded prefixes may take for
/// another one.
fn tricks(method: &str, path: &str) -> Vec<Trick> {
    let trick = |method: &str, target: String, headers: &[&str]| Trick {
        method: method.to_owned(),
        target,
        headers: headers.iter().map(|header| (*header).to_owned()).collect(),
    };
    let mut all = Vec::new();
    for target in [
        path.to_owned(),
        format!("{path}/"),
        format!("/{path}"),
        format!("{path}//"),
        format!("/livez/..{path}"),
        format!("/livez{path}"),
        format!("/livez/%2e%2e{path}"),
        format!("/./livez/..{path}"),
        format!("{path}/../livez"),
        format!("{path}/..;/livez"),
        format!("{path};/livez"),
        format!("{path}?/livez"),
        format!("{path}?x=/livez#/livez"),
        format!("{path}%23/livez"),
        format!("{path}%3f/livez"),
        format!("{path}%00/livez"),
        format!("{path}%2f..%2flivez"),
        format!("{path}/livez"),
        format!("{path}.json"),
        format!("{path}%20"),
        path.to_uppercase(),
        path.replacen('/', "/%2e/", 1),
        path.replacen('/', "/%2f", 1),
        path.replacen('/', "\\", 1),
        format!("/%{:02x}{}", path.as_bytes()[1], &path[2..]),
        format!("http://localhost{path}"),
        format!("http://livez{path}"),
        format!("http://localhost/livez/..{path}"),
        format!("http://user:pass@localhost{path}"),
        format!("https://localhost:443{path}"),
    ] {
        all.push(trick(method, target, &["host: x"]));
    }
    for headers in [
        &["host: livez"][..],
        &["host: x#/livez"],
        &["host: x/livez?"],
        &["host: localhost", "x-forwarded-prefix: /livez"],
        &["host: localhost", "x-forwarded-host: localhost", "x-forwarded-for: 127.0.0.1"],
        &["host: localhost", "x-original-url: /livez", "x-rewrite-url: /livez"],
        &["host: localhost", "x-http-method-override: OPTIONS"],
        &["host: localhost", "x-envoy-original-path: /livez"],
        &["host: localhost", "forwarded: for=127.0.0.1;host=localhost"],
        &["host: localhost", "connection: authorization"],
    ] {
        all.push(trick(method, path.to_owned(), headers));
    }
    for other in ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "QUERY", "get"] {
        all.push(trick(other, path.to_owned(), &["host: x"]));
    }
    all
}

/// Asks on `connection`, and on a new one after the server has closed it.
fn ask(
    address: SocketAddr,
    connection: &mut Option<Connection>,
    trick: &Trick,
    authorization: Option<&str>,
) -> Reply {
    let mut request = format!("{} {} HTTP/1.1\r\n", trick.method, trick.target);
    for header in
        trick.headers.iter().cloned().chain(authorization.map(|a| format!("authorization: {a}")))
    {
        request.push_str(&header);
        request.push_str("\r\n");
    }
    request.push_str("content-type: application/json\r\ncontent-length: 2\r\n\r\n{}");
    for _ in 0..2 {
        let mut open = connection.take().unwrap_or_else(|| Connection::open(address).unwrap());
        if let Ok(reply) = open.exchange(request.as_bytes(), trick.method == "HEAD") {
            if reply.header("connection") != Some("close") && reply.status != 400 {
                *connection = Some(open);
            }
            return reply;
        }
    }
    panic!("no answer to {request}");
}

#[test]
fn only_health_is_open_on_any_listener() {
    let rig =
        tokio::runtime::Runtime::new().unwrap().block_on(async { Options::default().start() });
    for surface in Surface::ALL {
        let routes = listed(Arc::clone(&rig.state), surface);
        let open: Vec<_> =
            routes.iter().filter(|route| route.access == Access::Open).map(|r| r.path).collect();
        assert_eq!(open, OPEN, "{surface:?}");
    }
}

#[test]
fn every_route_refuses_every_key_that_it_should() {
    let folder = scratch("access");
    settings(&folder);
    let mut credentials = dead_credentials(&folder);
    credentials.extend(live_credentials(&folder));
    let server = Live::start(&folder, "server", &["--config", "weir.toml"]);
    let rig =
        tokio::runtime::Runtime::new().unwrap().block_on(async { Options::default().start() });
    let surfaces = [
        (Surface::Inference { with_metrics: false }, server.address),
        (Surface::Admin, server.admin.unwrap()),
        (Surface::Metrics, server.metrics),
    ];
    let (mut asked, mut let_in) = (0, 0);
    for (surface, address) in surfaces {
        let mut connection = None;
        for route in listed(Arc::clone(&rig.state), surface) {
            let Access::Needs(scope) = route.access else { continue };
            let path = path_of(&route);
            for credential in &credentials {
                let expected = (credential.refused)(scope);
                let authorization = credential.authorization.as_deref();
                for (index, trick) in tricks(route.method, &path).iter().enumerate() {
                    if expected.is_none() && index > 0 {
                        break;
                    }
                    // What it would do is done at the end.
                    if expected.is_none() && route.path == "/admin/v1/drain" {
                        break;
                    }
                    asked += 1;
                    let reply = ask(address, &mut connection, trick, authorization);
                    let line =
                        format!("{} {} with {}", trick.method, trick.target, credential.what);
                    match expected {
                        Some((status, code)) if index == 0 => {
                            assert_eq!(
                                (reply.status, reply.code().as_str()),
                                (status, code),
                                "{line}"
                            );
                        }
                        Some(_) => assert!(
                            matches!(reply.status, 400 | 401 | 403 | 404 | 405),
                            "{line}: {} {}",
                            reply.head,
                            reply.body
                        ),
                        None => {
                            let_in += 1;
                            assert!(
                                !matches!(reply.status, 401 | 403 | 405 | 500..),
                                "{line}: {} {}",
                                reply.head,
                                reply.body
                            );
                        }
                    }
                }
            }
        }
        for path in OPEN {
            let trick = &tricks("GET", path)[0];
            assert_eq!(ask(address, &mut None, trick, None).status, 200, "{path}");
        }
    }
    // Enough of both to know that the loops have run.
    assert!(asked > 10_000 && let_in > 20, "{asked} {let_in}");
    eprintln!("{asked} requests, of which {let_in} had the right key");
}

#[test]
fn another_tenants_model_does_not_exist() {
    let folder = scratch("foreign");
    settings(&folder);
    let key = keys(&folder, &["create", "--config", "weir.toml", "--tenant", "beta"]);
    let server = Live::start(&folder, "server", &["--config", "weir.toml"]);
    let body = "{\"model\": \"demo\", \"prompt\": \"x\"}";
    for reply in [
        client::get(server.address, "/v1/models/demo", &key),
        client::post(server.address, "/v1/completions", &key, body),
        client::post(server.address, "/tokenize", &key, body),
    ] {
        assert_eq!((reply.status, reply.code().as_str()), (404, "model_not_found"), "{reply:?}");
    }
    let listed = client::get(server.address, "/v1/models", &key);
    assert!(listed.body.contains("\"data\":[]"), "{listed:?}");
}
