//! A scripted upstream registry in this process: what it has, what goes wrong, and what it was asked.
//!
//! ```text
//! let registry = Registry::start().await;
//! let image = registry.image("library/alpine", "3.20", &Image::new());
//! registry.fault(Match::blob(&image.layer(0)), Fault::CutAfter(64 * KIB)).times(2);
//! …
//! registry.wait_for(|log| log.held() == 1).await;
//! assert_eq!(registry.gets("/blobs/").len(), 3);
//! ```
//!
//! It speaks HTTP/1.1 on 127.0.0.1, plain ([`Registry::start`]) or with TLS ([`Registry::start_tls`]).
//! What it knows may be changed while it runs. Nothing here waits by sleeping: tests wait on the log.
//!
//! Dropping it checks it: a panic in a server task and a scheduled fault that did not happen fail the test.
#![allow(dead_code)] // the vocabulary of all integration tests: no single test uses every word

mod auth;
mod body;
mod content;
mod fault;
mod image;
mod log;
mod proxy;
mod referrers;
mod reply;
mod serve;
mod stock;
#[cfg(test)]
mod tests;
mod tls;
mod writes;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cachalot::oci::Digest;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::rustls::pki_types::CertificateDer;

use auth::Auth;
pub(crate) use content::Content;
pub(crate) use fault::{Fault, Match};
pub(crate) use image::{Image, Published, PublishedIndex};
pub(crate) use log::{Log, Request};
pub(crate) use proxy::Proxy;
pub(crate) use reply::Paging;
use reply::error;
use stock::Stock;
use tls::Identity;

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;

/// A running registry; see the module.
pub(crate) struct Registry {
    world: Arc<World>,
    identity: Option<Identity>,
    server: Mutex<Option<JoinHandle<()>>>,
}

/// What the server's tasks share with the test.
struct World {
    address: SocketAddr,
    scheme: &'static str,
    stock: Mutex<Stock>,
    faults: Mutex<fault::Schedule>,
    auth: Mutex<Auth>,
    headers: Mutex<Vec<(&'static str, String)>>,
    referrers_api: Mutex<referrers::Api>,
    paging: Mutex<Paging>,
    uploads: Mutex<writes::Uploads>,
    /// Bytes a second of every body, when set.
    pace: Mutex<Option<u64>>,
    book: Arc<log::Book>,
    /// Counts releases; whoever waits is woken by the next.
    gate: watch::Sender<u64>,
    connections: AtomicUsize,
    has_panicked: AtomicBool,
}

impl Registry {
    /// Starts a registry that speaks plain HTTP.
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// Starts a registry that speaks HTTP/1.1 over TLS, with a certificate of an authority of its own ([`Registry::ca`]).
    pub(crate) async fn start_tls() -> Self {
        Self::start_with(Some(Identity::new(&[b"http/1.1"]))).await
    }

    /// Starts a registry that speaks TLS and offers HTTP/2 before HTTP/1.1.
    pub(crate) async fn start_h2() -> Self {
        Self::start_with(Some(Identity::new(&[b"h2", b"http/1.1"]))).await
    }

    /// Starts a registry that speaks TLS and wants a certificate of the client ([`Registry::client_pem`]).
    pub(crate) async fn start_mutual_tls() -> Self {
        Self::start_with(Some(Identity::mutual(&[b"h2", b"http/1.1"]))).await
    }

    async fn start_with(identity: Option<Identity>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let world = Arc::new(World {
            address,
            scheme: if identity.is_some() { "https" } else { "http" },
            stock: Mutex::default(),
            faults: Mutex::default(),
            auth: Mutex::default(),
            headers: Mutex::default(),
            referrers_api: Mutex::default(),
            paging: Mutex::default(),
            uploads: Mutex::default(),
            pace: Mutex::default(),
            book: Arc::new(log::Book::new()),
            gate: watch::Sender::new(0),
            connections: AtomicUsize::new(0),
            has_panicked: AtomicBool::new(false),
        });
        let registry = Self { world, identity, server: Mutex::default() };
        registry.serve(listener);
        registry
    }

    fn serve(&self, listener: TcpListener) {
        let acceptor = self.identity.as_ref().map(Identity::acceptor);
        let task = tokio::spawn(serve::accept(Arc::clone(&self.world), listener, acceptor));
        *lock(&self.server) = Some(task);
    }

    /// Closes the listener and every connection: from here on connecting is refused.
    pub(crate) async fn stop(&self) {
        let task = lock(&self.server).take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
    }

    /// Listens again on the same port, after [`Registry::stop`].
    pub(crate) async fn restart(&self) {
        let listener = TcpListener::bind(self.world.address).await.expect("the port is still free");
        self.serve(listener);
    }
}

/// What it is.
impl Registry {
    /// Returns the endpoint, without a slash at the end: `http://127.0.0.1:40123`.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.world.scheme, self.world.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.world.address
    }

    /// Returns `127.0.0.1:40123`: the registry as an image reference names it.
    pub(crate) fn host(&self) -> String {
        self.world.address.to_string()
    }

    /// Returns the certificate of the authority that signed the server's; only with TLS.
    pub(crate) fn ca(&self) -> CertificateDer<'static> {
        self.identity.as_ref().expect("a registry with TLS").ca()
    }

    /// Returns the same as PEM text.
    pub(crate) fn ca_pem(&self) -> String {
        self.identity.as_ref().expect("a registry with TLS").ca_pem()
    }

    /// Returns a certificate for a client and its key, as PEM text.
    pub(crate) fn client_pem(&self) -> (String, String) {
        self.identity.as_ref().expect("a registry with TLS").client_pem()
    }

    /// Returns how many connections were accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.world.connections.load(Ordering::SeqCst)
    }
}

/// What it has.
impl Registry {
    /// Puts a blob into every repository.
    pub(crate) fn with_blob(&self, content: impl Into<Content>) -> Digest {
        lock(&self.world.stock).add_blob(None, content.into())
    }

    /// Puts a blob into one repository.
    pub(crate) fn with_blob_in(&self, repository: &str, content: impl Into<Content>) -> Digest {
        lock(&self.world.stock).add_blob(Some(repository), content.into())
    }

    /// Publishes an image under a tag, moving the tag when it exists; its blobs are in this repository only.
    pub(crate) fn image(&self, repository: &str, tag: &str, image: &Image) -> Published {
        let published = image.build();
        let mut stock = lock(&self.world.stock);
        stock.add_image(repository, &published);
        stock.set_tag(repository, tag, published.digest);
        published
    }

    /// Publishes an index of images under a tag; the images themselves are reachable by digest.
    pub(crate) fn index(&self, repository: &str, tag: &str, images: &[Image]) -> PublishedIndex {
        let index = PublishedIndex::of(images.iter().map(Image::build).collect());
        let mut stock = lock(&self.world.stock);
        for image in &index.images {
            stock.add_image(repository, image);
        }
        stock.add_manifest(repository, index.bytes.clone(), index.media_type);
        stock.set_tag(repository, tag, index.digest);
        index
    }

    /// Publishes these bytes as a manifest, under a tag when given.
    pub(crate) fn manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        bytes: impl Into<Bytes>,
        media_type: &str,
    ) -> Digest {
        let mut stock = lock(&self.world.stock);
        let digest = stock.add_manifest(repository, bytes.into(), media_type);
        if let Some(tag) = tag {
            stock.set_tag(repository, tag, digest);
        }
        digest
    }

    pub(crate) fn remove_tag(&self, repository: &str, tag: &str) {
        lock(&self.world.stock).remove_tag(repository, tag);
    }

    pub(crate) fn remove_manifest(&self, repository: &str, digest: &Digest) {
        lock(&self.world.stock).remove_manifest(repository, digest);
    }

    /// Removes a blob from every repository.
    pub(crate) fn remove_blob(&self, digest: &Digest) {
        lock(&self.world.stock).remove_blob(digest);
    }

    /// Lists tags in pages of this kind.
    pub(crate) fn page_tags(&self, paging: Paging) {
        *lock(&self.world.paging) = paging;
    }

    /// Adds a header to every answer: rate limits, warnings.
    pub(crate) fn with_header(&self, name: &'static str, value: &str) {
        lock(&self.world.headers).push((name, value.to_owned()));
    }
}

/// Whom it lets in. Without any of these everybody is.
impl Registry {
    /// Lets everybody in.
    pub(crate) fn open(&self) {
        *lock(&self.world.auth) = Auth::default();
    }

    /// Asks for a bearer token, and gives one to everybody.
    pub(crate) fn require_token(&self) {
        lock(&self.world.auth).require_token(None);
    }

    /// Asks for a bearer token, and gives one to this user only.
    pub(crate) fn require_token_of(&self, username: &str, password: &str) {
        lock(&self.world.auth).require_token(Some((username, password)));
    }

    /// Exchanges this identity token for bearer tokens, by POST.
    pub(crate) fn take_identity_token(&self, token: &str) {
        lock(&self.world.auth).set_identity_token(token);
    }

    /// Returns the forms that were posted to the token service.
    pub(crate) fn token_forms(&self) -> Vec<String> {
        lock(&self.world.auth).forms()
    }

    /// Asks for this user by the Basic scheme.
    pub(crate) fn require_basic(&self, username: &str, password: &str) {
        lock(&self.world.auth).require_basic(username, password);
    }

    /// Asks for one of its accounts, by the Basic scheme or by a token; each may read what [`Registry::let_in`] says and nothing else.
    pub(crate) fn require_account(&self, by_token: bool) {
        lock(&self.world.auth).require_account(by_token);
    }

    /// Lets an account read these repositories from here on, and no others; what it was given before is good no more.
    pub(crate) fn let_in(&self, username: &str, password: &str, repositories: &[&str]) {
        lock(&self.world.auth).set_rights(username, password, repositories);
    }

    /// Returns by which account a request came, as the `Authorization` of the Basic scheme, or what it showed instead.
    pub(crate) fn account_of(&self, request: &Request) -> Option<String> {
        request.authorization.as_deref().map(|shown| lock(&self.world.auth).account_of(shown))
    }

    /// Lets in whom it gave a signed URL: by GET, and without an `Authorization`, as object stores do.
    pub(crate) fn require_signature(&self) {
        lock(&self.world.auth).require_signature();
    }

    /// Gives tokens at this path, not at `/token`.
    pub(crate) fn give_tokens_at(&self, path: &'static str) {
        lock(&self.world.auth).set_token_path(path);
    }

    /// Sends this `WWW-Authenticate` in place of its own, in which `{url}` and `{repository}` are what they should be.
    pub(crate) fn challenge_with(&self, challenge: &str) {
        lock(&self.world.auth).set_challenge(challenge);
    }

    /// Answers token requests with this body, whatever they ask.
    pub(crate) fn answer_tokens_with(&self, body: &str) {
        lock(&self.world.auth).set_answer(body);
    }

    /// Says that tokens live so many seconds. They are good until [`Registry::revoke_tokens`] all the same.
    pub(crate) fn set_token_lifetime(&self, seconds: u64) {
        lock(&self.world.auth).set_lifetime(seconds);
    }

    /// Makes every token issued so far invalid.
    pub(crate) fn revoke_tokens(&self) {
        lock(&self.world.auth).revoke();
    }
}

/// What goes wrong.
impl Registry {
    /// Schedules a fault for the next request that `scope` matches and that passed authentication.
    ///
    /// Of several faults the one scheduled first is taken; each request takes one.
    pub(crate) fn fault(&self, scope: Match, fault: Fault) -> Scheduled<'_> {
        let place = lock(&self.world.faults).add(scope, fault);
        Scheduled { registry: self, place }
    }

    /// Ends all faults, also those that did not happen yet.
    pub(crate) fn clear_faults(&self) {
        lock(&self.world.faults).clear();
    }

    /// Lets everything go on that waits just now because of `Hold` or `StallAfter`.
    pub(crate) fn release(&self) {
        self.world.gate.send_modify(|count| *count += 1);
    }

    /// Sends every body at so many bytes a second per connection (several requests over several connections are faster).
    pub(crate) fn set_pace(&self, bytes_per_second: Option<u64>) {
        *lock(&self.world.pace) = bytes_per_second;
    }
}

/// A scheduled fault, to be refined.
pub(crate) struct Scheduled<'a> {
    registry: &'a Registry,
    place: usize,
}

impl Scheduled<'_> {
    /// Makes the fault happen so often, not once.
    pub(crate) fn times(self, times: usize) -> Self {
        lock(&self.registry.world.faults).set_times(self.place, Some(times));
        self
    }

    /// Makes the fault happen every time.
    pub(crate) fn always(self) -> Self {
        lock(&self.registry.world.faults).set_times(self.place, None);
        self
    }

    /// Allows that the fault never happens.
    pub(crate) fn optional(self) {
        lock(&self.registry.world.faults).set_optional(self.place);
    }
}

/// What it was asked.
impl Registry {
    /// Returns every request so far.
    pub(crate) fn requests(&self) -> Log {
        self.world.book.snapshot()
    }

    /// Returns the GET requests so far whose path contains `part`.
    pub(crate) fn gets(&self, part: &str) -> Vec<Request> {
        self.requests().gets(part)
    }

    /// Returns the HEAD requests so far whose path contains `part`.
    pub(crate) fn heads(&self, part: &str) -> Vec<Request> {
        self.requests().heads(part)
    }

    /// Returns the bytes of all bodies so far whose path contains `part`.
    pub(crate) fn bytes_sent(&self, part: &str) -> u64 {
        self.requests().bytes_sent(part)
    }

    /// Waits until `fits` holds of the log; a test that waits too long fails and prints the log.
    pub(crate) async fn wait_for(&self, fits: impl Fn(&Log) -> bool) {
        self.world.book.wait_for(fits).await;
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.server).take() {
            task.abort();
        }
        if std::thread::panicking() {
            return;
        }
        assert!(!self.world.has_panicked.load(Ordering::SeqCst), "a task of the registry panicked");
        let unused = lock(&self.world.faults).unused();
        assert!(unused.is_empty(), "scheduled faults that did not happen: {unused:#?}");
    }
}

/// Locks what a panicking test may have poisoned: the panic is reported by the test itself.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
