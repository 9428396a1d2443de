//! The metrics: every family of the catalogue that this program can feed, with all its series at 0 from the start.
//!
//! One [`Metrics`] is made at start and handed to who needs it; nothing is global. Handles are prebuilt: counting on a hot path
//! looks nothing up by text. Base units only (seconds, bytes); label values come from closed enums.

mod clients;
mod families;
mod http;
mod repositories;
mod storage;
mod upstream;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricType;
use prometheus::{IntGauge, IntGaugeVec, Registry, TextEncoder};

pub use clients::ClientMetrics;
pub use families::Family;
pub use http::{HttpMetrics, InFlight};
pub use storage::StorageMetrics;
pub use upstream::UpstreamMetrics;

use super::labels::{CertificateUse, Kind, MismatchSource};
use crate::oci::{RepositoryName, UpstreamName};
use crate::wire::Outcome;
use families::Families;
use repositories::Repositories;

/// The label of what comes from an upstream that is not known any more.
const OTHER: &str = "_other";

/// All metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    http: HttpMetrics,
    clients: ClientMetrics,
    storage: StorageMetrics,
    of_upstreams: upstream::Shared,
    // A plain mutex: held for a look-up, when an upstream is made.
    upstreams: Mutex<HashMap<UpstreamName, Arc<UpstreamMetrics>>>,
    other: UpstreamMetrics,
    repositories: Repositories,
    certificate_expiry: IntGaugeVec,
    catalogue: Vec<Family>,
    reload_ok: IntGauge,
    reloaded_at: IntGauge,
}

impl Metrics {
    /// Makes all families, with the series of `upstreams` at 0, and room for those of so many repositories.
    ///
    /// # Errors
    /// Only when two families have the same name, which is a bug.
    pub fn new(upstreams: &[UpstreamName], repositories_max: usize) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let families = Families::new(&registry);
        families.build_info()?;
        let process = ProcessCollector::for_self();
        let mut catalogue = of_process(&process);
        registry.register(Box::new(process))?;
        let of_upstreams = upstream::Shared::new(&families)?;
        let mut metrics = Self {
            http: HttpMetrics::new(&families)?,
            clients: ClientMetrics::new(&families)?,
            storage: StorageMetrics::new(&families)?,
            other: UpstreamMetrics::new(&of_upstreams, OTHER),
            of_upstreams,
            upstreams: Mutex::default(),
            repositories: Repositories::new(&families, repositories_max)?,
            certificate_expiry: families.gauges(
                "tls_certificate_expiry_timestamp_seconds",
                "When the first of our certificates expires; no series where there is none.",
                &["use"],
            )?,
            catalogue: Vec::new(),
            reload_ok: families.gauge(
                "config_last_reload_successful",
                "1 when the configuration was good when it was last read, else 0.",
            )?,
            reloaded_at: families
                .gauge("config_last_reload_success_timestamp_seconds", "When the configuration that holds was read.")?,
            registry: registry.clone(),
        };
        let mut made = families.into_catalogue();
        made.append(&mut catalogue);
        metrics.catalogue = made;
        for name in upstreams {
            metrics.upstream(name);
        }
        Ok(metrics)
    }

    pub fn clients(&self) -> &ClientMetrics {
        &self.clients
    }

    /// Notes that a configuration holds from `now` on.
    pub fn config_applied(&self, now: SystemTime) {
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        self.reloaded_at.set(i64::try_from(seconds).unwrap_or(i64::MAX));
        self.reload_ok.set(1);
    }

    /// Notes that a configuration was refused.
    pub fn config_refused(&self) {
        self.reload_ok.set(0);
    }

    /// Returns all metrics as Prometheus text, format 0.0.4.
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// Returns every family, also those without series at the moment: ours by name, then the process's.
    pub fn catalogue(&self) -> &[Family] {
        &self.catalogue
    }

    /// Counts an answered question about a repository, if that was asked for, and whether what was asked for `is_found` there.
    pub fn repository_served(
        &self,
        of: (&UpstreamName, &RepositoryName),
        is_found: bool,
        outcome: Outcome,
        bytes: u64,
    ) {
        self.repositories.served(of, is_found, outcome, bytes);
    }

    /// Notes when the first certificate for that use expires, in seconds since the epoch; `None` when there is none.
    pub fn certificate_expires(&self, for_use: CertificateUse, at: Option<i64>) {
        match at {
            Some(at) => self.certificate_expiry.with_label_values(&[for_use.as_str()]).set(at),
            // There may have been none.
            None => drop(self.certificate_expiry.remove_label_values(&[for_use.as_str()])),
        }
    }

    pub fn http(&self) -> &HttpMetrics {
        &self.http
    }

    pub fn storage(&self) -> &StorageMetrics {
        &self.storage
    }

    /// Counts a stored object that does not match its digest; which upstream it came from is not known any more.
    pub fn stored_mismatch(&self, source: MismatchSource) {
        self.other.mismatch(Kind::Other, source);
    }

    /// Returns the series of a configured upstream; made at 0 when there are none yet. They stay when it is configured no more.
    pub fn upstream(&self, name: &UpstreamName) -> Arc<UpstreamMetrics> {
        let mut upstreams = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || Arc::new(UpstreamMetrics::new(&self.of_upstreams, name.as_str()));
        Arc::clone(upstreams.entry(name.clone()).or_insert_with(make))
    }
}

/// Returns the families of the process, whose collector makes them itself.
fn of_process(collector: &ProcessCollector) -> Vec<Family> {
    let described = |family: prometheus::proto::MetricFamily| Family {
        name: family.name().to_owned(),
        kind: if family.get_field_type() == MetricType::COUNTER { "counter" } else { "gauge" },
        labels: Vec::new(),
        help: family.help().to_owned(),
    };
    collector.collect().into_iter().map(described).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{FillEnd, Trigger};
    use crate::wire::Outcome;

    fn metrics() -> Metrics {
        Metrics::new(&["docker.io".parse().unwrap()], 0).unwrap()
    }

    #[test]
    fn every_series_is_there_at_zero_from_the_start() {
        let text = metrics().encode().unwrap();
        for series in [
            r#"cachalot_cache_requests_total{kind="blob",result="hit",upstream="docker.io"} 0"#,
            r#"cachalot_digest_mismatches_total{kind="blob",source="upstream",upstream="docker.io"} 0"#,
            r#"cachalot_fills_total{kind="blob",result="ok",trigger="client",upstream="_other"} 0"#,
            r#"cachalot_storage_errors_total{operation="write",reason="enospc"} 0"#,
            r#"cachalot_upstream_errors_total{reason="timeout",upstream="docker.io"} 0"#,
            r#"cachalot_http_requests_in_flight{handler="blobs"} 0"#,
            r#"cachalot_http_time_to_first_byte_seconds_count{kind="blob",result="hit"} 0"#,
            r#"cachalot_upstream_requests_total{code="200",kind="manifest_tag",upstream="docker.io"} 0"#,
            r#"cachalot_upstream_request_duration_seconds_count{kind="blob",upstream="_other"} 0"#,
            r#"cachalot_storage_objects{kind="blob",tier="disk"} 0"#,
            "cachalot_fill_queue_wait_seconds_count 0",
            r#"cachalot_prefetch_images_total{result="error"} 0"#,
            r#"cachalot_http_requests_in_flight{handler="health"} 0"#,
            r#"cachalot_client_auth_failures_total{reason="password"} 0"#,
            "cachalot_client_passwords_computed_total 0",
            r#"cachalot_upstream_retries_total{reason="stale_connection",upstream="docker.io"} 0"#,
        ] {
            assert!(text.lines().any(|line| line == series), "{series} is missing in\n{text}");
        }
    }

    #[test]
    fn ten_upstreams_stay_within_the_budget_of_series() {
        let names: Vec<UpstreamName> = (0..10).map(|number| format!("u{number}.test").parse().unwrap()).collect();
        let text = Metrics::new(&names, 0).unwrap().encode().unwrap();
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        assert!(series <= 6_000, "{series} series");
    }

    #[test]
    fn the_catalogue_has_every_family_with_its_type_and_its_labels() {
        let metrics = metrics();
        metrics.certificate_expires(CertificateUse::UpstreamClient, Some(1));
        let text = metrics.encode().unwrap();
        let catalogue = metrics.catalogue();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        for (name, kind) in types.filter_map(|line| line.split_once(' ')) {
            let family = catalogue.iter().find(|family| family.name == name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(family.kind, kind, "{name}");
            assert!(!family.help.is_empty() && text.contains(&format!("# HELP {name} {}", family.help)), "{name}");
        }
        let of = |name: &str| catalogue.iter().find(|family| family.name == name).unwrap();
        assert_eq!(of("cachalot_fills_total").labels, ["upstream", "kind", "trigger", "result"]);
        // These have no series until something is known.
        assert_eq!(of("cachalot_upstream_capable").labels, ["upstream", "capability"]);
        assert_eq!(of("cachalot_repository_requests_total").kind, "counter");
    }

    #[test]
    fn names_carry_the_prefix_and_end_in_a_unit_or_in_total() {
        let text = metrics().encode().unwrap();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        for (name, kind) in types.filter_map(|line| line.split_once(' ')) {
            assert!(name.starts_with("cachalot_") || name.starts_with("process_"), "{name}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        }
    }

    #[test]
    fn what_is_counted_shows() {
        let metrics = metrics();
        let upstream = metrics.upstream(&"docker.io".parse().unwrap());
        upstream.requested(Kind::Blob, Outcome::Coalesced);
        upstream.served(Kind::Blob, Outcome::Coalesced, 7);
        upstream.fill_ended(Trigger::Client, FillEnd::DigestMismatch, std::time::Duration::from_secs(1));
        upstream.upstream_failed("timeout");
        upstream.upstream_answered(Kind::Blob, 206, std::time::Duration::from_secs(1));
        let text = metrics.encode().unwrap();
        for series in [
            r#"cachalot_cache_requests_total{kind="blob",result="coalesced",upstream="docker.io"} 1"#,
            r#"cachalot_cache_served_bytes_total{kind="blob",result="coalesced",upstream="docker.io"} 7"#,
            r#"cachalot_fills_total{kind="blob",result="digest_mismatch",trigger="client",upstream="docker.io"} 1"#,
            r#"cachalot_upstream_errors_total{reason="timeout",upstream="docker.io"} 1"#,
            r#"cachalot_upstream_requests_total{code="206",kind="blob",upstream="docker.io"} 1"#,
        ] {
            assert!(text.contains(series), "{series} is missing");
        }
    }
}
