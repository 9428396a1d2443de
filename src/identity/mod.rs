//! Who asks, and what they may.
//!
//! ```text
//! Authorization ──► credential ──► passwords, tokens, service_accounts, sealed ──► Principal ──► rights
//! client certificate ───────────────────────────────────────────────────────────────┘
//! ```
//!
//! A credential is *ours* when it names somebody of this configuration: a user of the htpasswd file, a token of the file, a token of the
//! issuer, a token that was sealed here. Ours and wrong is refused, always. Not ours is *foreign*: where a caller's own credential counts
//! for an upstream, that judges it; elsewhere it is as wrong as any other, after as long a time.
//!
//! Where foreign credentials pass, whoever tries names finds out which are ours, by what becomes of them and by how long it takes: ours and
//! wrong is refused here after a bcrypt, what is foreign goes on to the upstream, or gets a token that is good for nothing else. Hiding
//! that would show our users' mistyped passwords to an upstream, or tell a user that a wrong password is right. Each name that is found is
//! a failure of its address (`failures`): ten at once, then one a second.
//!
//! Configurations come and go as a whole: what was remembered of passwords goes with them. What protects the process stays: see
//! [`Lasting`].
//!
//! | file | idea |
//! |---|---|
//! | `principal`, `credential` | who somebody is, and what they show |
//! | `htpasswd`, `tokens`, `files` | the files of the operator |
//! | `passwords`, `failures` | bcrypt, seldom; who guesses waits |
//! | `service_accounts`, `key_set` | JSON Web Tokens of a cluster |
//! | `sealed` | our own tokens |
//! | `rights`, `turns` | what somebody may, and how often |

mod credential;
mod failures;
mod files;
mod htpasswd;
mod key_set;
mod passwords;
mod principal;
mod rights;
mod sealed;
mod service_accounts;
mod tokens;
mod turns;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use failures::{Attempt, Failures};
use passwords::{Desk, Passwords};
use rights::Rights;
use sealed::{Sealer, Unopened};
use service_accounts::ServiceAccounts;

pub use credential::{Credential, CredentialError};
pub use files::LineError;
pub use htpasswd::Htpasswd;
pub use principal::{CertificateName, Principal, PrincipalError};
pub use rights::{Rule, Wish};
pub use sealed::{Holder, TokenKeys};
pub use service_accounts::{KeySource, Keys, KeysError, ServiceAccountOptions};
pub use tokens::Tokens;
pub use turns::Turns;

use crate::fetch::FetchError;
use crate::tasks::TaskGroup;
use crate::telemetry::{AuthFailure, Metrics, Secret};

/// What an operator decides about identities.
#[derive(Debug, Clone)]
pub struct IdentityOptions {
    pub htpasswd: Option<Htpasswd>,
    pub tokens: Option<Tokens>,
    /// `None` is a key that only this process knows.
    pub token_keys: Option<TokenKeys>,
    pub service_accounts: Option<ServiceAccountOptions>,
    /// `None`: a client certificate makes nobody somebody.
    pub certificates: Option<CertificateName>,
    /// Who shows nothing is let in.
    pub anonymous: bool,
    /// How long a token of ours holds.
    pub token_life: Duration,
    pub rules: Vec<Rule>,
}

/// What stays when the configuration changes: the places at the desk, who failed lately, and the key of this process.
#[derive(Debug)]
pub struct Lasting {
    desk: Arc<Desk>,
    failures: Failures,
    keys: TokenKeys,
    metrics: Arc<Metrics>,
    tasks: TaskGroup,
}

impl Lasting {
    /// `tasks` get what must be got from elsewhere.
    pub fn new(metrics: Arc<Metrics>, tasks: TaskGroup) -> Self {
        Self { desk: Arc::default(), failures: Failures::default(), keys: TokenKeys::random(), metrics, tasks }
    }
}

/// All who are known, and what they may.
#[derive(Debug)]
pub struct Identities {
    passwords: Option<Passwords>,
    tokens: Option<Tokens>,
    service_accounts: Option<ServiceAccounts>,
    sealer: Sealer,
    rights: Rights,
    lasting: Arc<Lasting>,
    /// Which name of a client certificate counts.
    pub certificates: Option<CertificateName>,
    /// Who shows nothing is let in.
    pub anonymous: bool,
    /// How long a token of ours holds.
    pub token_life: Duration,
}

/// What became of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    Principal(Principal),
    /// It is not ours, and the caller's own credential for an upstream, `user:password`, that was sealed here.
    Caller(Secret),
    /// It is not ours; shown only to who asked for that.
    Foreign,
}

/// Why a credential is no good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is wrong.
    Wrong(AuthFailure),
    /// The address has failed too often.
    TooOften { retry_after: Duration },
    /// Too many passwords are being computed.
    Busy { retry_after: Duration },
}

/// What happens to a credential that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// It is given back as [`Known::Foreign`]: somebody else judges it.
    Passes,
    /// It is wrong.
    IsWrong,
}

impl Identities {
    /// # Errors
    /// When an authority for the issuer's keys cannot be used.
    pub fn new(options: IdentityOptions, lasting: Arc<Lasting>) -> Result<Self, FetchError> {
        let keys = options.token_keys.as_ref().unwrap_or(&lasting.keys);
        let accounts = options.service_accounts.map(|options| ServiceAccounts::new(options, lasting.tasks.clone()));
        let passwords = |file| Passwords::new(file, Arc::clone(&lasting.desk), Arc::clone(&lasting.metrics));
        Ok(Self {
            passwords: options.htpasswd.map(passwords),
            tokens: options.tokens,
            service_accounts: accounts.transpose()?,
            sealer: Sealer::new(keys),
            rights: Rights::new(options.rules),
            certificates: options.certificates,
            anonymous: options.anonymous,
            token_life: options.token_life,
            lasting,
        })
    }

    /// Finds out who shows `credential` from `address`.
    ///
    /// # Errors
    /// When it is ours and wrong; when it is not ours and that `is wrong`; when it cannot be looked at now.
    pub async fn who(&self, credential: &Credential, address: IpAddr, foreign: Foreign) -> Result<Known, Refused> {
        let known = match credential {
            Credential::Basic { user, password } => self.by_password(user, password, address, foreign).await,
            Credential::Bearer(token) => self.by_token(token, foreign).await,
        };
        let known = match known {
            // What is cheap to refuse is looked at first: a node behind the same address with a good token is let in.
            Err(Refused::Wrong(AuthFailure::Token)) => self.attempt(address).and(known),
            known => known,
        };
        if let Err(refused) = &known {
            self.lasting.metrics.clients().refused(refused.reason());
        }
        known
    }

    /// Returns true when the principal may do that.
    pub fn allow(&self, principal: &Principal, wish: Wish<'_>) -> bool {
        self.rights.allow(principal, wish)
    }

    /// Waits for the principal's turn; whoever is nobody has the turns of its address.
    ///
    /// # Errors
    /// How long it should wait, when that is too long to be kept here.
    pub async fn turn(&self, principal: &Principal, address: IpAddr) -> Result<(), Duration> {
        self.rights.turn(principal, address).await
    }

    /// Forgets principals that may ask freely again.
    pub fn forget_idle(&self) {
        self.rights.forget_idle();
    }

    /// Returns true when there is a way to be somebody.
    pub fn know_anybody(&self) -> bool {
        let by_header = self.passwords.is_some() || self.tokens.is_some() || self.service_accounts.is_some();
        by_header || self.certificates.is_some()
    }

    /// Seals a token for `holder` that holds from `now` on for [`token_life`](Self::token_life).
    pub fn token(&self, holder: &Holder, now: SystemTime) -> Option<Secret> {
        let witness = match holder {
            Holder::Principal(principal) => self.witness(principal).unwrap_or_default(),
            Holder::Caller(_) => String::new(),
        };
        self.sealer.seal(holder, &witness, seconds(now).saturating_add(self.token_life.as_secs()))
    }

    /// Counts one that was refused without a look at a credential.
    pub fn count(&self, reason: AuthFailure) {
        self.lasting.metrics.clients().refused(reason);
    }

    async fn by_password(
        &self,
        user: &str,
        password: &Secret,
        address: IpAddr,
        foreign: Foreign,
    ) -> Result<Known, Refused> {
        // Tools that cannot show a bearer token show it as a password.
        if let Some(principal) = self.static_token(password).filter(|principal| is_named(principal, user)) {
            return Ok(Known::Principal(principal));
        }
        if let Some(accounts) = self.service_accounts.as_ref().filter(|accounts| accounts.is_ours(password.expose())) {
            let principal = accounts.verify(password.expose()).await;
            return principal.map(Known::Principal).ok_or(Refused::Wrong(AuthFailure::Token));
        }
        let is_ours = self.passwords.as_ref().is_some_and(|passwords| passwords.file.has(user))
            || self.tokens.as_ref().is_some_and(|tokens| tokens.has(user));
        let wrong = Refused::Wrong(AuthFailure::Password);
        if !is_ours && foreign == Foreign::Passes {
            // S-5: under another name it opens nothing, and who was shown it could show it here.
            let opens_this_cache = Sealer::is_ours(password.expose()) || self.static_token(password).is_some();
            return if opens_this_cache { self.attempt(address).and(Err(wrong)) } else { Ok(Known::Foreign) };
        }
        let Some(passwords) = &self.passwords else { return self.attempt(address).and(Err(wrong)) };
        let is_right = passwords.verify(user, password, || self.attempt(address)).await?;
        if is_right { Ok(Known::Principal(Principal::User(user.to_owned()))) } else { Err(wrong) }
    }

    async fn by_token(&self, token: &Secret, foreign: Foreign) -> Result<Known, Refused> {
        if Sealer::is_ours(token.expose()) {
            return self.by_sealed(token);
        }
        if let Some(principal) = self.static_token(token) {
            return Ok(Known::Principal(principal));
        }
        if let Some(accounts) = self.service_accounts.as_ref().filter(|accounts| accounts.is_ours(token.expose())) {
            let principal = accounts.verify(token.expose()).await;
            return principal.map(Known::Principal).ok_or(Refused::Wrong(AuthFailure::Token));
        }
        if foreign == Foreign::Passes { Ok(Known::Foreign) } else { Err(Refused::Wrong(AuthFailure::Token)) }
    }

    /// Opens a token of ours. Its holder may be gone since, or known by another secret.
    fn by_sealed(&self, token: &Secret) -> Result<Known, Refused> {
        let opened = self.sealer.open(token.expose(), seconds(SystemTime::now()));
        match opened {
            Ok((Holder::Principal(principal), witness)) if self.witness(&principal).as_ref() == Some(&witness) => {
                Ok(Known::Principal(principal))
            }
            Ok((Holder::Caller(credential), _)) => Ok(Known::Caller(credential)),
            Err(Unopened::Expired) => Err(Refused::Wrong(AuthFailure::Expired)),
            Ok((Holder::Principal(_), _)) | Err(Unopened::Broken) => Err(Refused::Wrong(AuthFailure::Token)),
        }
    }

    /// Returns by what a principal is known at this moment; nothing, where it is known by what is not of this configuration; `None` when
    /// there is no such principal.
    fn witness(&self, principal: &Principal) -> Option<String> {
        match principal {
            Principal::User(name) => {
                let file = self.passwords.as_ref().map(|passwords| &passwords.file).filter(|file| file.has(name));
                file.map(|file| sealed::witness(file.hash(name).expose().as_bytes()))
            }
            Principal::Token(name) => self.tokens.as_ref()?.sha256(name).map(|sha256| sealed::witness(&sha256)),
            Principal::ServiceAccount { .. } => self.service_accounts.as_ref().map(|_| String::new()),
            Principal::Certificate(_) => self.certificates.map(|_| String::new()),
            Principal::Anonymous => Some(String::new()),
        }
    }

    fn static_token(&self, token: &Secret) -> Option<Principal> {
        self.tokens.as_ref()?.find(token.expose()).map(|name| Principal::Token(name.to_owned()))
    }

    fn attempt(&self, address: IpAddr) -> Result<Attempt, Refused> {
        let attempt = self.lasting.failures.attempt(address, Instant::now());
        attempt.map_err(|retry_after| Refused::TooOften { retry_after })
    }
}

impl Refused {
    /// Returns the word under which it is counted.
    pub fn reason(&self) -> AuthFailure {
        match self {
            Self::Wrong(reason) => *reason,
            Self::TooOften { .. } => AuthFailure::TooOften,
            Self::Busy { .. } => AuthFailure::Busy,
        }
    }
}

fn is_named(principal: &Principal, user: &str) -> bool {
    matches!(principal, Principal::Token(name) if name == user)
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Returns random bytes, of the kind of which keys are made.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The system's source of randomness does not fail once it is there; without it nothing secret can be made.
    aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests;
