//! One request: routed, let in, asked of the cache, answered, accounted.

use std::net::IpAddr;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, VIA};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::access_log::Exchange;
use super::body::Body;
use super::door::Visit;
use super::headers::{API_VERSION, CACHE_STATUS, OCI_NAMESPACE, lines};
use super::limits::HEADER_BUDGET;
use super::peer::Peer;
use super::respond::Problem;
use super::routed::Routed;
use super::{Clients, Directory, Server, admission, blobs, clients, heads, manifests, referrers, tags, token, writes};
use crate::cache::Client;
use crate::identity::Principal;
use crate::oci::{Endpoint, Question, Refusal, Route, route};
use crate::telemetry::{Handler, Shed};
use crate::wire::cache_status_header;

/// Answers one request.
pub(super) async fn handle(server: &Server, request: Request<Incoming>, peer: &Peer) -> Response<Body> {
    let method = request.method().clone();
    let clients = server.clients.load_full();
    let client = clients.address(peer.address, request.headers());
    let mut exchange =
        Exchange::begin(&server.metrics, server.options.access_log, client, method.clone(), request.uri().path());
    let is_head = method == Method::HEAD;
    let (request, body) = request.into_parts();
    let (directory, door) = (server.directory.load_full(), server.door.load_full());
    let visit = Visit { door: &door, directory: &directory, peer, client: clients::key(client), request: &request };
    let answered = match heads::check(&request) {
        Err(problem) => Err(problem),
        Ok(()) if token::is_for(&visit) => token(server, &visit, (&clients, client), body, &mut exchange).await,
        Ok(()) => asked(server, &visit, (&clients, client), body, &mut exchange).await,
    };
    let mut response = answered.unwrap_or_else(|mut problem| {
        exchange.is_for_reason(problem.cause.take());
        problem.into_response(exchange.request_id, is_head)
    });
    response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    response.headers_mut().entry(CACHE_STATUS).or_insert_with(|| cache_status(&exchange));
    exchange.set_status(response.status());
    response.map(|body| body.accounted(exchange))
}

/// Answers a request for a token.
async fn token(
    server: &Server,
    visit: &Visit<'_>,
    (clients, client): (&Clients, IpAddr),
    body: Incoming,
    exchange: &mut Exchange,
) -> Result<Response<Body>, Problem> {
    exchange.is_for(Handler::Token);
    turn(server, clients, client).await?;
    let (principal, response) = token::answer(visit, body).await?;
    exchange.is_by(&principal);
    Ok(response)
}

/// Routes the request, lets it in and answers it.
async fn asked(
    server: &Server,
    visit: &Visit<'_>,
    (clients, client): (&Clients, IpAddr),
    body: Incoming,
    exchange: &mut Exchange,
) -> Result<Response<Body>, Problem> {
    let Visit { directory, request, .. } = *visit;
    let asked = routed(directory, request);
    note(directory, &asked, exchange);
    let admitted = visit.admit(&asked).await.inspect_err(|_| {
        if request.headers.contains_key(AUTHORIZATION) {
            exchange.is_refused();
        }
    })?;
    exchange.is_by(&admitted.principal);
    match asked {
        Ok(Route::Base) => Ok(base()),
        Ok(Route::Question(question)) => {
            let upstream = directory.upstream(&question.upstream).ok_or_else(Problem::unknown_upstream)?;
            if is_our_own(server, request) {
                return Err(Problem::in_a_circle(&question));
            }
            turn(server, clients, client).await?;
            visit.turn(&admitted.principal).await.map_err(|wait| too_fast(server, wait))?;
            let routed = Routed {
                server,
                visit,
                directory,
                upstream,
                request,
                question: &question,
                authorization: admitted.authorization.as_ref(),
                principal: &admitted.principal,
                client: who(&admitted.principal, visit.client),
                is_head: request.method == Method::HEAD,
            };
            answer(&routed, body, exchange).await.map(|response| with_namespace(response, &question))
        }
        Err(refusal) => Err(Problem::of_refusal(&refusal)),
    }
}

/// Returns who is one client: a principal, or an address of which nobody is known.
fn who(principal: &Principal, address: IpAddr) -> Client {
    if principal.is_anonymous() { Client::of(&address) } else { Client::of(principal) }
}

/// Notes in the account what the request is about.
fn note(directory: &Directory, asked: &Result<Route, Refusal>, exchange: &mut Exchange) {
    match asked {
        Ok(Route::Base) => exchange.is_for(Handler::Ping),
        Ok(Route::Question(question)) => {
            if let Some(upstream) = directory.upstream(&question.upstream) {
                exchange.is_about(handler(&question.endpoint), question, upstream.metrics());
            }
        }
        Err(_) => {}
    }
}

async fn turn(server: &Server, clients: &Clients, client: IpAddr) -> Result<(), Problem> {
    clients.turn(client).await.map_err(|wait| too_fast(server, wait))
}

fn too_fast(server: &Server, wait: Duration) -> Problem {
    server.metrics.http().shed(Shed::Quota);
    Problem::too_fast(wait)
}

fn routed(directory: &Directory, request: &Parts) -> Result<Route, Refusal> {
    // The parser has refused requests without a path, except for `*` and authority forms, which no route has.
    let target = request.uri.path_and_query().map_or("", |target| target.as_str());
    route(&directory.table, &request.method, target, heads::host(request))
}

/// Answers a question: a write takes as long as its body moves, anything else the header budget at the most.
async fn answer(routed: &Routed<'_>, body: Incoming, exchange: &mut Exchange) -> Result<Response<Body>, Problem> {
    if writes::is_write(&routed.request.method, &routed.question.endpoint) {
        return writes::answer(routed, body, exchange).await;
    }
    // What the client's turn took is of the same budget.
    let left = HEADER_BUDGET.saturating_sub(exchange.elapsed());
    let answered = timeout(left, ask(routed, exchange)).await;
    answered.unwrap_or_else(|_elapsed| Err(Problem::too_slow(routed.question)))
}

/// P-119: an upstream that leads to ourselves would be asked for ever.
fn is_our_own(server: &Server, request: &Parts) -> bool {
    lines(&request.headers, &VIA).flat_map(|line| line.split(',')).any(|by| by.trim() == server.options.via)
}

async fn ask(routed: &Routed<'_>, exchange: &mut Exchange) -> Result<Response<Body>, Problem> {
    // Boxed: what is everybody's must not carry the room for it.
    let view = if routed.upstream.has_callers() { Box::pin(admission::admitted(routed)).await? } else { None };
    let routed = &Routed { upstream: view.as_ref().unwrap_or(routed.upstream), ..*routed };
    match &routed.question.endpoint {
        Endpoint::Manifest(reference) => manifests::answer(routed, reference, exchange).await,
        Endpoint::Blob(digest) => blobs::answer(routed, digest, exchange).await,
        Endpoint::Tags => tags::answer(routed, exchange).await,
        Endpoint::Referrers(subject) => referrers::answer(routed, subject, exchange).await,
        Endpoint::Uploads | Endpoint::Upload(_) => Err(Problem::of_refusal(&Refusal::MethodNotAllowed)),
    }
}

/// P-147: says why the answer is what it is, also where it is a refusal.
fn cache_status(exchange: &Exchange) -> HeaderValue {
    exchange
        .outcome()
        .map_or(HeaderValue::from_static("cachalot; detail=local"), |outcome| cache_status_header(outcome, None))
}

/// P-16, P-17: answered here, and with yes to whom the door lets in.
fn base() -> Response<Body> {
    let mut response = Response::new(Body::full("{}".into()));
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("2"));
    response
}

fn with_namespace(mut response: Response<Body>, question: &Question) -> Response<Body> {
    // It was parsed as a host name: it is a header value.
    if let Some(value) = question.namespace.as_deref().and_then(|ns| HeaderValue::from_str(ns).ok()) {
        response.headers_mut().insert(OCI_NAMESPACE, value);
    }
    response
}

fn handler(endpoint: &Endpoint) -> Handler {
    match endpoint {
        Endpoint::Manifest(_) => Handler::Manifests,
        Endpoint::Blob(_) | Endpoint::Uploads | Endpoint::Upload(_) => Handler::Blobs,
        Endpoint::Tags => Handler::Tags,
        Endpoint::Referrers(_) => Handler::Referrers,
    }
}
