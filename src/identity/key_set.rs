//! The keys by which an issuer signs: read from a file, or got from a URL, kept, and got again when they may have changed.
//!
//! | a token's key is | what is done |
//! |---|---|
//! | known, and the keys are younger than [`OLD_AFTER`] | it is used |
//! | known, and they are older | it is used, and they are got again behind it |
//! | not known | they are got again, unless that was tried within the pause; who asks waits for it |
//!
//! What cannot be got leaves the last keys in use: an API server that restarts locks nobody out.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;
use url::Url;

use crate::fetch::{Fetch, FetchError};
use crate::tasks::TaskGroup;
use crate::telemetry::{Secret, sentence};

/// Keys that are older are got again: before the day on which Kubernetes begins to sign by a key that it has published.
const OLD_AFTER: Duration = Duration::from_hours(1);

/// How long after a try to get the keys there is no other: tokens with invented keys must not make us ask without end.
pub(super) const PAUSE: Duration = Duration::from_secs(10);

/// Keys of a set that are used at the most; real sets have two or three.
const KEYS_MAX: usize = 64;

/// A key, and the one way in which it signs.
#[derive(Clone)]
pub(super) struct VerifyingKey {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// Keys by their names.
#[derive(Clone, Default)]
pub struct Keys(HashMap<String, VerifyingKey>);

/// Why a text holds no keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    #[error("is no JSON Web Key Set: {0}")]
    Json(String),
    #[error("holds no key that can be used; an RSA, EC (P-256, P-384) or Ed25519 key with a kid is needed")]
    Empty,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

impl Keys {
    /// Reads a JSON Web Key Set. Keys that cannot be used here are left out.
    ///
    /// # Errors
    /// When none is left.
    pub fn parse(text: &[u8]) -> Result<Self, KeysError> {
        let document: Document = serde_json::from_slice(text).map_err(|error| KeysError::Json(error.to_string()))?;
        let keys = document.keys.into_iter().filter_map(|key| usable(&serde_json::from_value(key).ok()?));
        let keys: HashMap<_, _> = keys.take(KEYS_MAX).collect();
        if keys.is_empty() { Err(KeysError::Empty) } else { Ok(Self(keys)) }
    }
}

/// Returns a key by its name. How it signs follows from what it is, never from what a token says: a public key must not be taken for a
/// shared secret.
fn usable(jwk: &Jwk) -> Option<(String, VerifyingKey)> {
    let name = jwk.common.key_id.clone()?;
    if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return None;
    }
    let algorithm = match (&jwk.algorithm, jwk.common.key_algorithm) {
        (AlgorithmParameters::RSA(_), None | Some(KeyAlgorithm::RS256)) => Algorithm::RS256,
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::RS384)) => Algorithm::RS384,
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::RS512)) => Algorithm::RS512,
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::PS256)) => Algorithm::PS256,
        (AlgorithmParameters::EllipticCurve(key), None | Some(KeyAlgorithm::ES256))
            if key.curve == EllipticCurve::P256 =>
        {
            Algorithm::ES256
        }
        (AlgorithmParameters::EllipticCurve(key), None | Some(KeyAlgorithm::ES384))
            if key.curve == EllipticCurve::P384 =>
        {
            Algorithm::ES384
        }
        (AlgorithmParameters::OctetKeyPair(key), None | Some(KeyAlgorithm::EdDSA))
            if key.curve == EllipticCurve::Ed25519 =>
        {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    Some((name, VerifyingKey { algorithm, key: DecodingKey::from_jwk(jwk).ok()? }))
}

/// Where keys come from.
#[derive(Clone)]
pub(super) enum Source {
    /// A file that was read with the configuration.
    File(Keys),
    Url {
        url: Url,
        fetch: Fetch,
        token_file: Option<PathBuf>,
    },
}

/// The keys that hold, and how to get others.
#[derive(Clone)]
pub(super) struct KeySet(Arc<Inner>);

struct Inner {
    source: Source,
    pause: Duration,
    tasks: TaskGroup,
    keys: ArcSwap<Keys>,
    // A plain mutex: held to look at the clock.
    state: Mutex<State>,
    /// Counts the tries that have ended.
    tries: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    is_trying: bool,
    tried_at: Option<Instant>,
    got_at: Option<Instant>,
}

impl KeySet {
    pub(super) fn new(source: Source, pause: Duration, tasks: TaskGroup) -> Self {
        let keys = match &source {
            Source::File(keys) => keys.clone(),
            Source::Url { .. } => Keys::default(),
        };
        let (keys, state, tries) = (ArcSwap::from_pointee(keys), Mutex::default(), watch::Sender::new(0));
        Self(Arc::new(Inner { source, pause, tasks, keys, state, tries }))
    }

    /// Returns the key of that name, after a look for it where that may help.
    ///
    /// # Cancel safety
    /// What is being got is got nevertheless.
    pub(super) async fn key(&self, name: &str) -> Option<VerifyingKey> {
        if let Some(key) = self.0.known(name) {
            if self.0.is_old() {
                self.look();
            }
            return Some(key);
        }
        let mut tries = self.0.tries.subscribe();
        if self.look() {
            // The sender is ours: it does not go away.
            let _ended = tries.changed().await;
        }
        self.0.known(name)
    }

    /// Begins to get the keys, unless that was tried lately. Returns true when somebody is at it.
    fn look(&self) -> bool {
        let Source::Url { url, fetch, token_file } = &self.0.source else { return false };
        {
            let mut state = self.0.state();
            if state.is_trying {
                return true;
            }
            if state.tried_at.is_some_and(|tried| tried.elapsed() < self.0.pause) {
                return false;
            }
            (state.is_trying, state.tried_at) = (true, Some(Instant::now()));
        }
        let ending = Ending(Arc::clone(&self.0));
        let (url, fetch, token_file) = (url.clone(), fetch.clone(), token_file.clone());
        self.0.tasks.spawn("key set", async move {
            match get(&url, &fetch, token_file).await {
                Ok(keys) => {
                    tracing::debug!(%url, keys = keys.0.len(), "got the keys of the issuer of service accounts");
                    ending.0.keys.store(Arc::new(keys));
                    ending.0.state().got_at = Some(Instant::now());
                }
                Err(error) => tracing::warn!(
                    %url,
                    error = sentence(&error),
                    "cannot get the keys of the issuer of service accounts; the last ones stay in use"
                ),
            }
            drop(ending);
        });
        true
    }
}

impl Inner {
    fn known(&self, name: &str) -> Option<VerifyingKey> {
        self.keys.load().0.get(name).cloned()
    }

    fn is_old(&self) -> bool {
        self.state().got_at.is_some_and(|got| got.elapsed() > OLD_AFTER)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a try, however it ends: who waits for it goes on.
struct Ending(Arc<Inner>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.state().is_trying = false;
        self.0.tries.send_modify(|tries| *tries += 1);
    }
}

/// Why keys cannot be got.
#[derive(Debug, thiserror::Error)]
enum GetError {
    #[error("cannot read {0}")]
    Token(String, #[source] std::io::Error),
    #[error("no answer")]
    Fetch(#[source] FetchError),
    #[error("the answer is {0}, not 200")]
    Status(http::StatusCode),
    #[error("the answer {0}")]
    Keys(KeysError),
}

async fn get(url: &Url, fetch: &Fetch, token_file: Option<PathBuf>) -> Result<Keys, GetError> {
    let token = match token_file {
        None => None,
        // Read each time: the kubelet replaces it every hour.
        Some(path) => {
            let token = tokio::fs::read_to_string(&path).await;
            let token = token.map_err(|error| GetError::Token(path.display().to_string(), error))?;
            Some(Secret::new(token.trim()))
        }
    };
    let answer = fetch.get(url, token.as_ref()).await.map_err(GetError::Fetch)?;
    if answer.status != http::StatusCode::OK {
        return Err(GetError::Status(answer.status));
    }
    Keys::parse(&answer.body).map_err(GetError::Keys)
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.0.len()).finish()
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet").field("keys", &self.0.keys).finish_non_exhaustive()
    }
}
