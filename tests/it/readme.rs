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
    let (sections, listener) = sections.split_once("Each `[[listener]]` is").unwrap();
    let mut lines = Vec::new();
    let mut count = 0;
    // These are refused without a URL by which clients know us.
    lines.extend(["[server]".to_owned(), "public_url = \"https://cache.example\"".to_owned()]);
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
    let defaults = load("[server]\npublic_url = \"https://cache.example\"\n");
    assert_eq!((&stated.server, &stated.admin, &stated.store), (&defaults.server, &defaults.admin, &defaults.store));
    assert_eq!((&stated.clients, &stated.identity), (&defaults.clients, &defaults.identity));
    assert_eq!((&stated.freshness, &stated.fills, &stated.log), (&defaults.freshness, &defaults.fills, &defaults.log));
    assert_eq!(stated.upstreams, defaults.upstreams);

    let plain = "[[listener]]\naddress = \"127.0.0.1:5443\"\n";
    let stated: Vec<(&str, &str)> = rows(listener).filter(|(_, default)| is_value(default)).collect();
    assert_eq!(stated, [("client_certificate", "\"required\""), ("http2", "true"), ("identities", "true")]);
    // The others are defaults of TLS, which needs files.
    assert_eq!(load(&format!("{plain}identities = true\n")).listeners, load(plain).listeners);

    text.push_str("[[upstream]]\nname = \"registry.example\"\n");
    let plain = load(&text);
    let values = rows(upstream).filter(|(_, default)| is_value(default));
    for (key, default) in values.filter(|(key, _)| !key.contains(',')) {
        text.extend([key, " = ", &default.replace("<name>", "registry.example"), "\n"]);
    }
    assert_eq!(load(&text).upstreams, plain.upstreams);
}

#[test]
fn what_it_says_of_principals_is_accepted_and_is_what_holds() {
    let (_, identities) = README.split_once("## Identities").unwrap();
    let (identities, _) = identities.split_once("\n## ").unwrap();
    let (before, table) = identities.split_once("Each `[[principal]]` has").unwrap();
    let plain = "[[principal]]\nmatch = [\"user:*\"]\n";
    let mut stated = plain.to_owned();
    for (key, default) in rows(table).filter(|(_, default)| is_value(default)) {
        stated.extend([key, " = ", default, "\n"]);
    }
    assert_ne!(stated, plain, "the table was not found");
    assert_eq!(load(&stated).principals, load(plain).principals);

    let (_, example) = before.split_once("```toml\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let hash = "alice:$2y$05$P3QfFcPNDiuSMhSZh9edk.DRGWsW.SL3ElXF04l3vb57YWcnPbdae\n";
    std::fs::write(directory.path().join("htpasswd"), hash).unwrap();
    std::fs::write(directory.path().join("tokens"), "ci:0123456789abcdef\n").unwrap();
    let settings = load(&example.replace("/etc/cachalot", &directory.path().display().to_string()));
    assert_eq!(settings.principals.len(), 2);
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

/// Returns the anchor that a heading has on a page of Markdown.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter.to_ascii_lowercase() }).collect()
}

fn anchors() -> Vec<String> {
    let headings = README.lines().filter(|line| line.starts_with("##"));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let alerts = include_str!("../../grafana/rules/alerts.yaml");
    let mut named: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    named.dedup();
    assert!(named.len() > 10, "the alerts were not found");
    let (_, runbooks) = README.split_once("## Runbooks").unwrap();
    let (runbooks, _) = runbooks.split_once("\n## ").unwrap();
    let mut written: Vec<&str> = runbooks.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    for url in alerts.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: ")) {
        let (_, anchor) = url.trim_matches('"').split_once('#').unwrap_or_else(|| panic!("{url} has no anchor"));
        assert!(anchors().iter().any(|known| known == anchor), "{url} leads nowhere");
    }
    named.sort_unstable();
    named.dedup();
    written.sort_unstable();
    assert_eq!(named, written);
}

#[test]
fn its_links_to_itself_lead_somewhere() {
    let anchors = anchors();
    let links: Vec<&str> = README.split("](#").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(links.len() > 20, "the links were not found");
    for link in links {
        assert!(anchors.iter().any(|anchor| anchor == link), "#{link} leads nowhere");
    }
}

/// Returns the text of all sources, with what is put in at run time left out of the texts.
fn sources(directory: &std::path::Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text.push_str(&sources(&path));
        } else {
            text.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
    text
}

#[test]
fn the_errors_that_it_explains_are_errors_that_are_told() {
    let (_, table) = README.split_once("| it says | it means |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let sources = sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let cells: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next()).collect();
    assert!(cells.len() > 15, "the table was not found");
    for cell in cells {
        // Between the texts stands what differs each time.
        for said in cell.split('`').step_by(2).filter(|said| !said.is_empty()) {
            assert!(sources.contains(said), "{said:?} is told nowhere");
        }
    }
}
