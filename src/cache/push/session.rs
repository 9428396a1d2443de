//! Uploads under way, as they are known here.
//!
//! A session is bound to its upstream, its repository and its caller: for everybody else there is none (P-150). One request at a time
//! moves it; a request that ends in the middle ends the session, for nobody knows how much of it the upstream has.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache as Memo;

use super::spool::Spool;
use super::{PushError, Writer};
use crate::oci::{Digest, RepositoryName, UpstreamName};
use crate::upstream::UploadUrl;

/// How long an upload that nobody moves is known (P-155).
const IDLE_LIMIT: Duration = Duration::from_mins(15);

/// Uploads at once at the most; beyond, those that moved longest ago are forgotten. Each that has begun holds a file open.
const SESSIONS_MAX: u64 = 1_000;

/// All uploads under way.
#[derive(Debug)]
pub(in crate::cache) struct Sessions(Memo<String, Arc<Session>>);

/// One upload.
#[derive(Debug)]
pub(super) struct Session {
    id: String,
    upstream: UpstreamName,
    repository: RepositoryName,
    caller: Caller,
    offset: AtomicU64,
    // A plain mutex: held to take or to put.
    state: Mutex<Option<State>>,
}

/// Whose an upload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Anybody,
    /// Tokens live for minutes, uploads for longer: the next one is another. Who may go on with the upload is the upstream's to say, and
    /// the upload's name cannot be guessed.
    Bearer,
    /// By the hash of what it proved itself by.
    Known(Digest),
}

/// What a request needs to move an upload on.
#[derive(Debug)]
pub(super) struct State {
    /// Where the upstream wants the rest.
    pub(super) url: UploadUrl,
    pub(super) spool: Spool,
}

impl Default for Sessions {
    fn default() -> Self {
        let lru = EvictionPolicy::lru();
        Self(Memo::builder().max_capacity(SESSIONS_MAX).eviction_policy(lru).time_to_idle(IDLE_LIMIT).build())
    }
}

impl Sessions {
    /// Enters an upload that the upstream has opened, and returns its name here.
    pub(super) fn enter(&self, writer: &Writer, url: UploadUrl, spool: Spool) -> String {
        let id = new_id();
        let session = Session {
            id: id.clone(),
            upstream: writer.upstream.origin.name().clone(),
            repository: writer.repository.clone(),
            caller: caller(writer),
            offset: AtomicU64::new(spool.len()),
            state: Mutex::new(Some(State { url, spool })),
        };
        self.0.insert(id.clone(), Arc::new(session));
        id
    }

    /// Finds the caller's upload.
    pub(super) fn find(&self, writer: &Writer, id: &str) -> Result<Arc<Session>, PushError> {
        let session = self.0.get(id).filter(|session| {
            session.upstream == *writer.upstream.origin.name()
                && session.repository == writer.repository
                && session.caller == caller(writer)
        });
        session.ok_or(PushError::UnknownUpload)
    }

    /// Forgets an upload.
    pub(super) fn forget(&self, id: &str) {
        self.0.invalidate(id);
    }

    /// Lets go of those that nobody has moved for long.
    pub(super) fn expire(&self) {
        self.0.run_pending_tasks();
    }

    /// Takes the upload's state for a request, which gives it back or ends the upload.
    pub(super) fn take(&self, session: &Arc<Session>) -> Result<Taken<'_>, PushError> {
        let state = session.state().take().ok_or(PushError::OutOfOrder { offset: session.offset() })?;
        Ok(Taken { sessions: self, session: Arc::clone(session), state: Some(state) })
    }
}

impl Session {
    /// Returns how many bytes have been taken.
    pub(super) fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    fn state(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An upload in the hands of one request.
pub(super) struct Taken<'a> {
    sessions: &'a Sessions,
    session: Arc<Session>,
    state: Option<State>,
}

impl Taken<'_> {
    /// Returns how many bytes have been taken.
    pub(super) fn offset(&self) -> u64 {
        self.session.offset()
    }

    /// Hands the state out; unless it is given back, the upload ends with this.
    pub(super) fn state(&mut self) -> Result<State, PushError> {
        self.state.take().ok_or(PushError::UnknownUpload)
    }

    /// Gives the state back.
    pub(super) fn put_back(mut self, state: State) {
        self.session.offset.store(state.spool.len(), Ordering::Release);
        self.state = Some(state);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        match self.state.take() {
            Some(state) => *self.session.state() = Some(state),
            None => self.sessions.0.invalidate(&self.session.id),
        }
    }
}

/// Returns whose upload it is.
fn caller(writer: &Writer) -> Caller {
    let Some(value) = &writer.authorization else { return Caller::Anybody };
    let is_bearer = value.as_bytes().get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "));
    if is_bearer { Caller::Bearer } else { Caller::Known(Digest::sha256(value.as_bytes())) }
}

/// Makes a name that cannot be guessed: 128 bits of a hash whose keys the operating system drew.
fn new_id() -> String {
    let half = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", half(), half())
}
