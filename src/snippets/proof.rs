//! What clients show the cache, so that it knows them: a token, or a certificate.

use super::{Snippet, Wish};
use crate::telemetry::Secret;

/// Stands in the place of a token that is not printed.
pub const TOKEN_PLACEHOLDER: &str = "TOKEN";

/// A bearer token of the cache.
#[derive(Debug, Clone)]
pub enum Token {
    /// It is printed as [`TOKEN_PLACEHOLDER`]; this is the file that holds it.
    In(String),
    Known(Secret),
}

/// A certificate and its key, by their paths on the client's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub cert: String,
    pub key: String,
}

impl Token {
    /// Returns the header by which it is shown. What is known is secret from here on.
    pub(super) fn authorization(&self) -> String {
        match self {
            Self::In(_) => format!("Bearer {TOKEN_PLACEHOLDER}"),
            Self::Known(token) => format!("Bearer {}", token.expose()),
        }
    }

    /// Says where it goes, where it was not printed.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::In(file) => Some(format!(
                "put what {file} holds in the place of {TOKEN_PLACEHOLDER}, and let nobody but root read the result: chmod 600"
            )),
            Self::Known(_) => None,
        }
    }
}

/// Adds what there is to say of the token.
pub(super) fn with_advice(mut snippet: Snippet, wish: &Wish) -> Snippet {
    snippet.notes.extend(wish.token.as_ref().and_then(Token::advice));
    if wish.token.is_some() && !wish.endpoint.is_https() {
        snippet.notes.push("without https, whoever is on the way to the cache reads the token".to_owned());
    }
    snippet
}

/// Returns the commands that put a certificate where the client looks for it, by the cache's name: below `certs_d`.
pub(super) fn install_commands(certificate: &Certificate, certs_d: &str, wish: &Wish) -> [String; 2] {
    let directory = format!("{certs_d}/{}", wish.endpoint.authority());
    let Certificate { cert, key } = certificate;
    [
        format!("install -D -m 644 {cert} {directory}/client.cert"),
        format!("install -D -m 600 {key} {directory}/client.key"),
    ]
}
