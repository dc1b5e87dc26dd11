//! How a run stands, shown on stderr while it goes on. Standard output stays for the report.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::report::figures::{count, ms, printable, rate};

/// Between two pictures on a terminal.
const TERMINAL_EVERY: Duration = Duration::from_millis(200);

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Rates are over about this time.
const RATE_OVER_S: f64 = 2.0;

/// Snapshots that are kept for rates; at five a second more than [`RATE_OVER_S`] needs.
const SNAPSHOTS_MAX: usize = 16;

/// Parts of the bar: a run's place in it is in thousandths.
const BAR_PARTS: u64 = 1000;

/// How a run stands at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Since the start.
    pub elapsed_s: f64,
    /// When the run ends by its plan; `None` when it ends with its last request.
    pub ends_s: Option<f64>,
    /// Requests of the plan; `None` when the run ends by time.
    pub planned: Option<u64>,
    /// Requests sent, without retries.
    pub sent: u64,
    /// Requests on the wire again.
    pub retries: u64,
    /// Requests that completed.
    pub completed: u64,
    /// Requests that ended otherwise.
    pub failed: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// Chunks with content.
    pub chunks: u64,
    /// Of recent first tokens, from the scheduled time.
    pub ttft_p50_ms: Option<f64>,
    /// Of the same.
    pub ttft_p99_ms: Option<f64>,
    /// Of recent sends.
    pub send_delay_p99_ms: Option<f64>,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// A bar and two lines that are drawn again and again.
    Terminal {
        /// With colours.
        colours: bool,
    },
    /// A line every few seconds.
    Lines,
    /// Not at all.
    None,
}

/// A view that goes on until it is stopped.
#[derive(Debug)]
pub struct Live {
    stop: mpsc::Sender<()>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Snapshots of the last seconds, for rates.
#[derive(Debug, Default)]
struct Recent {
    snapshots: VecDeque<Snapshot>,
}

impl View {
    /// The view that fits: `terminal` is whether stderr is one, `quiet` the flag, `no_color`
    /// whether the variable of that name is set.
    pub fn choose(terminal: bool, quiet: bool, no_color: bool) -> Self {
        match terminal {
            _ if quiet => Self::None,
            true => Self::Terminal { colours: !no_color },
            false => Self::Lines,
        }
    }
}

impl Live {
    /// Begins to show `snapshot()` on stderr, on a thread of its own.
    pub fn start(view: View, name: &str, snapshot: impl Fn() -> Snapshot + Send + 'static) -> Self {
        let (stop, stopped) = mpsc::channel();
        let name = printable(name, 30);
        let show = move || match view {
            View::Terminal { colours } => on_terminal(&name, colours, &snapshot, &stopped),
            View::Lines => in_lines(&name, &mut std::io::stderr(), &snapshot, || {
                stopped.recv_timeout(LINE_EVERY)
            }),
            View::None => {}
        };
        // Without a thread the run is as good, only unseen.
        let thread = thread::Builder::new().name("live".to_owned()).spawn(show).ok();
        Self { stop, thread }
    }

    /// Ends the view and gives the terminal back.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // The thread may have ended already, as it does at once without a view.
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.end();
    }
}

impl Snapshot {
    /// The part of the run that is done, by time when it ends by time, else by requests.
    fn part_done(&self) -> f64 {
        let part = match (self.ends_s, self.planned) {
            (Some(ends_s), _) if ends_s > 0.0 => self.elapsed_s / ends_s,
            (_, Some(planned)) if planned > 0 => {
                (self.completed + self.failed) as f64 / planned as f64
            }
            _ => 0.0,
        };
        part.clamp(0.0, 1.0)
    }

    /// `32 s of 60 s` or `32 s, 120 of 600 requests`.
    fn place(&self) -> String {
        match (self.ends_s, self.planned) {
            (Some(ends_s), _) if self.elapsed_s <= ends_s => {
                format!("{:.0} s of {ends_s:.0} s", self.elapsed_s)
            }
            (Some(_), _) => format!("{:.0} s, waiting for the last answers", self.elapsed_s),
            (None, Some(planned)) => {
                let done = count(self.completed + self.failed);
                format!("{:.0} s, {done} of {} requests", self.elapsed_s, count(planned))
            }
            (None, None) => format!("{:.0} s", self.elapsed_s),
        }
    }

    fn counts(&self) -> String {
        let mut out = format!(
            "sent {}, completed {}, failed {}, in flight {}",
            count(self.sent),
            count(self.completed),
            count(self.failed),
            count(self.in_flight),
        );
        if self.retries > 0 {
            let _ = write!(out, ", retries {}", count(self.retries));
        }
        out
    }

    fn latencies(&self) -> String {
        let known = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{} ms", ms(v)));
        format!(
            "TTFT p50 {}, p99 {}; send delay p99 {}",
            known(self.ttft_p50_ms),
            known(self.ttft_p99_ms),
            known(self.send_delay_p99_ms),
        )
    }
}

impl Recent {
    /// Takes a snapshot and gives completed requests and chunks per second of the last seconds.
    fn rates(&mut self, now: Snapshot) -> (f64, f64) {
        while self.snapshots.len() >= SNAPSHOTS_MAX
            || self.snapshots.get(1).is_some_and(|s| now.elapsed_s - s.elapsed_s >= RATE_OVER_S)
        {
            self.snapshots.pop_front();
        }
        let before = self.snapshots.front().copied().unwrap_or_default();
        self.snapshots.push_back(now);
        let over_s = now.elapsed_s - before.elapsed_s;
        if over_s <= 0.0 {
            return (0.0, 0.0);
        }
        let per_s = |now: u64, before: u64| now.saturating_sub(before) as f64 / over_s;
        (per_s(now.completed, before.completed), per_s(now.chunks, before.chunks))
    }
}

fn on_terminal(
    name: &str,
    colours: bool,
    snapshot: &impl Fn() -> Snapshot,
    stopped: &mpsc::Receiver<()>,
) {
    let bar = if colours { "{wide_bar:.cyan/dim}" } else { "{wide_bar}" };
    let template = format!("{{prefix}} {bar} {{percent:>3}} %\n{{msg}}");
    let style = ProgressStyle::with_template(&template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━━─");
    let target = ProgressDrawTarget::stderr_with_hz(10);
    let bar = ProgressBar::with_draw_target(Some(BAR_PARTS), target).with_style(style);
    bar.set_prefix(name.to_owned());
    let mut recent = Recent::default();
    loop {
        let now = snapshot();
        bar.set_message(picture(&now, recent.rates(now)));
        bar.set_position((now.part_done() * BAR_PARTS as f64) as u64);
        // The bar leaves no trace: the report follows.
        match stopped.recv_timeout(TERMINAL_EVERY) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return bar.finish_and_clear(),
        }
    }
}

/// What stands under the bar.
fn picture(now: &Snapshot, (completed_per_s, chunks_per_s): (f64, f64)) -> String {
    format!(
        "  {}; {}\n  {} requests/s, {} chunks/s\n  {}",
        now.place(),
        now.counts(),
        rate(completed_per_s),
        rate(chunks_per_s),
        now.latencies(),
    )
}

/// A line for each wait that ran out; no line when stopped, as the report says it all.
fn in_lines(
    name: &str,
    out: &mut impl Write,
    snapshot: &impl Fn() -> Snapshot,
    wait: impl Fn() -> Result<(), RecvTimeoutError>,
) {
    let mut recent = Recent::default();
    recent.rates(snapshot());
    while wait() == Err(RecvTimeoutError::Timeout) {
        let now = snapshot();
        let (_, chunks_per_s) = recent.rates(now);
        let (place, counts, latencies) = (now.place(), now.counts(), now.latencies());
        let chunks = rate(chunks_per_s);
        // A closed stderr ends the view, not the run.
        if writeln!(out, "{name}: {place}; {counts}; {chunks} chunks/s; {latencies}").is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn at(elapsed_s: f64) -> Snapshot {
        Snapshot {
            elapsed_s,
            ends_s: Some(60.0),
            planned: Some(600),
            sent: 320,
            retries: 0,
            completed: 300,
            failed: 2,
            in_flight: 18,
            chunks: (elapsed_s * 1234.0) as u64,
            ttft_p50_ms: Some(32.125),
            ttft_p99_ms: Some(180.0),
            send_delay_p99_ms: None,
        }
    }

    #[test]
    fn the_view_fits_where_it_is_shown() {
        assert_eq!(View::choose(true, false, false), View::Terminal { colours: true });
        assert_eq!(View::choose(true, false, true), View::Terminal { colours: false });
        assert_eq!(View::choose(false, false, false), View::Lines);
        assert_eq!(View::choose(true, true, false), View::None);
        assert_eq!(View::choose(false, true, false), View::None);
    }

    #[test]
    fn a_picture_has_place_counts_rates_and_latencies() {
        let mut recent = Recent::default();
        recent.rates(at(31.0));
        let rates = recent.rates(at(32.0));
        let expected = "  32 s of 60 s; sent 320, completed 300, failed 2, in flight 18\n  \
                        0.00 requests/s, 1,234 chunks/s\n  \
                        TTFT p50 32.12 ms, p99 180.0 ms; send delay p99 -";
        assert_eq!(picture(&at(32.0), rates), expected);
    }

    #[test]
    fn the_bar_goes_by_time_or_else_by_requests() {
        assert_eq!(at(30.0).part_done(), 0.5);
        assert_eq!(at(90.0).part_done(), 1.0);
        assert!(at(90.0).place().contains("waiting for the last answers"));
        let by_count = Snapshot { ends_s: None, ..at(30.0) };
        assert_eq!(by_count.part_done(), 302.0 / 600.0);
        assert_eq!(by_count.place(), "30 s, 302 of 600 requests");
        assert_eq!(Snapshot::default().part_done(), 0.0);
    }

    #[test]
    fn rates_are_of_the_last_seconds_only() {
        let mut recent = Recent::default();
        let chunks = [0, 1000, 2000, 3000, 3000, 3000, 3000];
        let mut last = (0.0, 0.0);
        for (second, chunks) in chunks.into_iter().enumerate() {
            last = recent.rates(Snapshot { elapsed_s: second as f64, chunks, ..at(0.0) });
        }
        assert_eq!(last.1, 0.0, "nothing came for three seconds");
        assert!(recent.snapshots.len() <= SNAPSHOTS_MAX);
    }

    #[test]
    fn without_a_terminal_there_are_plain_lines_until_the_stop() {
        let mut out = Vec::new();
        let waits = Cell::new(0);
        in_lines("steady", &mut out, &|| at(f64::from(waits.get()) * 5.0), || {
            waits.set(waits.get() + 1);
            if waits.get() > 2 { Ok(()) } else { Err(RecvTimeoutError::Timeout) }
        });
        let text = String::from_utf8(out).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            lines[1],
            "steady: 10 s of 60 s; sent 320, completed 300, failed 2, in flight 18; \
             1,234 chunks/s; TTFT p50 32.12 ms, p99 180.0 ms; send delay p99 -"
        );
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn a_view_stops_when_told() {
        Live::start(View::None, "steady", Snapshot::default).stop();
        Live::start(View::Lines, "steady", Snapshot::default).stop();
    }
}
