//! The door: who is let in, and to what, before anything is answered.
//!
//! | what a request shows | it is |
//! |---|---|
//! | a good credential of ours | its principal; the credential goes no further |
//! | a wrong one | refused, never taken for nobody |
//! | one that is not ours | refused; where the caller's own credential counts for the upstream, shown to that |
//! | a token of ours that holds such a one | the same, unsealed |
//! | nothing, or a token for nobody | the principal of the peer's certificate, else `anonymous` |
//!
//! | who is not let in | is told |
//! |---|---|
//! | who might be somebody else | 401 with a challenge; also about what does not exist (S-20) |
//! | who is somebody and may not | 403 |
//! | who has failed too often | 429; at `/v2/` 401, for nothing else is understood there (P-17) |
//!
//! Where nobody can be anybody, credentials are not looked at, but to keep what is ours from an upstream.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderValue, Method};
use url::Url;

use super::Directory;
use super::peer::Peer;
use super::respond::Problem;
use crate::cache::Upstream;
use crate::identity::{Credential, Foreign, Identities, Known, Principal, Refused, Wish};
use crate::oci::{Refusal, RepositoryName, Route, UpstreamName};
use crate::telemetry::AuthFailure;
use crate::wire::Scope;

/// Who is let in, and how others are told to become somebody.
#[derive(Debug)]
pub struct Door {
    pub(super) identities: Identities,
    realm: Option<Realm>,
}

/// Where clients get tokens.
#[derive(Debug)]
struct Realm {
    url: String,
    service: String,
}

/// A request at the door.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visit<'a> {
    pub(super) door: &'a Door,
    pub(super) directory: &'a Directory,
    pub(super) peer: &'a Peer,
    pub(super) client: IpAddr,
    pub(super) request: &'a Parts,
}

/// Who was let in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    pub(super) principal: Principal,
    /// What the caller shows the upstream.
    pub(super) authorization: Option<HeaderValue>,
}

/// What a request is about, as far as the door must know.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    wish: Wish<'a>,
    is_ping: bool,
    /// The caller's own credential counts for the upstream: one that is not ours is not wrong.
    takes_callers: bool,
    /// The upstream itself judges the caller's credential before this request is answered. What is served from here without its word
    /// is not for whoever shows something.
    is_judged: bool,
}

impl Door {
    /// P-118: the realm is made of what the operator says, never of what a request says.
    pub fn new(identities: Identities, public_url: Option<&Url>) -> Self {
        let realm = public_url.and_then(|url| {
            let host = url.host_str()?;
            let service = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
            Some(Realm { url: format!("{}/token", url.as_str().trim_end_matches('/')), service })
        });
        Self { identities, realm }
    }

    pub(super) fn gives_tokens(&self) -> bool {
        self.realm.is_some()
    }

    /// Forgets principals that may ask freely again.
    pub fn forget_idle(&self) {
        self.identities.forget_idle();
    }

    /// Returns how one becomes somebody (P-176).
    fn challenge(&self, scope: Option<&Scope>, error: Option<&str>) -> HeaderValue {
        let Some(realm) = &self.realm else { return HeaderValue::from_static(BASIC_CHALLENGE) };
        let mut challenge = format!("Bearer realm=\"{}\",service=\"{}\"", realm.url, realm.service);
        for (name, value) in [("scope", scope.map(Scope::to_string)), ("error", error.map(str::to_owned))] {
            if let Some(value) = value {
                challenge.extend([",", name, "=\"", &value, "\""]);
            }
        }
        // A URL and a scope are visible ASCII.
        HeaderValue::try_from(challenge).unwrap_or(HeaderValue::from_static(BASIC_CHALLENGE))
    }
}

const NOT_KNOWN: &str = "only who is known may have this; log in";

/// How one shows a password.
pub(super) const BASIC_CHALLENGE: &str = "Basic realm=\"cachalot\"";

impl Visit<'_> {
    /// Lets the request in to what it asks for, or says why not.
    pub(super) async fn admit(&self, asked: &Result<Route, Refusal>) -> Result<Admitted, Problem> {
        let wanted = self.wanted(asked);
        let identities = &self.door.identities;
        let shown = Credential::read(&self.request.headers);
        if !self.asks() {
            let admitted = self.unasked(shown.ok().flatten(), wanted).await;
            return self.checked(admitted, wanted, None);
        }
        let Ok(shown) = shown else {
            identities.count(AuthFailure::Malformed);
            let message = "Authorization is neither one Basic nor one Bearer credential";
            return Err(self.unauthorized(message, None));
        };
        let Some(shown) = shown else {
            let principal = self.proved();
            let admitted = Admitted { principal, authorization: None };
            if wanted.is_ping && admitted.principal.is_anonymous() && self.door.gives_tokens() {
                identities.count(AuthFailure::Missing);
                return Err(self.unauthorized("get a token, with a user and a password or without", None));
            }
            return self.checked(admitted, wanted, None);
        };
        // S-20: the same whichever upstream is named, or none: what takes how long tells nothing of them.
        let foreign = if self.directory.takes_callers() { Foreign::Passes } else { Foreign::IsWrong };
        match identities.who(&shown, self.client, foreign).await {
            Ok(Known::Foreign) if !wanted.takes_callers => {
                identities.count(match shown {
                    Credential::Basic { .. } => AuthFailure::Password,
                    Credential::Bearer(_) => AuthFailure::Token,
                });
                Err(self.unauthorized(NOT_KNOWN, Some("insufficient_scope")))
            }
            Ok(known) => self.checked(self.admitted(known, wanted), wanted, Some("insufficient_scope")),
            Err(refused) => Err(self.refused(refused, wanted)),
        }
    }

    /// Waits for the principal's turn.
    pub(super) async fn turn(&self, principal: &Principal) -> Result<(), Duration> {
        if self.peer.rules.identities { self.door.identities.turn(principal, self.client).await } else { Ok(()) }
    }

    /// Returns true when somebody can be somebody here, or a caller's own credential counts somewhere.
    pub(super) fn asks(&self) -> bool {
        let identities = &self.door.identities;
        let has_tokens = self.door.gives_tokens() && self.directory.takes_callers();
        self.peer.rules.identities && (identities.know_anybody() || has_tokens)
    }

    /// Returns the problem that somebody is whom the upstream must let in, and who has not said who it is.
    pub(super) fn unknown(&self, message: &str) -> Problem {
        self.unauthorized(message, self.insufficient())
    }

    /// Returns how to get a token here for what is asked, where there are tokens and whoever asks is asked who it is.
    pub(super) fn challenge(&self) -> Option<HeaderValue> {
        (self.asks() && self.door.gives_tokens())
            .then(|| self.door.challenge(self.scope().as_ref(), self.insufficient()))
    }

    /// Returns what is wrong where the upstream does not take what was shown.
    fn insufficient(&self) -> Option<&'static str> {
        self.request.headers.contains_key(AUTHORIZATION).then_some("insufficient_scope")
    }

    /// Returns true when who was let in may read that repository, too.
    pub(super) fn may_read(&self, principal: &Principal, upstream: &UpstreamName, repository: &RepositoryName) -> bool {
        !self.peer.rules.identities || self.door.identities.allow(principal, Wish::Read(upstream, repository))
    }

    /// Returns whom the peer's certificate names.
    pub(super) fn proved(&self) -> Principal {
        let name = self.door.identities.certificates.and_then(|kind| self.peer.proved(kind));
        name.map_or(Principal::Anonymous, |name| Principal::Certificate(name.to_owned()))
    }

    fn wanted<'a>(&self, asked: &'a Result<Route, Refusal>) -> Wanted<'a> {
        let takes_callers = self.directory.takes_callers();
        match asked {
            Ok(Route::Base) => Wanted { wish: Wish::Ask, is_ping: true, takes_callers, is_judged: takes_callers },
            Err(_) => Wanted { wish: Wish::Elsewhere, is_ping: false, takes_callers, is_judged: false },
            Ok(Route::Question(question)) => {
                let (upstream, repository) = (&question.upstream, &question.repository);
                let takes_callers = self.directory.takes_callers_of(upstream);
                let is_write = super::writes::is_write(&self.request.method, &question.endpoint);
                let wish = if is_write { Wish::Write(upstream, repository) } else { Wish::Read(upstream, repository) };
                let is_for_callers = |known: &Arc<Upstream>| known.is_for_callers(repository);
                let is_judged = is_write || self.directory.upstream(upstream).is_some_and(is_for_callers);
                Wanted { wish, is_ping: false, takes_callers, is_judged: takes_callers && is_judged }
            }
        }
    }

    /// Takes what is shown where nobody is asked for anything: it is the upstream's, if it is not ours.
    async fn unasked(&self, shown: Option<Credential>, wanted: Wanted<'_>) -> Admitted {
        let nobody = Admitted { principal: self.proved(), authorization: None };
        match shown {
            Some(shown) if wanted.takes_callers => {
                let known = self.door.identities.who(&shown, self.client, Foreign::Passes).await;
                known.map_or(nobody, |known| self.admitted(known, wanted))
            }
            Some(_) | None => nobody,
        }
    }

    fn admitted(&self, known: Known, wanted: Wanted<'_>) -> Admitted {
        let (principal, authorization) = match known {
            Known::Principal(Principal::Anonymous) => (self.proved(), None),
            Known::Principal(principal) => (principal, None),
            Known::Caller(credential) => (self.proved(), Credential::basic_header(&credential)),
            Known::Foreign => (self.proved(), self.request.headers.get(AUTHORIZATION).cloned()),
        };
        Admitted { principal, authorization: authorization.filter(|_| wanted.takes_callers) }
    }

    /// Checks that this is enough for what is wanted; `error` says what is wrong with what was shown.
    fn checked(&self, admitted: Admitted, wanted: Wanted<'_>, error: Option<&str>) -> Result<Admitted, Problem> {
        if !self.peer.rules.identities {
            return Ok(admitted);
        }
        let identities = &self.door.identities;
        let is_nobody = admitted.principal.is_anonymous();
        let is_in = !is_nobody || identities.anonymous || (admitted.authorization.is_some() && wanted.is_judged);
        if is_in && (wanted.is_ping || identities.allow(&admitted.principal, wanted.wish)) {
            return Ok(admitted);
        }
        if is_nobody && identities.know_anybody() {
            identities.count(if error.is_some() { AuthFailure::Denied } else { AuthFailure::Missing });
            return Err(self.unauthorized(NOT_KNOWN, error));
        }
        identities.count(AuthFailure::Denied);
        Err(Problem::denied(format!("{} may not have this", admitted.principal)))
    }

    fn refused(&self, refused: Refused, wanted: Wanted<'_>) -> Problem {
        match refused {
            Refused::Wrong(AuthFailure::Expired) => self.unauthorized("the token has expired", Some("invalid_token")),
            Refused::Wrong(AuthFailure::Token) => {
                self.unauthorized("the token is not valid here", Some("invalid_token"))
            }
            Refused::Wrong(_) => self.unauthorized("the user or the password is wrong", None),
            // P-17: at the ping nothing but 200 and 401 is understood.
            Refused::TooOften { .. } | Refused::Busy { .. } if wanted.is_ping => {
                self.unauthorized("not now; try again later", None)
            }
            Refused::TooOften { .. } | Refused::Busy { .. } => Problem::not_looked_at(refused),
        }
    }

    /// P-18, P-178: says how to get in, with the scope of the repository as the client named it.
    fn unauthorized(&self, message: &str, error: Option<&str>) -> Problem {
        Problem::unauthorized(message, self.door.challenge(self.scope().as_ref(), error))
    }

    fn scope(&self) -> Option<Scope> {
        let actions = if matches!(self.request.method, Method::GET | Method::HEAD) { "pull" } else { "pull,push" };
        Scope::of_path(self.request.uri.path(), actions)
    }
}

#[cfg(test)]
mod tests;
