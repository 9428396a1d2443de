//! A request's method, target and host, a line each: what becomes a question is made of grammatical parts only (P-10, S-19), names an
//! upstream of the table (S-20), and means the same when it is asked in the plainest shape.

use cachalot::oci::{
    Digest, Endpoint, Entry, NAME_LENGTH_MAX, Question, Reference, Route, TARGET_LENGTH_MAX, Table, route,
};
use http::Method;

pub(super) fn holds(input: &[u8]) {
    let Some(lines) = super::lines(input) else { return };
    let [method, target, rest @ ..] = lines.as_slice() else { return };
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
    let table = table();
    let Ok(Route::Question(question)) = route(&table, &method, target, rest.first().copied()) else { return };
    assert!(target.len() <= TARGET_LENGTH_MAX, "S-33");
    let entry = table.find(question.upstream.as_str()).expect("S-20: an upstream of the table");
    assert_eq!(entry.name, question.upstream, "its name, and no alias");
    assert!(entry.allows(&question.repository), "what is not allowed is refused");
    assert!(method == Method::GET || method == Method::HEAD || entry.push, "P-148");
    check_name(question.repository.as_str());
    check_endpoint(&question.endpoint);
    if matches!(&question.endpoint, Endpoint::Upload(id) if !id.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
        return; // it would have to be encoded
    }
    if question.repository.as_str().split('/').next() == Some("v2") {
        return; // behind a registry's name it is taken for a mirror's mistake (C-23)
    }
    let again = route(&table, &method, &plainest(&question), None);
    assert_eq!(
        again.map(|route| told(&route)),
        Ok(told(&Route::Question(question))),
        "the same question in its plainest shape"
    );
}

/// What a question is about, however it was asked.
fn told(route: &Route) -> String {
    match route {
        Route::Base => "base".to_owned(),
        Route::Question(question) => format!("{} {} {:?}", question.upstream, question.repository, question.endpoint),
    }
}

fn plainest(question: &Question) -> String {
    let Question { upstream, repository, .. } = question;
    let tail = match &question.endpoint {
        Endpoint::Manifest(reference) => format!("manifests/{reference}"),
        Endpoint::Blob(digest) => format!("blobs/{digest}"),
        Endpoint::Tags => "tags/list".to_owned(),
        Endpoint::Referrers(digest) => format!("referrers/{digest}"),
        Endpoint::Uploads => "blobs/uploads/".to_owned(),
        Endpoint::Upload(id) => format!("blobs/uploads/{id}"),
    };
    format!("/v2/{upstream}/{repository}/{tail}")
}

/// The grammar of names (distribution-spec 1.1 "Pulling manifests"), written down once more.
fn check_name(name: &str) {
    assert!(!name.is_empty() && name.len() <= NAME_LENGTH_MAX, "P-3");
    for component in name.split('/') {
        let bytes = component.as_bytes();
        let is_alphanumeric =
            |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        assert!(is_alphanumeric(bytes.first()) && is_alphanumeric(bytes.last()), "S-19: {name:?}");
        let is_known = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(byte);
        assert!(bytes.iter().all(is_known) && !component.contains(".."), "S-19: {name:?}");
    }
}

fn check_endpoint(endpoint: &Endpoint) {
    match endpoint {
        Endpoint::Manifest(Reference::Tag(tag)) => {
            let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            assert!(tag.as_str().len() <= 128 && tag.as_str().bytes().all(is_known), "P-5");
            assert!(!tag.as_str().starts_with(['.', '-']), "P-5");
        }
        Endpoint::Manifest(Reference::Digest(digest)) | Endpoint::Blob(digest) | Endpoint::Referrers(digest) => {
            assert_eq!(digest.to_string().parse::<Digest>().as_ref(), Ok(digest));
        }
        Endpoint::Upload(id) => {
            assert!(!id.is_empty() && !id.contains('/'), "it is a key, and nothing else: {id:?}");
        }
        Endpoint::Tags | Endpoint::Uploads => {}
    }
}

fn table() -> Table {
    let entry = |name: &str, aliases: &[&str], hosts: &[&str], push: bool| Entry {
        name: name.parse().expect("a name"),
        aliases: aliases.iter().map(|alias| alias.parse().expect("a name")).collect(),
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        library: name == "docker.io",
        push,
        allow: Vec::new(),
        deny: vec!["secret/*".parse().expect("a pattern")],
    };
    let entries = vec![
        entry("docker.io", &["registry-1.docker.io", "hub"], &[], false),
        entry("registry.test:5000", &[], &["mirror.test"], true),
        entry("ghcr.io", &[], &["ghcr.mirror.test"], false),
    ];
    Table::new(entries, "docker.io".parse().ok()).expect("a table")
}
