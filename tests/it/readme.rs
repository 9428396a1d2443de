//! What the README says of the configuration is what the configuration is.

use cachalot::settings::{Settings, Sources};

const README: &str = include_str!("../../README.md");

fn load(text: &str) -> Settings {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cachalot.toml");
    std::fs::write(&file, text).unwrap();
    // No home: the store's place is the last resort, wherever the tests run.
    Settings::load(&Sources { file: Some(file), ..Sources::default() }).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Returns the key and default columns of the table rows whose key is in back quotes.
fn rows(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let key = cells.next()?.strip_suffix('`')?;
        Some((key, cells.next()?.trim_matches('`')))
    })
}

/// Other defaults are told in words.
fn is_value(default: &str) -> bool {
    format!("x = {default}").parse::<toml::Table>().is_ok()
}

#[test]
fn every_key_of_the_table_exists_and_has_the_default_that_it_says() {
    let (_, configuration) = README.split_once("## Configuration").unwrap();
    let (sections, upstream) = configuration.split_once("Each `[[upstream]]` has").unwrap();
    let mut lines = Vec::new();
    let mut count = 0;
    for (key, default) in rows(sections).filter(|(_, default)| is_value(default)) {
        let (section, name) = key.split_once('.').unwrap();
        lines.extend([format!("[{section}]"), format!("{name} = {default}")]);
        count += 1;
    }
    assert!(count > 15, "the table was not found");
    // TOML wants each section once.
    let mut merged: std::collections::BTreeMap<&str, Vec<&str>> = std::collections::BTreeMap::new();
    for pair in lines.chunks(2) {
        merged.entry(&pair[0]).or_default().push(&pair[1]);
    }
    let mut text = String::new();
    for (section, keys) in merged {
        text.extend([section, "\n", &keys.join("\n"), "\n"]);
    }
    let stated = load(&text);
    let defaults = load("");
    assert_eq!((&stated.server, &stated.admin, &stated.store), (&defaults.server, &defaults.admin, &defaults.store));
    assert_eq!(stated.clients, defaults.clients);
    assert_eq!((&stated.freshness, &stated.fills, &stated.log), (&defaults.freshness, &defaults.fills, &defaults.log));
    assert_eq!(stated.upstreams, defaults.upstreams);

    text.push_str("[[upstream]]\nname = \"registry.example\"\n");
    let plain = load(&text);
    let values = rows(upstream).filter(|(_, default)| is_value(default));
    for (key, default) in values.filter(|(key, _)| !key.contains(',')) {
        text.extend([key, " = ", &default.replace("<name>", "registry.example"), "\n"]);
    }
    assert_eq!(load(&text).upstreams, plain.upstreams);
}

#[test]
fn the_registries_that_it_lists_are_built_in() {
    let (_, listed) = README.split_once("Built in, all anonymous: ").unwrap();
    let (listed, _) = listed.split_once(". ").unwrap();
    let mut listed: Vec<_> = listed.split(", ").map(|name| name.trim_matches('`').to_owned()).collect();
    let mut built_in: Vec<_> = load("").upstreams.iter().map(|upstream| upstream.name.to_string()).collect();
    listed.sort();
    built_in.sort();
    assert_eq!(listed, built_in);
}

#[test]
fn its_example_is_accepted() {
    let (_, example) = README.split_once("```toml\n[server]").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let password = directory.path().join("password");
    std::fs::write(&password, "secret\n").unwrap();
    let example = example.replace("/etc/cachalot/registry.example", &password.display().to_string());
    load(&format!("[server]{example}"));
}
