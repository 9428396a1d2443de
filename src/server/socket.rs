//! A plain connection to a client that sends file content without copying it: `sendfile(2)` beneath hyper.
//!
//! hyper writes byte slices. For content that lies in a file it is given a slice of the same length that stands in its place:
//! the body puts the file's range into the connection's [`Outbox`] and yields a *stand-in*, some bytes of one static array.
//! When hyper hands the stand-in to the socket, known by its address, the socket sends the range instead. hyper keeps its
//! framing, its back-pressure and its accounts, and no byte of the content passes through this process.
//!
//! Stand-ins reach the socket in the order and with the lengths in which they were put into the outbox, for hyper queues what
//! it writes to a vectored socket and copies none of it. The socket checks that at each write, and ends the connection when it
//! does not hold: a client never sees a stand-in.
//!
//! Measured with `tests/bench/run --rows a` on two cores of a virtual machine, processor seconds per GB of a warm blob:
//!
//! | clients | `preadv2` into pooled buffers of 64 KiB | `sendfile` | nginx in the same runs |
//! |---|---|---|---|
//! | 1 | 0.18–0.19 | 0.12 | 0.04–0.17, by where the scheduler puts it |
//! | 4 | 0.19–0.20 | 0.15–0.18 | 0.16–0.22 |
//! | 64 | 0.17 | 0.16 | 0.17–0.18 |
//!
//! and a thousand slow streams of one cold blob take 30 MiB instead of 87. Pieces of 1 MiB were no better than those of 256 KiB.
//! Memory-mapped files would save one of the two copies, but a bad sector would end the process (SIGBUS).
//!
//! `sendfile` waits for the disk. The cache hands out ranges whose ends are in the page cache, and reads the others through its
//! buffers, off the runtime. A disk that fails nevertheless is not noticed by the client where a [`Rescue`] stands behind the
//! range.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::cache::{BodyError, PIECE_BYTES_MAX};
use crate::store::ReadAt;

/// What stands in for file content; its bytes are never sent.
static STAND_IN: [u8; PIECE_BYTES_MAX] = [0; PIECE_BYTES_MAX];

/// Bytes sent at once by copying, where the file system does not know `sendfile`.
const COPY_BYTES: usize = 16 * 1024;

/// Gives the bytes of a range of a file that cannot be read from there.
pub(super) type Rescue = Arc<dyn Fn(Range<u64>) -> BoxStream<'static, Result<Bytes, BodyError>> + Send + Sync>;

/// The file content that waits to be sent on one connection, in order; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Outbox {
    // A plain mutex, of one connection: held to put in and take out.
    waiting: Arc<Mutex<VecDeque<Waiting>>>,
}

#[derive(Clone)]
struct Waiting {
    file: Arc<dyn ReadAt>,
    range: Range<u64>,
    rescue: Option<Rescue>,
}

impl Outbox {
    /// Puts in a range of at most [`PIECE_BYTES_MAX`] bytes of a file, and returns its stand-in.
    pub(super) fn put(&self, file: Arc<dyn ReadAt>, range: Range<u64>, rescue: Option<Rescue>) -> Bytes {
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX).min(STAND_IN.len());
        let stand_in = Bytes::from_static(STAND_IN.get(..len).unwrap_or_default());
        self.waiting().push_back(Waiting { file, range: range.start..range.start + len as u64, rescue });
        stand_in
    }

    /// Returns what `slice` stands for, if it is a stand-in.
    ///
    /// # Errors
    /// When it does not stand for what is next.
    fn behind(&self, slice: &[u8]) -> Option<io::Result<Waiting>> {
        if !STAND_IN.as_ptr_range().contains(&slice.as_ptr()) {
            return None;
        }
        let next =
            self.waiting().front().filter(|next| next.range.end - next.range.start == slice.len() as u64).cloned();
        Some(next.ok_or_else(|| io::Error::other("a stand-in out of turn")))
    }

    /// Notes that so many bytes of what is next were sent; true when those were its last.
    fn sent(&self, count: usize) -> bool {
        let mut waiting = self.waiting();
        let Some(next) = waiting.front_mut() else { return true };
        next.range.start += count as u64;
        let is_sent = next.range.is_empty();
        if is_sent {
            waiting.pop_front();
        }
        is_sent
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The socket of a plain connection.
pub(super) struct Socket {
    stream: TcpStream,
    outbox: Outbox,
    rescuing: Option<Rescuing>,
}

/// The bytes of what is next, from elsewhere.
struct Rescuing {
    chunks: BoxStream<'static, Result<Bytes, BodyError>>,
    chunk: Bytes,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, outbox: Outbox) -> Self {
        Self { stream, outbox, rescuing: None }
    }

    /// Sends the beginning of `next`, as much as the socket takes.
    fn poll_send(&mut self, context: &mut Context<'_>, next: &Waiting) -> Poll<io::Result<usize>> {
        if self.rescuing.is_some() {
            return self.poll_rescue(context);
        }
        let Some(file) = next.file.as_file() else { return Poll::Ready(Err(io::ErrorKind::Unsupported.into())) };
        let len = usize::try_from(next.range.end - next.range.start).unwrap_or(usize::MAX);
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            let mut offset = next.range.start;
            let send = || Ok(rustix::fs::sendfile(&self.stream, file, Some(&mut offset), len)?);
            match self.stream.try_io(Interest::WRITABLE, send) {
                Ok(0) => return self.rescue(context, next, io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.outbox.sent(count);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if is_unknown(&error) => return self.poll_copy(context, next),
                Err(error) if is_of_the_peer(&error) => return Poll::Ready(Err(error)),
                Err(error) => return self.rescue(context, next, error),
            }
        }
    }

    /// Gets what is left of `next` from elsewhere, after its file failed with `error`.
    fn rescue(&mut self, context: &mut Context<'_>, next: &Waiting, error: io::Error) -> Poll<io::Result<usize>> {
        let Some(rescue) = &next.rescue else { return Poll::Ready(Err(error)) };
        let chunks = rescue(next.range.clone());
        self.rescuing = Some(Rescuing { chunks, chunk: Bytes::new() });
        self.poll_rescue(context)
    }

    fn poll_rescue(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(rescuing) = &mut self.rescuing else { return Poll::Ready(Err(io::ErrorKind::Other.into())) };
        while rescuing.chunk.is_empty() {
            match ready!(rescuing.chunks.poll_next_unpin(context)) {
                Some(Ok(chunk)) => rescuing.chunk = chunk,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            }
        }
        let count = ready!(Pin::new(&mut self.stream).poll_write(context, &rescuing.chunk))?;
        rescuing.chunk.advance(count);
        if self.outbox.sent(count) {
            self.rescuing = None;
        }
        Poll::Ready(Ok(count))
    }

    /// Sends the beginning of `next` by way of a buffer.
    fn poll_copy(&mut self, context: &mut Context<'_>, next: &Waiting) -> Poll<io::Result<usize>> {
        let mut buffer = [0; COPY_BYTES];
        let len = usize::try_from(next.range.end - next.range.start).unwrap_or(usize::MAX).min(COPY_BYTES);
        let read = match next.file.read_at(next.range.start, buffer.get_mut(..len).unwrap_or_default()) {
            Ok(0) => return self.rescue(context, next, io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) => return self.rescue(context, next, error),
        };
        let count = ready!(Pin::new(&mut self.stream).poll_write(context, buffer.get(..read).unwrap_or_default()))?;
        self.outbox.sent(count);
        Poll::Ready(Ok(count))
    }
}

/// Returns true when the file system or the socket does not know `sendfile`.
fn is_unknown(error: &io::Error) -> bool {
    [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Returns true when the error is about the connection, not about the file.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("file", &self.file).field("range", &self.range).finish_non_exhaustive()
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, slice: &[u8]) -> Poll<io::Result<usize>> {
        match self.outbox.behind(slice) {
            Some(next) => self.poll_send(context, &next?),
            None => Pin::new(&mut self.stream).poll_write(context, slice),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let is_stand_in = |slice: &IoSlice<'_>| STAND_IN.as_ptr_range().contains(&slice.as_ptr());
        let first = slices.iter().position(|slice| !slice.is_empty()).unwrap_or(0);
        let slices = slices.get(first..).unwrap_or_default();
        let plain = slices.iter().position(is_stand_in).unwrap_or(slices.len());
        match (slices.first(), slices.get(..plain)) {
            (Some(slice), Some([])) => self.poll_write(context, slice),
            (_, plain) => Pin::new(&mut self.stream).poll_write_vectored(context, plain.unwrap_or_default()),
        }
    }

    fn is_write_vectored(&self) -> bool {
        // Else hyper would copy the stand-ins.
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Socket, Outbox, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), async {
            listener.accept().await.unwrap()
        });
        let outbox = Outbox::default();
        (Socket::new(accepted.0, outbox.clone()), outbox, client.unwrap())
    }

    fn file(bytes: &[u8]) -> Arc<dyn ReadAt> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Arc::<File>::new(file)
    }

    #[tokio::test]
    async fn stand_ins_between_other_slices_become_file_content() {
        let (mut socket, outbox, mut client) = pair().await;
        let bytes: Vec<u8> = (0..3 * PIECE_BYTES_MAX).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let file = file(&bytes);
        let sending = async move {
            for piece in 0..3 {
                let start = (piece * PIECE_BYTES_MAX) as u64;
                let one = outbox.put(Arc::clone(&file), start..start + 10, None);
                let two = outbox.put(Arc::clone(&file), start + 10..start + PIECE_BYTES_MAX as u64, None);
                let mut chain = bytes::Buf::chain(bytes::Buf::chain(Bytes::from_static(b"<"), one), two);
                socket.write_all_buf(&mut chain).await.unwrap();
            }
            assert!(outbox.waiting().is_empty());
        };
        let mut received = Vec::new();
        tokio::join!(sending, async { client.read_to_end(&mut received).await.unwrap() });
        let expected: Vec<u8> = bytes.chunks(PIECE_BYTES_MAX).flat_map(|piece| [b"<", piece].concat()).collect();
        assert!(received == expected);
    }

    #[tokio::test]
    async fn a_stand_in_out_of_turn_or_beyond_its_file_ends_the_connection() {
        let (mut socket, outbox, _client) = pair().await;
        let stand_in = outbox.put(file(b"abc"), 0..3, None);
        assert!(socket.write_all(&stand_in.slice(..2)).await.is_err());
        let (mut socket, outbox, _client) = pair().await;
        let beyond = outbox.put(file(b"abc"), 3..9, None);
        assert_eq!(socket.write_all(&beyond).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn where_the_file_fails_in_the_middle_the_rest_comes_from_elsewhere() {
        let (mut socket, outbox, mut client) = pair().await;
        let bytes: Vec<u8> = (0..100_000).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let (short, all) = (file(&bytes[..30_000]), Bytes::from(bytes.clone()));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let rescue: Rescue = {
            let asked = Arc::clone(&asked);
            Arc::new(move |range| {
                asked.lock().unwrap().push(range.clone());
                let rest = all.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap());
                // As the upstream gives it: by and by.
                let chunks = (0..rest.len()).step_by(1000).map(move |at| Ok(rest.slice(at..rest.len().min(at + 1000))));
                futures_util::stream::iter(chunks)
                    .then(async |chunk| {
                        tokio::task::yield_now().await;
                        chunk
                    })
                    .boxed()
            })
        };
        let sending = async move {
            for range in [0..50_000, 50_000..60_000, 60_000..100_000] {
                let mut stand_in = outbox.put(Arc::clone(&short), range, Some(Arc::clone(&rescue)));
                socket.write_all_buf(&mut stand_in).await.unwrap();
            }
            assert!(outbox.waiting().is_empty() && socket.rescuing.is_none());
        };
        let mut received = Vec::new();
        tokio::join!(sending, async { client.read_to_end(&mut received).await.unwrap() });
        assert!(received == bytes);
        assert_eq!(*asked.lock().unwrap(), [30_000..50_000, 50_000..60_000, 60_000..100_000]);
    }

    #[tokio::test]
    async fn where_sendfile_is_unknown_content_is_copied() {
        let (mut socket, outbox, mut client) = pair().await;
        let bytes = vec![7; COPY_BYTES + 3];
        outbox.put(file(&bytes), 0..bytes.len() as u64, None);
        let sending = async move {
            while let Some(next) = { outbox.waiting().front().cloned() } {
                std::future::poll_fn(|context| socket.poll_copy(context, &next)).await.unwrap();
            }
        };
        let mut received = Vec::new();
        tokio::join!(sending, async { client.read_to_end(&mut received).await.unwrap() });
        assert_eq!(received, bytes);
    }
}
