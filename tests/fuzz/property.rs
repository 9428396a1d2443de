//! Drives one property by coverage: `PROPERTY` names it.
#![no_main]

#[path = "properties/mod.rs"]
mod properties;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

use properties::{PROPERTIES, Property};

static CHOSEN: LazyLock<Property> = LazyLock::new(|| {
    let wanted = std::env::var("PROPERTY").unwrap_or_default();
    let names: Vec<&str> = PROPERTIES.iter().map(|(name, _)| *name).collect();
    let found = PROPERTIES.iter().find(|(name, _)| *name == wanted).map(|(_, property)| *property);
    found.unwrap_or_else(|| panic!("PROPERTY is one of {}", names.join(", ")))
});

fuzz_target!(|input: &[u8]| CHOSEN(input));
