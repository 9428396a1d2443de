//! Kubernetes service accounts at the door: by a file of keys, and by a URL that is asked once.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::ground::{Ground, PUBLIC_URL, basic};

struct Issuer(rcgen::KeyPair);

impl Issuer {
    fn new() -> Self {
        Self(rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap())
    }

    fn keys(&self) -> String {
        let point = self.0.public_key_raw();
        let [x, y] = [&point[1..33], &point[33..]].map(|part| URL_SAFE_NO_PAD.encode(part));
        json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": "one", "x": x, "y": y }] }).to_string()
    }

    fn token(&self, audience: &str, lives: i64) -> String {
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        let claims = json!({
            "iss": "https://cluster.test", "aud": [audience], "sub": "system:serviceaccount:ci:builder", "exp": now + lives,
        });
        let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::ES256) };
        encode(&header, &claims, &EncodingKey::from_ec_der(&self.0.serialize_der())).unwrap()
    }
}

fn keys_at(place: &str) -> String {
    format!(
        "service_accounts_issuer = \"https://cluster.test\"\nservice_accounts_audience = \"cachalot\"\n\
         service_accounts_jwks = {place:?}"
    )
}

#[tokio::test]
async fn a_pods_token_is_its_service_account_as_bearer_as_password_and_for_a_token() {
    let ground = Ground::new().await;
    let (issuer, other) = (Issuer::new(), Issuer::new());
    ground.write("keys", &issuer.keys());
    let rules = "[[principal]]\nmatch = [\"system:serviceaccount:ci:*\"]\nrepositories = [\"registry.test/app\"]\n";
    let cachalot = ground.start_with(PUBLIC_URL, &keys_at(&ground.path("keys")), "", rules).await;
    let good = issuer.token("cachalot", 600);
    for (credential, status) in [
        (format!("Bearer {good}"), 200),
        (basic("anybody", &good), 200),
        (format!("Bearer {}", issuer.token("other", 600)), 401),
        (format!("Bearer {}", issuer.token("cachalot", -600)), 401),
        (format!("Bearer {}", other.token("cachalot", 600)), 401),
        (basic("anybody", &other.token("cachalot", 600)), 401),
    ] {
        let headers = [("authorization", credential.as_str())];
        for path in ["/v2/", "/v2/app/manifests/1"] {
            assert_eq!(cachalot.send("GET", path, &headers).await.status, status, "{path} {credential:.20}");
        }
    }
    let bearer = format!("Bearer {good}");
    let elsewhere = cachalot.send("GET", "/v2/docker.io/app/manifests/1", &[("authorization", &bearer)]).await;
    assert_eq!((elsewhere.status, elsewhere.error_code().as_str()), (403, "DENIED"));
    let given = cachalot.send("GET", "/token?service=cache.test", &[("authorization", &basic("sa", &good))]).await;
    let body: serde_json::Value = serde_json::from_slice(&given.body).unwrap();
    let token = format!("Bearer {}", body["token"].as_str().unwrap());
    assert_eq!(cachalot.send("GET", "/v2/app/manifests/1", &[("authorization", &token)]).await.status, 200);
    assert!(ground.registry.requests().iter().all(|request| request.authorization.is_none()));
    cachalot.finish().await;
}

#[tokio::test]
async fn the_keys_are_got_once_for_a_herd() {
    let ground = Ground::new().await;
    let issuer = Issuer::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/openid/v1/jwks", listener.local_addr().unwrap());
    let cachalot = ground.start(false, &keys_at(&url)).await;
    let bearer = format!("Bearer {}", issuer.token("cachalot", 600));
    let headers = [("authorization", bearer.as_str())];
    let herd = futures_util::future::join_all((0..50).map(|_| cachalot.send("GET", "/v2/", &headers)));
    let serve = async {
        // A second connection would never be answered.
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 1024];
        assert!(stream.read(&mut head).await.unwrap() > 0);
        let keys = issuer.keys();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{keys}", keys.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
    };
    let (answers, ()) = tokio::join!(herd, serve);
    assert!(answers.iter().all(|answer| answer.status == 200));
    cachalot.finish().await;
}
