//! Tokens of Kubernetes service accounts: signed by the cluster, for this audience, and not expired.
//!
//! | what is looked at | must be |
//! |---|---|
//! | `kid` | a key of the issuer |
//! | signature | by that key, in the way in which that key signs; what the header says must agree |
//! | `iss`, `aud` | the configured ones, and there |
//! | `exp`, `nbf` | in the future, in the past, but for [`LEEWAY`]; `exp` must be there |
//! | `sub` | `system:serviceaccount:<namespace>:<name>` |
//!
//! Source: RFC 7519, RFC 8725 §3.1 for algorithms; Kubernetes' "Service account token volume projection".

use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::{Validation, decode, decode_header};
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use url::Url;

use super::Principal;
use super::key_set::{KeySet, PAUSE, Source};
use crate::fetch::{Fetch, FetchError};
use crate::tasks::TaskGroup;

pub use super::key_set::{Keys, KeysError};

/// How far clocks may be apart.
const LEEWAY: Duration = Duration::from_secs(30);

/// How long getting the keys may take: a client waits for it.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a key set at the most; real ones have two or three thousand.
const KEY_SET_BYTES_MAX: usize = 256 * 1024;

/// Whose tokens are believed.
#[derive(Debug, Clone)]
pub struct ServiceAccountOptions {
    pub issuer: String,
    pub audience: String,
    pub keys: KeySource,
}

/// Where the issuer's keys are. Either is the operator's word: the address may be internal.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// What a file held.
    Keys(Keys),
    Url {
        url: Url,
        /// Authorities to trust besides the system's.
        ca: Vec<CertificateDer<'static>>,
        /// Holds what the server there is shown.
        token_file: Option<PathBuf>,
    },
}

/// Verifies tokens.
#[derive(Debug)]
pub(super) struct ServiceAccounts {
    issuer: String,
    audience: String,
    keys: KeySet,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

#[derive(Deserialize)]
struct Issuer {
    iss: String,
}

impl ServiceAccounts {
    pub(super) fn new(options: ServiceAccountOptions, tasks: TaskGroup) -> Result<Self, FetchError> {
        let source = match options.keys {
            KeySource::Keys(keys) => Source::File(keys),
            KeySource::Url { url, ca, token_file } => {
                let fetch = Fetch::secure(&ca, None, FETCH_TIMEOUT, KEY_SET_BYTES_MAX)?;
                Source::Url { url, fetch, token_file }
            }
        };
        let keys = KeySet::new(source, PAUSE, tasks);
        Ok(Self { issuer: options.issuer, audience: options.audience, keys })
    }

    /// Returns true for a token that says that it is of our issuer: whether it is, is to be verified.
    pub(super) fn is_ours(&self, token: &str) -> bool {
        is_jwt(token) && insecure_decode_claims::<Issuer>(token).is_ok_and(|claims| claims.iss == self.issuer)
    }

    /// Returns the service account whose token it is.
    pub(super) async fn verify(&self, token: &str) -> Option<Principal> {
        let name = decode_header(token).ok()?.kid?;
        let key = self.keys.key(&name).await?;
        let mut rules = Validation::new(key.algorithm);
        rules.set_issuer(&[&self.issuer]);
        rules.set_audience(&[&self.audience]);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        rules.leeway = LEEWAY.as_secs();
        rules.validate_nbf = true;
        let claims = decode::<Claims>(token, &key.key, &rules).ok()?.claims;
        Principal::service_account(&claims.sub)
    }
}

/// Returns true for three parts with points between, the first of which begins as JSON does.
fn is_jwt(token: &str) -> bool {
    token.starts_with("ey") && token.bytes().filter(|byte| *byte == b'.').count() == 2
}

#[cfg(test)]
mod tests;
