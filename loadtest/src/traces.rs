//! Traces of real traffic: ShareGPT, Mooncake, BurstGPT, Azure.

use std::path::Path;
use std::sync::Arc;

use chrono::NaiveDateTime;
use serde::Deserialize;

use crate::error::Error;

/// Tokens of a block that a Mooncake hash stands for.
const MOONCAKE_BLOCK_TOKENS: u32 = 512;
/// Without a tokenizer, text is counted as one token for this many bytes.
const BYTES_PER_TOKEN: usize = 4;
/// vLLM leaves out conversations whose prompt or whole is longer, in tokens.
const SHAREGPT_PROMPT_TOKENS_MAX: usize = 1024;
const SHAREGPT_TOKENS_MAX: usize = 2048;
const SHAREGPT_TOKENS_MIN: usize = 4;
/// Of a line that is shown in a message.
const FOUND_CHARS_MAX: usize = 80;

/// What a trace is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TraceFormat {
    /// JSON: `[{"conversations": [{"from": "human", "value": ...}, ...]}, ...]`; no times.
    Sharegpt,
    /// JSON lines: `{"timestamp": ms, "input_length", "output_length", "hash_ids"}`.
    Mooncake,
    /// CSV: `Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type`; seconds.
    Burstgpt,
    /// CSV: `TIMESTAMP,ContextTokens,GeneratedTokens`; dates.
    Azure,
}

impl TraceFormat {
    /// Whether its requests have times.
    pub fn has_times(self) -> bool {
        self != Self::Sharegpt
    }
}

/// A request of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceRow {
    /// Since the first row; `None` in a trace without times.
    pub at_ns: Option<u64>,
    /// What it asks.
    pub prompt: TracePrompt,
    /// What it got.
    pub output_tokens: u32,
}

/// A prompt of a trace.
#[derive(Clone, Debug, PartialEq)]
pub enum TracePrompt {
    /// The text itself.
    Text(Arc<str>),
    /// Only its length.
    Tokens(u32),
    /// Blocks with their identities, and tokens of each.
    Blocks(Vec<(u64, u32)>),
}

/// Place and expectations, for messages.
struct Source<'a> {
    path: &'a Path,
    line: usize,
}

impl Source<'_> {
    fn refuse(&self, expected: impl Into<String>, found: impl Into<String>) -> Error {
        let found: String = found.into().chars().take(FOUND_CHARS_MAX).collect();
        Error::Trace {
            path: self.path.to_owned(),
            line: self.line,
            expected: expected.into(),
            found,
        }
    }
}

/// Reads a trace. Rows without output are left out, as nothing can be measured on them.
///
/// # Errors
/// The file is unreadable, has a line that is not of the format, or no usable row.
pub fn read(format: TraceFormat, path: &Path) -> Result<Vec<TraceRow>, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|cause| Error::Unreadable { path: path.to_owned(), cause })?;
    let mut rows = parse(format, &text, path)?;
    rows.retain(|row| row.output_tokens > 0);
    if rows.is_empty() {
        let source = Source { path, line: 1 };
        return Err(source.refuse("at least one request with output", "none"));
    }
    rows.sort_by_key(|row| row.at_ns);
    let first = rows[0].at_ns;
    for row in &mut rows {
        row.at_ns = row.at_ns.zip(first).map(|(at, first)| at - first);
    }
    Ok(rows)
}

fn parse(format: TraceFormat, text: &str, path: &Path) -> Result<Vec<TraceRow>, Error> {
    match format {
        TraceFormat::Sharegpt => sharegpt(text, path),
        TraceFormat::Mooncake => mooncake(text, path),
        TraceFormat::Burstgpt => csv(
            text,
            path,
            "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type",
            |columns, source| {
                let at_s = number(columns, 0, "a Timestamp in seconds", source)?;
                let prompt = number(columns, 2, "a number of Request tokens", source)?;
                let output = number(columns, 3, "a number of Response tokens", source)?;
                Ok(row(at_s, prompt, output))
            },
        ),
        TraceFormat::Azure => {
            csv(text, path, "TIMESTAMP,ContextTokens,GeneratedTokens", |columns, source| {
                let at_s = date_s(columns.first().copied().unwrap_or_default(), source)?;
                let prompt = number(columns, 1, "a number of ContextTokens", source)?;
                let output = number(columns, 2, "a number of GeneratedTokens", source)?;
                Ok(row(at_s, prompt, output))
            })
        }
    }
}

fn row(at_s: f64, prompt_tokens: f64, output_tokens: f64) -> TraceRow {
    TraceRow {
        at_ns: Some((at_s * 1e9) as u64),
        prompt: TracePrompt::Tokens((prompt_tokens as u32).max(1)),
        output_tokens: output_tokens as u32,
    }
}

fn sharegpt(text: &str, path: &Path) -> Result<Vec<TraceRow>, Error> {
    #[derive(Deserialize)]
    struct Conversation {
        #[serde(alias = "conversation")]
        conversations: Vec<Turn>,
    }
    #[derive(Deserialize)]
    struct Turn {
        value: String,
    }
    let conversations: Vec<Conversation> = serde_json::from_str(text).map_err(|cause| {
        let source = Source { path, line: cause.line() };
        source.refuse(
            "ShareGPT JSON: [{\"conversations\": [{\"from\", \"value\"}, ...]}, ...]",
            cause.to_string(),
        )
    })?;
    let usable = conversations.into_iter().filter_map(|conversation| {
        let mut turns = conversation.conversations.into_iter();
        let (prompt, answer) = (turns.next()?.value, turns.next()?.value);
        let prompt_tokens = prompt.len() / BYTES_PER_TOKEN;
        let output_tokens = answer.len() / BYTES_PER_TOKEN;
        let fits = prompt_tokens >= SHAREGPT_TOKENS_MIN
            && output_tokens >= SHAREGPT_TOKENS_MIN
            && prompt_tokens <= SHAREGPT_PROMPT_TOKENS_MAX
            && prompt_tokens + output_tokens <= SHAREGPT_TOKENS_MAX;
        fits.then(|| TraceRow {
            at_ns: None,
            prompt: TracePrompt::Text(prompt.into()),
            output_tokens: output_tokens as u32,
        })
    });
    Ok(usable.collect())
}

fn mooncake(text: &str, path: &Path) -> Result<Vec<TraceRow>, Error> {
    #[derive(Deserialize)]
    struct Line {
        timestamp: f64,
        input_length: u32,
        output_length: u32,
        #[serde(default)]
        hash_ids: Vec<u64>,
    }
    let mut rows = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let source = Source { path, line: number + 1 };
        let read: Line = serde_json::from_str(line).map_err(|cause| {
            source.refuse(
                "Mooncake JSON: {\"timestamp\": ms, \"input_length\", \"output_length\", \
                 \"hash_ids\"}",
                format!("{cause} in {line}"),
            )
        })?;
        if !read.timestamp.is_finite() || read.timestamp < 0.0 {
            return Err(source.refuse("a timestamp in milliseconds", read.timestamp.to_string()));
        }
        let prompt = blocks(&read.hash_ids, read.input_length, &source)?;
        rows.push(TraceRow {
            at_ns: Some((read.timestamp * 1e6) as u64),
            prompt,
            output_tokens: read.output_length,
        });
    }
    Ok(rows)
}

fn blocks(ids: &[u64], input_tokens: u32, source: &Source<'_>) -> Result<TracePrompt, Error> {
    if ids.is_empty() {
        return Ok(TracePrompt::Tokens(input_tokens.max(1)));
    }
    let wanted = input_tokens.div_ceil(MOONCAKE_BLOCK_TOKENS) as usize;
    if ids.len() != wanted {
        return Err(source.refuse(
            format!("{wanted} hash_ids for an input_length of {input_tokens} (512 tokens each)"),
            format!("{} hash_ids", ids.len()),
        ));
    }
    let mut left = input_tokens;
    let of_each = ids.iter().map(|id| {
        let tokens = left.min(MOONCAKE_BLOCK_TOKENS);
        left -= tokens;
        (*id, tokens)
    });
    Ok(TracePrompt::Blocks(of_each.collect()))
}

/// Rows of a CSV file without quoting, as both formats are.
fn csv(
    text: &str,
    path: &Path,
    header: &str,
    read: impl Fn(&[&str], &Source<'_>) -> Result<TraceRow, Error>,
) -> Result<Vec<TraceRow>, Error> {
    let mut lines = text.lines().enumerate();
    let found = lines.next().map(|(_, line)| line).unwrap_or_default();
    let first_column = header.split(',').next().unwrap_or_default();
    let starts = found.trim_start_matches('\u{feff}').split(',').next().unwrap_or_default();
    if starts.trim() != first_column {
        return Err(Source { path, line: 1 }.refuse(format!("the header {header}"), found));
    }
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| {
            let source = Source { path, line: number + 1 };
            let columns: Vec<&str> = line.split(',').map(str::trim).collect();
            let wanted = header.split(',').count();
            if columns.len() < wanted.min(4) {
                return Err(source.refuse(format!("the columns {header}"), line));
            }
            read(&columns, &source)
        })
        .collect()
}

fn number(
    columns: &[&str],
    column: usize,
    expected: &str,
    source: &Source<'_>,
) -> Result<f64, Error> {
    let found = columns.get(column).copied().unwrap_or_default();
    match found.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => {
            Err(source
                .refuse(format!("{expected} in column {}", column + 1), format!("\"{found}\"")))
        }
    }
}

fn date_s(text: &str, source: &Source<'_>) -> Result<f64, Error> {
    // The published files have either no zone or `+00:00`.
    let bare = text.trim_end_matches("+00:00").trim_end_matches('Z').replace('T', " ");
    let date = NaiveDateTime::parse_from_str(&bare, "%Y-%m-%d %H:%M:%S%.f").map_err(|_| {
        source.refuse("a TIMESTAMP such as 2023-11-16 18:17:03.97", format!("\"{text}\""))
    })?;
    let since_epoch = date.and_utc();
    Ok(since_epoch.timestamp() as f64 + f64::from(since_epoch.timestamp_subsec_nanos()) / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(format: TraceFormat, text: &str) -> Result<Vec<TraceRow>, Error> {
        parse(format, text, Path::new("trace"))
    }

    fn refusal(format: TraceFormat, text: &str) -> String {
        parsed(format, text).unwrap_err().to_string()
    }

    #[test]
    fn burstgpt_rows_have_times_and_lengths() {
        let text = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
                    5,ChatGPT,472,18,490,Conversation log\n45.5,GPT-4,1087,230,1317,API log\n";
        let rows = parsed(TraceFormat::Burstgpt, text).unwrap();
        assert_eq!(rows[0], row(5.0, 472.0, 18.0));
        assert_eq!(rows[1].at_ns, Some(45_500_000_000));
        let bad = text.replace("1087", "many");
        let message = refusal(TraceFormat::Burstgpt, &bad);
        assert_eq!(
            message,
            "trace:3: expected a number of Request tokens in column 3, found \"many\""
        );
        assert!(
            refusal(TraceFormat::Burstgpt, "a,b\n").starts_with("trace:1: expected the header")
        );
        let short = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,x\n";
        assert!(refusal(TraceFormat::Burstgpt, short).contains("trace:2: expected the columns"));
    }

    #[test]
    fn azure_dates_become_seconds() {
        let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
                    2023-11-16 18:17:03.9799600,4808,10\n2024-05-10 00:00:00.5+00:00,100,2\n";
        let rows = parsed(TraceFormat::Azure, text).unwrap();
        assert_eq!(rows[0].prompt, TracePrompt::Tokens(4808));
        let at_s = rows[0].at_ns.unwrap() as f64 / 1e9;
        assert!((at_s - 1_700_158_623.979_96).abs() < 1e-3, "{at_s}");
        let message = refusal(TraceFormat::Azure, &text.replace("2024-05-10", "10 May"));
        assert!(message.contains("trace:3: expected a TIMESTAMP such as"), "{message}");
    }

    #[test]
    fn mooncake_blocks_cover_the_input() {
        let text = "{\"timestamp\": 27, \"input_length\": 1030, \"output_length\": 5, \
                    \"hash_ids\": [46, 47, 2353]}\n";
        let rows = parsed(TraceFormat::Mooncake, text).unwrap();
        assert_eq!(rows[0].prompt, TracePrompt::Blocks(vec![(46, 512), (47, 512), (2353, 6)]));
        assert_eq!(rows[0].at_ns, Some(27_000_000));
        let message = refusal(TraceFormat::Mooncake, &text.replace("46, ", ""));
        assert!(message.contains("expected 3 hash_ids"), "{message}");
        let message = refusal(TraceFormat::Mooncake, &format!("{text}\nnot json\n"));
        assert!(message.starts_with("trace:3: expected Mooncake JSON"), "{message}");
    }

    #[test]
    fn sharegpt_takes_the_first_two_turns_and_prunes_as_vllm_does() {
        let long = "word ".repeat(1000);
        let text = serde_json::json!([
            {"id": "a", "conversations": [
                {"from": "human", "value": "How do tides work, in short?"},
                {"from": "gpt", "value": "The moon pulls at the sea more than at the ground."}]},
            {"id": "b", "conversations": [{"from": "human", "value": "Alone?"}]},
            {"id": "c", "conversations": [
                {"from": "human", "value": long}, {"from": "gpt", "value": long}]},
        ]);
        let rows = parsed(TraceFormat::Sharegpt, &text.to_string()).unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].output_tokens, 12);
        let message = refusal(TraceFormat::Sharegpt, "[\n{\"id\": 1}]");
        assert!(message.starts_with("trace:2: expected ShareGPT JSON"), "{message}");
    }
}
