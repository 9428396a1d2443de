//! Every request that the scripted registry saw, as values: the first assertion of most integration tests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// A hung test is ended after this long; no test that passes waits for it.
const HANG_LIMIT: Duration = Duration::from_secs(30);

/// One request, with what became of it so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    /// Which connection it came in on, from 0.
    pub(crate) connection: usize,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) range: Option<String>,
    pub(crate) accept: Option<String>,
    pub(crate) accept_encoding: Option<String>,
    pub(crate) authorization: Option<String>,
    pub(crate) user_agent: Option<String>,
    pub(crate) via: Option<String>,
    /// `None` until the headers were handed to the network.
    pub(crate) status: Option<u16>,
    /// Bytes of the body handed to the network; the kernel may hold some of them back.
    pub(crate) bytes_sent: u64,
    /// Waits for a release just now.
    pub(crate) is_held: bool,
    /// Its answer is over: sent, cut or left by the client.
    pub(crate) is_over: bool,
    /// Its place among all beginnings and endings.
    pub(crate) began: u64,
    pub(crate) ended: u64,
}

/// All requests so far, in the order in which they came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    requests: Vec<Request>,
    /// Counts beginnings and endings, so that they can be ordered.
    ticks: u64,
}

impl Log {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Request> {
        self.requests.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Returns the GET requests whose path contains `part`.
    pub(crate) fn gets(&self, part: &str) -> Vec<Request> {
        self.of("GET", part)
    }

    /// Returns the HEAD requests whose path contains `part`.
    pub(crate) fn heads(&self, part: &str) -> Vec<Request> {
        self.of("HEAD", part)
    }

    /// Returns the requests whose path contains `part`, of any method.
    pub(crate) fn all(&self, part: &str) -> Vec<Request> {
        self.requests.iter().filter(|request| request.path.contains(part)).cloned().collect()
    }

    /// Returns the bytes of all bodies whose path contains `part`.
    pub(crate) fn bytes_sent(&self, part: &str) -> u64 {
        self.requests.iter().filter(|request| request.path.contains(part)).map(|request| request.bytes_sent).sum()
    }

    /// Returns how many requests whose path contains `part` were under way at once, at the most.
    pub(crate) fn peak(&self, part: &str) -> usize {
        let matching = || self.requests.iter().filter(|request| request.path.contains(part));
        let is_running =
            |request: &Request, tick: u64| request.began <= tick && (!request.is_over || request.ended > tick);
        matching().map(|one| matching().filter(|other| is_running(other, one.began)).count()).max().unwrap_or(0)
    }

    /// Returns how many requests wait for a release.
    pub(crate) fn held(&self) -> usize {
        self.requests.iter().filter(|request| request.is_held).count()
    }

    /// Returns how many requests are under way.
    pub(crate) fn running(&self) -> usize {
        self.requests.iter().filter(|request| !request.is_over).count()
    }

    fn of(&self, method: &str, part: &str) -> Vec<Request> {
        let fits = |request: &&Request| request.method == method && request.path.contains(part);
        self.requests.iter().filter(fits).cloned().collect()
    }
}

/// The log that the server writes and tests wait on.
pub(crate) struct Book {
    log: Mutex<Log>,
    changed: watch::Sender<()>,
}

impl Book {
    pub(crate) fn new() -> Self {
        Self { log: Mutex::default(), changed: watch::Sender::new(()) }
    }

    /// Begins a request; it is over when the returned line is dropped.
    pub(crate) fn begin(self: &Arc<Self>, mut request: Request) -> Line {
        let place = {
            let mut log = self.lock();
            log.ticks += 1;
            request.began = log.ticks;
            log.requests.push(request);
            log.requests.len() - 1
        };
        self.changed.send_replace(());
        Line { book: Arc::clone(self), place }
    }

    pub(crate) fn snapshot(&self) -> Log {
        self.lock().clone()
    }

    /// Returns how many requests `fits` holds of, those under way included.
    pub(crate) fn count(&self, fits: impl Fn(&Request) -> bool) -> usize {
        self.lock().requests.iter().filter(|request| fits(request)).count()
    }

    /// Waits until `fits` holds of the log.
    pub(crate) async fn wait_for(&self, fits: impl Fn(&Log) -> bool) {
        let mut changes = self.changed.subscribe();
        let waiting = async {
            while !fits(&self.lock()) {
                changes.changed().await.expect("the book itself holds the sender");
            }
        };
        let outcome = tokio::time::timeout(HANG_LIMIT, waiting).await;
        assert!(outcome.is_ok(), "the log never came to what the test waits for: {:#?}", self.snapshot());
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request in the book, while it is under way.
pub(crate) struct Line {
    book: Arc<Book>,
    place: usize,
}

impl Line {
    pub(crate) fn set_status(&self, status: u16) {
        self.update(|request| request.status = Some(status));
    }

    pub(crate) fn add_bytes(&self, count: u64) {
        self.update(|request| request.bytes_sent += count);
    }

    pub(crate) fn set_held(&self, is_held: bool) {
        self.update(|request| request.is_held = is_held);
    }

    fn update(&self, change: impl FnOnce(&mut Request)) {
        if let Some(request) = self.book.lock().requests.get_mut(self.place) {
            change(request);
        }
        self.book.changed.send_replace(());
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        {
            let mut log = self.book.lock();
            log.ticks += 1;
            let now = log.ticks;
            if let Some(request) = log.requests.get_mut(self.place) {
                request.is_over = true;
                request.is_held = false;
                request.ended = now;
            }
        }
        self.book.changed.send_replace(());
    }
}
