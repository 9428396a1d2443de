//! The account of one exchange: one access line and the counters, on every ending of its body.
//!
//! The account is closed by dropping it, which happens however the exchange ends: done, failed, or client gone.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};

use crate::identity::Principal;
use crate::oci::Question;
use crate::telemetry::{Handler, Kind, Metrics, UpstreamMetrics};
use crate::wire::Outcome;

/// What is known of an exchange so far.
#[derive(Debug)]
pub(super) struct Exchange {
    metrics: Arc<Metrics>,
    began: Instant,
    log: bool,
    client: IpAddr,
    method: Method,
    /// Without the query (S-40).
    path: String,
    /// Who asks, once that is known.
    principal: Option<Cow<'static, str>>,
    /// What was shown is not good.
    is_refused: bool,
    handler: Handler,
    pub(super) request_id: RequestId,
    question: Option<Question>,
    upstream: Option<Arc<UpstreamMetrics>>,
    answer: Option<(Kind, Outcome)>,
    status: StatusCode,
    /// Why it failed, with what clients are not told.
    reason: Option<Box<str>>,
    sent_bytes: u64,
    ending: Ending,
    // Held, not read: its drop counts the exchange out.
    in_flight: InFlight,
}

type InFlight = crate::telemetry::InFlight;

/// What log lines and error answers of one exchange have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestId(u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// How the body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Not at all: the client left.
    Left,
    Complete,
    /// Visibly short, by our doing.
    Failed,
}

impl Exchange {
    pub(super) fn begin(metrics: &Arc<Metrics>, log: bool, client: IpAddr, method: Method, path: &str) -> Self {
        let handler = Handler::Other;
        Self {
            metrics: Arc::clone(metrics),
            began: Instant::now(),
            log,
            client,
            method,
            path: path.to_owned(),
            principal: None,
            is_refused: false,
            handler,
            request_id: RequestId(fastrand::u64(..)),
            question: None,
            upstream: None,
            answer: None,
            status: StatusCode::OK,
            reason: None,
            sent_bytes: 0,
            ending: Ending::Left,
            in_flight: metrics.http().began(handler),
        }
    }

    /// Notes who answers.
    pub(super) fn is_for(&mut self, handler: Handler) {
        self.handler = handler;
        self.in_flight = self.metrics.http().began(handler);
    }

    /// Notes who answers, and what the exchange is about.
    pub(super) fn is_about(&mut self, handler: Handler, question: &Question, upstream: &Arc<UpstreamMetrics>) {
        self.is_for(handler);
        self.question = Some(question.clone());
        self.upstream = Some(Arc::clone(upstream));
    }

    /// Returns how long ago the request came.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Notes who asks.
    pub(super) fn is_by(&mut self, principal: &Principal) {
        self.principal = Some(match principal {
            Principal::Anonymous => Cow::Borrowed("anonymous"),
            known => Cow::Owned(known.to_string()),
        });
    }

    /// Notes that somebody has shown what does not let them in.
    pub(super) fn is_refused(&mut self) {
        self.is_refused = true;
    }

    /// Notes how the answer came about.
    pub(super) fn answered(&mut self, kind: Kind, outcome: Outcome) {
        self.answer = Some((kind, outcome));
    }

    pub(super) fn outcome(&self) -> Option<Outcome> {
        self.answer.map(|(_, outcome)| outcome)
    }

    pub(super) fn set_status(&mut self, status: StatusCode) {
        self.status = status;
    }

    /// Notes why there is no answer.
    pub(super) fn is_for_reason(&mut self, reason: Option<Box<str>>) {
        self.reason = reason;
    }

    /// Notes bytes handed to the connection.
    pub(super) fn sent(&mut self, bytes: usize) {
        if self.sent_bytes == 0 {
            self.first_byte();
        }
        self.sent_bytes += bytes as u64;
    }

    /// Notes the end of the body: with its last frame, not with a next poll that may never come.
    pub(super) fn completed(&mut self) {
        self.ending = Ending::Complete;
    }

    /// Notes that the body ends visibly short.
    pub(super) fn failed(&mut self) {
        self.ending = Ending::Failed;
    }

    fn first_byte(&self) {
        if let Some((kind, outcome)) = self.answer {
            self.metrics.http().first_byte(kind, outcome, self.began.elapsed());
        }
    }

    fn write_line(&self) {
        // Thousands of nodes ask every few seconds whether anybody is there.
        let is_look = self.handler == Handler::Ping && !self.is_refused;
        if is_look && !tracing::enabled!(target: "cachalot::access", tracing::Level::DEBUG) {
            return;
        }
        let elapsed = self.began.elapsed();
        let question = self.question.as_ref();
        let upstream = question.map_or("-", |question| question.upstream.as_str());
        let repository = question.map_or("-", |question| question.repository.as_str());
        let outcome = self.answer.map_or("-", |(_, outcome)| outcome.as_str());
        let ending = match self.ending {
            Ending::Complete => "complete",
            Ending::Left => "client_left",
            Ending::Failed => "cut_short",
        };
        tracing::info!(
            target: "cachalot::access",
            { request.id = %self.request_id,
            client = %self.client,
            principal = self.principal.as_deref().unwrap_or("-"),
            http.status = self.status.as_u16(),
            cache.outcome = outcome,
            upstream.name = upstream,
            repo = repository,
            size_bytes = self.sent_bytes,
            elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            error = self.reason.as_deref(),
            ending },
            "{} {}", self.method, self.path
        );
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some((kind, outcome)) = self.answer {
            if let Some((upstream, question)) = self.upstream.as_ref().zip(self.question.as_ref()) {
                upstream.served(kind, outcome, self.sent_bytes);
                let Question { upstream, repository, .. } = question;
                let is_found = self.status.is_success() || self.status == StatusCode::NOT_MODIFIED;
                self.metrics.repository_served((upstream, repository), is_found, outcome, self.sent_bytes);
            }
            if self.ending == Ending::Left {
                self.metrics.http().disconnected(kind);
            }
        }
        self.metrics.http().finished(self.handler, &self.method, self.status.as_u16(), self.began.elapsed());
        if self.log {
            self.write_line();
        } else if let Some(error) = &self.reason {
            tracing::warn!(request.id = %self.request_id, error, "{} {} failed", self.method, self.path);
        }
    }
}
