//! Each snippet is read again by a parser of its format.

use super::*;

pub(crate) fn wish(endpoint: &str, registries: &[&str]) -> Wish {
    Wish {
        endpoint: endpoint.parse().unwrap(),
        registries: registries.iter().map(|name| name.parse().unwrap()).collect(),
        with_default: false,
        resolves: true,
        dial_timeout: Some(Duration::from_millis(300)),
        fallback: Fallback::Origin,
        ca: None,
    }
}
