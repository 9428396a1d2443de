//! Bearer tokens: how one is asked for, what the answer says, and the cache of those that are good.
//!
//! Source: distribution `auth/token.md` and `auth/oauth.md`; P-164, P-166, P-169, P-170.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use moka::future::Cache;
use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

use super::caller::CallerId;
use super::error::UpstreamError;
use crate::oci::RepositoryName;
use crate::telemetry::Secret;

/// Bytes of a token answer at the most; real ones have some thousands (P-170).
pub(super) const ANSWER_MAX: usize = 1 << 20;

/// Tokens kept per upstream: one per repository in use. A token is some KiB, so all are some tens of MiB at the worst.
const TOKENS_MAX: u64 = 4096;

/// What we call ourselves where a token service wants to know its clients.
const CLIENT_ID: &str = "cachalot";

/// Seconds that a token lives when the answer does not say, and at the least (P-166).
const LIFE_DEFAULT: u64 = 60;

/// Seconds after which any token is asked for anew.
const LIFE_MAX: u64 = 60 * 60;

/// Which part of its life a token is used for: what is on its way must arrive before the end.
const LIFE_USED: f64 = 0.85;

/// What a token is for. Two askers with the same key may share one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TokenKey {
    /// Scheme, host and port that the token is sent to.
    pub(super) origin: String,
    pub(super) realm: String,
    pub(super) service: Option<String>,
    pub(super) scope: Option<String>,
    /// The repository with whose account it is fetched; `None` where no account is used.
    pub(super) account_of: Option<RepositoryName>,
    /// Whose account that is, where it is a caller's.
    pub(super) caller: Option<CallerId>,
}

impl TokenKey {
    /// Returns where to ask: the realm with `service` and one `scope` for each (P-164).
    pub(super) fn request_url(&self, realm: &Url) -> Url {
        let mut url = realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &self.service {
                query.append_pair("service", service);
            }
            for scope in self.scope.iter().flat_map(|scopes| scopes.split(' ')).filter(|scope| !scope.is_empty()) {
                query.append_pair("scope", scope);
            }
        }
        if url.query() == Some("") {
            url.set_query(None);
        }
        url
    }

    /// Returns the form that exchanges an identity token, with all scopes in one parameter (P-167). It holds the token.
    pub(super) fn form(&self, identity_token: &Secret) -> String {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token");
        if let Some(service) = &self.service {
            form.append_pair("service", service);
        }
        form.append_pair("client_id", CLIENT_ID);
        if let Some(scope) = &self.scope {
            form.append_pair("scope", scope);
        }
        form.append_pair("refresh_token", identity_token.expose());
        form.finish()
    }
}

/// A token that is good for a while.
#[derive(Debug, Clone)]
pub(super) struct Token {
    /// `Bearer …`, marked as sensitive, so that it is never printed.
    pub(super) authorization: HeaderValue,
    /// For how long from its reception it is to be used.
    use_for: Duration,
}

impl Token {
    /// Reads a token answer.
    pub(super) fn parse(body: &[u8]) -> Result<Self, &'static str> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<serde_json::Value>,
        }
        let answer: Answer = serde_json::from_slice(body).map_err(|_| "token answer is not JSON")?;
        let token = [answer.token, answer.access_token].into_iter().flatten().find(|token| !token.is_empty());
        let token = token.ok_or("token answer has no token")?;
        let text = Zeroizing::new(format!("Bearer {}", *Zeroizing::new(token)));
        let mut authorization = HeaderValue::from_str(&text).map_err(|_| "token cannot be sent in a header")?;
        authorization.set_sensitive(true);
        Ok(Self { authorization, use_for: use_for(answer.expires_in.as_ref()) })
    }
}

/// Returns for how long to use a token that says it lives `expires_in` seconds: a number, or one in quotes.
///
/// It counts from the reception by our own clock: `issued_at` is by another (P-166).
fn use_for(expires_in: Option<&serde_json::Value>) -> Duration {
    let seconds = expires_in.and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
    let seconds = seconds.unwrap_or(LIFE_DEFAULT).clamp(LIFE_DEFAULT, LIFE_MAX);
    Duration::from_secs(seconds).mul_f64(LIFE_USED)
}

/// The tokens of one upstream.
pub(super) struct Tokens(Cache<TokenKey, Token>);

impl Tokens {
    pub(super) fn new() -> Self {
        let cache = Cache::builder()
            .max_capacity(TOKENS_MAX)
            // The default policy refuses newcomers of a full cache, and a token is always a newcomer.
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(ByOwnLife)
            .build();
        Self(cache)
    }

    /// Returns the token for `key`, fetching it when there is none; everybody who asks meanwhile waits for that one fetch.
    ///
    /// # Cancel safety
    /// When the asker that fetches is dropped, another that waits fetches anew.
    pub(super) async fn obtain(
        &self,
        key: TokenKey,
        fetch: impl Future<Output = Result<Token, UpstreamError>>,
    ) -> Result<Token, UpstreamError> {
        self.0.try_get_with(key, fetch).await.map_err(|error: Arc<UpstreamError>| UpstreamError::clone(&error))
    }

    /// Forgets the token for `key` if it is still `used`: others may have replaced it already.
    pub(super) async fn discard(&self, key: TokenKey, used: &HeaderValue) {
        let decide = |entry: Option<moka::Entry<TokenKey, Token>>| {
            let is_used = entry.is_some_and(|entry| entry.value().authorization == used);
            std::future::ready(if is_used { Op::Remove } else { Op::Nop })
        };
        self.0.entry(key).and_compute_with(decide).await;
    }
}

struct ByOwnLife;

impl moka::Expiry<TokenKey, Token> for ByOwnLife {
    fn expire_after_create(&self, _: &TokenKey, token: &Token, _: Instant) -> Option<Duration> {
        Some(token.use_for)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(service: Option<&str>, scope: Option<&str>) -> TokenKey {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        TokenKey {
            origin: "https://a".to_owned(),
            realm: "https://a/token".to_owned(),
            service: owned(service),
            scope: owned(scope),
            account_of: None,
            caller: None,
        }
    }

    #[test]
    fn the_request_keeps_the_realms_query_and_adds_only_what_there_is() {
        for (realm, service, scope, expected) in [
            ("https://a/t", None, None, "https://a/t"),
            ("https://a/t", Some("s t"), None, "https://a/t?service=s+t"),
            (
                "https://a/t?account=x",
                None,
                Some("repository:a/b:pull"),
                "https://a/t?account=x&scope=repository%3Aa%2Fb%3Apull",
            ),
            ("https://a/t", Some("s"), Some("a:b:c  d:e:f"), "https://a/t?service=s&scope=a%3Ab%3Ac&scope=d%3Ae%3Af"),
        ] {
            let url = key(service, scope).request_url(&Url::parse(realm).expect("a URL"));
            assert_eq!(url.as_str(), expected);
        }
    }

    #[test]
    fn the_form_holds_all_scopes_in_one_parameter() {
        for (service, scope, expected) in [
            (
                Some("s t"),
                Some("repository:a:pull repository:b:pull"),
                "grant_type=refresh_token&service=s+t&client_id=cachalot\
                 &scope=repository%3Aa%3Apull+repository%3Ab%3Apull&refresh_token=a%2Bb%26c",
            ),
            (None, None, "grant_type=refresh_token&client_id=cachalot&refresh_token=a%2Bb%26c"),
        ] {
            assert_eq!(key(service, scope).form(&Secret::new("a+b&c")), expected, "P-167");
        }
    }

    #[test]
    fn token_answers_are_understood() {
        for (body, expected) in [
            (r#"{"token":"t"}"#, Ok(("Bearer t", 51_000))),
            (r#"{"access_token":"t","expires_in":300}"#, Ok(("Bearer t", 255_000))),
            (r#"{"token":"t","access_token":"u","expires_in":1}"#, Ok(("Bearer t", 51_000))),
            (r#"{"token":"","access_token":"u","expires_in":"100"}"#, Ok(("Bearer u", 85_000))),
            (r#"{"token":"t","expires_in":-5,"issued_at":"x"}"#, Ok(("Bearer t", 51_000))),
            (r#"{"token":"t","expires_in":99999999}"#, Ok(("Bearer t", 3_060_000))),
            (r#"{"token":"a\nb"}"#, Err("token cannot be sent in a header")),
            (r#"{"expires_in":300}"#, Err("token answer has no token")),
            ("<html>", Err("token answer is not JSON")),
        ] {
            let parsed = Token::parse(body.as_bytes());
            let seen = parsed
                .as_ref()
                .map(|token| (token.authorization.to_str().unwrap_or_default(), token.use_for.as_millis()));
            assert_eq!(seen, expected.as_ref().map(|(text, millis)| (*text, *millis)), "{body}");
        }
    }

    #[test]
    fn a_token_is_never_printed() {
        let token = Token::parse(br#"{"token":"hunter2"}"#).expect("a token");
        assert!(!format!("{token:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn only_the_token_that_failed_is_forgotten() {
        let tokens = Tokens::new();
        let made = |text: &str| std::future::ready(Ok(Token::parse(text.as_bytes()).expect("a token")));
        let old = tokens.obtain(key(None, None), made(r#"{"token":"old"}"#)).await.expect("made");
        tokens.discard(key(None, None), &HeaderValue::from_static("Bearer other")).await;
        let same = tokens.obtain(key(None, None), made(r#"{"token":"new"}"#)).await.expect("kept");
        assert_eq!(same.authorization, old.authorization);
        tokens.discard(key(None, None), &old.authorization).await;
        let new = tokens.obtain(key(None, None), made(r#"{"token":"new"}"#)).await.expect("made");
        assert_eq!(new.authorization, "Bearer new");
    }
}
