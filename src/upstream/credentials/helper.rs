//! A credential helper: a program `docker-credential-<name>` that is told a server and answers with the account for it.
//!
//! ```text
//! arguments  get
//! stdin      123456789012.dkr.ecr.eu-west-1.amazonaws.com
//! stdout     {"ServerURL":"…","Username":"AWS","Secret":"…"}        exit 0; the user <token> means an identity token
//! stdout     credentials not found in native keychain               exit 1; anonymous
//! ```
//! There is no shell between us, and the environment is ours. A helper that takes too long is killed with its children.
//!
//! Source: docker-credential-helpers, README "Development" (0.9).

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::error::HelperFailure;
use super::{Account, TOKEN_USERNAME};
use crate::telemetry::Secret;

/// How long a helper may take: those of clouds make a request or two. Half of the header budget, so that an answer still fits.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// Bytes of a helper's answer at the most; tokens of clouds have a few thousand.
pub(super) const ANSWER_MAX: u64 = 64 * 1024;

/// Bytes of a helper's complaints that are read.
const COMPLAINT_MAX: u64 = 4 * 1024;

/// Characters of a helper's complaints that are told.
const WORDS_MAX: usize = 200;

/// Letters of a helper's name at the most.
const NAME_MAX: usize = 64;

/// What a helper says of a server that it does not know.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// The name of a credential helper: what stands after `docker-credential-`. One to 64 of `A-Z a-z 0-9 . _ -`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HelperName(String);

/// A text that names no credential helper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a credential helper")]
pub struct HelperNameError;

impl HelperName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the program: by its place when the directories are given, else by its name, for `PATH` to find.
    fn program(&self, directories: Option<&[PathBuf]>) -> PathBuf {
        let name = PathBuf::from(self.to_string());
        let Some(directories) = directories else { return name };
        let places = || directories.iter().map(|directory| directory.join(&name));
        places().find(|place| place.is_file()).or_else(|| places().next()).unwrap_or_default()
    }
}

impl FromStr for HelperName {
    type Err = HelperNameError;

    fn from_str(text: &str) -> Result<Self, HelperNameError> {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(is_letter) {
            Ok(Self(text.to_owned()))
        } else {
            Err(HelperNameError)
        }
    }
}

/// Prints the program's name.
impl fmt::Display for HelperName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "docker-credential-{}", self.0)
    }
}

impl fmt::Debug for HelperName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What is asked of whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    pub helper: HelperName,
    /// As docker names it: a host, or `https://index.docker.io/v1/`.
    pub server: String,
}

/// Runs the helper once; `None` when it knows no account. `directories` are searched in place of `PATH`.
///
/// # Cancel safety
/// Dropping the future kills the helper.
pub(super) async fn ask(
    question: &Question,
    directories: Option<&[PathBuf]>,
) -> Result<Option<Account>, HelperFailure> {
    let program = question.helper.program(directories);
    timeout(LIMIT, talk(&program, &question.server)).await.unwrap_or(Err(HelperFailure::TimedOut))
}

async fn talk(program: &Path, server: &str) -> Result<Option<Account>, HelperFailure> {
    let mut helper = Running::start(program).map_err(|error| HelperFailure::Start(Arc::new(error)))?;
    let Child { stdin, stdout, stderr, .. } = &mut helper.0;
    let (stdin, stdout, stderr) = (stdin.take(), stdout.take(), stderr.take());
    let told = async {
        if let Some(mut stdin) = stdin {
            // One that does not listen to the end may answer all the same.
            let _ = stdin.write_all(server.as_bytes()).await;
        }
    };
    let ((), answer, complaint) =
        tokio::join!(told, read(stdout, ANSWER_MAX + 1), read_and_drain(stderr, COMPLAINT_MAX));
    let pipe = |error| HelperFailure::Pipe(Arc::new(error));
    let (answer, complaint) = (answer.map_err(pipe)?, complaint.map_err(pipe)?);
    if answer.len() as u64 > ANSWER_MAX {
        return Err(HelperFailure::TooLong);
    }
    // Not before: once it was waited for, what it left behind with our pipes cannot be killed with it any more.
    let status = helper.0.wait().await.map_err(pipe)?;
    if status.success() {
        return parse(&answer);
    }
    let said_that_there_is_none = [&answer, &complaint].into_iter().any(|said| {
        // Helpers write this to stdout; those that wrap others, to stderr.
        String::from_utf8_lossy(said).contains(NOT_FOUND)
    });
    if said_that_there_is_none {
        return Ok(None);
    }
    Err(HelperFailure::Failed { status: status.to_string(), words: words(&answer, &complaint) })
}

/// Reads an account.
fn parse(answer: &[u8]) -> Result<Option<Account>, HelperFailure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default)]
        username: String,
        #[serde(default)]
        secret: String,
    }
    let Answer { username, secret } = serde_json::from_slice(answer).map_err(|_| HelperFailure::NoAnswer)?;
    let secret = Secret::new(secret);
    if secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(if username == TOKEN_USERNAME {
        Account::IdentityToken { username, token: secret }
    } else {
        Account::Password { username, password: secret }
    }))
}

/// Returns what a helper that failed says of it, short and on one line. Its answer counts only where it is no account.
fn words(answer: &[u8], complaint: &[u8]) -> String {
    let complaint = String::from_utf8_lossy(complaint);
    let answer = String::from_utf8_lossy(answer);
    let said = if complaint.trim().is_empty() && !answer.contains('{') { answer } else { complaint };
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let told: String = line.chars().filter(|letter| !letter.is_control()).take(WORDS_MAX).collect();
    if told.is_empty() { "it says nothing".to_owned() } else { told }
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, limit_bytes: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    if let Some(pipe) = pipe {
        pipe.take(limit_bytes).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// Reads the first bytes and takes the rest: whoever writes to a pipe that nobody reads is killed for it, or waits for ever.
async fn read_and_drain(pipe: Option<impl AsyncRead + Unpin>, limit_bytes: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let Some(mut pipe) = pipe else { return Ok(Zeroizing::default()) };
    let bytes = read(Some(&mut pipe), limit_bytes).await?;
    tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    Ok(bytes)
}

/// A helper while it runs; dropped before its end, it is killed with its children.
struct Running(Child);

impl Running {
    fn start(program: &Path) -> io::Result<Self> {
        let child = Command::new(program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0) // so that what it starts can be killed with it
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Known until the helper was waited for: the group cannot be another's.
        let group = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_a_program_of_that_kind_only() {
        for (text, is_name) in [
            ("ecr-login", true),
            ("osxkeychain", true),
            ("acr_env.2", true),
            ("..", true), // docker-credential-.. is a file like others
            ("", false),
            ("../x", false),
            ("a b", false),
            ("a;b", false),
            ("ä", false),
            ("a\0", false),
            (&"a".repeat(65), false),
        ] {
            assert_eq!(text.parse::<HelperName>().is_ok(), is_name, "P-174: {text:?}");
        }
        let name: HelperName = "ecr-login".parse().unwrap();
        assert_eq!(name.program(None), PathBuf::from("docker-credential-ecr-login"));
        let absent = name.program(Some(&[PathBuf::from("/nonexistent")]));
        assert_eq!(absent, PathBuf::from("/nonexistent/docker-credential-ecr-login"));
    }

    #[test]
    fn answers_are_accounts_tokens_or_none() {
        let user = |username: &str, secret: &str| Account::Password {
            username: username.into(),
            password: secret.to_owned().into(),
        };
        let token = Account::IdentityToken { username: "<token>".into(), token: Secret::new("t") };
        for (answer, expected) in [
            (r#"{"ServerURL":"a","Username":"AWS","Secret":"x:y"}"#, Some(Some(user("AWS", "x:y")))),
            (r#"{"Username":"<token>","Secret":"t","More":1}"#, Some(Some(token))),
            (r#"{"Username":"","Secret":""}"#, Some(None)),
            ("hunter2", None),
            (r#"{"Username":7,"Secret":"hunter2"}"#, None),
        ] {
            match (parse(answer.as_bytes()), expected) {
                (Ok(account), Some(expected)) => assert_eq!(account, expected, "{answer}"),
                (Err(error), None) => assert!(!format!("{error:?} {error}").contains("hunter2"), "{answer}"),
                (other, expected) => panic!("{answer}: {other:?} is not {expected:?}"),
            }
        }
    }

    #[test]
    fn complaints_are_short_and_hold_no_account() {
        for (answer, complaint, expected) in [
            ("", "", "it says nothing".to_owned()),
            ("no such\nserver\u{7}\n", " \n", "no such server".to_owned()),
            (r#"{"Secret":"hunter2"}"#, "", "it says nothing".to_owned()),
            ("hunter2", "denied", "denied".to_owned()),
            ("", &"x".repeat(1000), "x".repeat(200)),
        ] {
            assert_eq!(words(answer.as_bytes(), complaint.as_bytes()), expected);
        }
    }
}
