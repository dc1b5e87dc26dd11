//! A plain HTTP/1.1 client over blocking sockets: it sends exactly the bytes that a test writes,
//! and retries as the official SDKs do.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// An answer, read to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// Chunked bodies are joined.
    pub body: String,
}

/// A connection that may serve several requests.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What became of a request that was retried.
#[derive(Debug)]
pub struct Attempted {
    /// `Err`: no attempt was answered.
    pub last: Result<Reply, String>,
    pub attempts: u32,
}

/// A client like the official SDKs: it keeps its connection, and tries three times.
pub struct Retrying {
    address: SocketAddr,
    connection: Option<Connection>,
}

impl Reply {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The error's code.
    pub fn code(&self) -> String {
        let value: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        value["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Connection {
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Sends a request and reads its answer. `is_head`: the answer has no body.
    pub fn exchange(&mut self, request: &[u8], is_head: bool) -> io::Result<Reply> {
        self.stream.write_all(request)?;
        let head_end = self.read_until(b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&self.take(head_end)).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not HTTP: {head}")))?;
        let mut reply = Reply { status, head, body: String::new() };
        if is_head || status == 204 {
            return Ok(reply);
        }
        let body = if reply.header("transfer-encoding") == Some("chunked") {
            self.chunks()?
        } else {
            let length = reply.header("content-length").and_then(|text| text.parse().ok());
            let length: usize = length.ok_or_else(|| io::Error::other("no length"))?;
            while self.buffer.len() < length {
                self.fill()?;
            }
            self.take(length)
        };
        reply.body = String::from_utf8_lossy(&body).into_owned();
        Ok(reply)
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line_end = self.read_until(b"\r\n")?;
            let line = self.take(line_end);
            let size = String::from_utf8_lossy(&line);
            let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
            while self.buffer.len() < size + 2 {
                self.fill()?;
            }
            body.extend_from_slice(&self.buffer[..size]);
            self.take(size + 2);
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// Where the first `end` ends.
    fn read_until(&mut self, end: &[u8]) -> io::Result<usize> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return Ok(at + end.len());
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut bytes = [0; 16 << 10];
        let count = self.stream.read(&mut bytes)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.buffer.extend_from_slice(&bytes[..count]);
        Ok(())
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(count);
        std::mem::replace(&mut self.buffer, rest)
    }
}

impl Retrying {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, connection: None }
    }

    /// Sends a request until it is answered with success or with what must not be retried; three
    /// times at most.
    pub fn send(&mut self, request: &[u8]) -> Attempted {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let last = self.attempt(request);
            let wait = match &last {
                Ok(reply) if matches!(reply.status, 408 | 409 | 429 | 500..) => {
                    let named = reply.header("retry-after-ms").and_then(|ms| ms.parse().ok());
                    Duration::from_millis(named.unwrap_or(500))
                }
                Ok(_) => return Attempted { last, attempts },
                Err(_) => Duration::from_millis(500),
            };
            if attempts == 3 {
                return Attempted { last, attempts };
            }
            std::thread::sleep(wait);
        }
    }

    fn attempt(&mut self, request: &[u8]) -> Result<Reply, String> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.address).map_err(|error| format!("connect: {error}"))?,
        };
        let reply = connection.exchange(request, false).map_err(|error| error.to_string())?;
        if reply.header("connection") != Some("close") {
            self.connection = Some(connection);
        }
        Ok(reply)
    }
}

/// One request on a connection of its own.
pub fn send(address: SocketAddr, request: &str) -> Reply {
    Connection::open(address).unwrap().exchange(request.as_bytes(), false).unwrap()
}

pub fn get(address: SocketAddr, path: &str, key: &str) -> Reply {
    send(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n"))
}

/// A POST request of a JSON body; `more` are further header lines, each with its end.
pub fn post_bytes(path: &str, key: &str, more: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\n{more}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub fn post(address: SocketAddr, path: &str, key: &str, body: &str) -> Reply {
    send(address, &post_bytes(path, key, "", body))
}
