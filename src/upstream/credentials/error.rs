//! Why there is no account to ask with, in words that say what to do about it. Never with a secret.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytesize::ByteSize;

use super::helper::{ANSWER_MAX, LIMIT, Question};

/// Why a source gives no account.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CredentialsError {
    #[error("cannot read {}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: Arc<io::Error>,
    },
    #[error("{} is larger than {}; is it the right file?", path.display(), ByteSize(*limit_bytes))]
    TooLarge { path: PathBuf, limit_bytes: u64 },
    /// The file was read and is not what it should be.
    #[error("{} {flaw}", path.display())]
    Unusable { path: PathBuf, flaw: Flaw },
    /// A credential helper did not do its part.
    #[error(
        "{} {failure}; try it as this user: echo {} | {} get",
        question.helper, question.server, question.helper
    )]
    Helper { question: Question, failure: HelperFailure },
}

/// What is wrong with the content of a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("is not UTF-8; write the password as text")]
    NotText,
    #[error("is empty; write the password to it")]
    Empty,
    /// Only the place is told: the words of the parser repeat what stands there.
    #[error("is not a docker config (line {line}, column {column}); docker login writes one")]
    NotDockerConfig { line: usize, column: usize },
    #[error("holds an auth for {key:?} that is not base64 of user:password; write it anew with docker login {key}")]
    Auth { key: String },
    #[error("names the credential helper {name:?}; write its name after docker-credential-, such as \"ecr-login\"")]
    HelperName { name: String },
    #[error("holds no account for {server}; add one with docker login {server}")]
    NoAccount { server: String },
}

/// How a credential helper fails.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HelperFailure {
    #[error("cannot be started ({0}); is it installed where PATH leads?")]
    Start(Arc<io::Error>),
    #[error("cannot be listened to ({0})")]
    Pipe(Arc<io::Error>),
    #[error("did not answer within {LIMIT:?}")]
    TimedOut,
    #[error("answered more than {ANSWER_MAX} bytes")]
    TooLong,
    /// `words` are its own, short and on one line.
    #[error("failed with {status}: {words}")]
    Failed { status: String, words: String },
    #[error("answered something other than an account")]
    NoAnswer,
}
