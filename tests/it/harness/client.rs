//! A client that shows what really came over the wire: also bodies that end short.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A hung answer is given up after this long; no test that passes waits for it.
const HANG_LIMIT: Duration = Duration::from_secs(30);

/// An answer whose body is still to be read. Dropping it closes the connection.
pub(crate) struct Open {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    unread: Bytes,
    connection: JoinHandle<()>,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// False when the body ended before its announced end.
    pub(crate) is_complete: bool,
}

impl Open {
    pub(crate) async fn send(
        address: SocketAddr,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self::over(stream, &address.to_string(), method, path, headers, body).await
    }

    /// Sends one request of HTTP/1.1 over a connection that stands.
    pub(crate) async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        host: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Self {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(async move {
            // A body that ends short ends the connection with an error: the answer shows it.
            let _ended = connection.await;
        });
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", host);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).unwrap();
        let response = timeout(HANG_LIMIT, sender.send_request(request)).await.expect("an answer in time").unwrap();
        Self::of(response, connection)
    }

    /// Takes an answer that has begun, and what keeps its connection.
    pub(crate) fn of(response: Response<Incoming>, connection: JoinHandle<()>) -> Self {
        let (parts, body) = response.into_parts();
        Self { status: parts.status, headers: parts.headers, body, unread: Bytes::new(), connection }
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Reads exactly `len` bytes, or `None` when the body ends before.
    pub(crate) async fn read(&mut self, len: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            if self.unread.is_empty() {
                self.unread = self.next().await?.ok()?;
            }
            bytes.extend_from_slice(&self.unread.split_to(self.unread.len().min(len - bytes.len())));
        }
        Some(bytes)
    }

    /// Reads the rest.
    pub(crate) async fn finish(mut self) -> Answer {
        let mut body = std::mem::take(&mut self.unread).to_vec();
        let mut is_complete = true;
        while let Some(next) = self.next().await {
            let Ok(chunk) = next else {
                is_complete = false;
                break;
            };
            body.extend_from_slice(&chunk);
        }
        Answer {
            status: self.status.as_u16(),
            headers: std::mem::take(&mut self.headers),
            body: body.into(),
            is_complete,
        }
    }

    async fn next(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        loop {
            let frame = timeout(HANG_LIMIT, self.body.frame()).await.expect("the next bytes in time")?;
            match frame.map(hyper::body::Frame::into_data) {
                Ok(Ok(bytes)) => return Some(Ok(bytes)),
                Ok(Err(_trailers)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Answer {
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Returns the first error code of the body.
    #[track_caller]
    pub(crate) fn error_code(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        body["errors"][0]["code"].as_str().unwrap().to_owned()
    }
}
