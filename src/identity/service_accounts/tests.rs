//! Tokens that are good, and every way in which one is not; keys that change.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const ISSUER: &str = "https://kubernetes.default.svc";
const AUDIENCE: &str = "cachalot";
const SUBJECT: &str = "system:serviceaccount:ci:builder";

/// A key of the issuer.
struct Key {
    name: &'static str,
    pair: rcgen::KeyPair,
}

impl Key {
    fn new(name: &'static str) -> Self {
        Self { name, pair: rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap() }
    }

    fn jwk(&self) -> Value {
        let point = self.pair.public_key_raw();
        let [x, y] = [&point[1..33], &point[33..]].map(|part| URL_SAFE_NO_PAD.encode(part));
        json!({ "kty": "EC", "crv": "P-256", "use": "sig", "kid": self.name, "x": x, "y": y })
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.name.to_owned()), ..Header::new(Algorithm::ES256) };
        encode(&header, claims, &EncodingKey::from_ec_der(&self.pair.serialize_der())).unwrap()
    }
}

fn key_set(keys: &[&Key]) -> Vec<u8> {
    let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
    json!({ "keys": keys }).to_string().into_bytes()
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": [AUDIENCE, "other"], "sub": SUBJECT, "exp": now() + 600, "nbf": now() - 5 })
}

fn with(change: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[change] = value;
    if claims[change].is_null() {
        claims.as_object_mut().unwrap().remove(change);
    }
    claims
}

fn accounts(keys: Source, pause: Duration) -> ServiceAccounts {
    let keys = KeySet::new(keys, pause, TaskGroup::new());
    ServiceAccounts { issuer: ISSUER.to_owned(), audience: AUDIENCE.to_owned(), keys }
}

fn from_file(keys: &[&Key]) -> ServiceAccounts {
    accounts(Source::File(Keys::parse(&key_set(keys)).unwrap()), PAUSE)
}

/// Writes a token by hand, with whatever signature.
fn by_hand(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn only_a_token_of_this_issuer_for_this_audience_that_holds_is_a_service_account() {
    let (key, other) = (Key::new("one"), Key::new("one"));
    let accounts = from_file(&[&key]);
    let account = Principal::ServiceAccount { namespace: "ci".to_owned(), name: "builder".to_owned() };
    assert_eq!(accounts.verify(&key.sign(&claims())).await, Some(account.clone()));
    assert_eq!(accounts.verify(&key.sign(&with("aud", json!(AUDIENCE)))).await, Some(account.clone()));
    assert_eq!(accounts.verify(&key.sign(&with("nbf", Value::Null))).await, Some(account.clone()));
    assert_eq!(accounts.verify(&key.sign(&with("exp", json!(now() - 10)))).await, Some(account), "within the leeway");
    for (name, claims) in [
        ("another issuer", with("iss", json!("https://kubernetes.default.svc/"))),
        ("no issuer", with("iss", Value::Null)),
        ("another audience", with("aud", json!(["https://kubernetes.default.svc"]))),
        ("no audience", with("aud", Value::Null)),
        ("expired", with("exp", json!(now() - 60))),
        ("never expires", with("exp", Value::Null)),
        ("not yet", with("nbf", json!(now() + 60))),
        ("a node", with("sub", json!("system:node:a"))),
        ("nobody", with("sub", Value::Null)),
        ("a name that is none", with("sub", json!("system:serviceaccount:ci:a:b"))),
    ] {
        assert_eq!(accounts.verify(&key.sign(&claims)).await, None, "{name}");
    }
    assert_eq!(accounts.verify(&other.sign(&claims())).await, None, "another key of the same name");
    let token = key.sign(&claims());
    for text in ["", "a", "..", "ey.ey.ey", &token[1..], &token[..token.len() - 4], &format!("{token}.a")] {
        assert_eq!(accounts.verify(text).await, None, "{text}");
    }
}

#[tokio::test]
async fn a_token_does_not_say_how_it_is_signed() {
    let key = Key::new("one");
    let accounts = from_file(&[&key]);
    let public = key.pair.public_key_pem();
    let raw = key.pair.public_key_raw().to_vec();
    for algorithm in ["none", "None", "HS256", "RS256", "ES384", "EdDSA"] {
        let header = json!({ "alg": algorithm, "typ": "JWT", "kid": "one" });
        for signature in [&[][..], &[0; 32], &[0; 64]] {
            assert_eq!(accounts.verify(&by_hand(&header, &claims(), signature)).await, None, "RFC 8725: {algorithm}");
        }
    }
    // The public key as a shared secret.
    let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::HS256) };
    for secret in [public.as_bytes(), public.trim().as_bytes(), &raw] {
        let token = encode(&header, &claims(), &EncodingKey::from_secret(secret)).unwrap();
        assert_eq!(accounts.verify(&token).await, None, "RFC 8725 §2.1");
    }
    let header = json!({ "alg": "ES256", "kid": "one", "jwk": Key::new("one").jwk() });
    assert_eq!(accounts.verify(&by_hand(&header, &claims(), &[1; 64])).await, None, "a key that comes along");
    let header = json!({ "alg": "ES256" });
    assert_eq!(accounts.verify(&by_hand(&header, &claims(), &[1; 64])).await, None, "no name of a key");
}

#[test]
fn a_set_of_keys_holds_what_can_be_used_of_it() {
    let key = Key::new("one");
    let odd = json!({ "keys": [
        { "kty": "oct", "kid": "shared", "k": "AAAA" }, { "kty": "XX", "kid": "x" }, 7, {},
        { "kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA" },
        { "kty": "RSA", "kid": "enc", "use": "enc", "n": "AAAA", "e": "AQAB" },
    ] });
    for (text, told) in [
        ("", "is no JSON Web Key Set"),
        ("{}", "is no JSON Web Key Set: missing field `keys`"),
        (r#"{"keys":[]}"#, "holds no key that can be used"),
        (&odd.to_string(), "holds no key that can be used"),
    ] {
        let error = Keys::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
    let mut mixed = odd;
    mixed["keys"].as_array_mut().unwrap().push(key.jwk());
    assert_eq!(format!("{:?}", Keys::parse(mixed.to_string().as_bytes()).unwrap()), "Keys(1)");
}

/// Serves these answers, one a connection, and counts the requests.
async fn server(answers: Vec<(u16, Vec<u8>)>) -> (Source, Arc<AtomicUsize>, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/openid/v1/jwks", listener.local_addr().unwrap()).parse().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let serving = tokio::spawn(async move {
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let mut head = [0; 1024];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
        }
    });
    (Source::Url { url, fetch: Fetch::plain(FETCH_TIMEOUT, KEY_SET_BYTES_MAX), token_file: None }, count, serving)
}

#[tokio::test]
async fn a_herd_gets_the_keys_once_and_an_unknown_key_gets_them_again_once() {
    let (old, new, never) = (Key::new("old"), Key::new("new"), Key::new("never"));
    let answers = vec![(200, key_set(&[&old])), (200, key_set(&[&old, &new]))];
    let (source, count, _serving) = server(answers).await;
    let accounts = accounts(source, Duration::ZERO);
    let token = old.sign(&claims());
    let herd = futures_util::future::join_all((0..50).map(|_| accounts.verify(&token))).await;
    assert!(herd.iter().all(Option::is_some));
    assert_eq!(count.load(Ordering::SeqCst), 1);
    let token = new.sign(&claims());
    let herd = futures_util::future::join_all((0..50).map(|_| accounts.verify(&token))).await;
    assert!(herd.iter().all(Option::is_some), "the keys were rotated");
    assert_eq!(count.load(Ordering::SeqCst), 2);
    assert!(accounts.verify(&old.sign(&claims())).await.is_some());
    // Nobody answers any more: what was got holds.
    assert_eq!(accounts.verify(&never.sign(&claims())).await, None);
    assert!(accounts.verify(&token).await.is_some());
}

#[tokio::test]
async fn invented_keys_do_not_make_us_ask_without_end_and_a_failure_leaves_the_last_keys() {
    let (key, invented) = (Key::new("one"), Key::new("invented"));
    let (source, count, _serving) = server(vec![(200, key_set(&[&key])), (500, Vec::new())]).await;
    let patient = accounts(source, PAUSE);
    assert!(patient.verify(&key.sign(&claims())).await.is_some());
    for _ in 0..20 {
        assert_eq!(patient.verify(&invented.sign(&claims())).await, None);
    }
    assert_eq!(count.load(Ordering::SeqCst), 1, "the pause is not over");

    let bad = [(503, Vec::new()), (200, b"{}".to_vec()), (200, vec![b'{'; KEY_SET_BYTES_MAX + 1])];
    let answers = [vec![(200, key_set(&[&key]))], bad.to_vec()].concat();
    let (source, count, serving) = server(answers).await;
    let eager = accounts(source, Duration::ZERO);
    assert!(eager.verify(&key.sign(&claims())).await.is_some());
    for asked in 2..5 {
        assert_eq!(eager.verify(&invented.sign(&claims())).await, None);
        assert_eq!(count.load(Ordering::SeqCst), asked);
        assert!(eager.verify(&key.sign(&claims())).await.is_some(), "the last good keys stay");
    }
    serving.await.unwrap();
}

#[test]
fn ours_is_what_says_that_it_is_of_our_issuer() {
    let key = Key::new("one");
    let accounts = from_file(&[&key]);
    assert!(accounts.is_ours(&key.sign(&with("exp", json!(1)))));
    for token in [key.sign(&with("iss", json!("https://auth.docker.io"))), "a.b.c".to_owned(), String::new()] {
        assert!(!accounts.is_ours(&token), "{token}");
    }
}
