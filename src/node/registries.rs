//! The drop-in for CRI-O, podman and their like, beside what other files of theirs say of the same registries.
//!
//! A drop-in never changes another file, but of two files that name the same prefix only the later one holds. So what another file
//! says of a registry is kept (the registry is left out), taken over with our mirror in front, or replaced, as the operator wants it.

use std::path::{Path, PathBuf};

use super::merge_policy::Merge;
use super::report::Kept;
use crate::oci::UpstreamName;
use crate::snippets::containers::{DROP_IN, mirror, registry_tables};
use crate::snippets::{Fallback, Wish};

/// What another file says of one registry.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Foreign {
    pub file: PathBuf,
    pub table: toml::Table,
}

impl Foreign {
    /// Reads the registries of a file.
    pub(super) fn all_of(file: &Path, text: &str) -> Result<Vec<Self>, toml::de::Error> {
        let mut document: toml::Table = text.parse()?;
        let Some(toml::Value::Array(registries)) = document.remove("registry") else { return Ok(Vec::new()) };
        let tables = registries.into_iter().filter_map(|registry| match registry {
            toml::Value::Table(table) => Some(Self { file: file.to_owned(), table }),
            _ => None,
        });
        Ok(tables.collect())
    }

    /// A prefix that is not given is the location.
    fn is_of(&self, registry: &UpstreamName) -> bool {
        let text = |key: &str| self.table.get(key).and_then(toml::Value::as_str).filter(|text| !text.is_empty());
        text("prefix").or_else(|| text("location")) == Some(registry.as_str())
    }

    /// The main file is read first, drop-ins in the order of their names.
    fn is_later_than_ours(&self) -> bool {
        let is_drop_in = self.file.parent().and_then(Path::extension).is_some_and(|extension| extension == "d");
        is_drop_in && self.file.file_name().is_some_and(|name| name.to_string_lossy().as_ref() > DROP_IN)
    }
}

/// Returns the text of the drop-in, empty where no registry is left, and the registries that it leaves out.
pub(super) fn compose(wish: &Wish, foreign: &[Foreign], merge: Merge) -> (String, Vec<Kept>) {
    let mut kept = Vec::new();
    let mut tables = Vec::new();
    for registry in &wish.registries {
        // The last one holds.
        let theirs = foreign.iter().rev().find(|foreign| foreign.is_of(registry));
        match theirs {
            None => tables.push(registry_tables(registry, wish)),
            Some(theirs) if merge == Merge::Keep => kept.push(Kept {
                path: theirs.file.clone(),
                why: format!("it says what holds for {registry}; --merge prepend puts the cache before that"),
            }),
            Some(theirs) if theirs.is_later_than_ours() => kept.push(Kept {
                path: theirs.file.clone(),
                why: format!(
                    "it says what holds for {registry}, and is read after {DROP_IN}; rename it to come before"
                ),
            }),
            Some(theirs) => match taken_over(theirs, registry, wish, merge) {
                Ok(table) => tables.push(table),
                Err(why) => kept.push(Kept { path: theirs.file.clone(), why }),
            },
        }
    }
    (tables.join("\n"), kept)
}

fn taken_over(theirs: &Foreign, registry: &UpstreamName, wish: &Wish, merge: Merge) -> Result<String, String> {
    if merge == Merge::Replace || wish.fallback == Fallback::None {
        return Ok(registry_tables(registry, wish));
    }
    let unusable = |what: &str| format!("its table of {registry} {what}");
    let ours: toml::Table = mirror(registry, wish).parse().map_err(|_| unusable("takes no mirror"))?;
    let mut table = theirs.table.clone();
    let mirrors = table.entry("mirror").or_insert_with(|| toml::Value::Array(Vec::new()));
    mirrors.as_array_mut().ok_or_else(|| unusable("has mirrors that are no tables"))?.insert(0, ours.into());
    let mut document = toml::Table::new();
    document.insert("registry".into(), toml::Value::Array(vec![table.into()]));
    toml::to_string(&document).map_err(|error| unusable(&format!("cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEIRS: &str = r#"
unqualified-search-registries = ["docker.io"]
[[registry]]
location = "docker.io"
blocked = false
[[registry.mirror]]
location = "their.mirror/hub"
"#;

    fn composed(file: &str, merge: Merge) -> (toml::Table, usize) {
        let wish = crate::snippets::tests::wish("http://cache:5000", &["docker.io", "quay.io"]);
        let foreign = Foreign::all_of(Path::new(file), THEIRS).unwrap();
        assert_eq!(foreign.len(), 1);
        let (text, kept) = compose(&wish, &foreign, merge);
        (text.parse().unwrap(), kept.len())
    }

    fn locations(table: &toml::Table) -> Vec<String> {
        let registries = table["registry"].as_array().unwrap();
        let mirrors = registries.iter().flat_map(|registry| registry["mirror"].as_array().unwrap());
        mirrors.map(|mirror| mirror["location"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn what_another_file_says_is_kept_taken_over_or_replaced() {
        let main = "/etc/containers/registries.conf";
        let ours = ["cache:5000/docker.io", "cache:5000/quay.io"];
        let both = [ours[0], "their.mirror/hub", ours[1]];
        let rows: &[(&str, Merge, &[&str], usize)] = &[
            (main, Merge::Keep, &ours[1..], 1),
            (main, Merge::Prepend, &both, 0),
            (main, Merge::Replace, &ours, 0),
            ("/etc/containers/registries.conf.d/10-a.conf", Merge::Prepend, &both, 0),
            ("/etc/containers/registries.conf.d/90-a.conf", Merge::Prepend, &ours[1..], 1),
            ("/etc/containers/registries.conf.d/90-a.conf", Merge::Replace, &ours[1..], 1),
        ];
        for (file, merge, expected, kept) in rows {
            let (table, count) = composed(file, *merge);
            assert_eq!(
                (locations(&table), count),
                (expected.iter().map(ToString::to_string).collect(), *kept),
                "{file} {merge:?}"
            );
        }
        let (table, _) = composed(main, Merge::Prepend);
        assert_eq!(table["registry"][0]["blocked"].as_bool(), Some(false), "the rest of theirs holds on");
    }
}
