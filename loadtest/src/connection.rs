//! Connections to the server: opened when none is free, kept while they can be used again.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::error::Error;

/// Bytes that a connection buffers at most, each way: response heads must fit.
const BUFFER_BYTES_MAX: usize = 32 << 10;

/// Where connections come from.
pub struct Dialer {
    addresses: Vec<SocketAddr>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: Mutex<Vec<Connection>>,
}

/// An open connection; closed when dropped.
#[derive(Debug)]
pub struct Connection {
    /// Sends requests on it.
    pub sender: SendRequest<Full<Bytes>>,
    /// Since when nothing was sent on it; `None` on a fresh one.
    pub idle_since_ns: Option<u64>,
    task: AbortHandle,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Dialer {
    /// Looks the server's name up once.
    ///
    /// # Errors
    /// The address is not of HTTP, or its name is unknown.
    pub async fn new(url: &Uri, cacert: Option<&Path>) -> Result<Self, Error> {
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let secure = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let unreachable = |cause: String| Error::Unreachable { url: url.to_string(), cause };
        let found = tokio::net::lookup_host((host.as_str(), port)).await;
        let addresses: Vec<SocketAddr> =
            found.map_err(|cause| unreachable(cause.to_string()))?.collect();
        if addresses.is_empty() {
            return Err(unreachable(format!("the name {host} has no address")));
        }
        let tls = match secure {
            true => Some((connector(cacert)?, server_name(host)?)),
            false => None,
        };
        Ok(Self { addresses, tls, idle: Mutex::default() })
    }

    /// A connection that was used before and is still open.
    pub async fn reused(&self) -> Option<Connection> {
        loop {
            let taken = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut connection = taken?;
            if connection.sender.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    /// A new connection.
    ///
    /// # Errors
    /// None of the server's addresses accepts one.
    pub async fn fresh(&self) -> io::Result<Connection> {
        let mut refusal = io::Error::other("the server has no address");
        for address in &self.addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return self.set_up(stream).await,
                Err(cause) => refusal = cause,
            }
        }
        Err(refusal)
    }

    /// Takes back a connection whose answer was read to the end.
    pub fn give_back(&self, mut connection: Connection, now_ns: u64) {
        if connection.sender.is_closed() {
            return;
        }
        connection.idle_since_ns = Some(now_ns);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    async fn set_up(&self, stream: TcpStream) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &self.tls {
            Some((connector, name)) => Box::new(connector.connect(name.clone(), stream).await?),
            None => Box::new(stream),
        };
        let (sender, driver) = Builder::new()
            .max_buf_size(BUFFER_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        // Its errors reach whoever waits for the answer.
        let task = tokio::spawn(async move { drop(driver.await) });
        Ok(Connection { sender, idle_since_ns: None, task: task.abort_handle() })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Trusts the Web's authorities, and those of a file.
fn connector(cacert: Option<&Path>) -> Result<TlsConnector, Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = cacert {
        let refuse = |cause: String| {
            Error::Usage(format!("--cacert {}: {cause}; expected PEM", path.display()))
        };
        let read =
            CertificateDer::pem_file_iter(path).map_err(|cause| refuse(cause.to_string()))?;
        let mut count = 0;
        for certificate in read {
            let certificate = certificate.map_err(|cause| refuse(cause.to_string()))?;
            roots.add(certificate).map_err(|cause| refuse(cause.to_string()))?;
            count += 1;
        }
        if count == 0 {
            return Err(refuse("has no certificate".to_owned()));
        }
    }
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn server_name(host: String) -> Result<ServerName<'static>, Error> {
    ServerName::try_from(host.clone())
        .map_err(|_| Error::Usage(format!("--base-url: {host} is no name of a server")))
}
