//! Our own accept loop: connection caps, timers and a bounded shutdown (R42). Knows nothing of
//! routes.

use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;

use super::shutdown::Shutdown;
use crate::clock::Clock;
use crate::config::ListenerLimits;
use crate::metrics::Metrics;

/// Open connections, in all and by peer address.
#[derive(Debug, Default)]
pub struct Connections {}

impl Connections {
    /// Open connections.
    pub fn open(&self) -> usize {
        todo!()
    }
}

/// Accepts and serves connections (HTTP/1.1 and HTTP/2 without TLS) until `shutdown` drains and
/// the last connection has ended, or until a moment after it aborts. Runs on the tokio runtime.
pub async fn serve(
    _listener: TcpListener,
    _router: Router,
    _limits: ListenerLimits,
    _shutdown: Shutdown,
    _connections: Arc<Connections>,
    _metrics: Arc<Metrics>,
    _clock: Arc<dyn Clock>,
) {
    todo!()
}
