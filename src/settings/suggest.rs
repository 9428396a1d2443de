//! What to say about a key that does not exist: the key that was probably meant, or where it belongs.

use super::keys::{SECTIONS, is_repeated, written};
use super::units::nearest;

/// Says what is wrong with the name of a section.
pub(super) fn unknown_section(name: &str) -> String {
    if let Some(home) = homes(name) {
        return format!("unknown section; this key belongs in {home}");
    }
    if let Some(section) = nearest(name, SECTIONS.iter().map(|(section, _)| *section)) {
        return format!("unknown section; did you mean {}?", written(section));
    }
    let sections: Vec<String> = SECTIONS.iter().map(|(section, _)| written(section)).collect();
    format!("unknown section; there are {}", sections.join(", "))
}

/// Says what is wrong with a key of a section, if the section does not have it.
pub(super) fn unknown_key(section: &str, key: &str) -> Option<String> {
    let keys = keys(section);
    if keys.contains(&key) {
        return None;
    }
    Some(match (nearest(key, keys.iter().copied()), homes(key)) {
        (_, Some(home)) => format!("unknown key; it belongs in {home}"),
        (Some(known), None) => format!("unknown key; did you mean {known:?}?"),
        (None, None) => format!("unknown key; {} has {}", written(section), keys.join(", ")),
    })
}

/// Says what is wrong with a variable that stands for a key of a section, if anything is.
pub(super) fn unknown_variable(section: &str, key: &str) -> Option<String> {
    if section == "upstream" {
        return Some(
            "an upstream cannot be set by a variable; write it to the file, or use --upstream NAME=URL".into(),
        );
    }
    if is_repeated(section) {
        return Some(format!("{} cannot be set by a variable; write it to the file", written(section)));
    }
    let variable = |section: &str, key: &str| format!("CACHALOT_{section}__{key}").to_ascii_uppercase();
    if keys(section).is_empty() {
        let meant = nearest(section, SECTIONS.iter().map(|(section, _)| *section));
        return Some(match meant.filter(|meant| keys(meant).contains(&key)) {
            Some(meant) => format!("unknown variable; did you mean {}?", variable(meant, key)),
            None => unknown_section(section),
        });
    }
    unknown_key(section, key).map(|text| match nearest(key, keys(section).iter().copied()) {
        Some(known) => format!("unknown variable; did you mean {}?", variable(section, known)),
        None => text,
    })
}

fn keys(section: &str) -> &'static [&'static str] {
    SECTIONS.iter().find(|(name, _)| *name == section).map_or(&[], |(_, keys)| keys)
}

/// Returns the sections that have a key.
fn homes(key: &str) -> Option<String> {
    let homes = SECTIONS.iter().filter(|(_, keys)| keys.contains(&key)).map(|(section, _)| written(section));
    let homes: Vec<String> = homes.collect();
    (!homes.is_empty()).then(|| homes.join(" or "))
}
