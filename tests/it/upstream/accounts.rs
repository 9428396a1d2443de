//! Accounts that rotate, identity tokens, token services on other hosts and certificates of ours: what the upstream sees of them.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use cachalot::oci::{Reference, RepositoryName};
use cachalot::telemetry::Secret;
use cachalot::upstream::{Account, Client, ClientIdentity, Credentials, Options, Origin as _, UpstreamError};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use url::Url;

use super::{ACCEPT, LIMIT, account, authorizations, client_with, options, pull, tag};
use crate::harness::{Cachalot, More};
use crate::registry::{Fault, Image, Match, Registry};

/// A directory with secrets in it.
struct Secrets(tempfile::TempDir);

impl Secrets {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts a file in place of the one there, as tools that rotate secrets do.
    fn replace(&self, name: &str, content: &str) {
        std::fs::write(self.path("new"), content).unwrap();
        std::fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    /// Writes a credential helper that gives user `AWS` and the content of the file `secret`, and notes each run; after the first one,
    /// `secret` becomes `next` if there is that. Another process writes it: one of ours that forks meanwhile would hold it open.
    fn helper(&self, options: &mut Options) {
        let script = format!(
            "#!/bin/sh\ncd '{}'\necho >> runs\nprintf '{{\"Username\":\"AWS\",\"Secret\":\"%s\"}}' \"$(cat secret)\"\n\
             if [ -f next ]; then mv next secret; fi\n",
            self.0.path().display()
        );
        let mut shell = Command::new("/bin/sh")
            .args(["-c", r#"cat > "$0" && chmod 755 "$0""#])
            .arg(self.path("docker-credential-test"))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(shell.wait().unwrap().success());
        options.credentials = Some(Credentials::Helper("test".parse().unwrap()));
        options.helper_directories = Some(vec![self.0.path().to_path_buf()]);
    }

    fn runs(&self) -> usize {
        std::fs::read_to_string(self.path("runs")).unwrap_or_default().lines().count()
    }
}

fn identity(token: &str) -> Credentials {
    Credentials::Fixed(Account::IdentityToken { username: "u".to_owned(), token: Secret::new(token) })
}

async fn registry() -> Registry {
    let registry = Registry::start().await;
    registry.image("library/alpine", "3.20", &Image::new());
    registry
}

async fn is_pulled(client: &Client) -> bool {
    pull(client, &tag("3.20")).await.is_ok()
}

/// Returns the methods of the requests for tokens.
fn token_methods(registry: &Registry) -> Vec<String> {
    registry.requests().all("/token").into_iter().map(|request| request.method).collect()
}

#[tokio::test]
async fn a_replaced_password_file_answers_the_next_challenge() {
    let (registry, secrets) = (registry().await, Secrets::new());
    registry.require_token_of("u", "old");
    secrets.replace("password", "old\n");
    let mut options = options(&registry);
    options.credentials = Some(Credentials::PasswordFile { username: "u".to_owned(), path: secrets.path("password") });
    let client = client_with(&options);
    assert!(is_pulled(&client).await);

    secrets.replace("password", "new\n");
    registry.require_token_of("u", "new");
    registry.revoke_tokens();
    assert!(is_pulled(&client).await, "P-174: the new password is found when the old one is refused");
    let [old, new] = ["Basic dTpvbGQ=", "Basic dTpuZXc="];
    let log = registry.requests();
    let asked: Vec<&str> = authorizations(&log).into_iter().filter(|value| value.starts_with("Basic")).collect();
    assert_eq!(asked, [old, old, new], "U-22: each is shown once");

    std::fs::remove_file(secrets.path("password")).unwrap();
    registry.revoke_tokens();
    assert!(is_pulled(&client).await, "U-47: the last good one goes on");
}

#[tokio::test]
async fn a_helper_is_asked_once_more_when_its_account_is_refused() {
    let (registry, secrets) = (registry().await, Secrets::new());
    let mut options = options(&registry);
    secrets.helper(&mut options);
    secrets.replace("secret", "one");
    registry.require_basic("AWS", "one");
    let client = client_with(&options);
    assert!(is_pulled(&client).await && is_pulled(&client).await);
    assert_eq!((registry.requests().len(), secrets.runs()), (3, 1), "U-22: the answer is kept");

    secrets.replace("secret", "two");
    registry.require_basic("AWS", "two");
    assert!(is_pulled(&client).await);
    assert_eq!((registry.requests().len(), secrets.runs()), (5, 2), "U-22: asked again after the 401, once");
    assert!(is_pulled(&client).await);
    assert_eq!((registry.requests().len(), secrets.runs()), (6, 2));
}

#[tokio::test]
async fn the_first_account_may_be_refused_and_a_wrong_one_does_not_run_helpers_for_ever() {
    let (registry, secrets) = (registry().await, Secrets::new());
    let mut options = options(&registry);
    secrets.helper(&mut options);
    secrets.replace("secret", "one");
    secrets.replace("next", "two");
    registry.require_basic("AWS", "two");
    assert!(is_pulled(&client_with(&options)).await);
    assert_eq!((registry.requests().len(), secrets.runs()), (3, 2), "U-22: nothing, the first, the second");

    registry.require_basic("AWS", "three");
    let client = client_with(&options);
    for _ in 0..3 {
        let error = pull(&client, &tag("3.20")).await.expect_err("a wrong password");
        assert!(matches!(error, UpstreamError::Denied { status: 401, .. }), "{error:?}");
    }
    assert_eq!((registry.requests().len(), secrets.runs()), (9, 4), "U-22: one run, and one after the refusal");
}

#[tokio::test]
async fn a_source_that_fails_fails_the_question_that_needs_it_and_says_why() {
    let (registry, secrets) = (registry().await, Secrets::new());
    let mut options = options(&registry);
    options.credentials = Some(Credentials::DockerConfig { path: secrets.path("config.json") });
    let client = client_with(&options);
    assert!(is_pulled(&client).await, "U-47: what is public needs no account");
    registry.require_token();
    let error = pull(&client, &tag("3.20")).await.expect_err("no account");
    let path = secrets.path("config.json");
    let told = format!(
        "authentication failed: no account to ask with: cannot read {}: No such file or directory (os error 2)",
        path.display()
    );
    assert_eq!(error.to_string(), told, "P-174");
    assert!(matches!(error, UpstreamError::Auth { .. }));
    assert!(token_methods(&registry).is_empty(), "an account that is missed is no reason to ask without");
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_post() {
    let (registry, secrets) = (registry().await, Secrets::new());
    registry.require_token_of("nobody", "nothing");
    registry.take_identity_token("secret+token");
    let host = registry.host();
    secrets
        .replace("config.json", &format!(r#"{{"auths":{{"http://{host}/v1/":{{"identitytoken":"secret+token"}}}}}}"#));
    let mut options = options(&registry);
    options.credentials = Some(Credentials::DockerConfig { path: secrets.path("config.json") });
    assert!(is_pulled(&client_with(&options)).await);
    let form = "grant_type=refresh_token&service=scripted&client_id=cachalot\
                &scope=repository%3Alibrary%2Falpine%3Apull&refresh_token=secret%2Btoken";
    assert_eq!(registry.token_forms(), [form], "P-167");
    assert_eq!(token_methods(&registry), ["POST"]);
    let log = registry.requests();
    assert!(authorizations(&log).iter().all(|value| value.starts_with("Bearer ")), "P-167: no Basic beside it");
}

#[tokio::test]
async fn a_post_that_is_refused_becomes_a_get_and_is_not_tried_again() {
    for fault in [
        Fault::Status(400, ""),
        Fault::Status(401, ""),
        Fault::Status(404, ""),
        Fault::Status(405, ""),
        Fault::RedirectRelative,
    ] {
        let registry = registry().await;
        registry.require_token_of("u", "i");
        registry.take_identity_token("i");
        registry.fault(Match::token().post(), fault.clone());
        let mut options = options(&registry);
        options.credentials = Some(identity("i"));
        let client = client_with(&options);
        assert!(is_pulled(&client).await);
        registry.revoke_tokens();
        assert!(is_pulled(&client).await);
        assert_eq!(token_methods(&registry), ["POST", "GET", "GET"], "P-167: {fault:?}");
        let log = registry.requests();
        let basic = authorizations(&log).into_iter().filter(|value| *value == "Basic dTpp").count();
        assert_eq!(basic, 2, "P-167: the GET shows the name of the configuration and the token");
    }
}

#[tokio::test]
async fn a_wrong_identity_token_is_no_reason_to_think_ill_of_the_post() {
    let (registry, secrets) = (registry().await, Secrets::new());
    registry.require_token_of("nobody", "nothing");
    registry.take_identity_token("new");
    let config = |token: &str| {
        let host = registry.host();
        secrets.replace("config.json", &format!(r#"{{"auths":{{"{host}":{{"identitytoken":"{token}"}}}}}}"#));
    };
    config("old-secret");
    let mut options = options(&registry);
    options.credentials = Some(Credentials::DockerConfig { path: secrets.path("config.json") });
    let client = client_with(&options);
    let error = pull(&client, &tag("3.20")).await.expect_err("a wrong token");
    assert_eq!(error.to_string(), "authentication failed: token service refused the credentials");
    assert!(!format!("{error:?}").contains("old-secret"), "S-43");
    config("new");
    assert!(is_pulled(&client).await, "P-174");
    assert_eq!(token_methods(&registry), ["POST", "GET", "POST", "GET", "POST"], "P-167, U-22");
}

#[tokio::test]
async fn an_identity_token_is_posted_to_no_foreign_host_and_follows_no_redirect() {
    let thief = Registry::start().await;
    let registry = registry().await;
    registry.require_token();
    let mut options = options(&registry);
    options.credentials = Some(identity("i"));
    let port = thief.address().port();
    for realm in [format!("http://localhost:{port}/token"), format!("https://thief.test:{port}/token")] {
        registry.challenge_with(&format!(r#"Bearer realm="{realm}",service="s""#));
        let error = pull(&client_with(&options), &tag("3.20")).await.expect_err("the realm is not ours");
        assert!(matches!(error, UpstreamError::Auth { .. }), "S-26: {realm}: {error:?}");
    }
    assert_eq!(thief.requests().len(), 0, "S-26");

    registry.challenge_with(&format!(r#"Bearer realm="{}/token",service="s""#, registry.url()));
    registry.fault(Match::token(), Fault::redirect_to(&thief)).times(2);
    let error = pull(&client_with(&options), &tag("3.20")).await.expect_err("a redirect of the credentials");
    assert!(matches!(error, UpstreamError::Auth { .. }), "S-27: {error:?}");
    assert_eq!(token_methods(&registry), ["POST", "GET"], "S-27");
    assert_eq!(thief.requests().len(), 0, "S-27");
}

#[tokio::test]
async fn a_listed_host_may_serve_tokens_and_no_other() {
    let registry = Registry::start_tls().await;
    registry.image("library/alpine", "3.20", &Image::new());
    registry.require_token_of("u", "p");
    let port = registry.address().port();
    registry.challenge_with(&format!(r#"Bearer realm="https://localhost:{port}/token",service="s""#));
    let mut options = options(&registry);
    options.extra_ca = vec![registry.ca()];
    options.credentials = Some(account("u", "p"));
    let error = pull(&client_with(&options), &tag("3.20")).await.expect_err("localhost is not 127.0.0.1");
    assert!(matches!(error, UpstreamError::Auth { .. }), "S-26: {error:?}");
    assert!(token_methods(&registry).is_empty(), "S-26");
    options.realm_hosts = vec!["localhost".to_owned()];
    assert!(is_pulled(&client_with(&options)).await, "S-26: it is on the list");
}

#[tokio::test]
async fn the_first_working_realm_stays_when_an_expired_token_is_answered_with_another() {
    let registry = registry().await;
    registry.require_token_of("u", "p");
    let mut options = options(&registry);
    options.credentials = Some(account("u", "p"));
    let client = client_with(&options);
    assert!(is_pulled(&client).await);
    registry.revoke_tokens();
    registry.challenge_with(r#"Bearer realm="https://authn.test/token",service="other",error="invalid_token""#);
    assert!(is_pulled(&client).await, "U-53");
    assert_eq!(registry.gets("/token").len(), 2, "U-53, P-173");
}

#[tokio::test]
async fn a_repository_may_have_an_account_of_its_own() {
    let (registry, secrets) = (registry().await, Secrets::new());
    registry.image("team/app", "1", &Image::new());
    registry.require_token_of("u", "p");
    let host = registry.host();
    let config =
        format!(r#"{{"auths":{{"{host}":{{"auth":"dTpw"}},"{host}/team":{{"username":"t","password":"secret"}}}}}}"#);
    secrets.replace("config.json", &config);
    let mut options = options(&registry);
    options.credentials = Some(Credentials::DockerConfig { path: secrets.path("config.json") });
    let client = client_with(&options);
    assert!(is_pulled(&client).await);
    registry.require_token_of("t", "secret");
    let (team, one): (RepositoryName, Reference) = ("team/app".parse().unwrap(), tag("1"));
    assert!(client.manifest(&team, &one, ACCEPT, LIMIT).await.is_ok(), "P-174");
    let asked: Vec<_> = registry.gets("/token").into_iter().filter_map(|request| request.authorization).collect();
    assert_eq!(asked, ["Basic dTpw", "Basic dDpzZWNyZXQ="], "P-174: tokens of one are not used for the other");
}

#[tokio::test]
async fn the_keys_of_the_configuration_reach_the_upstream() {
    let (registry, secrets) = (Registry::start_mutual_tls().await, Secrets::new());
    registry.image("library/alpine", "3.20", &Image::new());
    registry.require_token_of("nobody", "nothing");
    registry.take_identity_token("i");
    let port = registry.address().port();
    registry.challenge_with(&format!(r#"Bearer realm="https://localhost:{port}/token",service="s""#));
    let (cert, key) = registry.client_pem();
    let config = format!(r#"{{"auths":{{"{}":{{"identitytoken":"i"}}}}}}"#, registry.host());
    let mut lines = "token_hosts = [\"localhost\"]\ntoken_timeout = \"20s\"".to_owned();
    for (name, file, content) in [
        ("docker_config", "config.json", config),
        ("ca", "ca.pem", registry.ca_pem()),
        ("client_cert", "cert.pem", cert),
        ("client_key", "key.pem", key),
    ] {
        secrets.replace(file, &content);
        lines.extend(["\n", name, " = ", &format!("{:?}", secrets.path(file))]);
    }
    let cachalot = Cachalot::configured(&registry, More::upstream(&lines)).await;
    assert_eq!(cachalot.get("/v2/library/alpine/manifests/3.20").await.status, 200, "P-167, P-174, S-26");
    assert_eq!(token_methods(&registry), ["POST"]);
    cachalot.finish().await;
}

#[tokio::test]
async fn an_upstream_that_asks_for_a_certificate_is_shown_ours() {
    let registry = Registry::start_mutual_tls().await;
    registry.image("library/alpine", "3.20", &Image::new());
    let mut options = options(&registry);
    options.extra_ca = vec![registry.ca()];
    assert!(!is_pulled(&client_with(&options)).await, "it lets nobody in without");
    let (cert, key) = registry.client_pem();
    let (chain, key) = (CertificateDer::from_pem_slice(cert.as_bytes()), PrivateKeyDer::from_pem_slice(key.as_bytes()));
    let identity = ClientIdentity::new(vec![chain.unwrap()], key.unwrap()).unwrap();
    assert_eq!(format!("{identity:?}"), "ClientIdentity(…)", "S-43");
    options.client_identity = Some(identity);
    for insecure in [false, true] {
        options.insecure = insecure;
        assert!(is_pulled(&client_with(&options)).await);
    }
    // Where it leads to, nobody learns who we are: the same registry by another name is another host.
    let front = Registry::start_tls().await;
    options.endpoints = vec![Url::parse(&front.url()).unwrap()];
    options.insecure = true;
    let base = format!("https://localhost:{}", registry.address().port());
    for (base, is_shown) in [(base, false), (registry.url(), true)] {
        front.fault(Match::manifest("3.20"), Fault::RedirectTo { base: base.clone(), query: "" });
        assert_eq!(is_pulled(&client_with(&options)).await, is_shown, "{base}");
    }
}
