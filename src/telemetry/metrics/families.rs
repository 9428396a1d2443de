//! Making families of metrics and their series.

use std::cell::RefCell;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::telemetry::build;

/// What a family is, whether or not it has series at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The names of its labels, in the order of the documentation.
    pub labels: Vec<String>,
    pub help: String,
}

/// Where families are made and registered.
#[derive(Debug)]
pub(super) struct Families<'a> {
    registry: &'a Registry,
    made: RefCell<Vec<Family>>,
}

impl<'a> Families<'a> {
    pub(super) fn new(registry: &'a Registry) -> Self {
        Self { registry, made: RefCell::default() }
    }

    /// Returns what was made here, by name.
    pub(super) fn into_catalogue(self) -> Vec<Family> {
        let mut made = self.made.into_inner();
        made.sort_by(|one, other| one.name.cmp(&other.name));
        made
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.register("counter", IntCounterVec::new(options(name, help), labels)?)
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register("counter", IntCounter::with_opts(options(name, help))?)
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.register("gauge", IntGaugeVec::new(options(name, help), labels)?)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register("gauge", IntGauge::with_opts(options(name, help))?)
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> prometheus::Result<HistogramVec> {
        let options = HistogramOpts::new(full(name), help).buckets(buckets.to_vec());
        self.register("histogram", HistogramVec::new(options, labels)?)
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
        let options = HistogramOpts::new(full(name), help).buckets(buckets.to_vec());
        self.register("histogram", Histogram::with_opts(options)?)
    }

    /// Makes the constant gauge that names the version.
    pub(super) fn build_info(&self) -> prometheus::Result<()> {
        let info = self.gauges("build_info", "What is running; always 1.", &["version", "revision", "target"])?;
        info.with_label_values(&[build::VERSION, build::REVISION, &build::target()]).set(1);
        Ok(())
    }

    fn register<C: Collector + Clone + 'static>(&self, kind: &'static str, family: C) -> prometheus::Result<C> {
        self.registry.register(Box::new(family.clone()))?;
        self.made.borrow_mut().extend(family.desc().into_iter().map(|described| Family {
            name: described.fq_name.clone(),
            kind,
            labels: described.variable_labels.clone(),
            help: described.help.clone(),
        }));
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
