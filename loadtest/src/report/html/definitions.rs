//! What the figures mean: at the end of each page, and in the README.

use std::fmt::Write as _;

/// A figure's name and its definition.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// As in the reports.
    pub name: &'static str,
    /// In a sentence or two.
    pub meaning: &'static str,
}

/// All of them, in the order of the reports.
pub const DEFINITIONS: [Definition; 14] = [
    Definition {
        name: "Scheduled",
        meaning: "When a request should be sent. Open loop: the time drawn from the seed before \
                  the start, whatever the server does. Closed loop: when its place became free.",
    },
    Definition {
        name: "Sent",
        meaning: "When a request was handed to the connection. Figures named `from sent` have \
                  their zero at the sending of the last attempt, whose answer was measured; all \
                  others have it at the scheduled time, retries and all.",
    },
    Definition {
        name: "TTFT",
        meaning: "Time to first token: from scheduled to the first chunk with content, reasoning \
                  or tool text. A chunk with only a role does not count.",
    },
    Definition {
        name: "TPOT",
        meaning: "Time per output token after the first: (last token - first token) / (n - 1), \
                  n being the server's count of output tokens; completed requests with n >= 2 \
                  whose answer came in more than one chunk, each once.",
    },
    Definition {
        name: "ITL",
        meaning: "Inter-token latency: the gaps between chunks with content, those of all \
                  requests pooled. A server that sends several tokens in a chunk has larger gaps \
                  and fewer of them.",
    },
    Definition { name: "End to end", meaning: "From scheduled to the last byte of the answer." },
    Definition {
        name: "Queue",
        meaning: "From the sending of the last attempt to the response headers: what the server lets a request wait before \
                  it begins to answer. A server that answers at once and queues behind its \
                  headers shows its queue in TTFT only.",
    },
    Definition {
        name: "Send delay",
        meaning: "From scheduled to sent: the generator's own lateness. When its p99 is too \
                  large, the run measured the generator and is not valid.",
    },
    Definition {
        name: "Completed",
        meaning: "The whole answer came, to its end. Every other outcome counts against goodput: \
                  refused (429 or 503 after all retries), client and server errors, broken, \
                  unreachable, timed out, disconnected, cut, not sent.",
    },
    Definition {
        name: "Attempts",
        meaning: "Requests on the wire, retries included. A request has one outcome, however many \
                  attempts it took, and its latencies have all of them in.",
    },
    Definition {
        name: "Requests per second",
        meaning: "Requests that completed within the window's time, whenever they were due, by \
                  its length. Output tokens per second: the tokens that came within it, counted \
                  by the server in `usage` and placed in time by their chunks.",
    },
    Definition {
        name: "Goodput",
        meaning: "Per second: requests that completed within the window's time and met all \
                  objectives. As a part: of all requests due in the window, failed ones included, \
                  those whose client left as planned not.",
    },
    Definition {
        name: "Measured window",
        meaning: "The run without its warm-up and cool-down; a request is in it by its scheduled \
                  time (closed loop: by when it was sent).",
    },
    Definition {
        name: "Percentiles",
        meaning: "From an HDR histogram of three significant digits over the values of all \
                  completed requests due in the window, none sampled and none averaged; its log \
                  is in the JSON and can be merged with others.",
    },
];

/// The definitions as a table.
pub fn table() -> String {
    let mut out = String::from(
        "<table class=\"definitions\"><thead><tr><th>Figure</th><th style=\"text-align:left\">\
         Definition</th></tr></thead><tbody>\n",
    );
    for Definition { name, meaning } in DEFINITIONS {
        let meaning = meaning.replace('<', "&lt;").replace(">=", "&ge;");
        let _ =
            writeln!(out, "<tr><th>{name}</th><td class=\"words\">{}</td></tr>", code(&meaning));
    }
    out.push_str("</tbody></table>\n");
    out
}

/// Words between backticks as code.
fn code(text: &str) -> String {
    let mut out = String::new();
    for (place, part) in text.split('`').enumerate() {
        match place % 2 {
            0 => out.push_str(part),
            _ => {
                let _ = write!(out, "<code>{part}</code>");
            }
        }
    }
    out
}
