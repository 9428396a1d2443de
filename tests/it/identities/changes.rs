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
