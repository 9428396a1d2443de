//! What somebody was holds no longer than the configuration says so: tokens, and connections that stand.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::ground::{ALICE, CI, Ground, PUBLIC_URL, basic};
use crate::harness::Cachalot;
use crate::registry::Registry;
use crate::secure;

/// Another password.
const RESET: &str = "alice:$2y$04$9aB8hHvLJHdddLZShg7wKOWZn/AB5KdK2YJ1B0mt2Xu9epaBMKx6S\n";

async fn token(cachalot: &Cachalot, credential: &str) -> String {
    let given = cachalot.send("GET", "/token", &[("authorization", credential)]).await;
    assert_eq!(given.status, 200);
    let body: Value = serde_json::from_slice(&given.body).unwrap();
    format!("Bearer {}", body["token"].as_str().unwrap())
}

#[tokio::test]
async fn a_token_ends_with_what_it_was_given_for() {
    let ground = Ground::new().await;
    let cachalot = ground.start_with(PUBLIC_URL, "", "", "").await;
    let (alice, bob) = (basic("alice", "secret"), basic("bob", "correct-horse"));
    let tokens =
        [token(&cachalot, &alice).await, token(&cachalot, &bob).await, token(&cachalot, &basic("ci", CI)).await];
    let bob_alone = std::fs::read_to_string(ground.path("htpasswd")).unwrap().replace(ALICE, "");
    let new_token = "fedcba9876543210";
    for (what, htpasswd, ci, expected) in [
        ("nothing", format!("{ALICE}{bob_alone}"), CI, [200, 200, 200]),
        ("comments and order", format!("# who\n{bob_alone}{ALICE}"), CI, [200, 200, 200]),
        ("alice has another password", format!("{RESET}{bob_alone}"), CI, [401, 200, 200]),
        ("alice is gone", bob_alone.clone(), CI, [401, 200, 200]),
        ("ci has another token", format!("{ALICE}{bob_alone}"), new_token, [200, 200, 401]),
    ] {
        ground.write("htpasswd", &htpasswd);
        ground.write("tokens", &format!("ci:{ci}\n"));
        cachalot.apply(&ground.settings(&cachalot, PUBLIC_URL, "", "", ""));
        let mut told = Vec::new();
        for token in &tokens {
            told.push(cachalot.send("GET", "/v2/", &[("authorization", token)]).await.status);
        }
        assert_eq!(told, expected, "{what}");
    }
    cachalot.finish().await;
}

#[tokio::test]
async fn who_may_connect_and_who_is_asked_holds_for_connections_that_stand() {
    let registry = Registry::start().await;
    let ground = secure::Ground::new();
    let (one, other) = (secure::Authority::new("one"), secure::Authority::new("other"));
    for (name, authority) in [("one.crt", &one), ("other.crt", &other)] {
        std::fs::write(ground.mounted.path(name), authority.pem()).unwrap();
    }
    let trusting =
        |name: &str| format!("client_ca = {}\nclient_certificate = \"optional\"", ground.mounted.quoted(name));
    let unasked = format!("{}\nidentities = false", trusting("one.crt"));
    let cachalot = ground.start(&registry, &unasked).await;
    let mut lines = unasked;
    for (what, next, stands) in [
        ("nothing changes", lines.clone(), true),
        ("HTTP/2 is not offered any more", format!("{lines}\nhttp2 = false"), true),
        ("whoever connects is asked", trusting("one.crt"), false),
        ("another authority is believed", trusting("other.crt"), false),
    ] {
        assert_eq!(ground.reload(&cachalot, &registry, &lines), Vec::<String>::new());
        let stream = ground.client().offering(&[secure::H1]).connect(cachalot.listener_address()).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let ended = tokio::spawn(connection);
        let mut ask = async || {
            let request = Request::get("/v2/").header("host", "localhost").body(Full::<Bytes>::default()).unwrap();
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            answer.into_body().collect().await.map(|_| status)
        };
        assert_eq!(ask().await.unwrap(), 200);
        ground.reload(&cachalot, &registry, &next);
        if stands {
            assert_eq!(ask().await.unwrap(), 200, "{what}");
            drop(sender);
        } else {
            let ended = tokio::time::timeout(std::time::Duration::from_secs(20), ended).await;
            ended.expect("the connection is asked to go").unwrap().unwrap();
        }
        lines = next;
    }
    cachalot.finish().await;
}

#[tokio::test]
async fn who_is_nobody_has_a_rate_for_each_address() {
    let ground = Ground::new().await;
    let rules = "[[principal]]\nmatch = [\"**\"]\nrate = 1\nburst = 2\n";
    let cachalot = ground.start_with("", "anonymous = true", "", rules).await;
    let ask =
        async |client: &str| cachalot.send("GET", "/v2/app/tags/list", &[("x-forwarded-for", client)]).await.status;
    let greedy = futures_util::future::join_all((0..30).map(|_| ask("192.0.2.1")));
    let (greedy, modest) = tokio::join!(greedy, async { [ask("192.0.2.2").await, ask("192.0.2.3").await] });
    assert_eq!(modest, [200; 2], "S-37: who asks too much takes nothing from the others");
    assert!(greedy.contains(&503), "S-37: {greedy:?}");
    cachalot.finish().await;
}

#[tokio::test]
async fn what_opens_this_cache_is_shown_to_no_upstream_under_whatever_name() {
    let ground = Ground::new().await;
    let cachalot = ground.start_with(PUBLIC_URL, "anonymous = true", "push = true", "").await;
    let sealed = token(&cachalot, &basic("alice", "secret")).await.replace("Bearer ", "");
    for secret in [CI, sealed.as_str()] {
        for user in ["me", "ci2"] {
            let shown = basic(user, secret);
            let headers = [("authorization", shown.as_str())];
            let answer = cachalot.write("POST", "/v2/app/blobs/uploads/", &headers, "").await;
            assert_eq!(answer.status, 401, "S-5: {user}");
            let given = cachalot.send("GET", "/token", &headers).await;
            assert_eq!(given.status, 401, "S-5: {user}");
        }
    }
    let shown = ground.registry.requests().iter().filter(|request| request.authorization.is_some()).count();
    assert_eq!(shown, 0, "S-5");
    cachalot.finish().await;
}

#[tokio::test]
async fn a_form_names_whom_a_header_could_name() {
    let ground = Ground::new().await;
    let hash = bcrypt::hash("a:b", 4).unwrap();
    ground.write("htpasswd", &format!("carol:{hash}\n"));
    let cachalot = ground.start_with(PUBLIC_URL, "", "push = true", "").await;
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    for (user, password, status) in
        [("carol", "a%3Ab", 200), ("carol%3Aa", "b", 400), ("x%0Ay", "b", 400), ("x", "b%00", 400)]
    {
        let form = format!("grant_type=password&username={user}&password={password}");
        let answer = cachalot.write("POST", "/token", &headers, form).await;
        assert_eq!(answer.status, status, "P-177: {user} {password}");
    }
    cachalot.finish().await;
}

#[tokio::test]
async fn who_may_not_read_a_repository_here_mounts_nothing_from_it() {
    let registry = Registry::start().await;
    let ground = secure::Ground::new();
    let nodes = secure::Authority::new("nodes");
    std::fs::write(ground.mounted.path("clients.crt"), nodes.pem()).unwrap();
    let digest = registry.with_blob_in("secret", crate::registry::Content::generated(1, 100));
    let listener = ground.listener(&format!("client_ca = {}", ground.mounted.quoted("clients.crt")));
    let rules = "[identity]\ncertificates = \"cn\"\n\
                 [[principal]]\nmatch = [\"cert:*\"]\nrepositories = [\"registry.test/app\"]\n";
    let sections = format!("{listener}{rules}");
    let more = crate::harness::More { upstream: "push = true", sections: &sections, ..Default::default() };
    let cachalot = Cachalot::configured(&registry, more).await;
    let client = secure::Client::new(&ground.authority, Some(nodes.client("node-1")));
    let path = format!("/v2/app/blobs/uploads/?mount={digest}&from=secret");
    let begun = client.open(cachalot.listener_address(), "POST", &path, &[]).await;
    let queries: Vec<_> = registry.requests().iter().filter_map(|request| request.query.clone()).collect();
    assert_eq!(queries, Vec::<String>::new(), "S-4: it becomes an upload");
    assert_eq!(begun.status, 202, "P-154");
    cachalot.finish().await;
}
