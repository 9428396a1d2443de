//! Cachalot: a pull-through caching proxy and mirror for OCI registries.

pub mod admin;
pub mod app;
pub mod cache;
pub mod oci;
pub mod server;
pub mod settings;
pub mod store;
pub mod tasks;
pub mod telemetry;
pub mod upstream;
pub mod wire;
