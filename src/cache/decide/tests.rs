//! The policy of freshness, case by case.

use std::sync::Arc;

use super::*;
use crate::upstream::RateLimit;

const POLICY: Policy = Policy {
    tag_ttl: seconds(10),
    stale_if_error: seconds(100),
    stale_if_limited: true,
    stale_wait: seconds(2),
    negative_ttl: seconds(5),
    offline: false,
    is_immutable: false,
};
const OFFLINE: Policy = Policy { offline: true, ..POLICY };
const IMMUTABLE: Policy = Policy { is_immutable: true, ..POLICY };
const FRANK: Policy = Policy { stale_if_limited: false, ..POLICY };

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn failures() -> Vec<UpstreamError> {
    let source = || Arc::new(std::io::Error::other("broken"));
    let host = String::new;
    vec![
        UpstreamError::Status { status: 503, message: None },
        UpstreamError::Status { status: 408, message: None },
        UpstreamError::Auth { reason: String::new() },
        UpstreamError::TimedOut { limit: "header", after: Duration::ZERO },
        UpstreamError::Connect { host: host(), source: source() },
        UpstreamError::Tls { host: host(), source: source() },
        UpstreamError::Truncated { received_bytes: 0, source: None },
        UpstreamError::Protocol { reason: String::new() },
        UpstreamError::Range { reason: "" },
        UpstreamError::TooLarge { limit_bytes: 0 },
        UpstreamError::Forbidden { host: host(), reason: String::new() },
        UpstreamError::CircuitOpen {
            retry_after: seconds(1),
            cause: Arc::new(UpstreamError::Status { status: 502, message: None }),
        },
    ]
}

fn limits() -> Vec<UpstreamError> {
    [RateLimit::Pulls, RateLimit::Requests].map(|limit| UpstreamError::RateLimited { retry_after: None, limit }).into()
}

fn denials() -> Vec<UpstreamError> {
    [401, 403].map(|status| UpstreamError::Denied { status, message: None }).into()
}

fn absence() -> Vec<UpstreamError> {
    vec![UpstreamError::NotFound { message: None }]
}

/// A policy, what it has follow for an entry that is none, old or very old, and the errors for which it does.
type Row = (&'static str, Policy, [Decision; 3], fn() -> Vec<UpstreamError>);

/// Every state of an entry, with every policy and everything that an upstream may say: 5 × 4 × 19 cases.
#[test]
fn every_case_has_its_decision() {
    use Decision::{Ask, Drop, Refuse, Revoke, Serve, ServeStale, Tell};
    use StaleReason::{Offline, RateLimited, UpstreamError as Failure, WhileRevalidate};
    let now = SystemTime::UNIX_EPOCH + seconds(10_000);
    let entries = [
        ("none", None),
        ("fresh", Some(now - seconds(9))),
        ("old", Some(now - seconds(10))),
        ("very old", Some(now - seconds(100))),
        ("from the future", Some(now + seconds(60))),
    ];
    // A fresh one is served, whatever else holds.
    let wait = Some(POLICY.stale_wait);
    let failed: [Row; 16] = [
        ("online", POLICY, [Tell, ServeStale(Failure), Tell], failures),
        ("online", POLICY, [Tell, ServeStale(RateLimited), Tell], limits),
        ("online", POLICY, [Revoke, Revoke, Revoke], denials),
        ("online", POLICY, [Drop, Drop, Drop], absence),
        ("frank", FRANK, [Tell, ServeStale(Failure), Tell], failures),
        ("frank", FRANK, [Tell, Tell, Tell], limits),
        ("frank", FRANK, [Revoke, Revoke, Revoke], denials),
        ("frank", FRANK, [Drop, Drop, Drop], absence),
        ("offline", OFFLINE, [Refuse, ServeStale(Offline), ServeStale(Offline)], failures),
        ("offline", OFFLINE, [Refuse, ServeStale(Offline), ServeStale(Offline)], limits),
        ("offline", OFFLINE, [Refuse, ServeStale(Offline), ServeStale(Offline)], denials),
        ("offline", OFFLINE, [Refuse, ServeStale(Offline), ServeStale(Offline)], absence),
        ("immutable", IMMUTABLE, [Tell, Serve, Serve], failures),
        ("immutable", IMMUTABLE, [Tell, Serve, Serve], limits),
        ("immutable", IMMUTABLE, [Revoke, Serve, Serve], denials),
        ("immutable", IMMUTABLE, [Drop, Serve, Serve], absence),
    ];
    let unfailed = [
        ("online", POLICY, Health::Unasked, [Ask(None), Ask(wait), Ask(None)]),
        ("online", POLICY, Health::Silent, [Ask(None), ServeStale(WhileRevalidate), Ask(None)]),
        ("frank", FRANK, Health::Unasked, [Ask(None), Ask(wait), Ask(None)]),
        ("frank", FRANK, Health::Silent, [Ask(None), ServeStale(WhileRevalidate), Ask(None)]),
        ("offline", OFFLINE, Health::Unasked, [Refuse, ServeStale(Offline), ServeStale(Offline)]),
        ("offline", OFFLINE, Health::Silent, [Refuse, ServeStale(Offline), ServeStale(Offline)]),
        ("immutable", IMMUTABLE, Health::Unasked, [Ask(None), Serve, Serve]),
        ("immutable", IMMUTABLE, Health::Silent, [Ask(None), Serve, Serve]),
    ];
    let mut cases = 0;
    let mut check = |name: &str, policy: &Policy, health: Health<'_>, [none, old, very_old]: [Decision; 3]| {
        for (entry, checked_at) in entries {
            let expected = match entry {
                "none" => none,
                "fresh" => Serve,
                "old" => old,
                _ => very_old,
            };
            assert_eq!(decide(now, checked_at, policy, health), expected, "{entry}, {name}, {health:?}");
            cases += 1;
        }
    };
    for (name, policy, expected, errors) in failed {
        for error in errors() {
            check(name, &policy, Health::Failed(&error), expected);
        }
    }
    for (name, policy, health, expected) in unfailed {
        check(name, &policy, health, expected);
    }
    assert_eq!(cases, 5 * 4 * 19);
}

#[test]
fn what_tells_of_signatures_is_asked_about_again_at_once() {
    let tag: Tag = format!("sha256-{}.sig", "0".repeat(64)).parse().expect("a tag");
    let policy = IMMUTABLE.of_tag(&tag);
    assert_eq!(
        (policy.tag_ttl, policy.negative_ttl, policy.is_immutable),
        (REFERRERS_TTL, Duration::ZERO, false),
        "P-88"
    );
    assert_eq!(IMMUTABLE.of_tag(&"v1".parse().expect("a tag")), IMMUTABLE);
}

#[test]
fn head_says_what_a_tag_means_or_get_must() {
    let digest = Digest::sha256(b"x");
    let manifest = MediaType::parse(MediaType::OCI_MANIFEST);
    let html = MediaType::parse("text/html");
    let head = |digest, media_type: &Option<MediaType>, size_bytes| {
        Ok(ManifestHead { digest, media_type: media_type.clone(), size_bytes })
    };
    let status = |status| Err(UpstreamError::Status { status, message: None });
    let denied = |status| Err(UpstreamError::Denied { status, message: None });
    for (name, told, expected) in [
        ("all of it", head(Some(digest), &manifest, Some(7)), Ok(true)),
        ("no digest", head(None, &manifest, Some(7)), Ok(false)),
        ("no type", head(Some(digest), &None, Some(7)), Ok(false)),
        ("no length", head(Some(digest), &manifest, None), Ok(false)),
        ("a page", head(Some(digest), &html, Some(7)), Ok(false)),
        ("401", denied(401), Ok(false)),
        ("403", denied(403), Ok(false)),
        ("405", status(405), Ok(false)),
        ("501", status(501), Ok(false)),
        ("404", Err(UpstreamError::NotFound { message: None }), Err(())),
        ("500", status(500), Err(())),
        ("429", Err(UpstreamError::RateLimited { retry_after: None, limit: RateLimit::Requests }), Err(())),
    ] {
        let read = Head::read(told).map(|head| matches!(head, Head::Means { .. })).map_err(|_| ());
        assert_eq!(read, expected, "P-137: {name}");
    }
}
