//! Settings through the command line and the file, as a person gives them.

use super::*;

fn serve(args: &[&str]) -> Result<Config, String> {
    let args = std::iter::once("weir").chain(args.iter().copied());
    match read(args).map_err(|e| e.to_string())? {
        Request::Serve(config) | Request::Print(config) => Ok(*config),
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
        (&["--host", "0.0.0.0"], "--insecure-no-auth"),
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
fn keys_open_other_addresses() {
    let config = serve(&["--host", "0.0.0.0", "--api-key", "a,b"]).expect("valid");
    assert_eq!(config.server.api_keys, ["a", "b"]);
    assert!(serve(&["--api-key", ""]).is_err());
}
