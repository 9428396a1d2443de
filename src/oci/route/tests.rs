//! The routing table, row by row, and what must hold for any text.

use proptest::prelude::*;

use super::*;
use crate::oci::{DigestError, NameError};

const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn name(text: &str) -> UpstreamName {
    text.parse().expect("a valid name")
}

fn entry(text: &str, aliases: &[&str], hosts: &[&str], library: bool) -> Entry {
    Entry {
        name: name(text),
        aliases: aliases.iter().map(|alias| name(alias)).collect(),
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        library,
        push: text == "pushed",
        allow: Vec::new(),
        deny: Vec::new(),
    }
}

fn entries() -> Vec<Entry> {
    vec![
        entry("docker.io", &["index.docker.io", "registry-1.docker.io", "hub"], &["hub.local"], true),
        entry("ghcr.io", &[], &[], false),
        entry("my.reg:5000", &[], &["reg.local:81"], false),
        entry("local", &[], &[], false),
        entry("pushed", &[], &[], false),
    ]
}

fn table() -> Table {
    Table::new(entries(), Some(name("docker.io"))).expect("a valid table")
}

fn closed_table() -> Table {
    Table::new(entries(), None).expect("a valid table")
}

/// Prints a question as `upstream repository endpoint`, with `[ns]` and `?query` where there are any.
fn show(route: &Route) -> String {
    let Route::Question(question) = route else { return "base".to_owned() };
    let endpoint = match &question.endpoint {
        Endpoint::Uploads => "uploads".to_owned(),
        Endpoint::Upload(id) => format!("upload {id}"),
        Endpoint::Manifest(Reference::Tag(tag)) => format!("tag {tag}"),
        Endpoint::Manifest(Reference::Digest(_)) => "manifest".to_owned(),
        Endpoint::Blob(_) => "blob".to_owned(),
        Endpoint::Tags => "tags".to_owned(),
        Endpoint::Referrers(_) => "referrers".to_owned(),
    };
    let namespace = question.namespace.as_ref().map(|namespace| format!(" [{namespace}]")).unwrap_or_default();
    let query = if question.query.is_empty() { String::new() } else { format!(" ?{}", question.query) };
    format!("{} {} {endpoint}{namespace}{query}", question.upstream, question.repository)
}

struct Row {
    spec: &'static str,
    target: &'static str,
    host: Option<&'static str>,
    expect: &'static str,
}

const fn row(spec: &'static str, target: &'static str, expect: &'static str) -> Row {
    Row { spec, target, host: None, expect }
}

const fn at(spec: &'static str, host: &'static str, target: &'static str, expect: &'static str) -> Row {
    Row { spec, target, host: Some(host), expect }
}

#[rustfmt::skip]
const QUESTIONS: &[Row] = &[
    row("P-11", "/v2/", "base"),
    row("P-11", "/v2", "base"),
    row("P-11", "//v2/", "base"),
    row("P-16", "/v2/?ns=unknown.example", "base"),
    row("P-1", "/docker.io/v2/", "base"),
    row("P-1", "/hub/v2", "base"),

    row("P-1 ns", "/v2/library/alpine/manifests/3.20?ns=docker.io", "docker.io library/alpine tag 3.20 [docker.io]"),
    row("P-1 path", "/v2/docker.io/library/alpine/manifests/3.20", "docker.io library/alpine tag 3.20"),
    row("P-1 prefix", "/docker.io/v2/library/alpine/manifests/3.20", "docker.io library/alpine tag 3.20"),
    row("P-116", "/v2/library/alpine/manifests/3.20", "docker.io library/alpine tag 3.20"),
    row("P-1", "/v2/ghcr.io/org/app/tags/list?n=2&last=a%2Bb", "ghcr.io org/app tags ?n=2&last=a%2Bb"),
    row("P-11", "/ghcr.io//v2/org/app/tags/list", "ghcr.io org/app tags"),

    row("P-111", "/v2/app/tags/list?ns=my.reg%3A5000", "my.reg:5000 app tags [my.reg:5000]"),
    row("P-111", "/v2/app/tags/list?ns=my.reg:5000", "my.reg:5000 app tags [my.reg:5000]"),
    row("P-112", "/v2/app/tags/list?ns=Registry-1.Docker.IO", "docker.io library/app tags [Registry-1.Docker.IO]"),
    row("P-112", "/v2/app/tags/list?ns=ghcr.io:443", "ghcr.io app tags [ghcr.io:443]"),
    row("P-112", "/v2/GHCR.IO./app/tags/list", "ghcr.io app tags"),
    row("P-13", "/v2/a/tags/list?n=1&ns=ghcr.io&last=x&&", "ghcr.io a tags [ghcr.io] ?n=1&last=x"),
    row("P-82", "/v2/a/tags/list?%6es=ghcr.io&artifactType=a&artifactType=b", "ghcr.io a tags [ghcr.io] ?artifactType=a&artifactType=b"),

    row("P-2", "/v2/local/a/manifests/b/manifests/latest", "local a/manifests/b tag latest"),
    row("P-2", "/v2/local/a/tags/list/tags/list", "local a/tags/list tags"),
    row("P-2", "/v2/local/a/blobs/uploads/manifests/x", "local a/blobs/uploads tag x"),
    row("P-2", "/v2/local/a/tags/manifests/list", "local a/tags tag list"),
    row("P-10", "/v2/local/org%2Fapp/manifests/a%5fb", "local org/app tag a_b"),
    row("P-10", "/v2/local%2forg%2Fapp/manifests/x", "local org/app tag x"),
    row("P-10", "/my.reg%3A5000/v2/app/tags/list", "my.reg:5000 app tags"),
    row("P-5", "/v2/local/a/manifests/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "local a manifest"),
    row("P-10", "/v2/local/a/blobs/sha256%3Ae3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "local a blob"),
    row("P-68", "/v2/local/a/referrers/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855?artifactType=x", "local a referrers ?artifactType=x"),

    row("P-117", "/v2/docker.io/alpine/manifests/3", "docker.io library/alpine tag 3"),
    row("P-117", "/v2/alpine/manifests/3", "docker.io library/alpine tag 3"),
    row("P-117", "/v2/ghcr.io/alpine/manifests/3", "ghcr.io alpine tag 3"),
    row("P-117", "/v2/docker.io/org/alpine/manifests/3", "docker.io org/alpine tag 3"),

    row("P-115 same twice", "/v2/docker.io/library/alpine/tags/list?ns=docker.io", "docker.io library/alpine tags [docker.io]"),
    row("P-115 alias", "/v2/hub/library/alpine/tags/list?ns=index.docker.io", "docker.io library/alpine tags [index.docker.io]"),
    row("P-115 thrice", "/docker.io/v2/hub/a/b/tags/list?ns=docker.io", "docker.io a/b tags [docker.io]"),
    row("P-115 a word is no host", "/v2/hub/app/tags/list?ns=ghcr.io", "ghcr.io hub/app tags [ghcr.io]"),
    row("P-115 not in the table", "/v2/quay.io/app/tags/list?ns=ghcr.io", "ghcr.io quay.io/app tags [ghcr.io]"),
    row("P-115 nothing would be left", "/v2/ghcr.io/tags/list?ns=ghcr.io", "ghcr.io ghcr.io tags [ghcr.io]"),
    at("P-115 host", "hub.local:5000", "/v2/alpine/tags/list", "docker.io library/alpine tags"),
    at("P-115 host and ns", "hub.local", "/v2/alpine/tags/list?ns=docker.io", "docker.io library/alpine tags [docker.io]"),
    at("P-115 host and path", "hub.local", "/v2/docker.io/alpine/tags/list", "docker.io library/alpine tags"),
    at("P-115 host's port", "reg.local:81", "/v2/alpine/tags/list", "my.reg:5000 alpine tags"),
    at("S-24 unknown host", "evil.example", "/v2/alpine/tags/list", "docker.io library/alpine tags"),

    row("C-23 a repository may be called v2", "/v2/ghcr.io/org/v2/app/tags/list", "ghcr.io org/v2/app tags"),
    row("C-23", "/v2/cache/v2/app/tags/list?ns=ghcr.io", "ghcr.io cache/v2/app tags [ghcr.io]"),
    row("C-23", "/v2/hub/v2/app/tags/list?ns=ghcr.io", "ghcr.io hub/v2/app tags [ghcr.io]"),
];

#[test]
fn questions_are_found_under_every_shape() {
    for Row { spec, target, host, expect } in QUESTIONS {
        let found = route(&table(), &Method::GET, target, *host);
        assert_eq!(found.as_ref().map(show), Ok((*expect).to_owned()), "{spec}: {target}");
        assert_eq!(route(&table(), &Method::HEAD, target, *host), found, "P-20: HEAD {target}");
    }
}

fn unknown(name: &str) -> Refusal {
    Refusal::UnknownUpstream { name: name.to_owned() }
}

fn conflict_of(first: &str, second: &str) -> Refusal {
    Refusal::ConflictingSelectors { first: name(first), second: name(second) }
}

#[test]
fn what_is_no_question_is_refused_with_the_reason() {
    let malformed = Refusal::NameInvalid(NameError::Malformed);
    let bad_digest = Refusal::DigestInvalid(DigestError::Malformed);
    let long_tag = format!("/v2/local/a/manifests/sha512-{}", "a".repeat(128));
    let long_name = format!("/v2/local/{}/tags/list", "a".repeat(256));
    let long_library = format!("/v2/{}/tags/list", "a".repeat(250));
    #[rustfmt::skip]
    let rows: &[(&str, &str, Refusal)] = &[
        ("P-12", "/", Refusal::UnknownPath),
        ("P-12", "/v1/search", Refusal::UnknownPath),
        ("P-12", "/v2/local/a", Refusal::UnknownPath),
        ("P-12", "/v2/local/a/tags", Refusal::UnknownPath),
        ("P-12", "/v2//", Refusal::UnknownPath),
        ("P-14", "/v2/_catalog", Refusal::UnknownPath),
        ("P-15", "/v2/local/a/_oci/ext/discover", Refusal::UnknownPath),
        ("P-114", "/v2/library/alpine/tags/list?ns=quay.io", unknown("quay.io")),
        ("P-114", "/v2/quay.io/alpine/tags/list", unknown("quay.io")),
        ("P-114", "/v2/host:5000/alpine/tags/list", unknown("host:5000")),
        ("P-114", "/quay.io/v2/alpine/tags/list", unknown("quay.io")),
        ("P-114", "/quay.io/v2/", unknown("quay.io")),
        ("P-114", "/v2/a/tags/list?ns=", unknown("")),
        ("S-20", "/v2/a/tags/list?ns=http://169.254.169.254", unknown("http://169.254.169.254")),
        ("S-20", "/v2/169.254.169.254/a/tags/list", unknown("169.254.169.254")),
        ("P-115", "/v2/ghcr.io/a/tags/list?ns=docker.io", conflict_of("docker.io", "ghcr.io")),
        ("P-115", "/ghcr.io/v2/a/tags/list?ns=docker.io", conflict_of("ghcr.io", "docker.io")),
        ("P-115", "/ghcr.io/v2/docker.io/a/tags/list", conflict_of("ghcr.io", "docker.io")),
        ("S-21", "/v2/a/tags/list?ns=docker.io&ns=ghcr.io", Refusal::DuplicateNamespace),
        ("S-21", "/v2/a/tags/list?ns=docker.io&%6Es=docker.io", Refusal::DuplicateNamespace),
        ("P-3", "/v2/local/A/tags/list", malformed.clone()),
        ("P-3", "/v2/local/a//b/tags/list", malformed.clone()),
        ("P-3", "/v2/local//tags/list", malformed.clone()),
        ("P-3", "/v2/tags/list", malformed.clone()),
        ("P-3", "/v2/manifests/latest", malformed.clone()),
        ("S-19", "/v2/local/../../etc/passwd/tags/list", malformed.clone()),
        ("S-19", "/v2/local/%2e%2e/a/tags/list", malformed.clone()),
        ("S-19", "/v2/local/a%00/tags/list", malformed.clone()),
        ("S-19", "/v2/local/a\\b/tags/list", malformed.clone()),
        ("S-19", "/v2/local/a%5cb/tags/list", malformed.clone()),
        ("S-19", "/v2/local/%C3%A9/tags/list", malformed.clone()),
        ("S-19", "/v2/local/./a/tags/list", malformed.clone()),
        ("P-10", "/v2/local/%2561/tags/list", malformed.clone()),
        ("P-4", &long_name, Refusal::NameInvalid(NameError::TooLong)),
        ("P-117", &long_library, Refusal::NameInvalid(NameError::TooLong)),
        ("P-5", &long_tag, Refusal::TagInvalid),
        ("P-5", "/v2/local/a/manifests/-a", Refusal::TagInvalid),
        ("P-5", "/v2/local/a/manifests/", Refusal::TagInvalid),
        ("S-19", "/v2/local/a/manifests/..%2f..%2fetc", Refusal::TagInvalid),
        ("P-9", "/v2/local/a/manifests/sha256:baddigeststring", bad_digest.clone()),
        ("P-9", "/v2/local/a/blobs/latest", bad_digest.clone()),
        ("P-9", "/v2/local/a/blobs/sha256:..%2f..%2fetc", bad_digest.clone()),
        ("P-71", "/v2/local/a/referrers/x", bad_digest),
        ("P-8", "/v2/local/a/blobs/blake3:00ff", Refusal::DigestInvalid(DigestError::UnsupportedAlgorithm)),
        ("P-148", "/v2/local/a/blobs/uploads/", Refusal::MethodNotAllowed),
        ("P-148", "/v2/local/a/blobs/uploads/2f6b-11", Refusal::MethodNotAllowed),
        ("C-23", "/v2/ghcr.io/v2/org/app/tags/list?ns=ghcr.io", Refusal::DoubledVersion),
        ("C-23", "/v2/hub/v2/library/alpine/tags/list", Refusal::DoubledVersion),
        ("C-23", "/v2/docker.io/v2/", Refusal::DoubledVersion),
        ("C-23", "/v2/docker.io/v2", Refusal::DoubledVersion),
    ];
    for (spec, target, refusal) in rows {
        assert_eq!(route(&table(), &Method::GET, target, None), Err(refusal.clone()), "{spec}: {target}");
    }
}

#[test]
fn a_virtual_host_does_not_yield_to_another_selector() {
    let rows = [
        ("P-115", "/v2/a/tags/list?ns=ghcr.io", conflict_of("docker.io", "ghcr.io")),
        ("P-115", "/v2/ghcr.io/a/tags/list", conflict_of("docker.io", "ghcr.io")),
        ("P-114", "/v2/a/tags/list?ns=quay.io", unknown("quay.io")),
    ];
    for (spec, target, refusal) in rows {
        assert_eq!(route(&table(), &Method::GET, target, Some("hub.local")), Err(refusal), "{spec}: {target}");
    }
}

#[test]
fn without_a_default_a_request_must_name_its_upstream() {
    for target in ["/v2/library/alpine/tags/list", "/v2/alpine/tags/list"] {
        assert_eq!(route(&closed_table(), &Method::GET, target, None), Err(Refusal::NoUpstream), "P-116: {target}");
    }
}

#[test]
fn only_reading_methods_are_served() {
    let blob = format!("/v2/local/a/blobs/{D}");
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
        for target in [
            "/v2/",
            "/v2/local/a/manifests/x",
            &blob,
            "/v2/local/a/blobs/uploads/",
            "/v2/a/tags/list",
            "/docker.io/v2/",
        ] {
            let refused = route(&table(), &method, target, None);
            assert_eq!(refused, Err(Refusal::MethodNotAllowed), "P-12, P-148: {method} {target}");
        }
        assert_eq!(route(&table(), &method, "/v2/_catalog", None), Err(Refusal::UnknownPath), "P-12: {method}");
    }
}

#[test]
fn writes_are_routed_where_the_upstream_takes_them() {
    let blob = format!("/v2/pushed/a/blobs/{D}");
    let manifest = format!("/v2/pushed/a/manifests/{D}");
    let endpoint = |method: &Method, target: &str| match route(&table(), method, target, None) {
        Ok(Route::Question(question)) => Ok(question.endpoint),
        Ok(Route::Base) => panic!("{target}"),
        Err(refusal) => Err(refusal),
    };
    let upload = || Ok(Endpoint::Upload("2f6b".to_owned()));
    let digest = || D.parse().unwrap();
    for (spec, method, target, expected) in [
        ("P-150", Method::POST, "/v2/pushed/a/blobs/uploads/", Ok(Endpoint::Uploads)),
        ("P-151", Method::PATCH, "/v2/pushed/a/blobs/uploads/2f6b", upload()),
        ("P-151", Method::GET, "/v2/pushed/a/blobs/uploads/2f6b", upload()),
        ("P-150", Method::PUT, "/pushed/v2/a/blobs/uploads/2f6b", upload()),
        ("P-155", Method::DELETE, "/v2/a/blobs/uploads/2f6b?ns=pushed", upload()),
        ("P-156", Method::PUT, &manifest, Ok(Endpoint::Manifest(Reference::Digest(digest())))),
        ("P-162", Method::DELETE, &blob, Ok(Endpoint::Blob(digest()))),
        ("P-12", Method::PUT, &blob, Err(Refusal::MethodNotAllowed)),
        ("P-12", Method::POST, "/v2/pushed/a/blobs/uploads/2f6b", Err(Refusal::MethodNotAllowed)),
        ("P-12", Method::GET, "/v2/pushed/a/blobs/uploads/", Err(Refusal::MethodNotAllowed)),
        ("P-12", Method::DELETE, "/v2/pushed/a/tags/list", Err(Refusal::MethodNotAllowed)),
        ("P-9", Method::PUT, "/v2/pushed/a/manifests/sha256:bad", Err(Refusal::DigestInvalid(DigestError::Malformed))),
    ] {
        assert_eq!(endpoint(&method, target), expected, "{spec}: {method} {target}");
    }
}

#[test]
fn a_target_is_limited_in_length() {
    let longest = "/v2/local/a/tags/list?last=".to_owned();
    let longest = format!("{longest}{}", "x".repeat(TARGET_LENGTH_MAX - longest.len()));
    assert!(route(&table(), &Method::GET, &longest, None).is_ok(), "S-33");
    assert_eq!(route(&table(), &Method::GET, &format!("{longest}x"), None), Err(Refusal::UriTooLong), "S-33");
}

#[test]
fn parameters_are_decoded_and_keep_their_order() {
    let target = "/v2/local/a/tags/list?artifactType=b%2Fc&n=1&artifactType=a+b";
    let Ok(Route::Question(question)) = route(&table(), &Method::GET, target, None) else { panic!("P-82: {target}") };
    assert_eq!(question.parameters("artifactType"), ["b/c", "a b"]);
    assert_eq!(question.parameters("last"), [""; 0]);
}

#[test]
fn a_refusal_names_no_more_than_a_name() {
    let target = format!("/v2/a/tags/list?ns={}", "a.".repeat(4000));
    let refusal = route(&table(), &Method::GET, &target, None).expect_err("an unknown upstream");
    assert!(refusal.to_string().len() < 400, "P-110: {refusal}");
}

proptest! {
    #[test]
    fn no_text_makes_the_router_panic(target in "(/v2/)?\\PC{0,80}(/manifests/|/blobs/|/tags/list)?\\PC{0,20}", host in "\\PC{0,20}") {
        let _ = route(&table(), &Method::GET, &target, Some(&host));
    }

    #[test]
    fn every_shape_finds_what_was_written(
        upstream in prop::sample::select(vec!["docker.io", "ghcr.io", "my.reg:5000", "local"]),
        repository in "[a-z0-9]{1,8}(/[a-z0-9]{1,8}){1,3}",
        tag in "[A-Za-z0-9_][A-Za-z0-9._-]{0,127}",
    ) {
        // A repository that begins with a key of the table, or that reads as a doubled version, has rows of its own.
        let first = repository.split('/').next().unwrap_or_default();
        prop_assume!(table().find(first).is_none() && first != "v2");
        for target in [
            format!("/v2/{repository}/manifests/{tag}?ns={upstream}"),
            format!("/v2/{upstream}/{repository}/manifests/{tag}"),
            format!("/{upstream}/v2/{repository}/manifests/{tag}"),
        ] {
            let Ok(Route::Question(question)) = route(&table(), &Method::GET, &target, None) else {
                return Err(TestCaseError::fail(target));
            };
            prop_assert_eq!(question.upstream.as_str(), upstream);
            prop_assert_eq!(question.repository.as_str(), repository.as_str());
            prop_assert_eq!(question.endpoint, Endpoint::Manifest(tag.parse().expect("a valid tag")));
        }
    }

    /// S-20, P-114: what looks like another registry's image never comes from the default upstream.
    #[test]
    fn a_host_in_front_never_leads_to_the_default(first in "[a-z0-9_-]{0,5}[.:][a-z0-9_.:-]{0,8}", rest in "[a-z]{1,5}") {
        prop_assume!(table().find(&first).is_none());
        let found = route(&table(), &Method::GET, &format!("/v2/{first}/{rest}/tags/list"), None);
        prop_assert!(found.is_err(), "{found:?}");
    }
}
