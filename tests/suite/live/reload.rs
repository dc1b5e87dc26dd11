//! Tenants and keys change under load, and nobody notices but those who should (T18). 50 reloads;
//! `WEIR_RELOADS=1000 cargo test --release --test suite live::reload` is the long form.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::{self, Connection};
use super::process::{Live, StopAtEnd, id_of, keys, rounds, scratch};

const BASE: &str = "device = \"sim\"\nsim-step-us = 500\nstate-dir = \"state\"\nadmin-port = 0\n";
const COUNTER: &str = "weir_config_reloads_total{source=\"settings\",result=";
const REVOKED_WITHIN: Duration = Duration::from_secs(1);
const CLIENTS: usize = 4;

/// What clients have seen while settings changed.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    answered: AtomicU32,
    failures: Mutex<Vec<String>>,
}

/// Replaces the settings file as editors do: whole.
fn write(folder: &Path, text: &str) {
    fs::write(folder.join("weir.toml.new"), text).unwrap();
    fs::rename(folder.join("weir.toml.new"), folder.join("weir.toml")).unwrap();
}

/// Settings whose weight can be seen.
fn good(weight: u32) -> String {
    format!("{BASE}[tenants.acme]\nweight = {weight}\nrequests-per-minute = \"1m\"\n")
}

fn bad(round: u32) -> String {
    let text = match round % 4 {
        0 => "[tenants.acme]\nweight = 0\n",
        1 => "[tenants.acme]\nwieght = 1\n",
        2 => "[tenants.acme\n",
        _ => "port = \"x\"\n",
    };
    format!("{BASE}{text}")
}

fn client(address: SocketAddr, key: &str, load: &Load) {
    let mut connection = Connection::open(address).unwrap();
    let mut turn = 0;
    while !load.stop.load(Ordering::Relaxed) {
        turn += 1;
        let stream = turn % 2 == 0;
        let body = format!(
            "{{\"prompt\": \"hello\", \"max_tokens\": {}, \"stream\": {stream}}}",
            1 + turn % 16
        );
        let request = client::post_bytes("/v1/completions", key, "", &body);
        let failure = match connection.exchange(request.as_bytes(), false) {
            Ok(reply) if reply.status != 200 => Some(reply.body),
            Ok(reply) if stream && !reply.body.ends_with("data: [DONE]\n\n") => Some(reply.body),
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        };
        load.answered.fetch_add(1, Ordering::Relaxed);
        if let Some(failure) = failure {
            load.failures.lock().unwrap().push(failure);
            return;
        }
    }
}

/// Asks for a reload, by the admin's route or by signal, and returns once it is done.
fn reload(server: &Live, admin: &str, by_signal: bool, valid: bool) {
    let result = if valid { "ok" } else { "refused" };
    let counter = format!("{COUNTER}\"{result}\"}}");
    if !by_signal {
        let reply = client::post(server.admin.unwrap(), "/admin/v1/reload", admin, "");
        assert_eq!(reply.status, if valid { 200 } else { 422 }, "{reply:?}");
        if !valid {
            assert_eq!(reply.code(), "reload_refused");
            assert!(reply.body.contains("weir.toml"), "it says why: {}", reply.body);
        }
        return;
    }
    let before = server.metric(admin, &counter);
    server.signal("-HUP");
    let since = Instant::now();
    while server.metric(admin, &counter) == before {
        assert!(since.elapsed() < Duration::from_secs(10), "no reload came");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn weight_in_force(server: &Live, reader: &str) -> u32 {
    let reply = client::get(server.admin.unwrap(), "/admin/v1/tenants", reader);
    let tenants: Value = serde_json::from_str(&reply.body).unwrap();
    let acme = tenants["tenants"].as_array().unwrap().iter().find(|t| t["name"] == "acme");
    acme.unwrap()["settings"]["weight"].as_u64().unwrap().try_into().unwrap()
}

/// Waits until a key is answered with `status`; returns how long that took.
fn until(address: SocketAddr, key: &str, status: u16) -> Duration {
    let since = Instant::now();
    while client::get(address, "/v1/models", key).status != status {
        assert!(since.elapsed() < Duration::from_secs(10), "never {status}");
        std::thread::sleep(Duration::from_millis(2));
    }
    since.elapsed()
}

#[test]
fn reloads_under_load_fail_nobody_and_revocations_hold_within_a_second() {
    let folder = scratch("reload");
    write(&folder, &good(1));
    let config = ["--config", "weir.toml"];
    let create = |tenant: &str, scopes: &str| {
        let with = ["--tenant", tenant, "--scope", scopes, "--expires", "1d"];
        keys(&folder, &[&["create"], &with[..], &config[..]].concat())
    };
    let acme = create("acme", "inference,models:read");
    let admin = create("default", "admin:write,admin:read,metrics:read");
    let server = Live::start(&folder, "server", &["--config", "weir.toml"]);
    let (load, reloads) = (Load::default(), rounds("WEIR_RELOADS", 50));
    let mut slowest = Duration::ZERO;
    let (mut refused, mut weight) = (0, 1);
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&load.stop);
        for _ in 0..CLIENTS {
            scope.spawn(|| client(server.address, &acme, &load));
        }
        for round in 1..=reloads {
            let valid = round % 3 != 0;
            if valid {
                weight = 1 + round % 9000;
            }
            refused += u64::from(!valid);
            write(&folder, &if valid { good(weight) } else { bad(round) });
            reload(&server, &admin, round % 2 == 0, valid);
            assert_eq!(weight_in_force(&server, &admin), weight, "round {round}");
            if round % 10 == 1 {
                write(&folder, &good(weight));
                let key = create("acme", "models:read");
                until(server.address, &key, 200);
                keys(&folder, &["revoke", id_of(&key), config[0], config[1]]);
                slowest = slowest.max(until(server.address, &key, 401));
            }
            if !load.failures.lock().unwrap().is_empty() {
                break;
            }
        }
    });
    assert_eq!(*load.failures.lock().unwrap(), Vec::<String>::new());
    let answered = load.answered.load(Ordering::Relaxed);
    eprintln!("{reloads} reloads ({refused} refused), {answered} requests, revoked in {slowest:?}");
    assert!(answered > reloads, "there was load: {answered}");
    assert!(slowest <= REVOKED_WITHIN, "revoked after {slowest:?}");
    assert_eq!(server.metric(&admin, &format!("{COUNTER}\"refused\"}}")), refused);
    assert_eq!(server.metric(&admin, &format!("{COUNTER}\"ok\"}}")), u64::from(reloads) - refused);
}

#[test]
fn what_needs_a_restart_is_said_and_a_broken_key_file_changes_nothing() {
    let folder = scratch("restart");
    write(&folder, &good(1));
    let create = |scopes: &str| {
        let with = ["--config", "weir.toml", "--tenant", "default", "--expires", "1d"];
        keys(&folder, &[&["create", "--scope", scopes], &with[..]].concat())
    };
    let admin = create("admin:write,admin:read,metrics:read");
    let server = Live::start(&folder, "server", &["--config", "weir.toml"]);
    write(&folder, &format!("max-num-seqs = 7\n{}", good(5)));
    let reply = client::post(server.admin.unwrap(), "/admin/v1/reload", &admin, "");
    assert!(reply.body.contains("\"needs_restart\":[\"max-num-seqs\"]"), "{reply:?}");
    assert_eq!(weight_in_force(&server, &admin), 5);
    assert!(server.log().contains("only a restart"), "{}", server.log());

    let path = folder.join("state/keys.json");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let refused = "weir_config_reloads_total{source=\"keys\",result=\"refused\"}";
    let since = Instant::now();
    while server.metric(&admin, refused) == 0 {
        assert!(since.elapsed() < Duration::from_secs(10), "nobody noticed");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(server.log().contains("the key file is refused"), "{}", server.log());
    let reply = client::post(server.admin.unwrap(), "/admin/v1/reload", &admin, "");
    assert_eq!((reply.status, reply.code().as_str()), (422, "reload_refused"));
    fs::remove_file(&path).unwrap();
    let reply = client::post(server.admin.unwrap(), "/admin/v1/reload", &admin, "");
    assert_eq!(reply.status, 422, "a lost file does not take all keys away: {reply:?}");
}
