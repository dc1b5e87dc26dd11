//! Our own accept loop: connection caps, timers and a bounded shutdown (R42). Knows nothing of
//! routes.

mod body;
mod connections;
mod pulse;
mod socket;

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::Service;

pub(super) use body::SlowBody;
pub use connections::Connections;

use self::body::{PacedBody, TrackedBody};
use self::pulse::{Patience, Pulse};
use self::socket::Socket;
use super::shutdown::{Phase, Shutdown};
use crate::clock::Clock;
use crate::config::ListenerLimits;
use crate::metrics::Metrics;

/// After an abort, streams have this long to write their error event before connections are cut.
const ABORT_GRACE: Duration = Duration::from_secs(2);
/// Pause after accept failed (most likely for want of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// HTTP/2 flow-control windows (Envoy's advice for an edge).
const H2_STREAM_WINDOW_BYTES: u32 = 64 << 10;
const H2_CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Resets that a peer may cause before its connection is closed (rapid-reset floods).
const H2_RESETS_MAX: usize = 20;
/// hyper needs at least this much buffer.
const H1_BUFFER_BYTES_MIN: usize = 8192;

/// What every connection shares.
struct Server {
    router: Router,
    limits: ListenerLimits,
    shutdown: Shutdown,
    clock: Arc<dyn Clock>,
    builder: auto::Builder<TokioExecutor>,
}

/// Accepts and serves connections (HTTP/1.1 and HTTP/2 without TLS) until `shutdown` drains and
/// the last connection has ended, or until a moment after it aborts. Runs on the tokio runtime.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ListenerLimits,
    shutdown: Shutdown,
    connections: Arc<Connections>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
) {
    let builder = builder(&limits);
    let server = Arc::new(Server { router, limits, shutdown: shutdown.clone(), clock, builder });
    let mut tasks = JoinSet::new();
    let mut draining = pin!(shutdown.reached(Phase::Draining));
    loop {
        tokio::select! {
            biased;
            () = &mut draining => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    match connections.admit(canonical(peer), &server.limits) {
                        Ok(place) => {
                            let server = Arc::clone(&server);
                            tasks.spawn(async move {
                                server.connection(stream).await;
                                drop(place);
                            });
                        }
                        Err(limit) => metrics.connection_refused(limit),
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

impl Server {
    /// Serves one connection to its end.
    async fn connection(&self, stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "setting TCP_NODELAY failed");
        }
        let pulse = Arc::new(Pulse::new(Arc::clone(&self.clock)));
        let io = TokioIo::new(Socket::new(stream, Arc::clone(&pulse)));
        let service = hyper::service::service_fn(|request| self.call(request, &pulse));
        let mut connection = pin!(self.builder.serve_connection(io, service));
        let mut draining = pin!(self.shutdown.reached(Phase::Draining));
        let mut aborted = pin!(async {
            self.shutdown.reached(Phase::Aborting).await;
            tokio::time::sleep(ABORT_GRACE).await;
        });
        let patience = Patience::new(&self.limits);
        let mut is_draining = false;
        let mut check = pin!(tokio::time::sleep(patience.first_check()));
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended early");
                    }
                    return;
                }
                () = &mut draining, if !is_draining => {
                    is_draining = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = &mut aborted => return,
                () = check.as_mut() => match pulse.next_check(&patience) {
                    Ok(wait) => check.set(tokio::time::sleep(wait)),
                    Err(reason) => {
                        tracing::debug!(reason, "a connection was closed");
                        return;
                    }
                },
            }
        }
    }

    fn call(
        &self,
        request: http::Request<Incoming>,
        pulse: &Arc<Pulse>,
    ) -> impl Future<Output = Result<http::Response<TrackedBody>, std::convert::Infallible>> + use<>
    {
        let in_flight = pulse.begin(request.version() == http::Version::HTTP_2);
        let clock = Arc::clone(&self.clock);
        let limits = &self.limits;
        let request =
            request.map(|incoming| axum::body::Body::new(PacedBody::new(incoming, clock, limits)));
        let answer = self.router.clone().call(request);
        async move {
            let response = answer.await?;
            Ok(response.map(|body| TrackedBody::new(body, in_flight)))
        }
    }
}

fn builder(limits: &ListenerLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Timeouts on heads are ours (see `Pulse`): hyper's starts when the previous answer ends, so
    // that it would also cut idle connections.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        // A token's chunk is three short pieces; copying them into one buffer costs less than the
        // kernel's handling of three.
        .writev(false)
        .max_buf_size(limits.header_bytes_max.max(H1_BUFFER_BYTES_MIN))
        .max_headers(limits.headers_max);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams_max)
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
        .max_pending_accept_reset_streams(H2_RESETS_MAX)
        .max_local_error_reset_streams(H2_RESETS_MAX)
        .keep_alive_interval(limits.idle_timeout)
        .keep_alive_timeout(limits.header_timeout);
    builder
}

/// The peer's address, with IPv4 addresses that arrive through an IPv6 socket counted as such.
fn canonical(peer: SocketAddr) -> IpAddr {
    peer.ip().to_canonical()
}
