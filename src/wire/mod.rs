//! HTTP header fields as pure values: text in, types out; no clock, no I/O.

pub mod challenge;
pub mod retry_after;
