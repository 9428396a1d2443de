//! Who was not let in, and what finding that out costs.

use prometheus::IntCounter;

use super::families::{Families, Grid, words};
use crate::telemetry::labels::AuthFailure;

/// The metrics of identities.
#[derive(Debug)]
pub struct ClientMetrics {
    failures: Grid<IntCounter>,
    computed: IntCounter,
}

impl ClientMetrics {
    pub(super) fn new(families: &Families<'_>) -> prometheus::Result<Self> {
        let failures = families.counters(
            "client_auth_failures_total",
            "Requests that were not let in, by why; missing and expired are how clients learn to log in.",
            &["reason"],
        )?;
        Ok(Self {
            failures: Grid::new(&[""], words!(AuthFailure), |_, reason| failures.with_label_values(&[reason])),
            computed: families.counter(
                "client_passwords_computed_total",
                "Passwords that were compared with their hashes; others were remembered.",
            )?,
        })
    }

    /// Counts a request that is not let in.
    pub fn refused(&self, reason: AuthFailure) {
        self.failures.add(0, reason as usize, 1);
    }

    /// Counts a password that is compared with its hash.
    pub fn password_computed(&self) {
        self.computed.inc();
    }
}
