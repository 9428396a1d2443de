//! The account to pull with: where it comes from, and what it is at the moment.
//!
//! | source | looked at | read again |
//! |---|---|---|
//! | `Fixed` | never | never |
//! | `PasswordFile`, `DockerConfig` | when a proof is wanted, every few seconds at the most | when the file has changed |
//! | a credential helper, named by the settings or by a docker config | when a proof is wanted | after minutes, and once after it was refused |
//!
//! A source that fails goes on with the last good account and says so in the log; without one, the question that wants it fails.
//! There is one account for all endpoints that belong to the upstream's registry; under a docker config there may be another for each
//! repository, and one for any endpoint by its own host. Which hosts belong together is decided in `realm`.
//!
//! Source: P-167, P-174, U-22, U-47; docker `cli/config` and `docker-credential-helpers` for the formats.

mod answers;
mod docker_config;
mod error;
mod helper;
mod watched;

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use url::Url;
use zeroize::Zeroizing;

use self::answers::Answers;
use self::docker_config::{DockerConfig, Servers, Step};
pub use self::error::CredentialsError;
use self::error::Flaw;
use self::helper::Question;
pub use self::helper::{HelperName, HelperNameError};
use self::watched::{Watched, read};
use super::options::Options;
use crate::oci::{RepositoryName, UpstreamName};
use crate::telemetry::Secret;

/// Bytes in a password file at the most: long-lived tokens of clouds have a few thousand.
const PASSWORD_BYTES_MAX: u64 = 64 * 1024;

/// Bytes in a docker config at the most: an account takes some hundreds, a token of a cloud some thousands.
const DOCKER_CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// The user name of an identity token that came without one, as docker writes it.
const TOKEN_USERNAME: &str = "<token>";

/// An account at an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// Shown by the Basic scheme, to the registry or to its token service.
    Password { username: String, password: Secret },
    /// Exchanged for tokens by the token service (P-167). The name is for services that know the Basic scheme only.
    IdentityToken { username: String, token: Secret },
}

impl Account {
    /// Returns the name and the secret.
    pub(super) fn parts(&self) -> (&str, &Secret) {
        let (Self::Password { username, password: secret } | Self::IdentityToken { username, token: secret }) = self;
        (username, secret)
    }

    /// Returns `Basic …`, marked as sensitive; `None` when a header cannot carry it, which base64 rules out.
    pub(super) fn basic(&self) -> Option<HeaderValue> {
        let (username, secret) = self.parts();
        let pair = Zeroizing::new(format!("{username}:{}", secret.expose()));
        let text = Zeroizing::new(format!("Basic {}", *Zeroizing::new(STANDARD.encode(pair.as_bytes()))));
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// Where an upstream's account comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Given once and for all.
    Fixed(Account),
    /// The password is the content of a file without its last line break; at most 64 KiB.
    PasswordFile { username: String, path: PathBuf },
    /// The account is in a docker config, or with a credential helper that it names; at most 1 MiB.
    DockerConfig { path: PathBuf },
    /// The account is asked of a credential helper, for the host of the first endpoint.
    Helper(HelperName),
}

impl Credentials {
    /// Reads the file, if there is one, and finds what is wrong with it. Runs no credential helper.
    ///
    /// # Errors
    /// A file that cannot be read or is not what it should be, and a docker config that can have no account for this upstream.
    pub fn check(&self, name: &UpstreamName, endpoints: &[Url]) -> Result<(), CredentialsError> {
        match self {
            Self::Fixed(_) | Self::Helper(_) => Ok(()),
            Self::PasswordFile { path, .. } => read(path, PASSWORD_BYTES_MAX, password).map(|_| ()),
            Self::DockerConfig { path } => {
                let servers = Servers::new(name, endpoints);
                read(path, DOCKER_CONFIG_BYTES_MAX, |bytes| match DockerConfig::parse(bytes, &servers)? {
                    config if config.is_empty() => Err(Flaw::NoAccount { server: servers.first().to_owned() }),
                    _ => Ok(()),
                })
            }
        }
    }
}

/// Reads the content of a password file.
fn password(bytes: &[u8]) -> Result<Secret, Flaw> {
    let text = std::str::from_utf8(bytes).map_err(|_| Flaw::NotText)?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() { Err(Flaw::Empty) } else { Ok(Secret::new(line)) }
}

/// Who wants to see an account, and for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) endpoint: &'a Url,
    /// It belongs to the registry that the upstream's account is for; else it sees only what is listed for itself.
    pub(super) is_at_home: bool,
    pub(super) repository: &'a RepositoryName,
}

/// What gives one upstream its account while it runs.
pub(super) struct Source(Kind);

enum Kind {
    Fixed(Arc<Account>),
    PasswordFile { username: String, file: Watched<Secret> },
    DockerConfig { file: Watched<DockerConfig>, answers: Answers },
    Helper { question: Question, answers: Answers },
}

impl Source {
    /// Reads the file once; `None` for an anonymous upstream.
    pub(super) fn new(options: &Options) -> Option<Self> {
        let answers = || Answers::new(options.name.clone(), options.helper_directories.clone());
        let servers = Servers::new(&options.name, &options.endpoints);
        Some(Self(match options.credentials.clone()? {
            Credentials::Fixed(account) => Kind::Fixed(Arc::new(account)),
            Credentials::PasswordFile { username, path } => {
                let file = Watched::open(options.name.clone(), path, PASSWORD_BYTES_MAX, password);
                Kind::PasswordFile { username, file }
            }
            Credentials::DockerConfig { path } => {
                let parse = move |bytes: &[u8]| DockerConfig::parse(bytes, &servers);
                let file = Watched::open(options.name.clone(), path, DOCKER_CONFIG_BYTES_MAX, parse);
                Kind::DockerConfig { file, answers: answers() }
            }
            Credentials::Helper(helper) => {
                let question = Question { helper, server: servers.first_address() };
                Kind::Helper { question, answers: answers() }
            }
        }))
    }

    /// A caller's own account, for this caller's questions only.
    pub(super) fn of_caller(account: Arc<Account>) -> Self {
        Self(Kind::Fixed(account))
    }

    /// Returns the account to show to who asks for one, `None` when the source has none: the upstream is asked anonymously then.
    ///
    /// Usually that is a look into memory; it may be a look at a file, or the run of a credential helper, some seconds long.
    ///
    /// # Errors
    /// The source fails and never gave an account.
    ///
    /// # Cancel safety
    /// Dropping the future ends the helper that it runs; another asker that waits runs it anew.
    pub(super) async fn account(&self, asker: Asker<'_>) -> Result<Option<Arc<Account>>, CredentialsError> {
        match &self.0 {
            Kind::DockerConfig { file, answers } => take(file.current().await?.steps(asker), answers).await,
            Kind::Fixed(_) | Kind::PasswordFile { .. } | Kind::Helper { .. } if !asker.is_at_home => Ok(None),
            Kind::Fixed(account) => Ok(Some(Arc::clone(account))),
            Kind::PasswordFile { username, file } => {
                let password = file.current().await?;
                Ok(Some(Arc::new(Account::Password { username: username.clone(), password: Secret::clone(&password) })))
            }
            Kind::Helper { question, answers } => answers.account(question).await,
        }
    }

    /// Looks again at where a refused account came from, at once, and returns another one if there is one (U-22).
    ///
    /// # Errors
    /// As [`Source::account`].
    pub(super) async fn renewed(
        &self,
        asker: Asker<'_>,
        refused: &Account,
    ) -> Result<Option<Arc<Account>>, CredentialsError> {
        match &self.0 {
            Kind::Fixed(_) => return Ok(None),
            Kind::PasswordFile { file, .. } => file.look().await,
            Kind::DockerConfig { file, answers } => {
                file.look().await;
                for step in file.current().await?.steps(asker) {
                    if let Step::Ask(question) = step {
                        answers.ask_again(&question, refused).await;
                    }
                }
            }
            Kind::Helper { question, answers } => answers.ask_again(question, refused).await,
        }
        Ok(self.account(asker).await?.filter(|account| **account != *refused))
    }
}

/// Takes the steps in their order until one gives an account. A helper that fails is told when none does.
async fn take(steps: Vec<Step>, answers: &Answers) -> Result<Option<Arc<Account>>, CredentialsError> {
    let mut failure = None;
    for step in steps {
        match step {
            Step::Take(account) => return Ok(Some(account)),
            Step::Ask(question) => match answers.account(&question).await {
                Ok(Some(account)) => return Ok(Some(account)),
                Ok(None) => {}
                Err(error) => failure = failure.or(Some(error)),
            },
        }
    }
    failure.map_or(Ok(None), Err)
}

#[cfg(test)]
mod tests;
