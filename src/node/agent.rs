//! An agent: what is wanted on this node and how the cache is asked for it, with the credentials as they are at the moment.

use url::Url;

use super::Options;
use super::credentials::{Credentials, CredentialsError, Files};
use super::probe::{Asking, Probe, ProbeError};
use crate::snippets::Token;

/// What is wanted, and whether the cache answers to it.
#[derive(Debug)]
pub struct Agent {
    options: Options,
    probe: Probe,
    files: Files,
    /// What `options` and `probe` are made of.
    credentials: Credentials,
}

/// Why the credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Files(#[from] CredentialsError),
    #[error(transparent)]
    Probe(#[from] ProbeError),
}

impl Agent {
    /// Reads the files; `options` says what is wanted besides.
    ///
    /// # Errors
    /// When one of the files cannot be used.
    pub fn new(options: Options, urls: Vec<Url>, files: Files, may_ask_who: bool) -> Result<Self, AgentError> {
        let credentials = files.read()?;
        let probe = Probe::new(urls, Asking { credentials: &credentials, may_ask_who })?;
        let mut agent = Self { options, probe, files, credentials };
        agent.bring();
        Ok(agent)
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// When one of them cannot be used; what was read before holds on then.
    pub(super) fn renew(&mut self) -> Result<(), AgentError> {
        let credentials = self.files.read()?;
        if credentials != self.credentials {
            self.probe = self.probe.renewed(&credentials)?;
            self.credentials = credentials;
            self.bring();
        }
        Ok(())
    }

    fn bring(&mut self) {
        self.options.wish.token = self.credentials.token.clone().map(Token::Known);
        self.options.installed = self.credentials.installed(self.files.copies);
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Asks the cache whether it answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ask(&self) -> Result<(), ProbeError> {
        self.probe.ask().await
    }
}
