//! One request: routed, asked of the cache, answered, accounted.

use http::header::{AUTHORIZATION, CONTENT_LENGTH, VIA};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::access_log::Exchange;
use super::body::Body;
use super::headers::{API_VERSION, CACHE_STATUS, OCI_NAMESPACE, lines};
use super::limits::HEADER_BUDGET;
use super::peer::Peer;
use super::respond::Problem;
use super::routed::Routed;
use super::{Directory, Server, blobs, heads, manifests, referrers, tags, writes};
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
    let directory = server.directory.load_full();
    let answered = match heads::check(&request).and_then(|()| routed(&directory, &request)) {
        Ok(Route::Base) => {
            exchange.is_for(Handler::Ping);
            Ok(base())
        }
        Ok(Route::Question(question)) => match directory.upstream(&question.upstream) {
            Some(upstream) => {
                exchange.is_about(handler(&question.endpoint), &question, upstream.metrics());
                let routed = Routed {
                    server,
                    directory: &directory,
                    upstream,
                    request: &request,
                    question: &question,
                    authorization: request.headers.get(AUTHORIZATION),
                    is_head,
                };
                let answered = match clients.turn(client).await {
                    _ if is_our_own(server, &request) => Err(Problem::in_a_circle(&question)),
                    Ok(()) => answer(&routed, body, &mut exchange).await,
                    Err(wait) => {
                        server.metrics.http().shed(Shed::Quota);
                        Err(Problem::too_fast(wait))
                    }
                };
                answered.map(|response| with_namespace(response, &question))
            }
            None => Err(Problem::unknown_upstream()),
        },
        Err(problem) => Err(problem),
    };
    let mut response = answered.unwrap_or_else(|problem| problem.into_response(exchange.request_id, is_head));
    response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    response.headers_mut().entry(CACHE_STATUS).or_insert_with(|| cache_status(&exchange));
    exchange.set_status(response.status());
    response.map(|body| body.accounted(exchange))
}

fn routed(directory: &Directory, request: &Parts) -> Result<Route, Problem> {
    // The parser has refused requests without a path, except for `*` and authority forms, which no route has.
    let target = request.uri.path_and_query().map_or("", |target| target.as_str());
    route(&directory.table, &request.method, target, heads::host(request))
        .map_err(|refusal| Problem::of_refusal(&refusal))
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

/// P-16, P-17: answered here, and always with yes.
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
