//! The README's settings and commands, run as they are printed.

use std::fs;

use serde_json::{Value, json};

use super::client;
use super::process::{Live, id_of, keys, scratch};

/// The first code block of `language` that contains `needle`.
fn block(language: &str, needle: &str) -> String {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let text = fs::read_to_string(readme).unwrap();
    let fence = format!("```{language}\n");
    let mut blocks = text.split(&fence).skip(1);
    let block = blocks.find_map(|rest| {
        let block = rest.split("```").next().unwrap();
        block.contains(needle).then(|| block.to_owned())
    });
    block.unwrap_or_else(|| panic!("the README has no {language} block with {needle}"))
}

#[test]
fn its_settings_and_key_commands_work_as_printed() {
    let folder = scratch("readme");
    fs::write(folder.join("weir.toml"), block("toml", "[tenants.acme]")).unwrap();
    let script = block("sh", "weir keys create").replace("\\\n", " ");
    let mut made: Vec<String> = Vec::new();
    for line in script.lines() {
        let args: Vec<&str> = line.split_whitespace().skip(2).collect();
        let id = made.first().map_or("", |key| id_of(key));
        // The rotated key is the one to end next: what is dead cannot be given another end.
        let id = if args[0] == "revoke" { made.last().map_or("", |key| id_of(key)) } else { id };
        let args: Vec<&str> = args.iter().map(|arg| if *arg == "ID" { id } else { *arg }).collect();
        let printed = keys(&folder, &args);
        if matches!(args[0], "create" | "rotate") {
            made.push(printed);
        }
    }
    let [app, ops, rotated] = &made[..] else { panic!("{script}") };
    assert!(folder.join("weir-state/keys.json").exists());

    // Ports of a test machine are taken; all else is as printed.
    let args = ["--config", "weir.toml", "--admin-port", "0"];
    let server = Live::start(&folder, "server", &args);
    let body = r#"{"model": "demo", "messages": [{"role": "user", "content": "Hello!"}]}"#;
    let answered = client::post(server.address, "/v1/chat/completions", app, body);
    assert_eq!(answered.status, 200, "{}", answered.body);
    let refused = client::post(server.address, "/v1/chat/completions", rotated, body);
    assert_eq!((refused.status, refused.code().as_str()), (401, "revoked_api_key"));
    let admin = server.admin.unwrap();
    let tenants = client::get(admin, "/admin/v1/tenants", ops);
    let tenants: Value = serde_json::from_str(&tenants.body).unwrap();
    let names: Vec<&str> = tenants["tenants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["default", "acme", "nightly"]);
    assert_eq!(tenants["tenants"][1]["settings"]["tokens-per-day"], 5_000_000);
    assert_eq!(tenants["tenants"][1]["settings"]["requests-per-minute"], 600);
    let acme = &tenants["tenants"][1];
    assert_eq!((&acme["live_keys"], &acme["open_prompts"]), (&json!(1), &json!(0)), "{acme}");
    // Until its entry is durable, what was used counts as held.
    let hour = &acme["windows"][0];
    assert!(hour["used"].as_u64().unwrap() + hour["held"].as_u64().unwrap() > 0, "{acme}");
    assert_eq!(client::post(admin, "/admin/v1/reload", ops, "").status, 200);
    assert_eq!(client::post(admin, "/admin/v1/reload", app, "").code(), "missing_scope");
    let metrics = client::get(server.metrics, "/metrics", ops);
    assert!(metrics.body.contains("weir_config_reloads_total"), "{}", metrics.body);
    let listed = keys(&folder, &["list", "--json", "--config", "weir.toml"]);
    assert!(!made.iter().any(|key| listed.contains(key.split('.').next_back().unwrap())));
}
