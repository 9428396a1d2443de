//! Who is let in, to what, and what others are told; and that whom the door refuses reaches no upstream.

mod changes;
mod ground;
mod secrets;
mod service_accounts;
mod tokens;

use bytes::Bytes;
use futures_util::future::join_all;

use crate::harness::{Cachalot, Open};
use crate::registry::Registry;
use ground::{ALICE, CI, Ground, REALM, basic};

/// What may be asked for, as method and path; `DIGEST` is a blob that is there.
const ASKED: [(&str, &str); 10] = [
    ("GET", "/v2/"),
    ("HEAD", "/v2/"),
    ("GET", "/v2/app/manifests/1"),
    ("HEAD", "/v2/app/manifests/1"),
    ("GET", "/v2/app/blobs/DIGEST"),
    ("GET", "/v2/app/tags/list"),
    ("GET", "/v2/app/referrers/DIGEST"),
    ("POST", "/v2/app/blobs/uploads/"),
    ("GET", "/v2/no.such.registry/app/manifests/1"),
    ("GET", "/nothing/here"),
];

#[tokio::test]
async fn who_is_not_known_is_told_how_to_be_and_reaches_nothing() {
    for has_tokens in [false, true] {
        let ground = Ground::new().await;
        let cachalot = ground.start(has_tokens, "").await;
        let credentials = [
            None,
            Some(basic("alice", "wrong")),
            Some(basic("mallory", "secret")),
            Some(basic("ci", "wrong")),
            Some("Bearer not-a-token-of-anybody".to_owned()),
            Some("Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.".to_owned()),
            Some("Bearer cachalot.AAAA".to_owned()),
            Some("Basic !!!".to_owned()),
            Some("Negotiate YII=".to_owned()),
        ];
        // Each from an address of its own: nobody has failed before.
        for (number, credential) in credentials.iter().enumerate() {
            for (index, (method, path)) in ASKED.iter().enumerate() {
                let path = path.replace("DIGEST", &ground.digest);
                let from = format!("10.{number}.{index}.1");
                let mut headers = vec![("x-forwarded-for", from.as_str())];
                headers.extend(credential.as_deref().map(|credential| ("authorization", credential)));
                let answer = cachalot.send(method, &path, &headers).await;
                let name = format!("{credential:?} {method} {path}");
                assert_eq!(answer.status, 401, "P-17, S-20: {name}");
                assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0", "P-19: {name}");
                let challenge = answer.header("www-authenticate");
                let expected = if has_tokens {
                    "Bearer realm=\"https://cache.test/token\",service=\"cache.test\""
                } else {
                    "Basic realm=\"cachalot\""
                };
                assert!(challenge.starts_with(expected), "P-18, P-176: {name}: {challenge}");
                if *method == "HEAD" {
                    assert!(answer.body.is_empty(), "{name}");
                } else {
                    assert_eq!(answer.error_code(), "UNAUTHORIZED", "P-102: {name}");
                }
            }
        }
        assert_eq!(ground.registry.requests().len(), 0, "a refused client causes no request");
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn a_challenge_has_the_scope_that_the_client_named_whether_or_not_there_is_such_a_thing() {
    let ground = Ground::new().await;
    let cachalot = ground.start(true, "").await;
    for (method, path, scope) in [
        ("GET", "/v2/", ""),
        ("GET", "/v2/app/manifests/1", ",scope=\"repository:app:pull\""),
        ("GET", "/v2/registry.test/app/manifests/1", ",scope=\"repository:registry.test/app:pull\""),
        ("GET", "/registry.test/v2/app/tags/list", ",scope=\"repository:app:pull\""),
        ("GET", "/v2/alpine/manifests/1?ns=docker.io", ",scope=\"repository:alpine:pull\""),
        ("GET", "/v2/no.such:5000/app/manifests/1", ",scope=\"repository:no.such:5000/app:pull\""),
        ("POST", "/v2/app/blobs/uploads/", ",scope=\"repository:app:pull,push\""),
        ("PUT", "/v2/app/manifests/1", ",scope=\"repository:app:pull,push\""),
    ] {
        let answer = cachalot.send(method, path, &[]).await;
        let challenge = answer.header("www-authenticate");
        assert_eq!(challenge, format!("{REALM}{scope}"), "P-178: {method} {path}");
        let wrong = cachalot.send(method, path, &[("authorization", "Bearer cachalot.AAAA")]).await;
        let expected = format!("{REALM}{scope},error=\"invalid_token\"");
        assert_eq!(wrong.header("www-authenticate"), expected, "{method} {path}");
    }
    cachalot.finish().await;
}

#[tokio::test]
async fn who_is_known_is_served_and_the_credential_goes_no_further() {
    let ground = Ground::new().await;
    let cachalot = ground.start(false, "").await;
    for credential in [basic("alice", "secret"), format!("Bearer {CI}"), basic("ci", CI), format!("bEaReR  {CI}")] {
        let ask = async |method, path: &str| {
            let path = path.replace("DIGEST", &ground.digest);
            cachalot.send(method, &path, &[("authorization", &credential)]).await.status
        };
        assert_eq!(ask("GET", "/v2/").await, 200, "{credential}");
        assert_eq!(ask("HEAD", "/v2/").await, 200, "P-20");
        for path in ["/v2/app/manifests/1", "/v2/app/blobs/DIGEST", "/v2/app/tags/list", "/v2/app/referrers/DIGEST"] {
            assert_eq!(ask("GET", path).await, 200, "{credential} {path}");
        }
        assert_eq!(ask("GET", "/v2/no.such.registry/app/manifests/1").await, 404);
        assert_eq!(ask("POST", "/v2/app/blobs/uploads/").await, 405, "P-148");
    }
    let twice = [("authorization", "Bearer 0123456789abcdef"), ("authorization", "Bearer 0123456789abcdef")];
    assert_eq!(cachalot.send("GET", "/v2/", &twice).await.status, 401, "several headers");
    let shown = ground.registry.requests().iter().filter(|request| request.authorization.is_some()).count();
    assert_eq!(shown, 0, "a credential of ours travels to no upstream");
    cachalot.finish().await;
}

#[tokio::test]
async fn without_methods_nobody_is_asked_and_with_anonymous_whoever_shows_nothing_is_let_in() {
    let registry = Registry::start().await;
    registry.image("app", "1", &crate::registry::Image::new());
    let cachalot = Cachalot::over(&registry).await;
    for credential in [None, Some(basic("alice", "wrong")), Some("Negotiate x".to_owned())] {
        let headers: Vec<_> =
            credential.as_deref().map(|credential| ("authorization", credential)).into_iter().collect();
        assert_eq!(cachalot.send("GET", "/v2/", &headers).await.status, 200);
        assert_eq!(cachalot.send("GET", "/v2/app/manifests/1", &headers).await.status, 200);
    }
    assert_eq!(cachalot.send("GET", "/token", &[]).await.status, 404, "there is no such thing without public_url");
    cachalot.finish().await;

    let ground = Ground::new().await;
    let cachalot = ground.start(false, "anonymous = true").await;
    for (credential, status) in [(None, 200), (Some(basic("alice", "secret")), 200), (Some(basic("alice", "x")), 401)] {
        let headers: Vec<_> =
            credential.as_deref().map(|credential| ("authorization", credential)).into_iter().collect();
        for path in ["/v2/", "/v2/app/manifests/1"] {
            assert_eq!(cachalot.send("GET", path, &headers).await.status, status, "{credential:?} {path}");
        }
    }
    cachalot.finish().await;
}

#[tokio::test]
async fn rules_say_who_may_have_what() {
    let ground = Ground::new().await;
    ground.registry.image("secret", "1", &crate::registry::Image::new());
    let rules = "[[principal]]\nmatch = [\"user:*\"]\nrepositories = [\"registry.test/app\"]\npush = false\n\
                 [[principal]]\nmatch = [\"anonymous\"]\nrepositories = [\"registry.test/public\"]\n";
    let cachalot = ground.start_with("", "anonymous = true", "push = true", rules).await;
    let alice = basic("alice", "secret");
    let bearer = format!("Bearer {CI}");
    let before = ground.registry.requests().len();
    for (credential, method, path, status) in [
        (Some(&alice), "GET", "/v2/secret/manifests/1", 403),
        (Some(&alice), "POST", "/v2/app/blobs/uploads/", 403),
        (Some(&alice), "PUT", "/v2/app/manifests/1", 403),
        (Some(&alice), "GET", "/v2/no.such.registry/a/manifests/1", 403),
        (Some(&bearer), "GET", "/v2/app/manifests/1", 403),
        (Some(&bearer), "GET", "/v2/", 200),
        (None, "GET", "/v2/", 200),
        (None, "GET", "/v2/app/manifests/1", 401),
        (None, "GET", "/v2/no.such.registry/a/manifests/1", 401),
    ] {
        let headers: Vec<_> = credential.map(|credential| ("authorization", credential.as_str())).into_iter().collect();
        let answer = cachalot.send(method, path, &headers).await;
        assert_eq!(answer.status, status, "{credential:?} {method} {path}");
        if status == 403 {
            assert_eq!(answer.error_code(), "DENIED");
        }
    }
    assert_eq!(ground.registry.requests().len(), before);
    let headers = [("authorization", alice.as_str())];
    assert_eq!(cachalot.send("GET", "/v2/app/manifests/1", &headers).await.status, 200);
    cachalot.finish().await;
}

#[tokio::test]
async fn a_principal_has_its_own_rate() {
    let ground = Ground::new().await;
    let rules = "[[principal]]\nmatch = [\"user:*\"]\nrate = 1\nburst = 3\n[[principal]]\nmatch = [\"**\"]\n";
    let cachalot = ground.start_with("", "", "", rules).await;
    let ask = async |credential: String| {
        cachalot.send("GET", "/v2/app/tags/list", &[("authorization", &credential)]).await.status
    };
    let (alice, ci) = tokio::join!(
        join_all((0..30).map(|_| ask(basic("alice", "secret")))),
        join_all((0..30).map(|_| ask(format!("Bearer {CI}"))))
    );
    assert!(ci.iter().all(|status| *status == 200));
    let served = alice.iter().filter(|status| **status == 200).count();
    assert!((3..=12).contains(&served), "three at once and one a second for 5 s: {served}");
    assert!(alice.iter().all(|status| [200, 503].contains(status)), "S-37");
    cachalot.finish().await;
}

#[tokio::test]
async fn a_thousand_requests_with_one_password_compute_it_once() {
    let ground = Ground::new().await;
    let cachalot = ground.start(false, "").await;
    let alice = basic("alice", "secret");
    let headers = [("authorization", alice.as_str())];
    for _ in 0..10 {
        let herd = (0..100).map(|_| cachalot.send("GET", "/v2/app/manifests/1", &headers));
        assert!(join_all(herd).await.iter().all(|answer| answer.status == 200));
    }
    assert_eq!(cachalot.metric("cachalot_client_passwords_computed_total"), 1);
    cachalot.finish().await;
}

#[tokio::test]
async fn who_guesses_is_told_to_wait_and_others_are_served() {
    let ground = Ground::new().await;
    let cachalot = ground.start(false, "").await;
    let guess = async |number: usize| {
        let credential = basic("alice", &format!("guess {number}"));
        let headers = [("authorization", credential.as_str()), ("x-forwarded-for", "192.0.2.1")];
        cachalot.send("GET", "/v2/app/manifests/1", &headers).await
    };
    let good = async |_| {
        let credential = basic("bob", "correct-horse");
        let headers = [("authorization", credential.as_str()), ("x-forwarded-for", "192.0.2.2")];
        cachalot.send("GET", "/v2/app/manifests/1", &headers).await.status
    };
    let (guesses, good) = tokio::join!(join_all((0..200).map(guess)), join_all((0..20).map(good)));
    assert_eq!(good, [200; 20]);
    let told: Vec<_> = guesses.iter().filter(|answer| answer.status == 429).collect();
    assert!(told.len() > 170 && guesses.iter().all(|answer| [401, 429].contains(&answer.status)), "{}", told.len());
    assert!(
        told.iter().all(|answer| answer.error_code() == "TOOMANYREQUESTS" && !answer.header("retry-after").is_empty())
    );
    let computed = cachalot.metric("cachalot_client_passwords_computed_total");
    assert!(computed < 30, "the others were not computed: {computed}");
    let counted = cachalot.metric(r#"cachalot_client_auth_failures_total{reason="too_often"}"#);
    assert_eq!(counted, told.len() as u64);
    let headers = [("authorization", &*basic("alice", "another")), ("x-forwarded-for", "192.0.2.1")];
    assert_eq!(cachalot.send("GET", "/v2/", &headers).await.status, 401, "P-17");
    cachalot.finish().await;
}

#[tokio::test]
async fn a_changed_file_counts_from_the_reload_on() {
    let ground = Ground::new().await;
    let cachalot = ground.start(false, "").await;
    let alice = basic("alice", "secret");
    let ask = async || cachalot.send("GET", "/v2/", &[("authorization", &alice)]).await.status;
    assert_eq!(ask().await, 200);
    ground.write("htpasswd", &ALICE.replace("alice", "carol"));
    assert_eq!(cachalot.apply(&ground.settings(&cachalot, "", "", "", "")), Vec::<String>::new());
    assert_eq!(ask().await, 401, "what was remembered of the password is gone");
    ground.write("htpasswd", ALICE);
    cachalot.apply(&ground.settings(&cachalot, "", "", "", ""));
    assert_eq!(ask().await, 200);
    assert_eq!(cachalot.metric("cachalot_client_passwords_computed_total"), 3);
    cachalot.finish().await;
}

#[tokio::test]
async fn where_the_callers_own_credential_counts_it_is_the_upstreams_to_judge() {
    let ground = Ground::new().await;
    let cachalot = ground.start_with("", "anonymous = true", "push = true", "").await;
    let begin = async |credential: &str| {
        let headers = [("authorization", credential)];
        cachalot.write("POST", "/v2/app/blobs/uploads/", &headers, "").await.status
    };
    let theirs = basic("me", "theirs");
    ground.registry.require_basic("me", "theirs");
    assert_eq!(begin(&theirs).await, 202);
    assert_eq!(begin(&basic("me", "wrong")).await, 401, "so the upstream says");
    let seen = ground.registry.requests().len();
    assert_eq!(begin(&basic("alice", "wrong")).await, 401, "that is ours, and wrong");
    assert_eq!(ground.registry.requests().len(), seen);
    assert_eq!(begin(&basic("alice", "secret")).await, 401, "the upstream is shown nothing");
    assert_eq!(begin(&format!("Bearer {CI}")).await, 401);
    let shown: Vec<_> = ground.registry.requests().iter().filter_map(|request| request.authorization.clone()).collect();
    assert!(shown.iter().all(|shown| *shown == theirs || *shown == basic("me", "wrong")), "{shown:?}");
    cachalot.finish().await;

    // Where nobody is anonymous, a credential that nobody here knows opens nothing that the upstream does not judge.
    let ground = Ground::new().await;
    let cachalot = ground.start_with("", "", "push = true", "").await;
    let headers = [("authorization", theirs.as_str())];
    assert_eq!(cachalot.send("GET", "/v2/", &headers).await.status, 200);
    let mut told = Vec::new();
    for upstream in ["registry.test", "docker.io", "no.such.registry"] {
        let answer = cachalot.send("GET", &format!("/v2/{upstream}/app/manifests/1"), &headers).await;
        let challenge = answer.header("www-authenticate").to_owned();
        told.push((answer.status, answer.body, challenge));
    }
    assert_eq!(told[0].0, 401);
    assert!(told.iter().all(|one| *one == told[0]), "S-20: a stranger learns nothing of upstreams: {told:?}");
    assert_eq!(ground.registry.requests().len(), 0);
    assert_eq!(cachalot.write("POST", "/v2/app/blobs/uploads/", &headers, "").await.status, 202);
    cachalot.finish().await;
}

#[tokio::test]
async fn the_admin_listener_has_identities_of_its_own() {
    let ground = Ground::new().await;
    let cachalot = ground.start(false, "").await;
    let admin = cachalot.admin_address();
    let get = async |path, headers: &[(&str, &str)]| Open::send(admin, "GET", path, headers, Bytes::new()).await.status;
    assert_eq!(get("/metrics", &[]).await, 200, "unasked, everybody may");
    let mut admins = ground.settings(&cachalot, "", "", "", "");
    admins.admin.tokens = admins.identity.tokens.clone();
    assert_eq!(cachalot.apply(&admins), Vec::<String>::new());
    for (path, status) in [("/livez", 200), ("/readyz", 200), ("/metrics", 401)] {
        assert_eq!(get(path, &[]).await, status, "{path}");
    }
    let bearer = format!("Bearer {CI}");
    assert_eq!(get("/metrics", &[("authorization", &bearer)]).await, 200);
    assert_eq!(get("/metrics", &[("authorization", &basic("alice", "secret"))]).await, 401, "who pulls is no operator");
    let health = tokio::task::spawn_blocking(move || {
        std::process::Command::new(env!("CARGO_BIN_EXE_cachalot"))
            .args(["healthcheck", "--admin", &admin.to_string()])
            .output()
            .unwrap()
    });
    assert!(health.await.unwrap().status.success());
    cachalot.finish().await;
}
