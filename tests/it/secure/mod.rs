//! What tests of TLS have in common: authorities, certificates in a directory as Kubernetes lays them, and clients that speak TLS.
#![allow(dead_code)] // the vocabulary of several tests: no single one uses every word

mod client;
mod pki;

pub(crate) use client::{Client, H1, H2};
pub(crate) use pki::{Authority, Mounted};

use crate::harness::{Cachalot, More, settings};
use crate::registry::Registry;

/// Where the certificates of a test stand, and the lines of a listener that shows them.
pub(crate) struct Ground {
    pub(crate) authority: Authority,
    pub(crate) mounted: Mounted,
}

impl Ground {
    /// Makes a certificate for the listener.
    pub(crate) fn new() -> Self {
        let authority = Authority::new("server authority");
        let mounted = Mounted::new();
        let (cert, key) = authority.server();
        mounted.put(&[("tls.crt", &cert), ("tls.key", &key)]);
        Self { authority, mounted }
    }

    /// Returns the section of a listener with these further lines.
    pub(crate) fn listener(&self, lines: &str) -> String {
        let [cert, key] = ["tls.crt", "tls.key"].map(|name| self.mounted.quoted(name));
        format!("[[listener]]\naddress = \"127.0.0.1:0\"\ncert = {cert}\nkey = {key}\n{lines}\n")
    }

    /// Starts a Cachalot with such a listener, beside the plain one.
    pub(crate) async fn start(&self, registry: &Registry, lines: &str) -> Cachalot {
        Cachalot::configured(registry, More { sections: &self.listener(lines), ..More::default() }).await
    }

    /// Reads the configuration again, as a reload does.
    pub(crate) fn reload(&self, cachalot: &Cachalot, registry: &Registry, lines: &str) -> Vec<String> {
        let sections = self.listener(lines);
        cachalot.apply(&settings(cachalot.store(), &registry.url(), More { sections: &sections, ..More::default() }))
    }

    /// Returns a client that believes the listener's authority and shows nothing.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.authority, None)
    }
}
