//! The store's side: how full it is, what it does, what it lost.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::families::{Families, Grid, words};
use crate::telemetry::labels::{EvictReason, Kind, MemoryLookup, Scrubbed, StoreErrorReason, StoreOperation, Tier};

/// Seconds; from the page cache to a disk in trouble.
const OPERATION_BUCKETS: &[f64] = &[0.0001, 0.0005, 0.002, 0.01, 0.05, 0.2, 1.0, 5.0];

/// The metrics of the store.
#[derive(Debug)]
pub struct StorageMetrics {
    used: IntGaugeVec,
    capacity: IntGaugeVec,
    objects: IntGaugeVec,
    filesystem_available: IntGauge,
    filesystem_size: IntGauge,
    operations: HistogramVec,
    errors: IntCounterVec,
    evictions: IntCounterVec,
    evicted_bytes: IntCounterVec,
    victim_idle: IntGaugeVec,
    memory_lookups: Grid<IntCounter>,
    scrubbed: IntCounterVec,
    scrubbed_bytes: IntCounter,
    scrub_completed: IntGauge,
}

impl StorageMetrics {
    pub(super) fn new(families: &Families<'_>) -> prometheus::Result<Self> {
        let lookups = families.counters("memory_lookups_total", "Looks into the memory tier.", &["result"])?;
        let metrics = Self {
            used: families.gauges("storage_used_bytes", "Bytes of stored objects.", &["tier"])?,
            capacity: families.gauges("storage_capacity_bytes", "Bytes that the tier may fill, as configured.", &["tier"])?,
            objects: families.gauges("storage_objects", "Stored objects: blob is layers, manifest_digest manifests and image configs, other all that is in memory.", &["tier", "kind"])?,
            filesystem_available: families
                .gauge("storage_filesystem_available_bytes", "Bytes free on the store's file system.")?,
            filesystem_size: families.gauge("storage_filesystem_size_bytes", "The size of the store's file system.")?,
            operations: families.histograms(
                "storage_operation_duration_seconds",
                "How long disk operations take.",
                &["operation"],
                OPERATION_BUCKETS,
            )?,
            errors: families.counters(
                "storage_errors_total",
                "Failed disk operations; clients got their bytes all the same.",
                &["operation", "reason"],
            )?,
            evictions: families.counters("evictions_total", "Objects removed from the store, by why.", &["tier", "reason"])?,
            evicted_bytes: families.counters(
                "evicted_bytes_total",
                "Bytes of the objects removed from the store.",
                &["tier", "reason"],
            )?,
            victim_idle: families.gauges(
                "eviction_victim_idle_seconds",
                "How long the last victim had not been used: small means that the cache is too small.",
                &["tier"],
            )?,
            memory_lookups: Grid::new(&[""], words!(MemoryLookup), |_, result| lookups.with_label_values(&[result])),
            scrubbed: families.counters(
                "scrub_objects_total",
                "Stored objects that were read again in the background to verify them.",
                &["result"],
            )?,
            scrubbed_bytes: families.counter(
                "scrub_bytes_total",
                "Bytes that were read again in the background to verify stored objects.",
            )?,
            scrub_completed: families.gauge(
                "scrub_last_completion_timestamp_seconds",
                "When every stored object was last known to have been verified lately; 0 before the first time.",
            )?,
        };
        metrics.begin_at_zero();
        Ok(metrics)
    }

    pub fn used(&self, tier: Tier, bytes: u64) {
        self.used.with_label_values(&[tier.as_str()]).set(gauge(bytes));
    }

    pub fn capacity(&self, tier: Tier, bytes: u64) {
        self.capacity.with_label_values(&[tier.as_str()]).set(gauge(bytes));
    }

    pub fn objects(&self, tier: Tier, kind: Kind, count: u64) {
        self.objects.with_label_values(&[tier.as_str(), kind.as_str()]).set(gauge(count));
    }

    pub fn filesystem(&self, available_bytes: u64, size_bytes: u64) {
        self.filesystem_available.set(gauge(available_bytes));
        self.filesystem_size.set(gauge(size_bytes));
    }

    pub fn operated(&self, operation: StoreOperation, elapsed: Duration) {
        self.operations.with_label_values(&[operation.as_str()]).observe(elapsed.as_secs_f64());
    }

    pub fn failed(&self, operation: StoreOperation, reason: StoreErrorReason) {
        self.errors.with_label_values(&[operation.as_str(), reason.as_str()]).inc();
    }

    pub fn evicted(&self, tier: Tier, reason: EvictReason, bytes: u64) {
        self.evictions.with_label_values(&[tier.as_str(), reason.as_str()]).inc();
        self.evicted_bytes.with_label_values(&[tier.as_str(), reason.as_str()]).inc_by(bytes);
    }

    pub fn victim_idle(&self, tier: Tier, idle: Duration) {
        self.victim_idle.with_label_values(&[tier.as_str()]).set(gauge(idle.as_secs()));
    }

    pub fn memory_lookup(&self, result: MemoryLookup) {
        self.memory_lookups.add(0, result as usize, 1);
    }

    pub fn scrubbed(&self, result: Scrubbed) {
        self.scrubbed.with_label_values(&[result.as_str()]).inc();
    }

    pub fn scrubbed_bytes(&self, bytes: u64) {
        self.scrubbed_bytes.inc_by(bytes);
    }

    /// Notes that a scrub has come to its end at `now`, in seconds since the epoch.
    pub fn scrub_completed(&self, now: u64) {
        self.scrub_completed.set(gauge(now));
    }

    fn begin_at_zero(&self) {
        for result in Scrubbed::ALL {
            self.scrubbed.with_label_values(&[result.as_str()]);
        }
        self.objects(Tier::Disk, Kind::Blob, 0);
        self.objects(Tier::Disk, Kind::ManifestDigest, 0);
        self.objects(Tier::Memory, Kind::Other, 0);
        for tier in Tier::ALL {
            self.used(*tier, 0);
            self.capacity(*tier, 0);
        }
        self.victim_idle(Tier::Disk, Duration::ZERO);
        let reasons = EvictReason::ALL.iter().map(|reason| (Tier::Disk, *reason));
        for (tier, reason) in reasons.chain([(Tier::Memory, EvictReason::Capacity)]) {
            self.evictions.with_label_values(&[tier.as_str(), reason.as_str()]);
            self.evicted_bytes.with_label_values(&[tier.as_str(), reason.as_str()]);
        }
        for operation in StoreOperation::ALL {
            self.operations.with_label_values(&[operation.as_str()]);
            for reason in StoreErrorReason::ALL {
                self.errors.with_label_values(&[operation.as_str(), reason.as_str()]);
            }
        }
    }
}

/// Gauges are signed; no count here comes near the limit.
fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
