//! What happens for, with and by one upstream.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::families::{Families, Grid, words};
use super::http::code;
use crate::telemetry::labels::{
    Admission, FillEnd, Kind, MismatchSource, Prefetched, Revalidation, StaleReason, Trigger,
};
use crate::wire::{Outcome, Quota};

/// Seconds, to the response head.
const UPSTREAM_BUCKETS: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0];

/// Seconds, for a whole fill.
const FILL_BUCKETS: &[f64] = &[0.05, 0.2, 1.0, 5.0, 20.0, 60.0, 300.0, 1200.0, 3600.0];

/// Seconds, for a place; a fill waits for five at the most.
const QUEUE_BUCKETS: &[f64] = &[0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0];

/// The reasons of failed and repeated upstream requests: the words that the upstream's errors have.
const ERROR_REASONS: [&str; 10] =
    ["dns", "connect", "tls", "timeout", "auth", "rate_limited", "http_4xx", "http_5xx", "truncated", "protocol"];

/// Why a request is sent once more without an error that was told: a pooled connection turned out to be closed.
const STALE_CONNECTION: &str = "stale_connection";

/// What upstreams are asked about today.
const ASKED: [Kind; 5] = [Kind::ManifestTag, Kind::ManifestDigest, Kind::Blob, Kind::Tags, Kind::Referrers];

/// The ends of token requests.
const TOKEN_RESULTS: [&str; 3] = ["ok", "refused", "error"];

/// The series of one upstream.
#[derive(Debug)]
pub struct UpstreamMetrics {
    label: String,
    requests: Grid<IntCounter>,
    served_bytes: Grid<IntCounter>,
    fetched_bytes: Grid<IntCounter>,
    stale: Grid<IntCounter>,
    revalidations: Grid<IntCounter>,
    admissions: Grid<IntCounter>,
    fills: IntCounterVec,
    fills_in_flight: IntGauge,
    fill_followers: IntGauge,
    fill_duration: Histogram,
    fill_queue_wait: Histogram,
    prefetched: Grid<IntCounter>,
    mismatches: Grid<IntCounter>,
    answers: IntCounterVec,
    answer_duration: HistogramVec,
    errors: IntCounterVec,
    retries: IntCounterVec,
    tokens: IntCounterVec,
    available: IntGauge,
    capable: IntGaugeVec,
    quota: QuotaGauges,
}

/// What the upstream leaves us, once it has told.
#[derive(Debug, Clone)]
struct QuotaGauges {
    limit: IntGaugeVec,
    remaining: IntGaugeVec,
    window: IntGaugeVec,
}

/// The families that all upstreams share.
#[derive(Debug)]
pub(super) struct Shared {
    requests: IntCounterVec,
    served_bytes: IntCounterVec,
    fetched_bytes: IntCounterVec,
    stale: IntCounterVec,
    revalidations: IntCounterVec,
    admissions: IntCounterVec,
    fills: IntCounterVec,
    fills_in_flight: IntGaugeVec,
    fill_followers: IntGaugeVec,
    fill_duration: HistogramVec,
    fill_queue_wait: Histogram,
    prefetched: IntCounterVec,
    mismatches: IntCounterVec,
    answers: IntCounterVec,
    answer_duration: HistogramVec,
    errors: IntCounterVec,
    retries: IntCounterVec,
    tokens: IntCounterVec,
    available: IntGaugeVec,
    capable: IntGaugeVec,
    quota: QuotaGauges,
}

impl Shared {
    pub(super) fn new(make: &Families<'_>) -> prometheus::Result<Self> {
        let by_result = ["upstream", "kind", "result"];
        Ok(Self {
            requests: make.counters(
                "cache_requests_total",
                "Questions to the cache by how they were answered.",
                &by_result,
            )?,
            served_bytes: make.counters("cache_served_bytes_total", "Bytes handed to clients.", &by_result)?,
            fetched_bytes: make.counters(
                "upstream_fetched_bytes_total",
                "Bytes received from upstreams.",
                &["upstream", "kind", "trigger"],
            )?,
            stale: make.counters("stale_served_total", "Stale answers by reason.", &["upstream", "reason"])?,
            revalidations: make.counters(
                "revalidations_total",
                "Questions to upstreams about tags, first ones included: changed is a tag that was not known, or has moved.",
                &["upstream", "result"],
            )?,
            admissions: make.counters(
                "access_decisions_total",
                "Callers let in to repositories that are for callers, or not: allowed is asked for, cached remembered.",
                &["upstream", "result"],
            )?,
            fills: make.counters("fills_total", "Ended fills.", &["upstream", "kind", "trigger", "result"])?,
            fills_in_flight: make.gauges("fills_in_flight", "Fills under way.", &["upstream"])?,
            fill_followers: make.gauges("fill_followers", "Bodies that follow a fill now.", &["upstream"])?,
            fill_duration: make.histograms("fill_duration_seconds", "How long fills take.", &["kind"], FILL_BUCKETS)?,
            fill_queue_wait: make.histogram(
                "fill_queue_wait_seconds",
                "How long fills wait for a place among those that may run at once.",
                QUEUE_BUCKETS,
            )?,
            prefetched: make.counters(
                "prefetch_images_total",
                "Images whose config or layers were fetched ahead of the client, where not all of it was there.",
                &["result"],
            )?,
            mismatches: make.counters(
                "digest_mismatches_total",
                "Bytes that did not match their digest; none became complete. Must be 0.",
                &["upstream", "kind", "source"],
            )?,
            answers: make.counters(
                "upstream_requests_total",
                "Answers of upstreams.",
                &["upstream", "kind", "code"],
            )?,
            answer_duration: make.histograms(
                "upstream_request_duration_seconds",
                "From asking an upstream to its response head.",
                &["upstream", "kind"],
                UPSTREAM_BUCKETS,
            )?,
            errors: make.counters(
                "upstream_errors_total",
                "Failed questions to upstreams.",
                &["upstream", "reason"],
            )?,
            retries: make.counters(
                "upstream_retries_total",
                "Repeated and resumed requests.",
                &["upstream", "reason"],
            )?,
            tokens: make.counters("upstream_token_requests_total", "Token requests.", &["upstream", "result"])?,
            available: make.gauges(
                "upstream_available",
                "0 while all endpoints fail and are left alone, else 1.",
                &["upstream"],
            )?,
            capable: make.gauges(
                "upstream_capable",
                "1 for what the upstream was seen to do, 0 for what it was seen not to; no series while that is not known.",
                &["upstream", "capability"],
            )?,
            quota: QuotaGauges::new(make)?,
        })
    }
}

impl QuotaGauges {
    fn new(make: &Families<'_>) -> prometheus::Result<Self> {
        let of_upstream = |name, help| make.gauges(name, help, &["upstream"]);
        Ok(Self {
            limit: of_upstream(
                "upstream_rate_limit_quota",
                "Requests that the upstream allows us; no series while it does not tell.",
            )?,
            remaining: of_upstream(
                "upstream_rate_limit_remaining",
                "Requests that are left of our quota; no series while the upstream does not tell.",
            )?,
            window: of_upstream("upstream_rate_limit_window_seconds", "The time that the quota is for.")?,
        })
    }
}

impl UpstreamMetrics {
    /// Makes the series of one upstream, all at 0.
    pub(super) fn new(shared: &Shared, label: &str) -> Self {
        let kinds = words!(Kind);
        let grid = |family: &IntCounterVec, columns: &[&str]| {
            Grid::new(kinds, columns, |kind, column| family.with_label_values(&[label, kind, column]))
        };
        let row = |family: &IntCounterVec, columns: &[&str]| {
            Grid::new(&[""], columns, |_, column| family.with_label_values(&[label, column]))
        };
        let metrics = Self {
            label: label.to_owned(),
            requests: grid(&shared.requests, words!(Outcome)),
            served_bytes: grid(&shared.served_bytes, words!(Outcome)),
            fetched_bytes: grid(&shared.fetched_bytes, words!(Trigger)),
            mismatches: grid(&shared.mismatches, words!(MismatchSource)),
            stale: row(&shared.stale, words!(StaleReason)),
            revalidations: row(&shared.revalidations, words!(Revalidation)),
            admissions: row(&shared.admissions, words!(Admission)),
            fills: shared.fills.clone(),
            fills_in_flight: shared.fills_in_flight.with_label_values(&[label]),
            fill_followers: shared.fill_followers.with_label_values(&[label]),
            fill_duration: shared.fill_duration.with_label_values(&[Kind::Blob.as_str()]),
            fill_queue_wait: shared.fill_queue_wait.clone(),
            prefetched: Grid::new(&[""], words!(Prefetched), |_, result| {
                shared.prefetched.with_label_values(&[result])
            }),
            answers: shared.answers.clone(),
            answer_duration: shared.answer_duration.clone(),
            errors: shared.errors.clone(),
            retries: shared.retries.clone(),
            tokens: shared.tokens.clone(),
            available: shared.available.with_label_values(&[label]),
            capable: shared.capable.clone(),
            quota: shared.quota.clone(),
        };
        metrics.begin_at_zero();
        metrics
    }

    fn begin_at_zero(&self) {
        let label = self.label.as_str();
        self.available.set(1);
        for reason in ERROR_REASONS {
            self.errors.with_label_values(&[label, reason]);
            self.retries.with_label_values(&[label, reason]);
        }
        self.retries.with_label_values(&[label, STALE_CONNECTION]);
        for kind in ASKED {
            self.answers.with_label_values(&[label, kind.as_str(), "200"]);
            self.answer_duration.with_label_values(&[label, kind.as_str()]);
        }
        for result in TOKEN_RESULTS {
            self.tokens.with_label_values(&[label, result]);
        }
        for trigger in Trigger::ALL {
            for end in FillEnd::ALL {
                self.fills.with_label_values(&[label, Kind::Blob.as_str(), trigger.as_str(), end.as_str()]);
            }
        }
    }

    /// Counts a question to the cache by how it was answered.
    pub fn requested(&self, kind: Kind, outcome: Outcome) {
        self.requests.add(kind as usize, outcome as usize, 1);
    }

    /// Counts bytes handed to a client.
    pub fn served(&self, kind: Kind, outcome: Outcome, bytes: u64) {
        self.served_bytes.add(kind as usize, outcome as usize, bytes);
    }

    /// Counts bytes received from the upstream.
    pub fn fetched(&self, kind: Kind, trigger: Trigger, bytes: u64) {
        self.fetched_bytes.add(kind as usize, trigger as usize, bytes);
    }

    pub fn stale(&self, reason: StaleReason) {
        self.stale.add(0, reason as usize, 1);
    }

    pub fn revalidated(&self, result: Revalidation) {
        self.revalidations.add(0, result as usize, 1);
    }

    /// Counts somebody who was let in, or not.
    pub fn admission(&self, how: Admission) {
        self.admissions.add(0, how as usize, 1);
    }

    pub fn mismatch(&self, kind: Kind, source: MismatchSource) {
        self.mismatches.add(kind as usize, source as usize, 1);
    }

    /// Counts the end of a blob's fill; manifests are small questions, not fills.
    pub fn fill_ended(&self, trigger: Trigger, end: FillEnd, elapsed: Duration) {
        self.fills.with_label_values(&[&self.label, Kind::Blob.as_str(), trigger.as_str(), end.as_str()]).inc();
        self.fill_duration.observe(elapsed.as_secs_f64());
    }

    /// Notes how long a fill has waited for its place, whether or not it got one.
    pub fn fill_waited(&self, waited: Duration) {
        self.fill_queue_wait.observe(waited.as_secs_f64());
    }

    /// Counts an image of which something was fetched ahead.
    pub fn prefetched(&self, end: Prefetched) {
        self.prefetched.add(0, end as usize, 1);
    }

    pub fn fills_in_flight(&self) -> &IntGauge {
        &self.fills_in_flight
    }

    pub fn fill_followers(&self) -> &IntGauge {
        &self.fill_followers
    }

    /// Counts an answer of the upstream; `elapsed` runs to its response head.
    pub fn upstream_answered(&self, kind: Kind, status: u16, elapsed: Duration) {
        let mut digits = [0; 3];
        self.answers.with_label_values(&[&self.label, kind.as_str(), code(status, &mut digits)]).inc();
        self.answer_duration.with_label_values(&[&self.label, kind.as_str()]).observe(elapsed.as_secs_f64());
    }

    /// Counts a failed question to the upstream by the closed word of its error.
    pub fn upstream_failed(&self, reason: &'static str) {
        self.errors.with_label_values(&[self.label.as_str(), reason]).inc();
    }

    /// Counts a repeated or resumed request by the closed word of what went before.
    pub fn retried(&self, reason: &'static str) {
        self.retries.with_label_values(&[self.label.as_str(), reason]).inc();
    }

    /// Counts a token request: `ok` or `error`.
    pub fn token(&self, result: &'static str) {
        self.tokens.with_label_values(&[self.label.as_str(), result]).inc();
    }

    /// Notes whether any endpoint is to be asked.
    pub fn set_available(&self, is_available: bool) {
        self.available.set(i64::from(is_available));
    }

    /// Notes that the upstream is configured no more: nothing is the matter with it, and nothing is known of it.
    pub fn retire(&self) {
        self.set_available(true);
        let QuotaGauges { limit, remaining, window } = &self.quota;
        for told in [limit, remaining, window] {
            // There may have been none.
            drop(told.remove_label_values(&[self.label.as_str()]));
        }
    }

    /// Notes whether the upstream has a capability; `None` when that is not known.
    pub fn set_capable(&self, capability: &'static str, is_there: Option<bool>) {
        let labels = [self.label.as_str(), capability];
        match is_there {
            Some(is_there) => self.capable.with_label_values(&labels).set(i64::from(is_there)),
            // There may have been none.
            None => drop(self.capable.remove_label_values(&labels)),
        }
    }

    /// Notes what the upstream leaves us; what it never tells has no series.
    pub fn set_quota(&self, quota: Quota) {
        let set = |gauge: &IntGaugeVec, value: u64| {
            gauge.with_label_values(&[self.label.as_str()]).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.quota.limit, quota.limit);
        set(&self.quota.remaining, quota.remaining);
        if let Some(window) = quota.window {
            set(&self.quota.window, window.as_secs());
        }
    }
}
