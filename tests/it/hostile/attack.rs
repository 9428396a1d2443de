//! What a row is: bytes on a connection, and what must come of them.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::secure::Client;

/// A row that takes longer hangs: less than what a client has that answers no ping, so that it is not that which ends a row.
const HANG_LIMIT: Duration = Duration::from_secs(40);

/// Where rows are put to the test.
pub(super) struct Arena {
    pub(super) plain: SocketAddr,
    pub(super) secured: SocketAddr,
    pub(super) client: Client,
    /// The path of a blob that no socket buffers, and of one that is soon read.
    pub(super) large: String,
    pub(super) small: String,
}

/// What comes of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expect {
    /// These statuses of HTTP/1.1, and the connection's end.
    Statuses(Vec<u16>),
    /// One of these statuses and the end, or the end alone: what was sent is too large to be read to its end before it is refused.
    RefusedWith(&'static [u16]),
    /// The end, whatever came before it.
    Closed,
}

type Meeting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One row of the table.
pub(super) struct Row {
    pub(super) name: &'static str,
    run: Box<dyn FnOnce(Arc<Arena>) -> Meeting + Send>,
}

impl Row {
    /// Puts the row to the test.
    pub(super) async fn meet(self, arena: Arc<Arena>) {
        let Self { name, run } = self;
        timeout(HANG_LIMIT, run(arena)).await.unwrap_or_else(|_| panic!("{name}: it hangs"));
    }

    /// Does what `run` says, which judges by itself.
    pub(super) fn doing<F>(name: &'static str, run: impl FnOnce(Arc<Arena>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self { name, run: Box::new(|arena| Box::pin(run(arena))) }
    }
}

/// Sends these bytes over HTTP/1.1, to the plain port and over TLS, and expects the same of both.
pub(super) fn both(name: &'static str, bytes: impl Into<Vec<u8>>, expect: Expect) -> Row {
    let bytes = bytes.into();
    Row::doing(name, async move |arena: Arc<Arena>| {
        let stream = TcpStream::connect(arena.plain).await.unwrap();
        judge(name, "plain", &exchange(stream, &bytes).await, &expect);
        let stream = arena.client.offering(&["http/1.1"]).connect(arena.secured).await.unwrap();
        judge(name, "TLS", &exchange(stream, &bytes).await, &expect);
    })
}

/// Sends these bytes to the plain port, or to the other one without TLS.
pub(super) fn raw(name: &'static str, is_secured: bool, bytes: impl Into<Vec<u8>>, expect: Expect) -> Row {
    let bytes = bytes.into();
    Row::doing(name, async move |arena: Arc<Arena>| {
        let stream = TcpStream::connect(if is_secured { arena.secured } else { arena.plain }).await.unwrap();
        judge(name, "raw", &exchange(stream, &bytes).await, &expect);
    })
}

/// Writes and reads at once, until the connection ends; returns all that came.
pub(super) async fn exchange(stream: impl AsyncRead + AsyncWrite, bytes: &[u8]) -> Vec<u8> {
    let (mut reading, mut writing) = tokio::io::split(stream);
    let mut answer = Vec::new();
    let write = async {
        // Who is refused may not get rid of everything.
        let _refused = writing.write_all(bytes).await;
        let _refused = writing.flush().await;
    };
    let read = async {
        // A reset ends it like a FIN; what came before counts.
        let _ended = reading.read_to_end(&mut answer).await;
    };
    tokio::join!(write, read);
    answer
}

#[track_caller]
pub(super) fn judge(name: &str, how: &str, answer: &[u8], expect: &Expect) {
    let found = statuses(answer);
    let is_right = match expect {
        Expect::Statuses(expected) => found == *expected,
        Expect::RefusedWith(allowed) => found.len() <= 1 && found.iter().all(|status| allowed.contains(status)),
        Expect::Closed => true,
    };
    let shown = String::from_utf8_lossy(&answer[..answer.len().min(400)]).into_owned();
    assert!(is_right, "{name}, {how}: {found:?}, not {expect:?}: {shown:?}");
}

/// Returns the statuses of the answers in `bytes`; bodies here hold no status line.
fn statuses(bytes: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(bytes);
    text.match_indices("HTTP/1.").filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok()).collect()
}
