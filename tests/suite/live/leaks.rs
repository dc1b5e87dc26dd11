//! Secrets and contents go where they belong and nowhere else (T8): canaries in keys, prompts,
//! outputs and headers of accepted, refused and failing requests, with the log at its most
//! talkative; then everything that the server has written is searched for them.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use super::client::{self, Reply};
use super::process::{Live, keys, scratch};

const SETTINGS: &str = "device = \"sim\"\nstate-dir = \"state\"\nadmin-port = 0\n\
    log-level = \"trace\"\napi-key = [\"CANARY-api-key-of-the-file\"]\n\
    [tenants.acme]\nmax-output-tokens = 64\ntokens-per-day = 2000\n";
const PROMPT: &str = "CANARY-prompt";
const HEADER: &str = "CANARY-header";

/// Where canaries may be found, and may not be.
struct Written {
    place: String,
    text: String,
}

fn ask(server: &Live, path: &str, key: &str, body: &str) -> Reply {
    let more = format!(
        "x-canary: {HEADER}-1\r\ncookie: session={HEADER}-2\r\nuser-agent: {HEADER}-3\r\n\
         x-api-key: {HEADER}-4\r\nproxy-authorization: Basic {HEADER}-5\r\n"
    );
    client::send(server.address, &client::post_bytes(path, key, &more, body))
}

/// Requests that are refused or fail, each with canaries where contents stand.
fn refused() -> Vec<(&'static str, String)> {
    let chat = "/v1/chat/completions";
    let user = format!("{{\"role\": \"user\", \"content\": \"{PROMPT}\"}}");
    vec![
        (chat, format!("{{\"messages\": [{user}], \"n\": 1000}}")),
        (chat, format!("{{\"messages\": [{user}], \"max_tokens\": 65}}")),
        (chat, format!("{{\"messages\": [{user}], \"temperature\": \"{PROMPT}\"}}")),
        (chat, format!("{{\"messages\": [{user}], \"stop\": [\"{PROMPT}\", 3]}}")),
        (chat, format!("{{\"messages\": [{user}], \"tools\": [{{\"x\": \"{PROMPT}\"}}]}}")),
        (
            chat,
            format!(
                "{{\"messages\": [{user}], \"response_format\": {{\"type\": \"json_schema\"}}}}"
            ),
        ),
        (chat, format!("{{\"messages\": \"{PROMPT}\"}}")),
        (chat, format!("{{\"messages\": [\"{PROMPT}\"]}}")),
        (
            chat,
            format!("{{\"messages\": [{user}], \"max_tokens\": 8, \"metadata\": {{\"a\": 1}}}}"),
        ),
        (chat, format!("{{\"messages\": [{user}")),
        (chat, format!("\"{PROMPT}\"")),
        (chat, PROMPT.to_owned()),
        ("/v1/completions", format!("{{\"prompt\": \"{}\"}}", PROMPT.repeat(20_000))),
        ("/v1/completions", format!("{{\"prompt\": [\"{PROMPT}\", 7]}}")),
        (
            "/v1/completions",
            format!("{{\"prompt\": \"{PROMPT}\", \"logit_bias\": {{\"1\": \"{PROMPT}\"}}}}"),
        ),
        ("/tokenize", format!("{{\"prompt\": \"{PROMPT}\", \"messages\": []}}")),
        ("/detokenize", format!("{{\"tokens\": [\"{PROMPT}\"]}}")),
    ]
}

/// HTTP/2 without TLS: the same headers reach another parser with a log of its own. The frames are
/// a preface, SETTINGS and one HEADERS with literal fields (RFC 9113, RFC 7541).
fn ask_h2(server: &Live, key: &str) {
    let mut block = vec![0x82, 0x86, 0x44, 10];
    block.extend_from_slice(b"/v1/models");
    block.extend_from_slice(&[0x41, 1, b'x']);
    for (name, value) in [("authorization", format!("Bearer {key}")), ("x-canary", HEADER.into())] {
        block.extend_from_slice(&[0x00, name.len() as u8]);
        block.extend_from_slice(name.as_bytes());
        block.push(u8::try_from(value.len()).expect("below 127"));
        block.extend_from_slice(value.as_bytes());
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let length = u8::try_from(block.len()).expect("a short block");
    bytes.extend_from_slice(&[0, 0, length, 1, 5, 0, 0, 0, 1]);
    bytes.extend_from_slice(&block);
    let mut socket = TcpStream::connect(server.address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.write_all(&bytes).unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&answer).contains("\"object\"") {
        let count = socket.read(&mut buffer).unwrap();
        assert!(count > 0, "no answer over HTTP/2: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..count]);
    }
}

/// The text of an answer to a completion.
fn text_of(reply: &Reply) -> String {
    let value: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
    value["choices"][0]["text"].as_str().unwrap().to_owned()
}

fn files(folder: &Path) -> Vec<Written> {
    let read = |entry: fs::DirEntry| {
        let bytes =
            if entry.path().is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Written { place: entry.path().display().to_string(), text }
    };
    fs::read_dir(folder).unwrap().map(|entry| read(entry.unwrap())).collect()
}

#[test]
fn no_key_prompt_output_or_header_is_written_anywhere() {
    let folder = scratch("leaks");
    fs::write(folder.join("weir.toml"), SETTINGS).unwrap();
    let create = |tenant: &str, scopes: &str| {
        let with = ["--config", "weir.toml", "--tenant", tenant, "--scope", scopes];
        keys(&folder, &[&["create", "--expires", "1d"], &with[..]].concat())
    };
    let acme = create("acme", "inference,models:read,usage:read");
    let ops = create("default", "admin:read,admin:write,metrics:read");
    let mut server = Live::start(&folder, "server", &["--config", "weir.toml"]);
    let mut written = Vec::new();
    let mut note = |place: &str, reply: Reply| {
        let text = format!("{}{}", reply.head, reply.body);
        written.push(Written { place: place.to_owned(), text });
    };

    let body = |stream| {
        format!(
            "{{\"prompt\": \"{PROMPT}\", \"max_tokens\": 48, \"stream\": {stream}, \"seed\": 5, \
             \"user\": \"u\", \"stop\": [\"{PROMPT}-stop\"]}}"
        )
    };
    let accepted = ask(&server, "/v1/completions", &acme, &body(false));
    assert_eq!(accepted.status, 200, "{accepted:?}");
    // What the simulated device says is random bytes: a long piece of it is a canary of its own.
    let output = text_of(&accepted);
    assert_eq!(ask(&server, "/v1/completions", &acme, &body(true)).status, 200);
    for (path, body) in refused() {
        let reply = ask(&server, path, &acme, &body);
        assert!((400..500).contains(&reply.status), "{body:.200}: {reply:?}");
        note(&format!("the answer to {body:.200}"), reply);
    }
    for key in ["CANARY-no-such-key", &format!("weir_0123456789abcdef.CANARY-{}", "0".repeat(57))] {
        note("the answer to a wrong key", ask(&server, "/v1/completions", key, &body(false)));
    }
    ask_h2(&server, &acme);
    let mut last = 0;
    while last != 429 {
        let reply = ask(&server, "/v1/completions", &acme, &body(false));
        last = reply.status;
        if last != 200 {
            note("the answer to an exhausted budget", reply);
        }
    }
    let admin = server.admin.unwrap();
    for path in ["/admin/v1/tenants", "/admin/v1/keys", "/admin/v1/reload", "/metrics"] {
        let address = if path == "/metrics" { server.metrics } else { admin };
        note(path, client::get(address, path, &ops));
    }
    note("a reload", client::post(admin, "/admin/v1/reload", &ops, ""));
    note("usage", client::get(server.address, "/v1/usage", &acme));
    fs::write(folder.join("weir.toml"), format!("{SETTINGS}weight = 0\n")).unwrap();
    note("a refused reload", client::post(admin, "/admin/v1/reload", &ops, ""));
    server.signal("-TERM");
    assert!(server.ended().success());

    let log = server.log();
    assert!(log.contains("TRACE") && log.lines().count() > 50, "it is talkative: {log}");
    // The tokenizer library spells prompts letter by letter, which no canary finds.
    assert!(!log.contains("tokenizers::"), "{log}");
    written.extend(files(&folder.join("state")));
    written.push(Written { place: "the log".into(), text: log });
    let secrets = [&acme, &ops].map(|key| key.split('.').next_back().unwrap());
    let piece: String = output.chars().skip(4).take(16).collect();
    assert_eq!(piece.chars().count(), 16, "{output:?}");
    let mut canaries = vec!["CANARY", secrets[0], secrets[1], &piece];
    canaries.extend(secrets.map(|secret| &secret[..24]));
    search(&written, &canaries);
}

fn search(written: &[Written], canaries: &[&str]) {
    for Written { place, text } in written {
        for canary in canaries {
            if let Some(at) = text.find(canary) {
                let from = text[..at].char_indices().rev().nth(200).map_or(0, |(index, _)| index);
                panic!("{canary:?} is in {place}: …{}", &text[from..(at + canary.len())]);
            }
        }
    }
}
