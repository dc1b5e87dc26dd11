//! Carries a plan out.
//!
//! In an open loop a thread of its own sleeps until each request's time and hands it over; it
//! never looks at answers, so a slow server cannot make the load wait for it (no coordinated
//! omission). Times are never re-based: what is sent late is late in its record.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{sleep, sleep_until};

use crate::client::{Client, planned};
use crate::error::Error;
use crate::plan::Pacing;
use crate::record::{Outcome, RequestRecord};
use crate::recorder::Finished;

/// Requests under way when the user stops a run get no longer than this.
const DRAIN_INTERRUPTED: Duration = Duration::from_secs(5);
/// Places of a closed loop open one after the other, so that the first requests are not all late.
const PLACE_GAP_NS: u64 = 250_000;
/// A place that found no server waits so long.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(100);
/// The timer thread looks so often whether the run was stopped.
const STOP_CHECK: Duration = Duration::from_millis(20);

/// What a drive needs besides the plan.
#[derive(Debug)]
pub struct Settings {
    /// Open loop: no more than this under way.
    pub max_concurrency: Option<u32>,
    /// After the last request was sent, those under way get this long.
    pub drain: Duration,
    /// How often the user asked to stop.
    pub interrupts: watch::Receiver<u32>,
}

/// How a drive went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Driven {
    /// When the user stopped it.
    pub interrupted_ns: Option<u64>,
    /// When the last request ended.
    pub elapsed_ns: u64,
}

/// One run of a plan.
struct Drive {
    client: Arc<Client>,
    settings: Settings,
    finished: Sender<Finished>,
    cut: watch::Sender<bool>,
    /// Cloned into every task: when all clones are gone, all tasks are.
    tasks: mpsc::Sender<()>,
    sent: Vec<bool>,
    interrupted_ns: Option<u64>,
}

/// Carries the client's plan out and sends a record for each request.
///
/// # Errors
/// The machine lets no thread start.
pub async fn drive(
    client: Arc<Client>,
    settings: Settings,
    finished: Sender<Finished>,
) -> Result<Driven, Error> {
    let (tasks, mut all_done) = mpsc::channel(1);
    let (cut, _) = watch::channel(false);
    let count = client.plan.requests.len();
    let mut drive = Drive {
        client,
        settings,
        finished,
        cut,
        tasks,
        sent: vec![false; count],
        interrupted_ns: None,
    };
    match drive.client.plan.pacing {
        Pacing::Open => drive.open().await?,
        Pacing::Closed { concurrency } => drive.closed(concurrency).await,
    }
    Ok(drive.drain(&mut all_done).await)
}

impl Drive {
    async fn open(&mut self) -> Result<(), Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut released = release(&self.client, stop.clone())?;
        let places =
            self.settings.max_concurrency.map(|most| Arc::new(Semaphore::new(most as usize)));
        let mut interrupts = self.settings.interrupts.clone();
        let stopped = stopped(&mut interrupts);
        tokio::pin!(stopped);
        let ends_ns = self.client.plan.duration_ns.unwrap_or(u64::MAX);
        loop {
            let next = tokio::select! {
                biased;
                () = &mut stopped => break self.interrupted_ns = Some(self.client.clock.now_ns()),
                next = released.recv() => next,
            };
            let Some(index) = next else { break };
            let mut free_ns = 0;
            let mut place = None;
            if let Some(places) = &places {
                let ends = sleep_until(self.client.clock.at(ends_ns.min(FAR_NS)).into());
                tokio::select! {
                    biased;
                    () = &mut stopped => {
                        break self.interrupted_ns = Some(self.client.clock.now_ns());
                    }
                    free = places.clone().acquire_owned() => place = free.ok(),
                    () = ends => break,
                }
                free_ns = self.client.clock.now_ns();
            }
            self.send(index, free_ns, place);
        }
        stop.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn send(&mut self, index: usize, free_ns: u64, place: Option<OwnedSemaphorePermit>) {
        self.sent[index] = true;
        let client = self.client.clone();
        let finished = self.finished.clone();
        let task = self.tasks.clone();
        let cut = self.cut.subscribe();
        tokio::spawn(async move {
            let request = &client.plan.requests[index];
            let record = client.run(request, request.scheduled_ns, cut).await;
            drop(place);
            // The receiver outlives all senders unless the process is on its way out.
            drop(finished.send(told(record, free_ns)));
            drop(task);
        });
    }

    async fn closed(&mut self, concurrency: u32) {
        let next = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (places, mut all_free) = mpsc::channel::<()>(1);
        let mut interrupts = self.settings.interrupts.clone();
        let stopped = stopped(&mut interrupts);
        tokio::pin!(stopped);
        for place in 0..u64::from(concurrency) {
            let opens_ns = place * PLACE_GAP_NS;
            if opens_ns > self.client.clock.now_ns() {
                sleep_until(self.client.clock.at(opens_ns).into()).await;
            }
            let place = Place {
                client: self.client.clone(),
                finished: self.finished.clone(),
                next: next.clone(),
                stop: stop.clone(),
                cut: self.cut.subscribe(),
                opens_ns: self.client.clock.now_ns(),
            };
            let held = (self.tasks.clone(), places.clone());
            tokio::spawn(async move {
                place.work().await;
                drop(held);
            });
        }
        drop(places);
        let ends_ns = self.client.plan.duration_ns.unwrap_or(FAR_NS);
        tokio::select! {
            biased;
            () = &mut stopped => self.interrupted_ns = Some(self.client.clock.now_ns()),
            // Nothing is ever sent: the channel ends when the last place does.
            _ = all_free.recv() => {}
            () = sleep_until(self.client.clock.at(ends_ns).into()) => {}
        }
        stop.store(true, Ordering::Relaxed);
        let taken = next.load(Ordering::Relaxed).min(self.sent.len());
        self.sent[..taken].fill(true);
        if self.client.plan.duration_ns.is_some() {
            // A closed loop that ends by time has more requests in its plan than it needs.
            self.sent.fill(true);
        }
    }

    /// Waits for what is under way, in bounded time, and accounts for what was never sent.
    async fn drain(mut self, all_done: &mut mpsc::Receiver<()>) -> Driven {
        let last_ns = self.client.clock.now_ns();
        for (index, _) in self.sent.iter().enumerate().filter(|(_, sent)| !**sent) {
            let request = &self.client.plan.requests[index];
            let open = self.client.plan.pacing == Pacing::Open;
            let scheduled_ns = if open { request.scheduled_ns } else { last_ns };
            let record = planned(request, scheduled_ns);
            drop(self.finished.send(Finished { record, lateness_ns: None }));
        }
        drop(self.tasks);
        let client = self.client;
        let mut interrupts = self.settings.interrupts;
        if self.interrupted_ns.is_none() {
            tokio::select! {
                biased;
                _ = all_done.recv() => {}
                () = stopped(&mut interrupts) => {
                    self.interrupted_ns = Some(client.clock.now_ns());
                }
                () = sleep(self.settings.drain) => {}
            }
        }
        if self.interrupted_ns.is_some() {
            tokio::select! {
                biased;
                _ = all_done.recv() => {}
                () = sleep(DRAIN_INTERRUPTED.min(self.settings.drain)) => {}
            }
        }
        self.cut.send_replace(true);
        let _ = all_done.recv().await;
        Driven { interrupted_ns: self.interrupted_ns, elapsed_ns: client.clock.now_ns() }
    }
}

/// A time that no run reaches.
const FAR_NS: u64 = 1_000_000_000 * 3600 * 24 * 365;

/// A place of a closed loop: sends one request after the other.
struct Place {
    client: Arc<Client>,
    finished: Sender<Finished>,
    next: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    cut: watch::Receiver<bool>,
    opens_ns: u64,
}

impl Place {
    async fn work(self) {
        let mut free_ns = self.opens_ns;
        let ends_ns = self.client.plan.duration_ns.unwrap_or(u64::MAX);
        while !self.stop.load(Ordering::Relaxed) && free_ns < ends_ns {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(request) = self.client.plan.requests.get(index) else { return };
            let record = self.client.run(request, free_ns, self.cut.clone()).await;
            let unreachable = record.outcome == Outcome::Unreachable;
            drop(self.finished.send(told(record, 0)));
            if unreachable {
                // A server that is gone must not be asked as fast as a machine can.
                sleep(UNREACHABLE_PAUSE).await;
            }
            free_ns = self.client.clock.now_ns();
        }
    }
}

/// Hands over each request's index at its time, from a thread whose sleeps are exact to tens of
/// microseconds (the runtime's timers have ticks of a millisecond).
#[allow(clippy::disallowed_methods)]
fn release(
    client: &Arc<Client>,
    stop: Arc<AtomicBool>,
) -> Result<mpsc::UnboundedReceiver<usize>, Error> {
    // Never holds more than the plan.
    let (sender, receiver) = mpsc::unbounded_channel();
    let client = client.clone();
    let thread = std::thread::Builder::new().name("release".to_owned());
    let spawned = thread.spawn(move || {
        for (index, request) in client.plan.requests.iter().enumerate() {
            loop {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let now_ns = client.clock.now_ns();
                let Some(wait_ns) = request.scheduled_ns.checked_sub(now_ns).filter(|ns| *ns > 0)
                else {
                    break;
                };
                std::thread::sleep(Duration::from_nanos(wait_ns).min(STOP_CHECK));
            }
            if sender.send(index).is_err() {
                return;
            }
        }
    });
    spawned.map_err(|cause| Error::Machine(format!("cannot start a thread: {cause}")))?;
    Ok(receiver)
}

/// Ends when the user asked to stop; never, when nobody can.
async fn stopped(interrupts: &mut watch::Receiver<u32>) {
    if interrupts.wait_for(|times| *times > 0).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn told(record: RequestRecord, free_ns: u64) -> Finished {
    let could_ns = record.scheduled_ns.max(free_ns);
    let lateness_ns = record.sent_ns.map(|sent_ns| sent_ns.saturating_sub(could_ns));
    Finished { record, lateness_ns }
}
