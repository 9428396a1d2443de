//! The token endpoint, and what its tokens are good for.

use serde_json::Value;

use super::ground::{CI, Ground, PUBLIC_URL, REALM, basic};
use crate::harness::{Answer, Cachalot};

const ASK: &str = "/token?service=cache.test&scope=repository:app:pull&scope=repository:localhost:5000/a:pull,push";

async fn token(cachalot: &Cachalot, credential: Option<&str>) -> Answer {
    let headers: Vec<_> = credential.map(|credential| ("authorization", credential)).into_iter().collect();
    cachalot.send("GET", &format!("{ASK}&account=a&client_id=docker&offline_token=true"), &headers).await
}

fn bearer(answer: &Answer) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    format!("Bearer {}", body["token"].as_str().unwrap())
}

#[tokio::test]
async fn a_token_is_given_to_who_is_known_and_is_as_good_as_what_it_was_given_for() {
    let ground = Ground::new().await;
    let cachalot = ground.start(true, "token_life = \"60s\"").await;
    for credential in [basic("alice", "secret"), basic("ci", CI)] {
        let given = token(&cachalot, Some(&credential)).await;
        assert_eq!(given.status, 200, "P-177");
        assert_eq!((given.header("cache-control"), given.header("content-type")), ("no-store", "application/json"));
        let body: Value = serde_json::from_slice(&given.body).unwrap();
        assert_eq!(body["token"], body["access_token"], "P-179");
        assert_eq!(body["expires_in"], 60, "P-179");
        let issued = body["issued_at"].as_str().unwrap();
        assert!(issued.len() == 20 && issued.ends_with('Z'), "P-179: {issued}");
        let token = bearer(&given);
        for path in ["/v2/", "/v2/app/manifests/1"] {
            assert_eq!(cachalot.send("GET", path, &[("authorization", &token)]).await.status, 200);
        }
        let again = cachalot.send("GET", ASK, &[("authorization", &token)]).await;
        assert_eq!(again.status, 401, "a token begets no other");
    }
    let head = cachalot.send("HEAD", ASK, &[("authorization", &basic("alice", "secret"))]).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    let asked = ground.registry.requests().len();
    for credential in [None, Some(basic("alice", "wrong")), Some(basic("mallory", "x")), Some("Basic !".to_owned())] {
        let refused = token(&cachalot, credential.as_deref()).await;
        assert_eq!((refused.status, refused.error_code().as_str()), (401, "UNAUTHORIZED"), "{credential:?}");
        assert_eq!(refused.header("www-authenticate"), "Basic realm=\"cachalot\"", "{credential:?}");
    }
    assert_eq!(ground.registry.requests().len(), asked);
    cachalot.finish().await;
}

#[tokio::test]
async fn a_form_is_answered_and_what_is_not_known_makes_clients_ask_otherwise() {
    let ground = Ground::new().await;
    let cachalot = ground.start(true, "").await;
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    for (form, status) in [
        ("grant_type=password&username=alice&password=secret&service=s&client_id=c&scope=repository:a:pull+x", 200),
        ("grant_type=password&username=alice&password=wrong", 401),
        ("grant_type=password&username=alice", 400),
        ("grant_type=refresh_token&refresh_token=x", 400),
        ("", 400),
        (&"a".repeat(20_000), 400),
    ] {
        let answer = cachalot.write("POST", "/token", &headers, form.to_owned()).await;
        assert_eq!(answer.status, status, "P-177, C-30: {form:.40}");
        if status == 200 {
            let body: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(body["scope"], "repository:a:pull", "what is no scope is not told back");
            let token = bearer(&answer);
            assert_eq!(cachalot.send("GET", "/v2/", &[("authorization", &token)]).await.status, 200);
        }
    }
    let put = cachalot.write("PUT", "/token", &[], "").await;
    assert_eq!((put.status, put.header("allow")), (405, "GET, HEAD, POST"), "P-177");
    cachalot.finish().await;
}

#[tokio::test]
async fn tokens_are_understood_by_who_has_the_key_and_by_nobody_else() {
    let ground = Ground::new().await;
    ground.write("old", &"o".repeat(40));
    ground.write("both", &format!("{}\n{}", "n".repeat(40), "o".repeat(40)));
    ground.write("new", &"n".repeat(40));
    let key = |name: &str| format!("token_key_file = {:?}", ground.path(name));
    let alice = basic("alice", "secret");
    let first = ground.start(true, &key("old")).await;
    let token = bearer(&token(&first, Some(&alice)).await);
    for (identity, status) in [(key("old"), 200), (key("both"), 200), (key("new"), 401), (String::new(), 401)] {
        let other = ground.start(true, &identity).await;
        let answer = other.send("GET", "/v2/", &[("authorization", &token)]).await;
        assert_eq!(answer.status, status, "{identity}");
        if status == 401 {
            let challenge = answer.header("www-authenticate");
            assert_eq!(challenge, format!("{REALM},error=\"invalid_token\""), "C-9: the client gets another");
        }
        other.finish().await;
    }
    // Without a file, a reload leaves the key of the process as it is.
    let process = ground.start(true, "").await;
    let token = bearer(&super::tokens::token(&process, Some(&alice)).await);
    process.apply(&ground.settings(&process, PUBLIC_URL, "token_life = \"2m\"", "", ""));
    assert_eq!(process.send("GET", "/v2/", &[("authorization", &token)]).await.status, 200);
    process.finish().await;
    first.finish().await;
}

#[tokio::test]
async fn where_callers_credentials_count_everybody_gets_a_token_and_it_carries_them_there_and_nowhere_else() {
    let ground = Ground::new().await;
    let cachalot = ground.start_with(PUBLIC_URL, "anonymous = true", "push = true", "").await;
    let ping = cachalot.get("/v2/").await;
    assert_eq!((ping.status, ping.header("www-authenticate")), (401, REALM), "P-18: so that clients log in at all");
    let nobody = bearer(&token(&cachalot, None).await);
    for path in ["/v2/", "/v2/app/manifests/1"] {
        assert_eq!(cachalot.send("GET", path, &[("authorization", &nobody)]).await.status, 200);
    }
    assert_eq!(cachalot.get("/v2/app/manifests/1").await.status, 200, "who shows nothing is let in as well");

    let theirs = basic("me", "their:password");
    let mine = bearer(&token(&cachalot, Some(&theirs)).await);
    ground.registry.require_basic("me", "their:password");
    let begin = async |credential: &str| {
        let headers = [("authorization", credential)];
        cachalot.write("POST", "/v2/app/blobs/uploads/", &headers, "").await.status
    };
    assert_eq!(begin(&mine).await, 202, "the upstream was shown the caller's credential");
    assert_eq!(begin(&nobody).await, 401, "and of nobody, nothing");
    let alice = bearer(&token(&cachalot, Some(&basic("alice", "secret"))).await);
    assert_eq!(begin(&alice).await, 401, "and of ours, nothing");
    let shown =
        ground.registry.requests().iter().filter_map(|request| request.authorization.clone()).collect::<Vec<_>>();
    assert_eq!(shown, [theirs], "no token of ours, and no password");
    // docker.io takes no writes: what the token holds is not for it.
    assert_eq!(cachalot.send("GET", "/v2/docker.io/app/tags/list", &[("authorization", &mine)]).await.status, 403);
    assert_eq!(token(&cachalot, Some(&basic("alice", "wrong"))).await.status, 401, "ours and wrong is wrong");
    cachalot.finish().await;
}

#[tokio::test]
async fn a_token_for_nobody_is_not_enough_where_somebody_is_wanted() {
    let ground = Ground::new().await;
    let cachalot = ground.start_with(PUBLIC_URL, "", "push = true", "").await;
    let nobody = bearer(&token(&cachalot, None).await);
    let answer = cachalot.send("GET", "/v2/app/manifests/1", &[("authorization", &nobody)]).await;
    let expected = format!("{REALM},scope=\"repository:app:pull\",error=\"insufficient_scope\"");
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, expected.as_str()));
    assert_eq!(ground.registry.requests().len(), 0);
    cachalot.finish().await;
}
