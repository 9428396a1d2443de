//! Cachalot: a pull-through caching proxy and mirror for OCI registries.

pub mod oci;
pub mod telemetry;
pub mod upstream;
pub mod wire;
