//! What of an upload has gone by: hashed, and kept on disk as long as the store takes it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::oci::{Algorithm, Digest, Hasher};
use crate::store::{BlobStore, Class, Partial, blocking};
use crate::telemetry::sentence;
use crate::upstream::{Outgoing, SendError};

/// How long a caller may send nothing in the middle of a body.
const STILL_LIMIT: Duration = Duration::from_mins(1);

/// Bytes that are read at once to hash what was spooled.
const READ_BYTES: usize = 1024 * 1024;

/// The body of a caller's request.
pub struct Incoming {
    pub chunks: BoxStream<'static, Result<Bytes, SendError>>,
    /// `None` when it was not announced.
    pub len: Option<u64>,
}

impl Incoming {
    pub fn is_empty(&self) -> bool {
        self.len == Some(0)
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("len", &self.len).finish_non_exhaustive()
    }
}

/// The bytes of one upload so far.
#[derive(Debug)]
pub(super) struct Spool {
    ground: Ground,
    hasher: Hasher,
    len: u64,
}

#[derive(Debug, Clone)]
enum Ground {
    /// No byte has come.
    Store(Arc<dyn BlobStore>),
    Partial(Arc<dyn Partial>),
    /// The store has refused some of them, or they are not all there.
    None,
}

impl Spool {
    /// Begins without a byte, and without a file.
    pub(super) fn new(store: Arc<dyn BlobStore>) -> Self {
        Self { ground: Ground::Store(store), hasher: Hasher::new(Algorithm::Sha256), len: 0 }
    }

    /// Returns one that stands where this one does, for when what comes next is refused: its bytes are hashed, and not kept, for what is
    /// written meanwhile lies where they would go.
    pub(super) fn mark(&self) -> Self {
        let ground = match &self.ground {
            Ground::Store(store) => Ground::Store(Arc::clone(store)),
            Ground::Partial(_) | Ground::None => Ground::None,
        };
        Self { ground, hasher: self.hasher.clone(), len: self.len }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    async fn take(&mut self, chunk: &Bytes) {
        let offset = self.len;
        self.len += chunk.len() as u64;
        self.hasher.update(chunk);
        let Some(partial) = self.partial().await else { return };
        let chunk = chunk.clone();
        if let Err(error) = blocking(move || partial.write_at(offset, &[chunk])).await {
            not_cached(&error);
            self.ground = Ground::None;
        }
    }

    async fn partial(&mut self) -> Option<Arc<dyn Partial>> {
        if let Ground::Store(store) = &self.ground {
            let store = Arc::clone(store);
            // A name of its own until the digest is known.
            let mut name = [0; 32];
            fastrand::Rng::new().fill(&mut name);
            let begun = blocking(move || store.begin(&Digest::Sha256(name), Class::Layer, None)).await;
            self.ground = begun.inspect_err(not_cached).map_or(Ground::None, Ground::Partial);
        }
        match &self.ground {
            Ground::Partial(partial) => Some(Arc::clone(partial)),
            Ground::Store(_) | Ground::None => None,
        }
    }

    /// Returns whether the bytes have `digest`; `None` when that cannot be told.
    pub(super) async fn matches(&mut self, digest: &Digest) -> Option<bool> {
        if digest.algorithm() == Algorithm::Sha256 {
            return Some(self.hasher.clone().finish() == *digest);
        }
        let (partial, len, algorithm) = (self.partial().await?, self.len, digest.algorithm());
        let hashed = blocking(move || hash(&*partial, len, algorithm)).await;
        Some(hashed.ok()? == *digest)
    }

    /// Makes the bytes an object of the store; the caller has seen that they have `digest`.
    pub(super) async fn keep(mut self, digest: Digest) {
        let (Some(partial), len) = (self.partial().await, self.len) else { return };
        if let Err(error) = blocking(move || partial.commit(&digest, len)).await {
            not_cached(&error);
        }
    }
}

fn not_cached(error: &crate::store::StoreError) {
    tracing::warn!(error = sentence(error), "a pushed blob is not cached");
}

fn hash(partial: &dyn Partial, len: u64, algorithm: Algorithm) -> std::io::Result<Digest> {
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; READ_BYTES];
    let mut at = 0;
    while at < len {
        let read = match partial.read_at(at, &mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => read,
        };
        hasher.update(buffer.get(..read).unwrap_or_default());
        at += read as u64;
    }
    Ok(hasher.finish())
}

/// Lets a caller's body go through `spool` on its way; the spool comes back with the body's last byte, and does not if that never comes.
pub(super) fn tee(incoming: Incoming, spool: Spool) -> (Outgoing, oneshot::Receiver<Spool>) {
    let (done, spooled) = oneshot::channel();
    if incoming.is_empty() {
        // The receiver is at hand.
        let _returned = done.send(spool);
        return (Outgoing::empty(), spooled);
    }
    let end = incoming.len.map(|len| spool.len() + len);
    let state = Tee { chunks: incoming.chunks, spool, end, done };
    let chunks = stream::unfold(Some(state), |state| async move {
        let mut tee = state?;
        match timeout(STILL_LIMIT, tee.chunks.next()).await {
            Ok(Some(Ok(chunk))) => {
                tee.spool.take(&chunk).await;
                // With the last byte: nobody polls further once all that were announced are there.
                let next = if tee.end == Some(tee.spool.len()) { tee.end() } else { Some(tee) };
                Some((Ok(chunk), next))
            }
            Ok(Some(Err(error))) => Some((Err(error), None)),
            Ok(None) => {
                tee.end();
                None
            }
            Err(elapsed) => Some((Err(elapsed.into()), None)),
        }
    });
    (Outgoing::stream(incoming.len, chunks.boxed()), spooled)
}

struct Tee {
    chunks: BoxStream<'static, Result<Bytes, SendError>>,
    spool: Spool,
    /// The upload's length after this body, when it was announced.
    end: Option<u64>,
    done: oneshot::Sender<Spool>,
}

impl Tee {
    fn end(self) -> Option<Self> {
        // When nobody waits for it any more, the upload has been given up.
        let _given_up = self.done.send(self.spool);
        None
    }
}

/// Returns the spool, if the body came to its end.
pub(super) fn returned(spooled: oneshot::Receiver<Spool>) -> Option<Spool> {
    spooled.now_or_never()?.ok()
}
