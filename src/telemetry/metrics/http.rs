//! The data plane's side: requests, their duration, what clients felt.

use std::sync::OnceLock;
use std::time::Duration;

use http::Method;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use super::families::{Families, Grid, words};
use crate::telemetry::labels::{ConnectionShed, Handler, Handshake, Kind, Shed};
use crate::wire::Outcome;

/// Seconds; from a hit on a manifest to a large layer over a slow line.
const DURATION_BUCKETS: &[f64] = &[0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0, 60.0, 300.0, 600.0];

/// Seconds; from memory to the limit at which clients give up.
const FIRST_BYTE_BUCKETS: &[f64] = &[0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0];

/// The words for methods; [`method_place`] tells the place of each.
const METHODS: [&str; 3] = ["get", "head", "other"];

/// The statuses whose series are found without a look-up by text.
const STATUSES: [u16; 10] = [200, 206, 304, 400, 403, 404, 416, 502, 503, 504];

/// The metrics of the data plane.
#[derive(Debug)]
pub struct HttpMetrics {
    requests: IntCounterVec,
    /// The series of `requests` for each handler and method, and therein for each of [`STATUSES`], once one was seen.
    by_status: Grid<[OnceLock<IntCounter>; STATUSES.len()]>,
    in_flight: Grid<IntGauge>,
    duration: Grid<Histogram>,
    first_byte: Grid<Histogram>,
    disconnects: Grid<IntCounter>,
    shed: Grid<IntCounter>,
    connections: IntGauge,
    connections_shed: Grid<IntCounter>,
    handshakes: Grid<IntCounter>,
}

/// A request or a connection under way; dropping it counts it out.
#[derive(Debug)]
pub struct InFlight(Option<IntGauge>);

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(gauge) = &self.0 {
            gauge.dec();
        }
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
        let shed = families.counters("http_requests_shed_total", "Requests sent away for our limits.", &["reason"])?;
        let connections = families.gauge("http_connections_in_flight", "Connections of clients now.")?;
        let connections_shed = families.counters(
            "http_connections_shed_total",
            "Connections of clients that were ended for our limits.",
            &["reason"],
        )?;
        let handshakes =
            families.counters("tls_handshakes_total", "TLS handshakes with clients by how they ended.", &["result"])?;
        for handler in Handler::ALL {
            for method in METHODS {
                requests.with_label_values(&[handler.as_str(), method, "200"]);
            }
        }
        let handlers = words!(Handler);
        Ok(Self {
            by_status: Grid::new(handlers, &METHODS, |_, _| Default::default()),
            in_flight: Grid::new(handlers, &[""], |handler, _| in_flight.with_label_values(&[handler])),
            duration: Grid::new(handlers, &METHODS, |handler, method| duration.with_label_values(&[handler, method])),
            first_byte: Grid::new(words!(Kind), words!(Outcome), |kind, result| {
                first_byte.with_label_values(&[kind, result])
            }),
            disconnects: Grid::new(words!(Kind), &[""], |kind, _| disconnects.with_label_values(&[kind])),
            shed: Grid::new(&[""], words!(Shed), |_, reason| shed.with_label_values(&[reason])),
            connections,
            connections_shed: Grid::new(&[""], words!(ConnectionShed), |_, reason| {
                connections_shed.with_label_values(&[reason])
            }),
            handshakes: Grid::new(&[""], words!(Handshake), |_, result| handshakes.with_label_values(&[result])),
            requests,
        })
    }

    /// Counts a request in; the guard counts it out.
    pub fn began(&self, handler: Handler) -> InFlight {
        let gauge = self.in_flight.at(handler as usize, 0).cloned();
        InFlight(gauge.inspect(IntGauge::inc))
    }

    /// Counts a finished exchange.
    pub fn finished(&self, handler: Handler, method: &Method, status: u16, elapsed: Duration) {
        let method = method_place(method);
        let place = STATUSES.iter().position(|known| *known == status);
        let known = self.by_status.at(handler as usize, method).zip(place);
        match known.and_then(|(statuses, place)| statuses.get(place)) {
            Some(series) => series.get_or_init(|| self.of_status(handler, method, status)).inc(),
            None => self.of_status(handler, method, status).inc(),
        }
        if let Some(duration) = self.duration.at(handler as usize, method) {
            duration.observe(elapsed.as_secs_f64());
        }
    }

    pub fn first_byte(&self, kind: Kind, outcome: Outcome, elapsed: Duration) {
        if let Some(first_byte) = self.first_byte.at(kind as usize, outcome as usize) {
            first_byte.observe(elapsed.as_secs_f64());
        }
    }

    /// Counts a request that is sent away.
    pub fn shed(&self, reason: Shed) {
        self.shed.add(0, reason as usize, 1);
    }

    /// Counts a connection in; the guard counts it out.
    pub fn connected(&self) -> InFlight {
        self.connections.inc();
        InFlight(Some(self.connections.clone()))
    }

    /// Counts a connection that is ended, or not begun.
    pub fn connection_shed(&self, reason: ConnectionShed) {
        self.connections_shed.add(0, reason as usize, 1);
    }

    /// Counts a TLS handshake.
    pub fn handshake(&self, result: Handshake) {
        self.handshakes.add(0, result as usize, 1);
    }

    /// Counts a client that left before the end.
    pub fn disconnected(&self, kind: Kind) {
        self.disconnects.add(kind as usize, 0, 1);
    }

    fn of_status(&self, handler: Handler, method: usize, status: u16) -> IntCounter {
        let method = METHODS.get(method).copied().unwrap_or_default();
        self.requests.with_label_values(&[handler.as_str(), method, code(status, &mut [0; 3])])
    }
}

fn method_place(method: &Method) -> usize {
    match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        _ => 2,
    }
}

/// Writes a status into `digits`, without allocating.
pub(super) fn code(status: u16, digits: &mut [u8; 3]) -> &str {
    // A digit is below 10.
    let digit = |value: u16| b'0' + u8::try_from(value % 10).unwrap_or(0);
    *digits = [digit(status / 100), digit(status / 10), digit(status)];
    std::str::from_utf8(digits).unwrap_or("000")
}
