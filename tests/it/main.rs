//! Integration tests over real sockets: the scripted registry on one side, clients on the other.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::missing_panics_doc)] // tests say what they expect by failing

mod access;
mod bad_input;
mod client_files;
mod crash;
mod fault_table;
mod faults;
mod freshness;
mod harness;
mod herd;
mod hostile;
mod identities;
mod lifecycle;
mod outage;
mod policy;
mod prefetch;
mod private;
mod properties;
mod push;
mod quirks;
mod ranges;
mod readme;
mod referrers;
mod registry;
mod requests;
mod rot;
mod secure;
mod ssrf;
mod supervised;
mod tags;
mod tls;
mod told;
mod uploads;
mod upstream;
