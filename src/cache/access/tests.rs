//! What is remembered of callers, for how long, and for which repositories.

use super::*;

const TTL: Duration = Duration::from_mins(1);
const STALE: Duration = Duration::from_mins(10);

fn rules(is_for_callers: bool, except: &[&str]) -> AccessRules {
    let except = except.iter().map(|pattern| pattern.parse().unwrap()).collect();
    AccessRules { is_for_callers, except, ttl: TTL, stale_if_error: STALE }
}

fn caller(access: &Access, shown: &'static str) -> CallerId {
    Caller::new(&access.key, Some(&HeaderValue::from_static(shown))).unwrap().id()
}

fn failure(source: UpstreamError) -> Result<(), CacheError> {
    Err(CacheError::Upstream { upstream: "registry.test".parse().unwrap(), source })
}

#[test]
fn an_upstream_is_for_callers_but_for_what_is_excepted() {
    assert!(Access::new(rules(false, &[])).is_none());
    for (is_for_callers, except, repository, expected) in [
        (true, &[] as &[&str], "team/app", true),
        (true, &["public/**"], "public/a/b", false),
        (true, &["public/**"], "team/app", true),
        (false, &["team/*"], "team/app", true),
        (false, &["team/*"], "team/app/deep", false),
        (false, &["team/*"], "public/app", false),
    ] {
        let access = Access::new(rules(is_for_callers, except)).unwrap();
        assert_eq!(access.is_for_callers(&repository.parse().unwrap()), expected, "{repository} {except:?}");
    }
}

#[test]
fn a_yes_holds_for_its_time_and_ends_with_a_no() {
    let access = Access::new(rules(true, &[])).unwrap();
    let (one, other) = (caller(&access, "Bearer a"), caller(&access, "Bearer b"));
    let (app, elsewhere): (RepositoryName, RepositoryName) = ("app".parse().unwrap(), "other".parse().unwrap());
    let asked_at = Instant::now();
    let tag: Reference = "1".parse().unwrap();
    let recall = |caller, repository, after| {
        let at = asked_at + after;
        let wanted = Wanted::Manifest(&tag);
        (access.recall(caller, repository, wanted, at), access.holds_stale(caller, repository, wanted, at))
    };
    let second = Duration::from_secs(1);
    for told in [
        failure(UpstreamError::Denied { status: 403, message: None }),
        failure(UpstreamError::NotFound { message: None }),
    ] {
        access.taken_back.invalidate_all();
        access.note(one, &app, Sphere::Content, &Ok(()), asked_at);
        for (after, expected) in [
            (Duration::ZERO, (Memory::Yes, true)),
            (TTL.saturating_sub(second), (Memory::Yes, true)),
            (TTL, (Memory::Nothing, true)),
            ((TTL + STALE).saturating_sub(second), (Memory::Nothing, true)),
            (TTL + STALE, (Memory::Nothing, false)),
        ] {
            assert_eq!(recall(one, &app, after), expected, "{after:?}");
            assert_eq!(recall(one, &elsewhere, after), (Memory::Nothing, false));
            assert_eq!(recall(other, &app, after), (Memory::Nothing, false));
        }
        access.note(one, &app, Sphere::Content, &failure(UpstreamError::Protocol { reason: String::new() }), asked_at);
        assert_eq!(recall(one, &app, TTL), (Memory::Nothing, true), "a failure takes nothing back");
        let is_denial = told.as_ref().is_err_and(CacheError::is_denial);
        access.note(one, &app, Sphere::Content, &told, asked_at);
        let expected = if is_denial { Memory::No } else { Memory::Nothing };
        assert_eq!(recall(one, &app, Duration::ZERO), (expected, false));
        assert_eq!(access.recall(one, &app, Wanted::Tags, asked_at), Memory::Nothing);
        access.no.invalidate_all();
    }
}

#[test]
fn a_yes_that_was_asked_for_before_a_no_is_not_remembered_after_it() {
    let access = Access::new(rules(true, &[])).unwrap();
    let (one, app) = (caller(&access, "Bearer a"), "app".parse().unwrap());
    let tag: Reference = "1".parse().unwrap();
    let wanted = Wanted::Manifest(&tag);
    let asked_at = Instant::now();
    access.take_back(one, &app);
    access.note(one, &app, Sphere::Content, &Ok(()), asked_at);
    assert_eq!(access.recall(one, &app, wanted, asked_at), Memory::Nothing, "S-7");
    let asked_again_at = Instant::now() + Duration::from_millis(1);
    access.note(one, &app, Sphere::Content, &Ok(()), asked_again_at);
    assert_eq!(access.recall(one, &app, wanted, asked_again_at), Memory::Yes);
}
