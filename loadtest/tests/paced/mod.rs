//! A server that answers on a timetable and writes down what it did, so that what a client
//! measures can be compared with what was really written.
//!
//! Chunk `k` of an answer is due at `ttft + k * gap` after the request arrived: deadlines are
//! absolute, lateness does not add up. What happens to which request follows from counters or
//! from the request itself, never from chance. `GET /truth` has the time of every write.

mod body;
mod fault;
mod request;
mod service;
mod settings;
mod truth;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;

pub use fault::{Damage, Fault};
pub use service::Shared;
pub use settings::{Settings, Stall};
pub use truth::{RequestTruth, Spread, TruthSummary};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 16_384;

/// A running server: one thread, stopped when this is dropped.
pub struct PacedServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl PacedServer {
    /// Starts a server on a free port of the loopback address.
    pub fn start(settings: Settings) -> Self {
        let shared = Arc::new(Shared::new(settings));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (stop, stopped) = oneshot::channel();
        let inside = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = runtime();
            runtime.block_on(async {
                listener.set_nonblocking(true).expect("a socket can be made non-blocking");
                let listener = TcpListener::from_std(listener).expect("inside a runtime");
                tokio::select! {
                    _ = serve(listener, inside) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, shared, stop: Some(stop), thread: Some(thread) }
    }

    /// `http://host:port`, without `/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happened to every request that has ended, in order of ending.
    pub fn truth(&self) -> Vec<RequestTruth> {
        self.shared.truth.requests()
    }

    /// Requests that were answered but whose answer has not ended.
    pub fn running(&self) -> u32 {
        self.shared.truth.running()
    }
}

impl Drop for PacedServer {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The one-threaded runtime that a paced server runs on.
pub fn runtime() -> tokio::runtime::Runtime {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.expect("a runtime can be built")
}

/// A listening socket with room for a burst of connections.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        // Errors of accepting (too many files, a client that left) concern one connection.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { shared.answer(request).await }
            });
            // A cut connection, from either side, is part of what this server is for.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
