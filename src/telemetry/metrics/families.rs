//! Making families of metrics and their series.

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector,
};

/// Where families are made and registered.
#[derive(Debug)]
pub(super) struct Families<'a>(&'a Registry);

impl<'a> Families<'a> {
    pub(super) fn new(registry: &'a Registry) -> Self {
        Self(registry)
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(options(name, help), labels)?)
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::with_opts(options(name, help))?)
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(options(name, help), labels)?)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::with_opts(options(name, help))?)
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> prometheus::Result<HistogramVec> {
        let options = HistogramOpts::new(full(name), help).buckets(buckets.to_vec());
        self.register(HistogramVec::new(options, labels)?)
    }

    /// Makes the constant gauge that names the version.
    pub(super) fn build_info(&self) -> prometheus::Result<()> {
        let info = self.gauges("build_info", "What is running; always 1.", &["version", "target"])?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION"), std::env::consts::ARCH]).set(1);
        Ok(())
    }

    fn register<C: Collector + Clone + 'static>(&self, family: C) -> prometheus::Result<C> {
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }
}

fn full(name: &str) -> String {
    format!("cachalot_{name}")
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(full(name), help)
}

/// Series prebuilt for every pair of two closed label sets: counting looks nothing up by text and takes no lock.
#[derive(Debug)]
pub(super) struct Grid<S> {
    width: usize,
    series: Vec<S>,
}

impl<S> Grid<S> {
    /// Makes the series with `make(row, column)`.
    pub(super) fn new(rows: &[&str], columns: &[&str], make: impl Fn(&str, &str) -> S) -> Self {
        let series =
            rows.iter().flat_map(|row| columns.iter().map(|column| make(row, column)).collect::<Vec<_>>()).collect();
        Self { width: columns.len(), series }
    }

    /// Returns the series of that row and column, by their places in the label sets.
    pub(super) fn at(&self, row: usize, column: usize) -> Option<&S> {
        self.series.get(row * self.width + column).filter(|_| column < self.width)
    }
}

impl Grid<IntCounter> {
    /// Adds to the counter of that row and column.
    pub(super) fn add(&self, row: usize, column: usize, amount: u64) {
        if let Some(counter) = self.at(row, column) {
            counter.inc_by(amount);
        }
    }
}

/// Returns the words of a closed label set.
macro_rules! words {
    ($labels:ty) => {
        &<$labels>::ALL.iter().map(|label| label.as_str()).collect::<Vec<_>>()
    };
}
pub(super) use words;
