//! What the program tells about itself: metrics, logs, and the type for what it must never tell.

pub mod build;
mod labels;
mod logs;
mod metrics;
mod secret;
mod sentence;

pub use labels::{
    Admission, AuthFailure, CertificateUse, ConnectionShed, EvictReason, FillEnd, Handler, Handshake, Kind,
    MemoryLookup, MismatchSource, Prefetched, Revalidation, Scrubbed, Shed, StaleReason, StoreErrorReason,
    StoreOperation, Tier, Trigger,
};
pub use logs::{Format, LogError, Logs, init};
pub use metrics::{ClientMetrics, Family, HttpMetrics, InFlight, Metrics, StorageMetrics, UpstreamMetrics};
pub use secret::Secret;
pub use sentence::sentence;
