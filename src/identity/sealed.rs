//! Our own tokens: sealed and stateless, so that a restart and every replica understand them.
//!
//! A token is `cachalot.` and the base64url of a nonce and a box (AES-256-GCM), in which stand its holder and when it expires. Its holder
//! is a principal, or a caller's own credential for an upstream: then only the upstream can judge it. A principal that is
//! known by a secret of the configuration has its witness beside it: with another password, or another token, what was sealed before is
//! worth nothing.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::files::{LineError, lines};
use super::{Principal, random};
use crate::telemetry::Secret;

/// What each token begins with: nobody else's does.
const PREFIX: &str = "cachalot.";

/// Sealed along, so that nothing else that the key may ever seal is a token.
const PURPOSE: &[u8] = b"cachalot token 1";

/// What a witness is a hash of, beside the secret.
const WITNESS: &[u8] = b"cachalot witness 1\n";

/// Characters of a key at the least; `openssl rand -base64 32` has 44.
const KEY_LENGTH_MIN: usize = 32;

/// Keys at the most: each is tried on a token.
const KEYS_MAX: usize = 16;

/// The keys of a file, one a line: the first seals, all open.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenKeys(Vec<[u8; 32]>);

impl TokenKeys {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, LineError> {
        let mut keys = Vec::new();
        for (number, line) in lines(text) {
            if line.len() < KEY_LENGTH_MIN {
                let advice = "make one with openssl rand -base64 32";
                return Err(LineError::new(
                    number,
                    format!("the key has less than {KEY_LENGTH_MIN} characters; {advice}"),
                ));
            }
            if keys.len() == KEYS_MAX {
                return Err(LineError::new(
                    number,
                    format!("there are more than {KEYS_MAX} keys; take the oldest out"),
                ));
            }
            keys.push(derived(line.as_bytes()));
        }
        if keys.is_empty() {
            return Err(LineError::new(1, "there is no key; make one with openssl rand -base64 32"));
        }
        Ok(Self(keys))
    }

    /// Makes a key that nobody else knows.
    pub(super) fn random() -> Self {
        Self(vec![random()])
    }
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokenKeys").field(&self.0.len()).finish()
    }
}

/// Whose token it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    Principal(Principal),
    /// User and password for an upstream, `user:password`.
    Caller(Secret),
}

/// Why a token of ours does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unopened {
    Broken,
    Expired,
}

/// Seals and opens tokens.
pub(super) struct Sealer(Vec<LessSafeKey>);

#[derive(Serialize, Deserialize)]
struct Content {
    /// Seconds since the epoch.
    #[serde(rename = "e")]
    expires_at: u64,
    #[serde(rename = "p", skip_serializing_if = "Option::is_none")]
    principal: Option<String>,
    #[serde(rename = "c", skip_serializing_if = "Option::is_none")]
    caller: Option<String>,
    /// Of what the principal was when it was sealed.
    #[serde(rename = "w", default, skip_serializing_if = "String::is_empty")]
    witness: String,
}

impl Sealer {
    pub(super) fn new(keys: &TokenKeys) -> Self {
        let keys = keys.0.iter().filter_map(|key| UnboundKey::new(&AES_256_GCM, key).ok());
        Self(keys.map(LessSafeKey::new).collect())
    }

    /// Seals a token that says by `witness` what its holder is known by; `None` when the cipher refuses, which it does not.
    pub(super) fn seal(&self, holder: &Holder, witness: &str, expires_at: u64) -> Option<Secret> {
        let (principal, caller) = match holder {
            Holder::Principal(principal) => (Some(principal.to_string()), None),
            Holder::Caller(credential) => (None, Some(credential.expose().to_owned())),
        };
        let mut content = Content { expires_at, principal, caller, witness: witness.to_owned() };
        // In this buffer it is sealed; the copies end here.
        let sealed = serde_json::to_vec(&content);
        content.caller.zeroize();
        let mut sealed = sealed.ok()?;
        // Random: far below the 2³² tokens of a key at which one might come twice.
        let nonce: [u8; NONCE_LEN] = random();
        let key = self.0.first()?;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(PURPOSE), &mut sealed).ok()?;
        let mut bytes = nonce.to_vec();
        bytes.append(&mut sealed);
        Some(Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// Returns true for what may be a token of ours.
    pub(super) fn is_ours(token: &str) -> bool {
        token.starts_with(PREFIX)
    }

    /// Returns whose token it is, and its witness, if it holds at `now`.
    pub(super) fn open(&self, token: &str, now: u64) -> Result<(Holder, String), Unopened> {
        let content = self.content(token).ok_or(Unopened::Broken)?;
        if content.expires_at <= now {
            return Err(Unopened::Expired);
        }
        let holder = match (content.principal, content.caller) {
            (Some(principal), None) => Holder::Principal(principal.parse().map_err(|_| Unopened::Broken)?),
            (None, Some(credential)) => Holder::Caller(Secret::new(credential)),
            _ => return Err(Unopened::Broken),
        };
        Ok((holder, content.witness))
    }

    fn content(&self, token: &str) -> Option<Content> {
        let bytes = URL_SAFE_NO_PAD.decode(token.strip_prefix(PREFIX)?).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        self.0.iter().find_map(|key| {
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut sealed = Zeroizing::new(sealed.to_vec());
            let content = key.open_in_place(nonce, Aad::from(PURPOSE), &mut sealed).ok()?;
            serde_json::from_slice(content).ok()
        })
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sealer").field(&self.0.len()).finish()
    }
}

/// Returns a text that says by which secret somebody is known, and tells nothing of it.
pub(super) fn witness(secret: &[u8]) -> String {
    let hash = digest(&SHA256, &[WITNESS, secret].concat());
    URL_SAFE_NO_PAD.encode(hash.as_ref())
}

/// Makes a key of a line: whatever is written there, it is used for this alone.
fn derived(line: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    let hash = digest(&SHA256, &[PURPOSE, b"\n", line].concat());
    key.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "old-0123456789abcdef0123456789abcdef";
    const NEW: &str = "new-0123456789abcdef0123456789abcdef";

    fn sealer(text: &str) -> Sealer {
        Sealer::new(&TokenKeys::parse(text).unwrap())
    }

    #[test]
    fn a_token_opens_with_its_key_until_it_expires_and_with_no_other() {
        for holder in [
            Holder::Principal(Principal::Anonymous),
            Holder::Principal("system:serviceaccount:ns:a".parse().unwrap()),
            Holder::Caller(Secret::new("me:pass:word")),
        ] {
            let token = sealer(OLD).seal(&holder, "w", 1_000).unwrap();
            let open = |text: &str, token: &str, now| sealer(text).open(token, now);
            assert_eq!(open(OLD, token.expose(), 999), Ok((holder.clone(), "w".to_owned())), "a restart");
            assert_eq!(
                open(&format!("{NEW}\n{OLD}"), token.expose(), 999),
                Ok((holder.clone(), "w".to_owned())),
                "an old key"
            );
            assert_eq!(open(OLD, token.expose(), 1_000), Err(Unopened::Expired));
            assert_eq!(open(NEW, token.expose(), 999), Err(Unopened::Broken), "another key");
            let other = Sealer::new(&TokenKeys::random());
            assert_eq!(other.open(token.expose(), 999), Err(Unopened::Broken));
            assert_ne!(sealer(OLD).seal(&holder, "w", 1_000), Some(token), "no two are the same");
        }
    }

    #[test]
    fn a_witness_is_of_one_secret_and_tells_nothing_of_it() {
        let [one, other] = ["secret-1", "secret-2"].map(|secret| witness(secret.as_bytes()));
        assert!(one != other && !one.contains("secret"), "{one} {other}");
        assert_eq!(one, witness(b"secret-1"), "every replica says the same");
    }

    #[test]
    fn a_token_that_was_touched_does_not_open() {
        let sealer = sealer(OLD);
        let token = sealer.seal(&Holder::Principal(Principal::User("alice".to_owned())), "", 1_000).unwrap();
        let text = token.expose();
        for index in PREFIX.len()..text.len() {
            for letter in ["A", "-", "*", "="] {
                let mut touched = text.to_owned();
                touched.replace_range(index..=index, letter);
                if touched != text {
                    assert_eq!(sealer.open(&touched, 0), Err(Unopened::Broken), "{index} {letter}");
                }
            }
            assert_eq!(sealer.open(&text[..index], 0), Err(Unopened::Broken), "cut at {index}");
        }
        for text in ["", "cachalot.", "cachalot.AAAA", &text.replace("cachalot.", "Cachalot."), &format!("{text}AA")] {
            assert_eq!(sealer.open(text, 0), Err(Unopened::Broken), "{text}");
        }
    }

    #[test]
    fn keys_are_read_or_refused_with_their_line() {
        for (text, told) in [
            (format!("# new\n{NEW}\n{OLD}\n"), ""),
            ("short".to_owned(), "line 1: the key has less than 32 characters; make one with openssl rand -base64 32"),
            ("# none".to_owned(), "line 1: there is no key"),
            (format!("{NEW}\n").repeat(17), "line 17: there are more than 16 keys"),
        ] {
            let error = TokenKeys::parse(&text).map_or_else(|error| error.to_string(), |_| String::new());
            assert!(error.starts_with(told) && error.is_empty() == told.is_empty(), "{text:?}: {error}");
        }
        let keys = TokenKeys::parse(NEW).unwrap();
        assert_eq!(format!("{keys:?} {:?}", Sealer::new(&keys)), "TokenKeys(1) Sealer(1)");
    }
}
