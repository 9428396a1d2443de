//! How we prove who we are: which `Authorization` goes to which host, before and after a challenge.
//!
//! Authentication is per host (P-172). The upstream's credentials serve the upstream's own origin, and token services
//! that [`super::realm`] allows; a host that a redirect led to gets an anonymous token at the most, also when it is the
//! upstream itself, visited again.
//!
//! ```text
//! no challenge known ──► asked without ──401──► challenge ──► token or password ──► asked again, once
//! challenge known ─────► asked with token ─401─► token forgotten, fresh one ──────► asked again, once (P-168)
//! ```
//! What worked is remembered, so that later requests come with the proof at once.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::time::timeout;
use url::Url;

use super::answer;
use super::error::UpstreamError;
use super::observe::Observer;
use super::options::{Credentials, Options};
use super::realm;
use super::redirect::{self, Verdict};
use super::token::{self, Token, TokenKey, Tokens};
use super::transport::{Pool, Transport};
use crate::oci::RepositoryName;
use crate::wire::challenge::{self, Challenge};

/// Hosts whose challenge is remembered: the upstream and the hosts that it redirects to.
const KNOWN_MAX: u64 = 256;

/// A challenge is forgotten after this, so that a registry may move its token service.
const KNOWN_FOR: Duration = Duration::from_hours(1);

/// Bytes of a scope at the most; longer ones are not a registry's.
const SCOPE_MAX: usize = 1024;

/// Where a request goes, as far as authentication cares.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) url: &'a Url,
    /// The upstream's own origin, never left since the question began: its credentials may be used.
    pub(super) is_upstream: bool,
    /// The repository that the question is about.
    pub(super) repository: &'a RepositoryName,
}

impl Place<'_> {
    fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// Returns the scope to ask for without a word from the host (P-165).
    fn scope(&self) -> Option<String> {
        let repository = if self.is_upstream { self.repository.as_str() } else { repository_in(self.url.path())? };
        Some(format!("repository:{repository}:pull"))
    }

    /// Returns the scope to ask for: the host's own where it is about what we want, else the usual one.
    fn scope_after(&self, challenged: Option<String>) -> Option<String> {
        let challenged = challenged.filter(|scope| scope.len() <= SCOPE_MAX);
        if self.is_upstream {
            challenged.filter(|scope| names(scope, self.repository.as_str())).or_else(|| self.scope())
        } else {
            challenged
        }
    }
}

/// How a host wants to be convinced.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scheme {
    Basic,
    Bearer { realm: Url, service: Option<String> },
}

/// An `Authorization` and where it is from.
#[derive(Debug, Clone)]
pub(super) struct Proof {
    pub(super) authorization: HeaderValue,
    scheme: Scheme,
    /// The token's; a password has none.
    key: Option<TokenKey>,
}

/// What one upstream's client knows of proofs.
pub(super) struct Auth {
    /// `Basic …`, marked as sensitive.
    credentials: Option<HeaderValue>,
    realm_hosts: Vec<String>,
    token_limit: Duration,
    /// Origin to what worked there.
    known: moka::sync::Cache<String, Scheme>,
    tokens: Tokens,
    observer: Arc<dyn Observer>,
}

impl Auth {
    pub(super) fn new(options: &Options, observer: Arc<dyn Observer>) -> Self {
        Self {
            credentials: options.credentials.as_ref().and_then(basic),
            realm_hosts: options.realm_hosts.clone(),
            token_limit: options.timeouts.token,
            known: moka::sync::Cache::builder().max_capacity(KNOWN_MAX).time_to_live(KNOWN_FOR).build(),
            tokens: Tokens::new(),
            observer,
        }
    }

    /// Returns the proof to send at once, when it is known what `place` wants.
    pub(super) async fn before(&self, transport: &Transport, place: Place<'_>) -> Result<Option<Proof>, UpstreamError> {
        let Some(scheme) = self.known.get(&place.origin()) else { return Ok(None) };
        let Some(scope) = place.scope() else { return Ok(None) };
        let proved = self.prove(transport, place, scheme, Some(scope)).await;
        if proved.is_err() {
            // The registry may have moved its token service: the next attempt hears from itself where to go.
            self.known.invalidate(&place.origin());
        }
        proved
    }

    /// Returns the proof to send after a 401 with these headers, or `None` when there is nothing better than `tried`.
    pub(super) async fn after(
        &self,
        transport: &Transport,
        place: Place<'_>,
        headers: &HeaderMap,
        tried: Option<Proof>,
    ) -> Result<Option<Proof>, UpstreamError> {
        let had_password = tried.as_ref().is_some_and(|proof| proof.key.is_none());
        if let Some(Proof { authorization, key: Some(key), .. }) = tried {
            self.tokens.discard(key, &authorization).await;
        }
        let values = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        match challenge::choose(challenge::parse(values)) {
            None => Ok(None),
            Some(Challenge::Basic) if had_password => Ok(None),
            Some(Challenge::Basic) => self.prove(transport, place, Scheme::Basic, None).await,
            Some(Challenge::Bearer(bearer)) => {
                let realm = realm::parse(place.url, &bearer.realm).map_err(refused)?;
                let offered = Scheme::Bearer { realm, service: bearer.service };
                // P-173: some registries name another realm for an expired token; the one that worked goes on.
                let known =
                    self.known.get(&place.origin()).filter(|_| bearer.error.as_deref() == Some("invalid_token"));
                self.prove(transport, place, known.unwrap_or(offered), place.scope_after(bearer.scope)).await
            }
        }
    }

    /// Remembers that `place` took this proof.
    pub(super) fn remember(&self, place: Place<'_>, proof: &Proof) {
        let origin = place.origin();
        if self.known.get(&origin).as_ref() != Some(&proof.scheme) {
            self.known.insert(origin, proof.scheme.clone());
        }
    }

    async fn prove(
        &self,
        transport: &Transport,
        place: Place<'_>,
        scheme: Scheme,
        scope: Option<String>,
    ) -> Result<Option<Proof>, UpstreamError> {
        let credentials = self.credentials.as_ref().filter(|_| place.is_upstream);
        let (realm, service) = match &scheme {
            Scheme::Basic => {
                let proof =
                    |authorization: &HeaderValue| Proof { authorization: authorization.clone(), scheme, key: None };
                return Ok(credentials.map(proof));
            }
            Scheme::Bearer { realm, service } => (realm, service.clone()),
        };
        if credentials.is_some() {
            realm::check_credentials(place.url, realm, &self.realm_hosts).map_err(refused)?;
        }
        let key = TokenKey {
            origin: place.origin(),
            realm: realm.to_string(),
            service,
            scope,
            has_credentials: credentials.is_some(),
        };
        let url = key.request_url(realm);
        let token = self.tokens.obtain(key.clone(), self.fetch(transport, url, credentials)).await?;
        Ok(Some(Proof { authorization: token.authorization, scheme, key: Some(key) }))
    }

    /// Fetches a token within its time-out, and tells how that ended.
    async fn fetch(
        &self,
        transport: &Transport,
        url: Url,
        credentials: Option<&HeaderValue>,
    ) -> Result<Token, UpstreamError> {
        let outcome = match timeout(self.token_limit, ask_for_token(transport, url, credentials)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(UpstreamError::TimedOut { limit: "token time-out", after: self.token_limit }),
        };
        self.observer.token(match &outcome {
            Ok(_) => "ok",
            Err(UpstreamError::Auth { .. } | UpstreamError::Denied { .. }) => "refused",
            Err(_) => "error",
        });
        outcome
    }
}

/// Asks a token service. Credentials never leave the origin that they were allowed for (S-27).
async fn ask_for_token(
    transport: &Transport,
    mut url: Url,
    credentials: Option<&HeaderValue>,
) -> Result<Token, UpstreamError> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(credentials) = credentials {
        headers.insert(header::AUTHORIZATION, credentials.clone());
    }
    let mut hops = 0;
    loop {
        let response = transport.send(Pool::Api, &Method::GET, &url, &headers).await.map_err(token_error)?;
        if response.status() == StatusCode::OK {
            let (parts, body) = response.into_parts();
            let body = answer::read(body, &parts.headers, token::ANSWER_MAX).await.map_err(token_error)?;
            return Token::parse(&body).map_err(auth);
        }
        let Some(location) = answer::location(&response) else {
            let error = answer::refusal(response).await;
            return Err(token_refusal(error, credentials.is_some()));
        };
        match redirect::decide(&url, location, hops) {
            Verdict::Refuse(refusal) => return Err(auth(refusal.to_string())),
            Verdict::Follow { keeps_authorization: false, .. } if credentials.is_some() => {
                return Err(auth("token service redirects credentials to another origin"));
            }
            Verdict::Follow { url: next, .. } => url = next,
        }
        answer::drain(response).await;
        hops += 1;
    }
}

/// Says what a token service's refusal means for the question.
///
/// Without credentials, and for a 403 with them, it is this repository that is denied. A 401 with credentials says that
/// the credentials are wrong, whatever they are used for; that and the odd statuses are our set-up's trouble.
fn token_refusal(error: UpstreamError, has_credentials: bool) -> UpstreamError {
    match error {
        UpstreamError::Denied { status: 401, .. } if has_credentials => auth("token service refused the credentials"),
        UpstreamError::NotFound { .. } => auth("token service answered 404"),
        UpstreamError::Status { status, .. } if status < 500 && status != 408 => {
            auth(format!("token service answered {status}"))
        }
        other => token_error(other),
    }
}

/// A token service that speaks nonsense fails the authentication; one that cannot be reached is a failure of the network.
fn token_error(error: UpstreamError) -> UpstreamError {
    match error {
        UpstreamError::Protocol { reason } => auth(format!("token service: {reason}")),
        UpstreamError::TooLarge { limit_bytes } => auth(format!("token answer is larger than {limit_bytes} bytes")),
        UpstreamError::NotFound { .. }
        | UpstreamError::Denied { .. }
        | UpstreamError::RateLimited { .. }
        | UpstreamError::Status { .. }
        | UpstreamError::Auth { .. }
        | UpstreamError::TimedOut { .. }
        | UpstreamError::Dns { .. }
        | UpstreamError::Connect { .. }
        | UpstreamError::Tls { .. }
        | UpstreamError::Truncated { .. }
        | UpstreamError::CircuitOpen { .. }
        | UpstreamError::Forbidden { .. }
        | UpstreamError::Range { .. } => error,
    }
}

fn auth(reason: impl Into<String>) -> UpstreamError {
    UpstreamError::Auth { reason: reason.into() }
}

fn refused(refusal: realm::Refusal) -> UpstreamError {
    auth(refusal.to_string())
}

/// Returns `Basic …`; `None` when a header cannot carry it, which base64 rules out.
fn basic(credentials: &Credentials) -> Option<HeaderValue> {
    let pair = format!("{}:{}", credentials.username, credentials.password.expose());
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Returns true when one of the scopes is about `repository`, perhaps under a prefix of the upstream's own.
fn names(scopes: &str, repository: &str) -> bool {
    scopes.split(' ').any(|scope| {
        let name = scope.strip_prefix("repository:").and_then(|rest| rest.rsplit_once(':')).map(|(name, _)| name);
        let prefix = name.and_then(|name| name.strip_suffix(repository));
        prefix.is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('/'))
    })
}

/// Returns the repository in the path of a registry that a redirect led to.
fn repository_in(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/v2/")?;
    let (name, _) = rest.rsplit_once("/blobs/").or_else(|| rest.rsplit_once("/manifests/"))?;
    name.parse::<RepositoryName>().is_ok().then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::error::RateLimit;

    #[test]
    fn the_hosts_scope_counts_when_it_is_about_the_same_repository() {
        let repository: RepositoryName = "library/alpine".parse().expect("a name");
        let url = Url::parse("https://a.io/v2/mirror/images/pause/blobs/sha256:0").expect("a URL");
        let usual = Some("repository:library/alpine:pull");
        for (is_upstream, challenged, expected) in [
            (true, None, usual),
            (true, Some("repository:library/alpine:pull"), usual),
            (true, Some("repository:library/alpine:pull,push"), Some("repository:library/alpine:pull,push")),
            (true, Some("a:b:c repository:hub/library/alpine:pull"), Some("a:b:c repository:hub/library/alpine:pull")),
            (true, Some("repository:other:pull"), usual),
            (true, Some("repository:evil-library/alpine:pull"), usual),
            (true, Some("registry:catalog:*"), usual),
            (false, None, None),
            (false, Some("repository:mirror/images/pause:pull"), Some("repository:mirror/images/pause:pull")),
        ] {
            let place = Place { url: &url, is_upstream, repository: &repository };
            assert_eq!(place.scope_after(challenged.map(str::to_owned)).as_deref(), expected, "{challenged:?}");
        }
        let foreign = Place { url: &url, is_upstream: false, repository: &repository };
        assert_eq!(foreign.scope().as_deref(), Some("repository:mirror/images/pause:pull"));
    }

    #[test]
    fn refusals_of_token_services_say_whose_trouble_it_is() {
        let denied = |status| UpstreamError::Denied { status, message: None };
        let status = |status| UpstreamError::Status { status, message: None };
        for (error, has_credentials, expected) in [
            (denied(401), false, "http_4xx"),
            (denied(403), false, "http_4xx"),
            (denied(401), true, "auth"),
            (denied(403), true, "http_4xx"),
            (UpstreamError::NotFound { message: None }, false, "auth"),
            (status(400), false, "auth"),
            (status(503), true, "http_5xx"),
            (UpstreamError::RateLimited { retry_after: None, limit: RateLimit::Requests }, true, "rate_limited"),
            (UpstreamError::TooLarge { limit_bytes: 1 }, true, "auth"),
        ] {
            let words = format!("{error:?}");
            assert_eq!(token_refusal(error, has_credentials).as_str(), expected, "{words}");
        }
    }
}
