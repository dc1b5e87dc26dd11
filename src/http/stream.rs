//! Answers leave here: a stream of events as a body that polls the engine itself, or the fold of
//! the same pieces. Permits and reply streams live in the generation, hence in the body: dropping
//! it cancels the request.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::Sleep;

use super::error::ApiError;
use super::form::{Form, Whole, write_error_event};
use super::generation::{Generation, Step};

/// Pieces that are ready together travel in one frame up to about this size. A slow reader is
/// asked for nothing more until the frame has left, so this also bounds what is written ahead.
const FRAME_BYTES: usize = 4 << 10;

/// A body of server-sent events.
pub(super) struct EventStream {
    generation: Generation,
    form: Form,
    /// A piece that came while the answer's head was held back.
    first: Option<Step>,
    opened: bool,
    ended: bool,
    keep_alive: KeepAlive,
}

/// Says when an event stream has been silent for too long.
struct KeepAlive {
    sleep: Pin<Box<Sleep>>,
    /// Half the interval: moving the timer for every chunk would cost more than looking twice.
    period: Duration,
    /// Whether something was sent since the timer last fired.
    sent: bool,
}

impl EventStream {
    /// A stream of this generation. A comment is sent after `keep_alive_interval` of silence.
    pub(super) fn new(
        generation: Generation,
        form: Form,
        first: Option<Step>,
        keep_alive_interval: Duration,
    ) -> Self {
        let period = (keep_alive_interval / 2).max(Duration::from_millis(1));
        let sleep = Box::pin(tokio::time::sleep(period));
        let keep_alive = KeepAlive { sleep, period, sent: false };
        Self { generation, form, first, opened: false, ended: false, keep_alive }
    }

    /// Writes what is ready now.
    fn fill(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.opened, true) {
            for index in 0..self.generation.choices() {
                self.form.opening(out, index, &self.generation);
            }
        }
        while !self.ended && out.len() < FRAME_BYTES {
            let step = match self.first.take() {
                Some(step) => step,
                None => match self.generation.poll_step(cx) {
                    Poll::Ready(step) => step,
                    Poll::Pending => return,
                },
            };
            match step {
                Step::Started => {}
                Step::Delta(delta) => self.form.chunks(out, &delta, &self.generation),
                Step::Done => {
                    self.form.closing(out, &self.generation);
                    self.ended = true;
                }
                Step::Failed(error) => {
                    write_error_event(out, &error.body());
                    self.ended = true;
                }
            }
        }
    }
}

impl Body for EventStream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        let mut out = Vec::new();
        this.fill(cx, &mut out);
        if out.is_empty() {
            ready!(this.keep_alive.poll_silence(cx));
            out.extend_from_slice(b": keep-alive\n\n");
        }
        this.keep_alive.sent = true;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(out)))))
    }
}

impl KeepAlive {
    /// Ready when nothing was sent for between half an interval and a whole one.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            self.sleep.set(tokio::time::sleep(self.period));
            if !std::mem::take(&mut self.sent) {
                return Poll::Ready(());
            }
        }
    }
}

/// Waits for the generation's first step, so that what fails early gets a status of its own; at
/// most for `patience`.
///
/// # Errors
/// What failed.
pub(super) async fn first_step(
    generation: &mut Generation,
    patience: Duration,
) -> Result<Option<Step>, ApiError> {
    let step = poll_fn(|cx| generation.poll_step(cx));
    match tokio::time::timeout(patience, step).await {
        Ok(Step::Failed(error)) => Err(error),
        Ok(step) => Ok(Some(step)),
        Err(_) => Ok(None),
    }
}

/// The whole answer: the fold of what a stream would have sent.
///
/// # Errors
/// What failed.
pub(super) async fn whole(mut generation: Generation, mut form: Form) -> Result<Vec<u8>, ApiError> {
    let mut choices = vec![Whole::default(); generation.choices() as usize];
    loop {
        match poll_fn(|cx| generation.poll_step(cx)).await {
            Step::Started => {}
            Step::Delta(delta) => choices[delta.index as usize].add(delta),
            Step::Done => return Ok(form.whole(&choices, &generation)),
            Step::Failed(error) => return Err(error),
        }
    }
}
