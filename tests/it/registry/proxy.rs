//! A forward proxy in this process: tunnels for `CONNECT`, absolute-form requests for plain HTTP, and a note of each.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::lock;

/// Bytes of a request head at the most.
const HEAD_MAX: usize = 8 << 10;

/// A running proxy; dropping it stops it.
pub(crate) struct Proxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    server: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let noted = Arc::clone(&heads);
        let server = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, Arc::clone(&noted)));
            }
        });
        Self { address, heads, server }
    }

    /// Returns `127.0.0.1:40123`.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Returns the first request head of every connection so far, in lower case.
    pub(crate) fn heads(&self) -> Vec<String> {
        lock(&self.heads).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Relays one connection; it ends when either side does.
async fn serve(mut client: TcpStream, heads: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_MAX {
        match client.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let text = String::from_utf8_lossy(&head).to_lowercase();
    lock(&heads).push(text.clone());
    let target = text.split(' ').nth(1).unwrap_or_default();
    let host = target.strip_prefix("http://").unwrap_or(target).split('/').next().unwrap_or_default();
    let Ok(mut upstream) = TcpStream::connect(host).await else { return };
    let greeted = if text.starts_with("connect ") {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await
    } else {
        upstream.write_all(&head).await
    };
    if greeted.is_ok() {
        let _ = copy_bidirectional(&mut client, &mut upstream).await;
    }
}
