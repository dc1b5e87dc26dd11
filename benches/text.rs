//! What the text room costs: rendering, tokenising, and detokenising a token.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;
use weir::text::{ChatInput, DetokenizerOptions, Text, TextLimits, TokenizerSource};

const TOKENIZERS: [&str; 2] = ["bpe-llama3", "spm-metaspace"];
const PROSE: &str = "The river carries its own share of the flow, and the gate keeps the level. ";

fn open(name: &str) -> Arc<Text> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text").join(name);
    let source = TokenizerSource::HuggingFace {
        tokenizer_json: std::fs::read(folder.join("tokenizer.json")).unwrap(),
        tokenizer_config: Some(std::fs::read(folder.join("tokenizer_config.json")).unwrap()),
        special_tokens_map: None,
        chat_template: None,
    };
    let limits = TextLimits { template_fuel: 1_000_000, rendered_bytes_max: 8 << 20 };
    Arc::new(Text::open(source, None, limits).unwrap())
}

fn tokenise(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tokenise");
    group.sample_size(10);
    for name in TOKENIZERS {
        let text = open(name);
        let shapes = [
            ("4 KiB of prose", PROSE.repeat(4096 / PROSE.len())),
            ("1 MiB of prose", PROSE.repeat((1 << 20) / PROSE.len())),
            ("1 MiB of one letter", "a".repeat(1 << 20)),
            ("1 MiB of spaces", " ".repeat(1 << 20)),
        ];
        for (shape, string) in shapes {
            group.throughput(Throughput::Bytes(string.len() as u64));
            group.bench_function(format!("{name}/{shape}"), |bencher| {
                bencher.iter(|| text.encode(black_box(&string), true).unwrap());
            });
        }
    }
    group.finish();
}

fn detokenise(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("detokenise");
    for name in TOKENIZERS {
        let text = open(name);
        let tokens = text.encode(&PROSE.repeat(100), false).unwrap();
        let options = DetokenizerOptions {
            stop: vec!["\n\nUser:".to_owned(), "</answer>".to_owned()],
            include_stop: false,
            skip_special: true,
        };
        group.throughput(Throughput::Elements(tokens.len() as u64));
        group.bench_function(format!("{name}/answer"), |bencher| {
            bencher.iter_batched(
                || text.detokenizer(&tokens[..16], options.clone()),
                |mut detokenizer| {
                    for &token in &tokens {
                        black_box(detokenizer.push(token));
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn render(criterion: &mut Criterion) {
    let text = open("bpe-llama3");
    let message = |index: usize| {
        let role = if index.is_multiple_of(2) { "user" } else { "assistant" };
        json!({"role": role, "content": PROSE.repeat(4)})
    };
    let chat = ChatInput {
        messages: (0..9).map(message).collect(),
        add_generation_prompt: true,
        ..ChatInput::default()
    };
    let mut group = criterion.benchmark_group("render");
    group.bench_function("9 messages", |bencher| {
        bencher.iter(|| text.render(black_box(&chat)).unwrap());
    });
    group.bench_function("9 messages and tokenise", |bencher| {
        bencher.iter(|| text.encode_rendered(&text.render(black_box(&chat)).unwrap()).unwrap());
    });
    group.finish();
}

criterion_group!(benches, tokenise, detokenise, render);
criterion_main!(benches);
