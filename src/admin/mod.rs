//! The control plane: health and metrics, on a listener of its own (S-42).
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 while the process answers at all |
//! | `/readyz` | 200 when clients should come, 503 while starting or draining; JSON with the details |
//! | `/metrics` | Prometheus text |
//!
//! With identities of its own, everything but the two probes is for those who are known.

mod health;

use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

pub use health::{Readiness, State};

use crate::identity::{Credential, Foreign, Identities, Known, Refused};
use crate::tasks::TaskGroup;
use crate::telemetry::{AuthFailure, Handler, Metrics};

/// How long a request head may take here, and how long a connection may idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the control plane shows.
pub struct Admin {
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<Readiness>,
    /// Who may see more than the probes; `None` is everybody.
    pub identities: ArcSwapOption<Identities>,
    /// Brings gauges up to date; called before the metrics are read. It must not wait for the disk.
    pub refresh: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("readiness", &self.readiness).finish_non_exhaustive()
    }
}

/// Serves `listener` until `stop`.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>, tasks: TaskGroup, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                tasks.spawn("admin connection", connection(stream, peer.ip(), Arc::clone(&admin), stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an admin connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: IpAddr, admin: Arc<Admin>, stop: CancellationToken) {
    let service = service_fn(move |request: Request<Incoming>| {
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(accounted(&admin, &request.into_parts().0, peer).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection ended early");
    }
}

/// Answers, and counts the exchange.
async fn accounted(admin: &Admin, request: &Parts, peer: IpAddr) -> Response<Full<Bytes>> {
    let (method, path) = (&request.method, request.uri.path());
    let (began, http) = (Instant::now(), admin.metrics.http());
    let handler = if matches!(path, "/livez" | "/readyz") { Handler::Health } else { Handler::Admin };
    let in_flight = http.began(handler);
    let response = match refusal(admin, handler, request, peer).await {
        Some(refusal) => refusal,
        None => answer(admin, method, path),
    };
    drop(in_flight);
    http.finished(handler, method, response.status().as_u16(), began.elapsed());
    response
}

/// Returns the answer to who may not see this. Probes ask nobody: an orchestrator has no password.
async fn refusal(admin: &Admin, handler: Handler, request: &Parts, peer: IpAddr) -> Option<Response<Full<Bytes>>> {
    let identities = admin.identities.load_full().filter(|_| handler != Handler::Health)?;
    let words = match Credential::read(&request.headers) {
        Ok(Some(credential)) => match identities.who(&credential, peer, Foreign::IsWrong).await {
            Ok(Known::Principal(_)) => return None,
            Err(Refused::TooOften { retry_after } | Refused::Busy { retry_after }) => {
                let mut response = text(StatusCode::TOO_MANY_REQUESTS, "too many credentials were wrong; wait\n");
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after.as_secs() + 1));
                return Some(response);
            }
            Ok(Known::Caller(_) | Known::Foreign) | Err(Refused::Wrong(_)) => "the credential is wrong\n",
        },
        Ok(None) => {
            identities.count(AuthFailure::Missing);
            "show a user and a password, or a token\n"
        }
        Err(_) => {
            identities.count(AuthFailure::Malformed);
            "Authorization is neither one Basic nor one Bearer credential\n"
        }
    };
    let mut response = text(StatusCode::UNAUTHORIZED, words);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"cachalot admin\""));
    Some(response)
}

fn answer(admin: &Admin, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if !matches!(path, "/livez" | "/readyz" | "/metrics") {
        return text(StatusCode::NOT_FOUND, "not found: try /livez, /readyz or /metrics\n");
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" => ready(&admin.readiness),
        _ => metrics(admin),
    }
}

fn ready(readiness: &Readiness) -> Response<Full<Bytes>> {
    let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    with_type(status, "application/json", readiness.to_json().into())
}

fn metrics(admin: &Admin) -> Response<Full<Bytes>> {
    (admin.refresh)();
    match admin.metrics.encode() {
        Ok(metrics) => with_type(StatusCode::OK, "text/plain; version=0.0.4", metrics.into()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("metrics cannot be encoded: {error}\n")),
    }
}

fn text(status: StatusCode, words: &str) -> Response<Full<Bytes>> {
    with_type(status, "text/plain; charset=utf-8", Bytes::copy_from_slice(words.as_bytes()))
}

fn with_type(status: StatusCode, content_type: &'static str, bytes: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{IdentityOptions, Lasting, Tokens};

    fn admin() -> Admin {
        Admin {
            metrics: Arc::new(Metrics::new(&[], 0).unwrap()),
            readiness: Arc::default(),
            identities: ArcSwapOption::empty(),
            refresh: Box::new(|| {}),
        }
    }

    async fn status(admin: &Admin, path: &str, authorization: Option<&str>) -> u16 {
        let mut request = Request::get(path);
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let (request, ()) = request.body(()).unwrap().into_parts();
        accounted(admin, &request, [192, 0, 2, 1].into()).await.status().as_u16()
    }

    #[test]
    fn readiness_follows_the_state_and_liveness_does_not() {
        let admin = admin();
        let status = |path: &str| answer(&admin, &Method::GET, path).status().as_u16();
        assert_eq!((status("/livez"), status("/readyz")), (200, 503));
        admin.readiness.set(State::Ready);
        assert_eq!((status("/livez"), status("/readyz")), (200, 200));
        admin.readiness.set(State::Draining);
        assert_eq!((status("/livez"), status("/readyz")), (200, 503));
    }

    #[tokio::test]
    async fn who_is_not_known_sees_the_probes_and_nothing_else() {
        let admin = admin();
        admin.readiness.set(State::Ready);
        let tokens = Some(Tokens::parse("prometheus:0123456789abcdef").unwrap());
        let options = IdentityOptions {
            htpasswd: None,
            tokens,
            token_keys: None,
            service_accounts: None,
            certificates: None,
            anonymous: false,
            token_life: Duration::from_mins(5),
            rules: Vec::new(),
        };
        let lasting = Arc::new(Lasting::new(Arc::clone(&admin.metrics), TaskGroup::new()));
        admin.identities.store(Some(Arc::new(Identities::new(options, lasting).unwrap())));
        for (path, authorization, expected) in [
            ("/livez", None, 200),
            ("/readyz", None, 200),
            ("/readyz", Some("Bearer wrong"), 200),
            ("/metrics", None, 401),
            ("/metrics", Some("Bearer wrong"), 401),
            ("/metrics", Some("Basic !"), 401),
            ("/metrics", Some("Bearer 0123456789abcdef"), 200),
            ("/metrics", Some("Basic cHJvbWV0aGV1czowMTIzNDU2Nzg5YWJjZGVm"), 200),
            ("/anything", None, 401),
            ("/anything", Some("Bearer 0123456789abcdef"), 404),
        ] {
            assert_eq!(status(&admin, path, authorization).await, expected, "{path} {authorization:?}");
        }
    }

    #[tokio::test]
    async fn probes_and_scrapes_are_counted_apart() {
        let admin = admin();
        status(&admin, "/readyz", None).await;
        status(&admin, "/metrics", None).await;
        let text = admin.metrics.encode().unwrap();
        for series in [
            r#"cachalot_http_requests_total{code="503",handler="health",method="get"} 1"#,
            r#"cachalot_http_requests_total{code="200",handler="admin",method="get"} 1"#,
        ] {
            assert!(text.contains(series), "{series} is missing in\n{text}");
        }
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        let admin = admin();
        assert_eq!(answer(&admin, &Method::GET, "/v2/").status(), StatusCode::NOT_FOUND);
        let refused = answer(&admin, &Method::POST, "/metrics");
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()[ALLOW]),
            (405, &HeaderValue::from_static("GET, HEAD"))
        );
        assert_eq!(answer(&admin, &Method::HEAD, "/metrics").status(), StatusCode::OK);
    }
}
