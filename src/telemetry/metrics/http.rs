//! The data plane's side: requests, their duration, what clients felt.

use std::time::Duration;

use http::Method;
use prometheus::{HistogramVec, IntCounterVec, IntGauge, IntGaugeVec};

use super::families::Families;
use crate::telemetry::labels::{Handler, Kind};
use crate::wire::Outcome;

/// Seconds; from a hit on a manifest to a large layer over a slow line.
const DURATION_BUCKETS: &[f64] = &[0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0, 60.0, 300.0, 600.0];

/// Seconds; from memory to the limit at which clients give up.
const FIRST_BYTE_BUCKETS: &[f64] = &[0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0];

const METHODS: [&str; 3] = ["get", "head", "other"];

/// The metrics of the data plane.
#[derive(Debug)]
pub struct HttpMetrics {
    requests: IntCounterVec,
    in_flight: IntGaugeVec,
    duration: HistogramVec,
    first_byte: HistogramVec,
    disconnects: IntCounterVec,
}

/// A request under way; dropping it counts it out.
#[derive(Debug)]
pub struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl HttpMetrics {
    pub(super) fn new(families: &Families<'_>) -> prometheus::Result<Self> {
        let requests = families.counters(
            "http_requests_total",
            "Requests by handler, method and status.",
            &["handler", "method", "code"],
        )?;
        let in_flight = families.gauges("http_requests_in_flight", "Requests being served now.", &["handler"])?;
        let duration = families.histograms(
            "http_request_duration_seconds",
            "From the request head to the end of the body.",
            &["handler", "method"],
            DURATION_BUCKETS,
        )?;
        let first_byte = families.histograms(
            "http_time_to_first_byte_seconds",
            "From the request head to the first byte of the body.",
            &["kind", "result"],
            FIRST_BYTE_BUCKETS,
        )?;
        let disconnects =
            families.counters("client_disconnects_total", "Clients that left before the end of a body.", &["kind"])?;
        for handler in Handler::ALL {
            in_flight.with_label_values(&[handler.as_str()]);
            for method in METHODS {
                requests.with_label_values(&[handler.as_str(), method, "200"]);
                duration.with_label_values(&[handler.as_str(), method]);
            }
        }
        for kind in Kind::ALL {
            disconnects.with_label_values(&[kind.as_str()]);
            for outcome in Outcome::ALL {
                first_byte.with_label_values(&[kind.as_str(), outcome.as_str()]);
            }
        }
        Ok(Self { requests, in_flight, duration, first_byte, disconnects })
    }

    /// Counts a request in; the guard counts it out.
    pub fn began(&self, handler: Handler) -> InFlight {
        let gauge = self.in_flight.with_label_values(&[handler.as_str()]);
        gauge.inc();
        InFlight(gauge)
    }

    /// Counts a finished exchange.
    pub fn finished(&self, handler: Handler, method: &Method, status: u16, elapsed: Duration) {
        let method = match *method {
            Method::GET => "get",
            Method::HEAD => "head",
            _ => "other",
        };
        let mut digits = [0; 3];
        self.requests.with_label_values(&[handler.as_str(), method, code(status, &mut digits)]).inc();
        self.duration.with_label_values(&[handler.as_str(), method]).observe(elapsed.as_secs_f64());
    }

    pub fn first_byte(&self, kind: Kind, outcome: Outcome, elapsed: Duration) {
        self.first_byte.with_label_values(&[kind.as_str(), outcome.as_str()]).observe(elapsed.as_secs_f64());
    }

    /// Counts a client that left before the end.
    pub fn disconnected(&self, kind: Kind) {
        self.disconnects.with_label_values(&[kind.as_str()]).inc();
    }
}

/// Writes a status into `digits`, without allocating.
pub(super) fn code(status: u16, digits: &mut [u8; 3]) -> &str {
    // A digit is below 10.
    let digit = |value: u16| b'0' + u8::try_from(value % 10).unwrap_or(0);
    *digits = [digit(status / 100), digit(status / 10), digit(status)];
    std::str::from_utf8(digits).unwrap_or("000")
}
