//! Bodies as the listener sees them: requests that have to keep a pace, answers that are counted.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use thiserror::Error;
use tokio::time::Sleep;

use super::pulse::InFlight;
use crate::clock::{Clock, Time};
use crate::config::ListenerLimits;

/// How often the pace of a body is looked at after its grace.
const PACE_INTERVAL: Duration = Duration::from_secs(1);

/// A request's body came more slowly than it may.
#[derive(Clone, Copy, Debug, Error)]
#[error("the body came at less than {bytes_per_s_min} bytes a second")]
pub struct SlowBody {
    /// What it has to bring.
    pub bytes_per_s_min: u64,
}

/// A request's body that fails with [`SlowBody`] when it falls behind.
pub(super) struct PacedBody {
    inner: Incoming,
    clock: Arc<dyn Clock>,
    began: Time,
    received_bytes: u64,
    bytes_per_s_min: u64,
    grace: Duration,
    /// Set up when the body first has to be waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

/// An answer's body; the request counts as in flight until it is dropped.
pub(super) struct TrackedBody {
    inner: axum::body::Body,
    in_flight: InFlight,
}

impl PacedBody {
    pub(super) fn new(inner: Incoming, clock: Arc<dyn Clock>, limits: &ListenerLimits) -> Self {
        let began = clock.now();
        Self {
            inner,
            clock,
            began,
            received_bytes: 0,
            bytes_per_s_min: limits.body_bytes_per_s_min,
            grace: limits.body_grace,
            timer: None,
        }
    }

    fn is_behind(&self) -> bool {
        let elapsed = self.clock.now().since(self.began);
        let due = elapsed.saturating_sub(self.grace).as_secs_f64() * self.bytes_per_s_min as f64;
        elapsed >= self.grace && (self.received_bytes as f64) < due.max(1.0)
    }
}

impl Body for PacedBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            if let Some(Ok(frame)) = &frame {
                this.received_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        loop {
            let grace = this.grace;
            let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(grace)));
            ready!(timer.as_mut().poll(cx));
            if this.is_behind() {
                let bytes_per_s_min = this.bytes_per_s_min;
                return Poll::Ready(Some(Err(SlowBody { bytes_per_s_min }.into())));
            }
            this.timer = Some(Box::pin(tokio::time::sleep(PACE_INTERVAL)));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl TrackedBody {
    pub(super) fn new(inner: axum::body::Body, in_flight: InFlight) -> Self {
        Self { inner, in_flight }
    }
}

impl Body for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.in_flight.asked();
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if frame.is_some() {
            self.in_flight.gave();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
