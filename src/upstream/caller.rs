//! Who asks, where an upstream is asked in the name of its callers: what they show, and how they are told apart.
//!
//! A caller is what it shows. Two with the same name and different passwords are two; one that shows nothing is a caller as well.
//! They are told apart by a hash under a key that nobody outside this process knows and that ends with it: what is remembered of a caller
//! is no use to whoever reads it.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use rustls::crypto::aws_lc_rs;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::credentials::Account;
use crate::telemetry::Secret;

const KEY_BYTES: usize = 32;

/// Under which callers are told apart.
pub struct CallerKey([u8; KEY_BYTES]);

/// Which caller; says nothing of what it shows.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallerId([u8; KEY_BYTES]);

/// Somebody in whose name an upstream is asked.
#[derive(Debug, Clone)]
pub struct Caller {
    id: CallerId,
    shown: Shown,
}

/// What a caller proves itself by.
#[derive(Debug, Clone)]
enum Shown {
    Nothing,
    /// Used as an account of our own would be, with the same care (S-26).
    Account(Arc<Account>),
    /// `Bearer …`, for the upstream's own origin and nobody else.
    Token(HeaderValue),
}

impl CallerKey {
    /// Makes a key at random.
    ///
    /// # Panics
    /// When the system gives no random bytes; TLS could do nothing without them either.
    pub fn new() -> Self {
        let mut key = [0; KEY_BYTES];
        let filled = aws_lc_rs::default_provider().secure_random.fill(&mut key);
        filled.expect("the system gives random bytes");
        Self(key)
    }
}

impl Default for CallerKey {
    fn default() -> Self {
        Self::new()
    }
}

impl Caller {
    /// Reads what a caller shows; `None` for what is neither an account nor a token.
    pub fn new(key: &CallerKey, authorization: Option<&HeaderValue>) -> Option<Self> {
        let shown = match authorization {
            None => Shown::Nothing,
            Some(value) => Shown::read(value)?,
        };
        Some(Self { id: shown.id(key), shown })
    }

    pub fn id(&self) -> CallerId {
        self.id
    }

    /// Returns true for one that shows nothing.
    pub fn is_anonymous(&self) -> bool {
        matches!(self.shown, Shown::Nothing)
    }

    pub(super) fn account(&self) -> Option<&Arc<Account>> {
        match &self.shown {
            Shown::Account(account) => Some(account),
            Shown::Nothing | Shown::Token(_) => None,
        }
    }

    pub(super) fn token(&self) -> Option<&HeaderValue> {
        match &self.shown {
            Shown::Token(value) => Some(value),
            Shown::Nothing | Shown::Account(_) => None,
        }
    }
}

impl Shown {
    fn read(value: &HeaderValue) -> Option<Self> {
        let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
        let rest = rest.trim_start_matches(' ');
        if scheme.eq_ignore_ascii_case("basic") {
            let pair = Zeroizing::new(STANDARD.decode(rest).ok()?);
            let (username, password) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
            let account = Account::Password { username: username.to_owned(), password: Secret::new(password) };
            return Some(Self::Account(Arc::new(account)));
        }
        if !scheme.eq_ignore_ascii_case("bearer") || rest.is_empty() {
            return None;
        }
        let mut value = value.clone();
        value.set_sensitive(true);
        Some(Self::Token(value))
    }

    fn id(&self, key: &CallerKey) -> CallerId {
        let mut hasher = Sha256::new_with_prefix(key.0);
        match self {
            Self::Nothing => hasher.update([0]),
            Self::Account(account) => {
                let (username, secret) = account.parts();
                hasher.update([1]);
                // Where the name ends is told, so that no two pairs are the same bytes.
                hasher.update((username.len() as u64).to_be_bytes());
                hasher.update(username);
                hasher.update(secret.expose());
            }
            Self::Token(value) => {
                hasher.update([2]);
                hasher.update(value);
            }
        }
        CallerId(hasher.finalize().into())
    }
}

impl fmt::Debug for CallerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallerKey(…)")
    }
}

impl fmt::Debug for CallerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallerId(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(key: &CallerKey, authorization: Option<&str>) -> Option<Caller> {
        let value = authorization.map(|text| HeaderValue::from_str(text).expect("a header value"));
        Caller::new(key, value.as_ref())
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[test]
    fn a_caller_is_what_it_shows_however_it_is_spelt() {
        let key = CallerKey::new();
        let id = |text: &str| caller(&key, Some(text)).expect("a caller").id();
        let alike = [(basic("a:b"), basic("a:b").replace("Basic ", "bAsIc  ")), (basic("a:b:c"), basic("a:b:c"))];
        for (one, other) in alike {
            assert_eq!(id(&one), id(&other), "{one} {other}");
        }
        let all = [
            basic("a:b"),
            basic("a:c"),
            basic("ab:"),
            basic(":ab"),
            basic("b:a"),
            "Bearer a".into(),
            "Bearer b".into(),
        ];
        for (index, one) in all.iter().enumerate() {
            for other in all.iter().skip(index + 1) {
                assert_ne!(id(one), id(other), "{one} {other}");
            }
            assert_ne!(id(one), caller(&key, None).expect("nobody is somebody").id());
            assert_ne!(id(one), caller(&CallerKey::new(), Some(one)).expect("a caller").id(), "of another process");
        }
    }

    #[test]
    fn what_is_neither_an_account_nor_a_token_is_no_caller() {
        let key = CallerKey::new();
        for text in ["", "Basic", "Bearer", "Bearer ", "Basic !", "Basic YQ==", "Digest username=a", "token x"] {
            assert!(caller(&key, Some(text)).is_none(), "{text:?}");
        }
        assert!(caller(&key, None).is_some_and(|caller| caller.is_anonymous()));
    }

    #[test]
    fn a_caller_prints_nothing_of_what_it_shows() {
        let key = CallerKey::new();
        for text in [basic("a:hunter2"), "Bearer hunter2".to_owned()] {
            let printed = format!("{:?} {key:?}", caller(&key, Some(&text)).expect("a caller"));
            assert!(!printed.contains("hunter2") && !printed.contains(&STANDARD.encode("a:hunter2")), "{printed}");
        }
    }
}
