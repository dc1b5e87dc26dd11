//! Commands that say no, and what they say.

use std::fs;
use std::path::Path;
use std::process::Output;

use super::client;
use super::process::{Live, id_of, keys, scratch, weir};

fn run(folder: &Path, args: &[&str]) -> Output {
    weir(folder).args(args).output().unwrap()
}

fn refused(folder: &Path, args: &[&str], says: &str) {
    let output = run(folder, args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains(says), "{args:?}: {errors}");
    assert!(output.stdout.is_empty(), "{args:?}");
}

#[test]
fn without_a_key_only_loopback_is_served() {
    let folder = scratch("open");
    for (args, says) in [
        (&["--host", "0.0.0.0"][..], "--host: 0.0.0.0 is not a loopback address"),
        (&["--admin-port", "0", "--admin-host", "::"], "--admin-host: :: is not a loopback"),
        (&["--metrics-port", "0", "--metrics-host", "0.0.0.0"], "--metrics-host: 0.0.0.0"),
    ] {
        refused(&folder, &[&["--device", "sim", "--port", "0"], args].concat(), says);
    }
    let args = ["--device", "sim", "--host", "0.0.0.0"];
    for more in [&["--insecure-no-auth"][..], &["--api-key", "k"]] {
        let server = Live::start(&folder, "server", &[&args, more].concat());
        drop(server);
    }
    // Keys of the key file open other addresses too; without one left the server stays closed.
    let key = keys(&folder, &["create", "--tenant", "default"]);
    keys(&folder, &["revoke", id_of(&key)]);
    let server = Live::start(&folder, "server", &args);
    let address = format!("127.0.0.1:{}", server.address.port()).parse().unwrap();
    assert_eq!(client::get(address, "/v1/models", "").code(), "missing_api_key");
}

#[test]
fn keys_that_must_not_be_are_not_made() {
    let folder = scratch("commands");
    fs::write(folder.join("weir.toml"), "state-dir = \"s\"\n[tenants.acme]\n").unwrap();
    let create = ["keys", "create", "--config", "weir.toml", "--tenant"];
    for (args, says) in [
        (&["acmee"][..], "has no [tenants.acmee]"),
        (&["acme", "--scope", "infrence"], "there are inference, models:read"),
        (&["acme", "--scope", "admin:read"], "--expires"),
        (&["acme", "--scope", "inference,admin:write", "--expires", "1d"], "create two keys"),
        (&["acme", "--expires", "0s"], "expired from the start"),
        (&["acme", "--expires", "soon"], "a span of time such as 90d"),
    ] {
        refused(&folder, &[&create[..], args].concat(), says);
    }
    assert!(!folder.join("s/keys.json").exists(), "nothing was made");
    refused(&folder, &["keys", "revoke", "nothing", "--config", "weir.toml"], "weir keys list");
    refused(&folder, &["keys", "list", "--config", "missing.toml"], "missing.toml");
    let made = run(&folder, &[&create[..], &["acme"]].concat());
    let (out, errors) =
        (String::from_utf8(made.stdout).unwrap(), String::from_utf8(made.stderr).unwrap());
    let secret = out.trim().split('.').next_back().unwrap();
    assert_eq!((out.lines().count(), secret.len()), (1, 64), "the key alone: {out}");
    assert!(!errors.contains(secret) && errors.contains("shown once"), "{errors}");
}

#[test]
fn settings_are_printed_without_secrets() {
    let folder = scratch("print");
    let text = "api-key = [\"very-secret\"]\n[tenants.acme]\nweight = 42\n";
    fs::write(folder.join("weir.toml"), text).unwrap();
    let output = run(&folder, &["--config", "weir.toml", "--print-config"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("acme") && printed.contains("weight: 42"), "{printed}");
    assert!(!printed.contains("very-secret"), "{printed}");
}
