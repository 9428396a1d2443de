//! Whom the scripted registry lets in: nobody is asked, a bearer token, or a password.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::log::Request;
use super::reply::{Reply, error};

/// What a client must show, and the tokens that were issued.
#[derive(Default)]
pub(crate) struct Auth {
    mode: Mode,
    challenge: Option<String>,
    answer: Option<String>,
    /// Where tokens are to be had; empty is `/token`.
    token_path: &'static str,
    lifetime: Option<u64>,
    /// What a POST exchanges for tokens; `None` when there is no such thing.
    identity_token: Option<String>,
    /// The forms that were posted.
    forms: Vec<String>,
    /// Token to the scopes it is for.
    tokens: HashMap<String, Vec<String>>,
    /// Token to the account that it was issued to.
    owners: HashMap<String, String>,
    issued: usize,
}

#[derive(Default)]
enum Mode {
    #[default]
    Open,
    /// With the `Authorization` that the token endpoint wants, if any.
    Token(Option<String>),
    Basic(String),
    /// Accounts with rights of their own, by `Authorization`; nobody else has any.
    Accounts {
        by_token: bool,
        rights: HashMap<String, Vec<String>>,
    },
    /// A store of signed URLs: everybody who has one, by GET, and nobody who shows anything else as well.
    Signed,
}

impl Auth {
    pub(crate) fn require_token(&mut self, user: Option<(&str, &str)>) {
        self.mode = Mode::Token(user.map(|(username, password)| basic(username, password)));
    }

    pub(crate) fn require_basic(&mut self, username: &str, password: &str) {
        self.mode = Mode::Basic(basic(username, password));
    }

    pub(crate) fn require_signature(&mut self) {
        self.mode = Mode::Signed;
    }

    pub(crate) fn require_account(&mut self, by_token: bool) {
        self.mode = Mode::Accounts { by_token, rights: HashMap::new() };
    }

    /// Makes an account, or replaces its rights; tokens that it was given before are good no more.
    pub(crate) fn set_rights(&mut self, username: &str, password: &str, repositories: &[&str]) {
        let Mode::Accounts { rights, .. } = &mut self.mode else { panic!("require accounts first") };
        let account = basic(username, password);
        rights.insert(account.clone(), repositories.iter().map(|&name| name.to_owned()).collect());
        let owners = &self.owners;
        self.tokens.retain(|token, _| owners.get(token) != Some(&account));
    }

    /// Returns the account behind an `Authorization`: the one that a token was issued to.
    pub(crate) fn account_of(&self, authorization: &str) -> String {
        let token = authorization.strip_prefix("Bearer ");
        token.and_then(|token| self.owners.get(token)).map_or(authorization, String::as_str).to_owned()
    }

    pub(crate) fn set_token_path(&mut self, path: &'static str) {
        self.token_path = path;
    }

    pub(crate) fn token_path(&self) -> &'static str {
        if self.token_path.is_empty() { "/token" } else { self.token_path }
    }

    /// Returns the refusal of a request to a store of signed URLs, or `None` when it may pass.
    pub(crate) fn refusal(&self, seen: &Request, repository: Option<&str>) -> Option<Reply> {
        if let Mode::Accounts { by_token: false, rights } = &self.mode
            && let Some(repositories) = seen.authorization.as_ref().and_then(|shown| rights.get(shown))
        {
            let may = repository.is_none_or(|name| repositories.iter().any(|right| right == name));
            return (!may).then(|| error(403, "DENIED", "requested access to the resource is denied"));
        }
        if !matches!(self.mode, Mode::Signed) {
            return None;
        }
        let is_signed = seen.query.as_deref().is_some_and(|query| query.starts_with("X-"));
        if seen.authorization.is_some() {
            return Some(Reply::new(400, "<Error>Only one auth mechanism allowed</Error>"));
        }
        (!is_signed || seen.method == "HEAD").then(|| Reply::new(403, "<Error>SignatureDoesNotMatch</Error>"))
    }

    pub(crate) fn set_challenge(&mut self, challenge: &str) {
        self.challenge = Some(challenge.to_owned());
    }

    pub(crate) fn set_answer(&mut self, body: &str) {
        self.answer = Some(body.to_owned());
    }

    pub(crate) fn set_lifetime(&mut self, seconds: u64) {
        self.lifetime = Some(seconds);
    }

    pub(crate) fn set_identity_token(&mut self, token: &str) {
        self.identity_token = Some(token.to_owned());
    }

    pub(crate) fn forms(&self) -> Vec<String> {
        self.forms.clone()
    }

    pub(crate) fn revoke(&mut self) {
        self.tokens.clear();
    }

    /// Returns the challenge to answer with, or `None` when the request may pass.
    pub(crate) fn challenge(&self, url: &str, repository: Option<&str>, authorization: Option<&str>) -> Option<String> {
        let passes = match &self.mode {
            Mode::Open | Mode::Signed => true,
            Mode::Basic(wanted) => authorization == Some(wanted),
            Mode::Accounts { by_token: false, rights } => authorization.is_some_and(|shown| rights.contains_key(shown)),
            Mode::Token(_) | Mode::Accounts { by_token: true, .. } => {
                let token = authorization.and_then(|value| value.strip_prefix("Bearer "));
                token.and_then(|token| self.tokens.get(token)).is_some_and(|scopes| covers(scopes, repository))
            }
        };
        (!passes).then(|| self.challenge_text(url, repository))
    }

    /// Returns the challenge in words.
    pub(crate) fn challenge_text(&self, url: &str, repository: Option<&str>) -> String {
        if let Some(text) = &self.challenge {
            return text.replace("{url}", url).replace("{repository}", repository.unwrap_or_default());
        }
        match &self.mode {
            Mode::Basic(_) | Mode::Accounts { by_token: false, .. } => "Basic realm=\"scripted\"".to_owned(),
            Mode::Open | Mode::Signed | Mode::Token(_) | Mode::Accounts { by_token: true, .. } => {
                let scope = repository.map(|name| format!(",scope=\"repository:{name}:pull\"")).unwrap_or_default();
                let path = self.token_path();
                format!("Bearer realm=\"{url}{path}\",service=\"scripted\"{scope}")
            }
        }
    }

    /// Issues a token for the scopes in `query`, or `None` when the user is not the right one.
    pub(crate) fn issue(&mut self, query: &str, authorization: Option<&str>) -> Option<String> {
        if let Some(answer) = &self.answer {
            return Some(answer.clone());
        }
        if let Mode::Token(Some(wanted)) = &self.mode
            && authorization != Some(wanted)
        {
            return None;
        }
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        let mut scopes: Vec<_> =
            pairs.filter(|(name, _)| name == "scope").map(|(_, value)| value.into_owned()).collect();
        if let Mode::Accounts { rights, .. } = &self.mode {
            let nothing = Vec::new();
            let repositories = match authorization {
                Some(shown) => rights.get(shown)?,
                None => &nothing,
            };
            scopes.retain(|scope| repositories.iter().any(|name| scope.starts_with(&format!("repository:{name}:"))));
        }
        Some(self.token_of(scopes, authorization))
    }

    /// Exchanges an identity token, or returns the status of a refusal.
    pub(crate) fn exchange(&mut self, form: &str) -> Result<String, u16> {
        self.forms.push(form.to_owned());
        if let Some(answer) = &self.answer {
            return Ok(answer.clone());
        }
        let wanted = self.identity_token.clone().ok_or(405_u16)?;
        let pairs: HashMap<_, _> = url::form_urlencoded::parse(form.as_bytes()).into_owned().collect();
        let value = |name: &str| pairs.get(name).map_or("", String::as_str);
        if value("grant_type") != "refresh_token" || value("client_id").is_empty() {
            return Err(400);
        }
        if value("refresh_token") != wanted {
            return Err(401);
        }
        Ok(self.token_of(value("scope").split(' ').map(str::to_owned).collect(), None))
    }

    fn token_of(&mut self, scopes: Vec<String>, account: Option<&str>) -> String {
        self.issued += 1;
        let token = format!("secret-token-{}", self.issued);
        self.tokens.insert(token.clone(), scopes);
        self.owners.extend(account.map(|account| (token.clone(), account.to_owned())));
        let lifetime = self.lifetime.unwrap_or(300);
        format!(r#"{{"token":"{token}","expires_in":{lifetime}}}"#)
    }
}

fn covers(scopes: &[String], repository: Option<&str>) -> bool {
    let Some(repository) = repository else { return true };
    let wanted = format!("repository:{repository}:");
    scopes.iter().any(|scope| scope.strip_prefix(&wanted).is_some_and(|actions| actions.contains("pull")))
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}
