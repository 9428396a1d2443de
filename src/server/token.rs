//! The token endpoint: a user and a password in, or a certificate, or nothing; a token of ours out (P-177, P-179).
//!
//! It holds nobody's rights, only who somebody is: what they may is looked up with each request. A user that is not ours, where some
//! upstream takes callers' own credentials, gets a token that holds the credential, sealed.
//!
//! Source: "Token Authentication Specification" and "Token Authentication: `OAuth2`" of the distribution project.

use std::time::SystemTime;

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use url::form_urlencoded;

use super::body::Body;
use super::door::{BASIC_CHALLENGE, Visit};
use super::limits::HEADER_BUDGET;
use super::respond::Problem;
use crate::identity::{Credential, Foreign, Holder, Known, Principal, Refused};
use crate::oci::ErrorCode;
use crate::telemetry::{AuthFailure, Secret};
use crate::wire::Scope;

/// Where it is.
const PATH: &str = "/token";

/// Bytes of a form at the most: a password and a few scopes.
const FORM_BYTES_MAX: usize = 16 * 1024;

/// Scopes of one request that are told back at the most.
const SCOPES_MAX: usize = 32;

/// Returns true for a request that is answered here.
pub(super) fn is_for(visit: &Visit<'_>) -> bool {
    visit.door.gives_tokens() && visit.request.uri.path() == PATH
}

/// Gives a token, and says to whom.
pub(super) async fn answer(visit: &Visit<'_>, body: Incoming) -> Result<(Principal, Response<Body>), Problem> {
    let asked = match visit.request.method {
        Method::GET | Method::HEAD => Asked::by_header(visit)?,
        Method::POST => Asked::by_form(&form(body).await?)?,
        _ => return Err(Problem::method_not_allowed("GET, HEAD, POST", "a token is asked for by GET or POST")),
    };
    let holder = holder(visit, asked.credential).await?;
    let principal = match &holder {
        Holder::Principal(principal) => principal.clone(),
        Holder::Caller(_) => Principal::Anonymous,
    };
    let now = SystemTime::now();
    let identities = &visit.door.identities;
    let token = identities.token(&holder, now).ok_or_else(|| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown, "the token cannot be sealed")
    })?;
    let mut answer = json!({
        "token": token.expose(),
        "access_token": token.expose(),
        "expires_in": identities.token_life.as_secs(),
        "issued_at": humantime::format_rfc3339_seconds(now).to_string(),
    });
    answer.as_object_mut().into_iter().for_each(|answer: &mut Map<String, Value>| answer.extend(asked.scope.clone()));
    Ok((principal, with_body(answer.to_string(), visit.request.method == Method::HEAD)))
}

/// What a token is asked for with.
struct Asked {
    credential: Option<Credential>,
    /// What an answer to a form says besides.
    scope: Option<(String, Value)>,
}

impl Asked {
    /// P-177: `service`, `scope`, `account`, `client_id` and `offline_token` may be there; who asks is in the header.
    fn by_header(visit: &Visit<'_>) -> Result<Self, Problem> {
        match Credential::read(&visit.request.headers) {
            Ok(credential @ (None | Some(Credential::Basic { .. }))) => Ok(Self { credential, scope: None }),
            // A token of ours must not beget another: it would live for ever.
            Ok(Some(Credential::Bearer(_))) | Err(_) => {
                visit.door.identities.count(AuthFailure::Malformed);
                Err(unauthorized("a token is given for a user and a password, a certificate, or nothing"))
            }
        }
    }

    fn by_form(form: &[u8]) -> Result<Self, Problem> {
        let value =
            |name: &str| form_urlencoded::parse(form).find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        let shown = value("username").zip(value("password"));
        match (value("grant_type").as_deref(), shown.and_then(|(user, it)| Credential::basic(user, Secret::new(it)))) {
            (Some("password"), credential @ Some(_)) => {
                let scopes = value("scope").unwrap_or_default();
                let scopes = scopes.split(' ').filter_map(Scope::parse).take(SCOPES_MAX);
                let scopes: Vec<String> = scopes.map(|scope| scope.to_string()).collect();
                Ok(Self { credential, scope: Some(("scope".to_owned(), scopes.join(" ").into())) })
            }
            // C-30: 400 makes containerd ask by GET.
            _ => Err(Problem::new(
                StatusCode::BAD_REQUEST,
                ErrorCode::Unsupported,
                "the form must have grant_type=password with username and password; other grants are not known",
            )),
        }
    }
}

async fn holder(visit: &Visit<'_>, credential: Option<Credential>) -> Result<Holder, Problem> {
    let identities = &visit.door.identities;
    let Some(credential) = credential else {
        let principal = visit.proved();
        let is_in = !visit.peer.rules.identities || identities.anonymous || visit.directory.takes_callers();
        if principal.is_anonymous() && !is_in {
            identities.count(AuthFailure::Missing);
            return Err(unauthorized("show a user and a password"));
        }
        return Ok(Holder::Principal(principal));
    };
    let foreign = if visit.directory.takes_callers() { Foreign::Passes } else { Foreign::IsWrong };
    match (identities.who(&credential, visit.client, foreign).await, credential) {
        (Ok(Known::Principal(principal)), _) => Ok(Holder::Principal(principal)),
        (Ok(Known::Foreign), Credential::Basic { user, password }) => {
            Ok(Holder::Caller(Secret::new(format!("{user}:{}", password.expose()))))
        }
        (Ok(Known::Foreign | Known::Caller(_)) | Err(Refused::Wrong(_)), _) => {
            Err(unauthorized("the user or the password is wrong"))
        }
        (Err(refused), _) => Err(Problem::not_looked_at(refused)),
    }
}

async fn form(body: Incoming) -> Result<Vec<u8>, Problem> {
    let read = timeout(HEADER_BUDGET, Limited::new(body, FORM_BYTES_MAX).collect()).await;
    if let Ok(Ok(form)) = read {
        return Ok(form.to_bytes().to_vec());
    }
    let message = format!("the form did not come whole, or has more than {FORM_BYTES_MAX} bytes");
    Err(Problem::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message))
}

fn unauthorized(message: &str) -> Problem {
    Problem::unauthorized(message, HeaderValue::from_static(BASIC_CHALLENGE))
}

fn with_body(text: String, is_head: bool) -> Response<Body> {
    let length = text.len();
    let mut response = Response::new(if is_head { Body::empty() } else { Body::full(text.into()) });
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
