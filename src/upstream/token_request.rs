//! How a token service is asked, and what its refusals mean.
//!
//! ```text
//! no account, or a password ──────────────────────────► GET, with Basic where there is a password
//! an identity token ──► POST ──400, 401, 404, 405, 3xx──► GET with Basic; when that gives a token, no POST for a while (P-167)
//! ```
//! Which service may see the account was decided before (S-26); here it follows no redirect to another origin (S-27).

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::time::Instant;
use url::Url;

use super::answer;
use super::capability::{Capabilities, Capability};
use super::credentials::Account;
use super::error::UpstreamError;
use super::redirect::{self, Verdict};
use super::token::{self, Token, TokenKey};
use super::transport::{Pool, Transport};
use super::write::Outgoing;
use crate::telemetry::Secret;

/// Why there is no token.
#[derive(Debug)]
pub(super) enum TokenError {
    /// The service does not take the account.
    Account,
    Other(UpstreamError),
}

impl From<UpstreamError> for TokenError {
    fn from(error: UpstreamError) -> Self {
        Self::Other(error)
    }
}

impl From<TokenError> for UpstreamError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Account => auth("token service refused the credentials"),
            TokenError::Other(error) => error,
        }
    }
}

/// A question to a token service. An account never leaves the origin that it was allowed for (S-27).
pub(super) struct TokenRequest<'a> {
    pub(super) transport: &'a Transport,
    pub(super) capabilities: &'a Capabilities,
    pub(super) key: &'a TokenKey,
    pub(super) realm: &'a Url,
    pub(super) account: Option<&'a Account>,
}

impl TokenRequest<'_> {
    /// Asks by POST where there is an identity token and the service takes it so, else by GET.
    pub(super) async fn send(self) -> Result<Token, TokenError> {
        let Some(Account::IdentityToken { token, .. }) = self.account else { return self.get().await };
        if self.capabilities.get(Capability::PostToken, Instant::now()) == Some(false) {
            return self.get().await;
        }
        let posted = self.post(token).await?;
        let is_taken = posted.is_some();
        let token = match posted {
            Some(token) => token,
            None => self.get().await?,
        };
        // When a GET gives a token, the POST was the trouble and not the account.
        self.capabilities.note(Capability::PostToken, is_taken, Instant::now());
        Ok(token)
    }

    /// Exchanges an identity token (P-167); `None` when the service does not take this.
    async fn post(&self, identity_token: &Secret) -> Result<Option<Token>, TokenError> {
        let mut headers = accepting_json();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let form = Outgoing::full(self.key.form(identity_token).into());
        let response = self.transport.write(&Method::POST, self.realm, headers, form).await.map_err(token_error)?;
        match response.status() {
            StatusCode::OK => Ok(Some(read(response).await?)),
            status if is_refusal(status) => Ok(None),
            _ => Err(token_refusal(answer::refusal(response).await, true)),
        }
    }

    async fn get(&self) -> Result<Token, TokenError> {
        let mut url = self.key.request_url(self.realm);
        let mut headers = accepting_json();
        if let Some(authorization) = self.account.and_then(Account::basic) {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        let mut hops = 0;
        loop {
            let response = self.transport.send(Pool::Api, &Method::GET, &url, &headers).await.map_err(token_error)?;
            if response.status() == StatusCode::OK {
                return Ok(read(response).await?);
            }
            let Some(location) = answer::location(&response) else {
                let error = answer::refusal(response).await;
                return Err(token_refusal(error, self.account.is_some()));
            };
            match redirect::decide(&url, location, hops) {
                Verdict::Refuse(refusal) => return Err(auth(refusal.to_string()).into()),
                Verdict::Follow { keeps_authorization: false, .. } if self.account.is_some() => {
                    return Err(auth("token service redirects credentials to another origin").into());
                }
                Verdict::Follow { url: next, .. } => url = next,
            }
            answer::drain(response).await;
            hops += 1;
        }
    }
}

/// Returns true when an answer says that the service takes no POST, or not this one (P-167). A redirect is such an answer as well: what
/// the form holds is sent to nobody else (S-27).
fn is_refusal(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 401 | 404 | 405) || status.is_redirection()
}

fn accepting_json() -> HeaderMap {
    HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("application/json"))])
}

async fn read(response: Response<Incoming>) -> Result<Token, UpstreamError> {
    let (parts, body) = response.into_parts();
    let body = answer::read(body, &parts.headers, token::ANSWER_MAX).await.map_err(token_error)?;
    Token::parse(&body).map_err(auth)
}

/// Says what a token service's refusal means for the question.
///
/// Without credentials, and for a 403 with them, it is this repository that is denied. A 401 with credentials says that
/// the credentials are wrong, whatever they are used for; that and the odd statuses are our set-up's trouble.
fn token_refusal(error: UpstreamError, has_credentials: bool) -> TokenError {
    match error {
        UpstreamError::Denied { status: 401, .. } if has_credentials => TokenError::Account,
        UpstreamError::NotFound { .. } => auth("token service answered 404").into(),
        UpstreamError::Status { status, .. } if status < 500 && status != 408 => {
            auth(format!("token service answered {status}")).into()
        }
        other => token_error(other).into(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::error::RateLimit;

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
            assert_eq!(UpstreamError::from(token_refusal(error, has_credentials)).as_str(), expected, "{words}");
        }
    }
}
