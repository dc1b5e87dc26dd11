//! Settings through the command line and the file, as a person gives them.

use super::*;

fn serve(args: &[&str]) -> Result<Config, String> {
    let args = std::iter::once("weir").chain(args.iter().copied());
    match read(args).map_err(|e| e.to_string())? {
        Request::Serve(config) | Request::Print(config) => Ok(*config),
        Request::Keys(request) => Err(format!("{request:?}")),
        Request::Usage(request) => Err(format!("{request:?}")),
    }
}

fn with_file(text: &str, args: &[&str]) -> Result<Config, String> {
    let name = format!("weir-config-{}-{}.toml", std::process::id(), blake3::hash(text.as_bytes()));
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, text).expect("the temporary folder can be written");
    let result = serve(&[&["--config", path.to_str().expect("a plain path")], args].concat());
    std::fs::remove_file(&path).expect("the file was just written");
    result
}

#[test]
fn no_argument_serves_the_demo_model_on_loopback() {
    let config = serve(&[]).expect("defaults are valid");
    assert_eq!(config.model.model, "demo");
    assert_eq!((config.server.host.to_string().as_str(), config.server.port), ("127.0.0.1", 8000));
    assert!(config.server.api_keys.is_empty());
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let file = "port = 9000\nmax-num-seqs = \"4K\"\nserved_model_name = [\"a\", \"b\"]\n";
    let config = with_file(file, &["--port", "9001"]).expect("valid");
    assert_eq!(config.server.port, 9001);
    assert_eq!(config.engine.sequences_max, 4096);
    assert_eq!(config.model.served_names, ["a", "b"]);
    assert_eq!(config.engine.block_size_tokens, 16);
}

#[test]
fn the_model_is_positional_or_a_flag() {
    assert_eq!(serve(&["serve", "dir"]).expect("valid").model.model, "dir");
    assert_eq!(serve(&["--model", "dir"]).expect("valid").model.model, "dir");
    assert!(serve(&["serve", "dir", "--model", "other"]).is_err());
}

#[test]
fn what_is_not_obeyed_is_refused_by_name() {
    for (args, word) in [
        (&["--swap-space", "4"][..], "known in vLLM, not here: preempted"),
        (&["--enforce-eager"], "known in vLLM"),
        (&["--tensor-parallel-size", "2"], "tensor-parallel-size"),
        (&["--quantization", "awq"], "awq"),
        (&["--dtype", "float16"], "stored type"),
        (&["--admin-host", "::1"], "--admin-port"),
        (&["--block-size", "17"], "block-size"),
        (&["--max-num-seqs", "0"], "max-num-seqs"),
        (&["--max-num-batched-tokens", "64"], "below --max-num-seqs"),
        (&["--gpu-memory-utilization", "nan"], "gpu-memory-utilization"),
        (&["--drain-timeout=-1"], "drain-timeout"),
        (&["--prot", "1"], "--port"),
    ] {
        let error = serve(args).expect_err("refused");
        assert!(error.contains(word), "{args:?}: {error}");
    }
}

#[test]
fn an_unknown_key_of_the_file_is_an_error_with_a_suggestion() {
    let error = with_file("prot = 1\n", &[]).expect_err("refused");
    assert!(error.contains("did you mean \"port\"?"), "{error}");
    let error = with_file("port = \"x\"\n", &[]).expect_err("refused");
    assert!(error.contains("port"), "{error}");
    let error = with_file("swap-space = 4\n", &[]).expect_err("refused");
    assert!(error.contains("known in vLLM"), "{error}");
    let error = with_file("port = \n", &[]).expect_err("refused");
    assert!(error.contains("line 1"), "{error}");
}

#[test]
fn keys_are_read_and_never_shown() {
    let config = serve(&["--host", "0.0.0.0", "--api-key", "a-secret,b"]).expect("valid");
    let keys: Vec<&str> = config.server.api_keys.iter().map(Secret::reveal).collect();
    assert_eq!(keys, ["a-secret", "b"]);
    assert!(!format!("{config:?}").contains("a-secret"));
    assert!(serve(&["--api-key", ""]).is_err());
}

#[test]
fn listeners_beside_the_first_exist_when_their_port_does() {
    let config = serve(&["--admin-port", "1"]).expect("valid");
    assert_eq!(config.server.admin, Some("127.0.0.1:1".parse().expect("an address")));
    assert_eq!(config.server.metrics, None);
    let config = serve(&["--metrics-port", "2", "--metrics-host", "::"]).expect("valid");
    assert_eq!(config.server.metrics, Some("[::]:2".parse().expect("an address")));
}

#[test]
fn tenants_take_from_the_defaults_what_they_do_not_say() {
    let file = "[tenant-defaults]\nrequests-per-minute = 60\ntokens-per-day = \"1m\"\n\
        [tenants.acme]\nweight = 4\nclass = \"interactive\"\nmodels = [\"demo\"]\n\
        tokens-per-day = \"unlimited\"\ncached-token-price = 0.25\nkv-share = 0.5\n\
        ttft-objective-ms = 500\ntpot-objective-ms = 12.5\n[tenants.beta]\n";
    let tenancy = with_file(file, &[]).expect("valid").server.tenancy;
    assert_eq!(tenancy.default.tokens_per_day, Some(1_000_000));
    let [acme, beta] = &tenancy.tenants[..] else { panic!("two tenants") };
    assert_eq!((&*acme.name, acme.weight, acme.class), ("acme", 4, Class::Interactive));
    assert_eq!((acme.requests_per_min, acme.tokens_per_day), (Some(60), None));
    assert_eq!((acme.cached_token_permille, acme.kv_share), (250, 0.5));
    assert_eq!(acme.ttft, Some(Duration::from_millis(500)));
    assert_eq!(acme.tpot, Some(Duration::from_micros(12_500)));
    assert_eq!(acme.models.as_deref(), Some(&["demo".to_owned()][..]));
    assert_eq!(beta, &TenantSettings { name: "beta".into(), ..tenancy.default.clone() });
}

#[test]
fn a_wrong_tenant_is_refused_with_its_place() {
    for (file, says) in [
        (
            "[tenants.a]\nwieght = 1\n",
            "[tenants.a]: unknown setting \"wieght\"; did you mean \"weight\"?",
        ),
        ("[tenants.a]\nweight = 0\n", "[tenants.a] weight: 0 is not between 1 and 10000"),
        ("[tenants.a]\nweight = -1\n", "[tenants.a] weight"),
        ("[tenants.a]\nclass = \"vip\"\n", "is not \"interactive\""),
        ("[tenants.a]\nmodels = []\n", "[tenants.a] models"),
        ("[tenants.a]\nmodels = \"demo\"\n", "expected an array"),
        ("[tenants.a]\nkv-share = 1.5\n", "[tenants.a] kv-share"),
        ("[tenants.a]\ntpot-objective-ms = 0\n", "[tenants.a] tpot-objective-ms"),
        ("[tenants.a]\ncached-token-price = 2\n", "from 0 to 1"),
        ("[tenants.a]\nttft-objective-ms-per-1k-tokens = 2\n", "without ttft-objective-ms"),
        ("[tenant-defaults]\nmax-output-tokens = 5\ndefault-output-tokens = 6\n", "more than"),
        ("[tenants.default]\n", "[tenant-defaults]"),
        ("[tenants.\"a b\"]\n", "begins with a letter"),
        ("tenants = 3\n", "tables such as [tenants.acme]"),
        ("[tenant-default]\n", "did you mean \"tenant-defaults\"?"),
    ] {
        let error = with_file(file, &[]).expect_err("refused");
        assert!(error.contains(says), "{file}: {error}");
    }
}

#[test]
fn what_only_a_start_can_change_is_named() {
    let source = |text| with_file(text, &[]).expect("valid").source.expect("it was read");
    let first = source("port = 1\napi-key = [\"a\"]\n");
    let second = source("port = 2\napi-key = [\"b\"]\n[tenants.a]\n");
    assert_eq!(first.needs_restart(&second), ["port"]);
    assert!(first.needs_restart(&first).is_empty());
}

#[test]
fn usage_is_asked_for_by_tenant_day_and_format() {
    let ask = |args: &[&str]| match read(["weir", "usage"].iter().chain(args)) {
        Ok(Request::Usage(request)) => Ok(request),
        other => Err(other.map_or_else(|e| e.to_string(), |_| "not usage".to_owned())),
    };
    let request = ask(&["--state-dir", "/s", "--tenant", "acme", "--since", "1970-02-01", "--csv"]);
    assert_eq!(
        request,
        Ok(UsageRequest {
            state_dir: Some(PathBuf::from("/s")),
            tenant: Some("acme".to_owned()),
            since_day: Some(31),
            format: UsageFormat::Csv,
        })
    );
    assert!(ask(&["--since", "yesterday"]).expect_err("no date").contains("2026-11-01"));
    assert!(ask(&["--csv", "--json"]).is_err(), "one of them");
}
