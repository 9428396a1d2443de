//! How we prove who we are: which `Authorization` goes to which host, before and after a challenge.
//!
//! Authentication is per host (P-172). The upstream's credentials serve the upstream's own origin, and token services
//! that [`super::realm`] allows; a host that a redirect led to gets an anonymous token at the most, also when it is the
//! upstream itself, visited again.
//!
//! ```text
//! no challenge known ──► asked without ──401──► challenge ──► token or password ──► asked again, once
//! challenge known ─────► asked with token ─401─► token forgotten, fresh one ──────► asked again, once (P-168)
//! an account refused, by the host or by its token service ──► another one, if its source has one by now ──► asked again, once (U-22)
//! ```
//! What worked is remembered, so that later requests come with the proof at once.
//!
//! A caller in whose name the upstream is asked has proofs of its own: its account in the place of ours, under the same rules, or
//! its token as it stands, for the upstream's own origin only. Tokens that a caller's account gave are kept for that caller, apart
//! from ours. What is known of hosts, how they want to be convinced, is everybody's.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use tokio::time::timeout;
use url::Url;

use super::caller::Caller;
use super::capability::Capabilities;
use super::credentials::{Account, Asker, CredentialsError, Source};
use super::error::UpstreamError;
use super::observe::Observer;
use super::options::Options;
use super::realm;
use super::token::{Token, TokenKey, Tokens};
use super::token_request::{TokenError, TokenRequest};
use super::transport::Transport;
use crate::oci::RepositoryName;
use crate::telemetry::sentence;
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
    origin: ProofOrigin,
}

#[derive(Debug, Clone)]
enum ProofOrigin {
    Token(TokenKey),
    Account(Arc<Account>),
    /// A caller's token, as it came.
    Caller,
}

/// What one upstream's client knows of proofs.
pub(super) struct Auth {
    /// `None` for an anonymous upstream.
    source: Option<Source>,
    realm_hosts: Vec<String>,
    token_limit: Duration,
    /// In whose name it asks; `None` for our own.
    caller: Option<Caller>,
    /// Origin to what worked there.
    known: moka::sync::Cache<String, Scheme>,
    /// Origins that ask nobody, where writes are concerned: what is shown there goes as it stands.
    unasking: moka::sync::Cache<String, ()>,
    tokens: Arc<Tokens>,
    /// Those of callers: however many come, they do not push out ours.
    callers_tokens: Arc<Tokens>,
    capabilities: Arc<Capabilities>,
    /// The registry that the account is for.
    home: Option<Url>,
    observer: Arc<dyn Observer>,
}

impl Auth {
    pub(super) fn new(options: &Options, capabilities: Arc<Capabilities>, observer: Arc<dyn Observer>) -> Self {
        Self {
            source: Source::new(options),
            realm_hosts: options.realm_hosts.clone(),
            token_limit: options.timeouts.token,
            caller: None,
            known: moka::sync::Cache::builder().max_capacity(KNOWN_MAX).time_to_live(KNOWN_FOR).build(),
            unasking: moka::sync::Cache::builder().max_capacity(KNOWN_MAX).time_to_live(KNOWN_FOR).build(),
            tokens: Arc::new(Tokens::new()),
            callers_tokens: Arc::new(Tokens::new()),
            capabilities,
            home: home(options),
            observer,
        }
    }

    /// Returns the same for the questions of `caller`: our account is not in it.
    pub(super) fn as_caller(&self, caller: &Caller) -> Self {
        Self {
            source: caller.account().cloned().map(Source::of_caller),
            realm_hosts: self.realm_hosts.clone(),
            token_limit: self.token_limit,
            caller: Some(caller.clone()),
            known: self.known.clone(),
            unasking: self.unasking.clone(),
            tokens: Arc::clone(&self.callers_tokens),
            callers_tokens: Arc::clone(&self.callers_tokens),
            capabilities: Arc::clone(&self.capabilities),
            home: self.home.clone(),
            observer: Arc::clone(&self.observer),
        }
    }

    /// Returns true for an endpoint that may be asked. In a caller's name that is one of the upstream's own registry: what a mirror of
    /// somebody else's gives without having seen the caller says nothing about the caller.
    pub(super) fn may_ask(&self, endpoint: &Url) -> bool {
        self.caller.is_none() || self.is_at_home(endpoint)
    }

    fn is_at_home(&self, url: &Url) -> bool {
        self.home.as_ref().is_some_and(|home| realm::belongs_to(home, url, &self.realm_hosts))
    }

    /// Returns the token that a caller brought, where it may be seen.
    fn passed(&self, place: Place<'_>) -> Option<Proof> {
        let token = self.caller.as_ref()?.token().filter(|_| place.is_upstream && self.is_at_home(place.url))?;
        Some(Proof { authorization: token.clone(), scheme: Scheme::Basic, origin: ProofOrigin::Caller })
    }

    /// Returns the proof to send at once, when it is known what `place` wants.
    pub(super) async fn before(&self, transport: &Transport, place: Place<'_>) -> Result<Option<Proof>, UpstreamError> {
        if let Some(passed) = self.passed(place) {
            return Ok(Some(passed));
        }
        let Some(scheme) = self.known.get(&place.origin()) else { return Ok(None) };
        let Some(scope) = place.scope() else { return Ok(None) };
        let proved = self.prove(transport, place, scheme, Some(scope)).await;
        let is_about_the_caller = matches!(&proved, Err(UpstreamError::Denied { .. })) && self.caller.is_some();
        if proved.is_err() && !is_about_the_caller {
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
        match &tried {
            Some(Proof { authorization, origin: ProofOrigin::Token(key), .. }) => {
                self.tokens.discard(key.clone(), authorization).await;
            }
            // The caller has nothing else to show.
            Some(Proof { origin: ProofOrigin::Caller, .. }) => return Ok(None),
            Some(Proof { origin: ProofOrigin::Account(_), .. }) | None => {}
        }
        let values = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        match challenge::choose(challenge::parse(values)) {
            None => Ok(None),
            Some(Challenge::Basic) => match tried {
                Some(tried @ Proof { origin: ProofOrigin::Account(_), .. }) => self.renewed(place, &tried).await,
                _ => self.prove(transport, place, Scheme::Basic, None).await,
            },
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

    /// Returns true when it is known how `place` wants a write to be proved.
    pub(super) fn knows(&self, place: Place<'_>) -> bool {
        let origin = place.origin();
        self.known.contains_key(&origin) || self.unasking.contains_key(&origin)
    }

    /// Remembers how `place` wants to be convinced: by the headers of its 401, or not at all.
    pub(super) fn learn(&self, place: Place<'_>, challenged: Option<&HeaderMap>) -> Result<(), UpstreamError> {
        let values = challenged.map(|headers| headers.get_all(header::WWW_AUTHENTICATE).iter());
        let values = values.into_iter().flatten().filter_map(|value| value.to_str().ok());
        let scheme = match challenge::choose(challenge::parse(values)) {
            None => {
                self.unasking.insert(place.origin(), ());
                return Ok(());
            }
            Some(Challenge::Basic) => Scheme::Basic,
            // P-173: the realm that worked goes on.
            Some(Challenge::Bearer(bearer))
                if bearer.error.as_deref() == Some("invalid_token") && self.known.contains_key(&place.origin()) =>
            {
                return Ok(());
            }
            Some(Challenge::Bearer(bearer)) => {
                let realm = realm::parse(place.url, &bearer.realm).map_err(refused)?;
                Scheme::Bearer { realm, service: bearer.service }
            }
        };
        self.known.insert(place.origin(), scheme);
        Ok(())
    }

    /// Returns the proof to send with a write, or `None` where what the caller shows goes as it stands.
    pub(super) async fn for_write(
        &self,
        transport: &Transport,
        place: Place<'_>,
        actions: &str,
    ) -> Result<Option<Proof>, UpstreamError> {
        let Some(scheme) = self.known.get(&place.origin()) else { return Ok(None) };
        let scope = format!("repository:{}:{actions}", place.repository);
        let proved = self.prove(transport, place, scheme, Some(scope)).await;
        if !matches!(&proved, Ok(_) | Err(UpstreamError::Denied { .. })) {
            // The registry may have moved its token service: the next write hears from itself where to go.
            self.known.invalidate(&place.origin());
        }
        proved
    }

    /// Notes a write that got a 401 with these headers: the next one brings what they ask for, and another token.
    pub(super) async fn refused_write(&self, place: Place<'_>, headers: &HeaderMap, proof: Option<Proof>) {
        if let Some(Proof { authorization, origin: ProofOrigin::Token(key), .. }) = proof {
            self.tokens.discard(key, &authorization).await;
        }
        if let Err(error) = self.learn(place, Some(headers)) {
            self.observer.failed(&error);
        }
    }

    /// Returns the proof to send in place of an account that a host refused: another account, where the source has one by now (U-22).
    pub(super) async fn renewed(&self, place: Place<'_>, tried: &Proof) -> Result<Option<Proof>, UpstreamError> {
        let (Some(source), ProofOrigin::Account(account)) = (&self.source, &tried.origin) else { return Ok(None) };
        let renewed = source.renewed(self.asker(place), account).await.map_err(|error| no_account(&error))?;
        Ok(renewed.and_then(by_account))
    }

    /// Remembers that `place` took this proof.
    pub(super) fn remember(&self, place: Place<'_>, proof: &Proof) {
        if matches!(proof.origin, ProofOrigin::Caller) {
            return;
        }
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
        let (realm, service) = match &scheme {
            Scheme::Basic => return Ok(self.account(place).await?.and_then(by_account)),
            Scheme::Bearer { realm, service } => (realm, service.clone()),
        };
        let shows_account = place.is_upstream && self.source.is_some();
        let key = TokenKey {
            origin: place.origin(),
            realm: realm.to_string(),
            service,
            scope,
            account_of: shows_account.then(|| place.repository.clone()),
            caller: self.caller.as_ref().filter(|_| shows_account).map(Caller::id),
        };
        let token = self.tokens.obtain(key.clone(), self.fetch(transport, place, &key, realm)).await?;
        Ok(Some(Proof { authorization: token.authorization, scheme, origin: ProofOrigin::Token(key) }))
    }

    /// Returns whose account `place` may see: a mirror of somebody else's among the endpoints sees none but its own.
    fn asker<'a>(&self, place: Place<'a>) -> Asker<'a> {
        Asker { endpoint: place.url, is_at_home: self.is_at_home(place.url), repository: place.repository }
    }

    /// Returns the account that `place` may see.
    async fn account(&self, place: Place<'_>) -> Result<Option<Arc<Account>>, UpstreamError> {
        match self.source.as_ref().filter(|_| place.is_upstream) {
            Some(source) => source.account(self.asker(place)).await.map_err(|error| no_account(&error)),
            None => Ok(None),
        }
    }

    /// Fetches a token; with another account once more, when the source has one by the time that the first was refused.
    async fn fetch(
        &self,
        transport: &Transport,
        place: Place<'_>,
        key: &TokenKey,
        realm: &Url,
    ) -> Result<Token, UpstreamError> {
        let account = self.account(place).await?;
        if account.is_some() {
            realm::check_credentials(place.url, realm, &self.realm_hosts).map_err(refused)?;
        }
        let request = |account| TokenRequest { transport, capabilities: &self.capabilities, key, realm, account };
        let outcome = self.ask(request(account.as_deref())).await;
        match (&self.source, &account) {
            (Some(source), Some(account)) if matches!(outcome, Err(TokenError::Account)) => {
                match source.renewed(self.asker(place), account).await.map_err(|error| no_account(&error))? {
                    Some(account) => self.ask(request(Some(&account))).await,
                    None => outcome,
                }
            }
            _ => outcome,
        }
        .map_err(|error| match error {
            // That is the upstream's word about the caller, where our own account would be our trouble.
            TokenError::Account if self.caller.is_some() => UpstreamError::Denied { status: 401, message: None },
            error => error.into(),
        })
    }

    /// Asks once, within the time-out for tokens, and tells how that ended.
    async fn ask(&self, request: TokenRequest<'_>) -> Result<Token, TokenError> {
        let outcome = timeout(self.token_limit, Box::pin(request.send())).await.unwrap_or_else(|_| {
            Err(UpstreamError::TimedOut { limit: "token time-out", after: self.token_limit }.into())
        });
        self.observer.token(match &outcome {
            Ok(_) => "ok",
            Err(TokenError::Account | TokenError::Other(UpstreamError::Auth { .. } | UpstreamError::Denied { .. })) => {
                "refused"
            }
            Err(TokenError::Other(_)) => "error",
        });
        outcome
    }
}

/// Returns the proof by the Basic scheme.
fn by_account(account: Arc<Account>) -> Option<Proof> {
    Some(Proof { authorization: account.basic()?, scheme: Scheme::Basic, origin: ProofOrigin::Account(account) })
}

/// Returns the registry that an upstream's account is for: the one that it is named after, where an endpoint belongs to that; else the
/// first endpoint.
fn home(options: &Options) -> Option<Url> {
    let named = Url::parse(&format!("https://{}", options.name)).ok();
    let has_endpoint = |named: &Url| options.endpoints.iter().any(|url| realm::belongs_to(named, url, &[]));
    named.filter(has_endpoint).or_else(|| options.endpoints.first().cloned())
}

fn auth(reason: impl Into<String>) -> UpstreamError {
    UpstreamError::Auth { reason: reason.into() }
}

fn refused(refusal: realm::Refusal) -> UpstreamError {
    auth(refusal.to_string())
}

fn no_account(error: &CredentialsError) -> UpstreamError {
    auth(format!("no account to ask with: {}", sentence(error)))
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
    use super::super::caller::CallerKey;
    use super::*;
    use crate::oci::UpstreamName;

    #[test]
    fn what_a_caller_shows_is_for_the_registrys_own_endpoints_and_origin() {
        let url = |text: &str| Url::parse(text).expect("a URL");
        let name: UpstreamName = "registry.example.com".parse().expect("a name");
        let mut options = Options::new(name, url("https://registry.example.com"));
        options.endpoints.extend([url("https://eu.example.com"), url("https://mirror.example.org")]);
        let ours = Auth::new(&options, Arc::default(), Arc::new(()));
        let repository: RepositoryName = "app".parse().expect("a name");
        for shown in [None, Some("Basic YTpi"), Some("Bearer x")] {
            let shown = shown.map(HeaderValue::from_static);
            let caller = Caller::new(&CallerKey::new(), shown.as_ref()).expect("a caller");
            let auth = ours.as_caller(&caller);
            for (endpoint, is_upstream, may_ask, may_see) in [
                ("https://registry.example.com/v2/", true, true, true),
                ("https://eu.example.com/v2/", true, true, true),
                ("https://mirror.example.org/v2/", true, false, false),
                ("https://registry.example.com/v2/", false, true, false),
                ("https://cdn.example.net/", false, false, false),
            ] {
                let endpoint = url(endpoint);
                assert_eq!(auth.may_ask(&endpoint), may_ask, "{endpoint}");
                assert!(ours.may_ask(&endpoint), "{endpoint}");
                let place = Place { url: &endpoint, is_upstream, repository: &repository };
                let passes = caller.token().is_some() && may_see;
                assert_eq!(auth.passed(place).is_some(), passes, "S-5: {endpoint} {caller:?}");
            }
        }
    }

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
}
