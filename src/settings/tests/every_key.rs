//! A file with every key there is: each is accepted, and arrives.

use super::*;

/// Every key there is. Words in capitals stand for files.
const FULL: &str = r#"
[server]
listen = ["0.0.0.0:5000", "[::1]:5000"]
public_url = "https://cache.test:5443"
default_upstream = "registry-1.docker.io"
builtin_upstreams = true
drain_timeout = "1m 30s"
header_timeout = "100s"
handshake_timeout = "5s"
connections = 100
write_stall_timeout = "10s"
[[listener]]
address = "0.0.0.0:5443"
cert = "CERT"
key = "KEY"
client_ca = "CA"
client_certificate = "optional"
http2 = false
identities = false
[[listener]]
address = "[::1]:5444"
[admin]
listen = "127.0.0.1:5001"
htpasswd = "HTPASSWD"
tokens = "TOKENS"
[identity]
htpasswd = "HTPASSWD"
tokens = "TOKENS"
token_key_file = "TOKENKEYS"
certificates = "dns"
service_accounts_issuer = "https://kubernetes.default.svc"
service_accounts_audience = "cachalot"
service_accounts_jwks = "https://kubernetes.default.svc/openid/v1/jwks"
service_accounts_ca = "CA"
service_accounts_token_file = "PASSWORD"
anonymous = true
token_life = "2m"
[[principal]]
match = ["user:*", "cert:spiffe://a/**"]
repositories = ["docker.io/library/*", "localhost:5000/**"]
push = false
rate = 10
burst = 20
[[principal]]
match = ["anonymous"]
[clients]
rate = 100
burst = 500
connections = 30
fills = 7
unfinished = "3GiB"
trusted_proxies = ["10.0.0.0/8", "::1"]
[store]
path = "/var/lib/cachalot"
capacity = "100GiB"
min_free = "5%"
memory = "1GB"
manifests = "2GiB"
scrub_rate = "0"
[freshness]
tag_ttl = "1min"
stale_if_error = "1d"
stale_wait = "1s"
immutable_tags = ["v*", "*-release"]
when_limited = ["429"]
negative_ttl = "0s"
offline = false
[fills]
max = 16
unfinished = "100GiB"
unattended = 0
[log]
level = "info,cachalot::upstream=debug"
format = "json"
access = false
[metrics]
repositories = 200
[[upstream]]
name = "Registry.Test:5000"
endpoints = ["https://a.test:5000/prefix", "http://10.0.0.1"]
aliases = ["rt", "old.test"]
hosts = ["mirror.test", "10.0.0.2:80"]
username = "bot"
password_file = "PASSWORD"
token_hosts = ["SSO.example.net", "10.0.0.3"]
ca = "CA"
client_cert = "CERT"
client_key = "KEY"
insecure = false
connections = 8
connections_per_blob = 2
parallel_from = "64MiB"
fills = 8
prefetch = "layers"
push = true
requests = 16
rate = 50
connect_timeout = "500ms"
header_timeout = "25s"
idle_timeout = "10m"
token_timeout = "2s"
proxy = "http://proxy.test:3128"
tag_ttl = "1h"
stale_if_error = "0s"
stale_wait = "0s"
immutable_tags = []
when_limited = ["stale", "429"]
negative_ttl = "1s"
offline = true
allow = ["team/**"]
deny = ["team/secret/*"]
internal = true
[[upstream]]
name = "b.test"
docker_config = "CONFIG"
access = "caller"
access_except = ["public/**"]
access_ttl = "0s"
access_stale_if_error = "24h"
[[upstream]]
name = "c.test"
credential_helper = "ecr-login"
"#;

#[test]
fn every_key_is_accepted_and_arrives() {
    for (section, keys) in SECTIONS {
        for key in keys {
            assert!(FULL.contains(&format!("\n{key} = ")), "{section}.{key} is not in the full example");
        }
    }
    let ground = Ground::new("");
    let identity = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
    let certificate = identity.cert.pem();
    ground.write("cert.pem", &certificate);
    ground.write("key.pem", &identity.signing_key.serialize_pem());
    ground.write("config.json", r#"{"auths":{"b.test":{"auth":"dTpw"}}}"#);
    ground.write("ca.pem", &format!("a comment\n{certificate}\n{certificate}"));
    ground.write("password", "hunter2 \r\n");
    ground.write("htpasswd", HTPASSWD);
    ground.write("tokens", "ci:0123456789abcdef\n");
    ground.write("keys", &"k".repeat(32));
    let name = |file: &str| ground.0.path().join(file).display().to_string();
    let files = [
        ("PASSWORD", "password"),
        ("CA", "ca.pem"),
        ("CERT", "cert.pem"),
        ("KEY", "key.pem"),
        ("CONFIG", "config.json"),
        ("HTPASSWD", "htpasswd"),
        ("TOKENS", "tokens"),
        ("TOKENKEYS", "keys"),
    ];
    let full = files
        .iter()
        .fold(FULL.to_owned(), |full, (word, file)| full.replace(&format!("\"{word}\""), &format!("{:?}", name(file))));
    ground.write("cachalot.toml", &full);

    let settings = Settings::load(&ground.sources()).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(settings.server.default_upstream, Some("docker.io".parse().unwrap()));
    assert_eq!(settings.server.drain_timeout, std::time::Duration::from_secs(90));
    let identity = &settings.identity;
    assert!(identity.htpasswd.as_ref().is_some_and(|file| file.content.has("alice")) && identity.tokens.is_some());
    assert_eq!((identity.certificates, identity.anonymous), (Some(CertificateName::Dns), true));
    assert_eq!(identity.token_life, std::time::Duration::from_mins(2));
    let accounts = identity.service_accounts.as_ref().unwrap();
    assert_eq!((accounts.audience.as_str(), accounts.ca.len()), ("cachalot", 2));
    assert_eq!(accounts.token_file, Some(name("password").into()));
    assert_eq!(settings.admin.htpasswd, identity.htpasswd);
    let [alice, anonymous] = settings.principals.as_slice() else { panic!("two of the file") };
    assert_eq!((alice.matches.len(), alice.repositories.len(), alice.push), (2, 2, false));
    assert_eq!((alice.rate.map(u32::from), alice.burst.map(u32::from)), (Some(10), Some(20)));
    assert!(anonymous.push && anonymous.repositories.is_empty() && anonymous.rate.is_none());
    assert_eq!(settings.server.handshake_timeout, std::time::Duration::from_secs(5));
    assert_eq!(settings.server.public_url.as_ref().map(Url::as_str), Some("https://cache.test:5443/"));
    let [listener, plain] = settings.listeners.as_slice() else { panic!("two listeners") };
    let tls = listener.tls.as_ref().unwrap();
    assert_eq!((&tls.cert, tls.http2, listener.identities), (&name("cert.pem").into(), false, false));
    let clients = tls.clients.as_ref().unwrap();
    assert_eq!((clients.authorities.len(), clients.is_required), (2, false));
    assert_eq!(plain, &Listener { address: "[::1]:5444".parse().unwrap(), tls: None, identities: true });
    assert_eq!((settings.clients.connections, settings.clients.fills, settings.clients.unfinished), (30, 7, 3 << 30));
    assert_eq!(settings.store.memory, 1_000_000_000);
    assert_eq!(settings.metrics.repositories, 200);
    assert_eq!(settings.fills, Fills { max: 16, unfinished: 100 << 30, unattended: 0 });
    let [.., upstream, by_config, by_helper] = settings.upstreams.as_slice() else { panic!("three of the file") };
    assert_eq!(upstream.name.as_str(), "registry.test:5000");
    assert_eq!(by_config.credentials, Some(Credentials::DockerConfig { path: name("config.json").into() }));
    assert_eq!(by_helper.credentials, Some(Credentials::Helper("ecr-login".parse().unwrap())));
    assert_eq!(upstream.endpoints.len(), 2);
    assert_eq!((upstream.connections_per_blob, upstream.parallel_from), (2, 64 << 20));
    assert_eq!((upstream.fills.max, upstream.prefetch, upstream.push), (8, Prefetch::Layers, true));
    assert_eq!((upstream.access, by_config.access), (Access::Shared, Access::Caller));
    assert_eq!(by_config.access_except.len(), 1);
    let access = (by_config.access_ttl, by_config.access_stale_if_error);
    assert_eq!(access, (std::time::Duration::ZERO, std::time::Duration::from_hours(24)));
    assert_eq!(upstream.ca.len(), 2);
    let credentials = Credentials::PasswordFile { username: "bot".to_owned(), path: name("password").into() };
    assert_eq!(upstream.credentials, Some(credentials));
    assert_eq!(upstream.token_hosts, ["sso.example.net", "10.0.0.3"]);
    assert_eq!(upstream.token_timeout, std::time::Duration::from_secs(2));
    assert_eq!(upstream.client_certificate.as_ref().map(|client| &client.key), Some(&name("key.pem").into()));
    // The end of 4095: what rcgen writes when it is not told.
    let expires_at = upstream.client_certificate.as_ref().and_then(|client| client.identity.expires_at());
    assert_eq!(expires_at, Some(67_090_118_400));
    assert!(upstream.freshness.offline && !settings.freshness.offline);
    assert_eq!(settings.freshness.immutable_tags.len(), 2);
    assert_eq!(settings.freshness.when_limited, WhenLimited { stale: false, is_429: true });
    assert_eq!(upstream.freshness.when_limited, WhenLimited { stale: true, is_429: true });
    assert!(upstream.freshness.immutable_tags.is_empty());
    assert_eq!(settings.clients.trusted_proxies.len(), 2);
    assert_eq!((upstream.allow.len(), upstream.deny.len(), upstream.internal), (1, 1, true));
    assert_eq!(settings.table.find("rt").unwrap().name, upstream.name);
    assert_eq!(settings.table.find_host("MIRROR.test:5000").unwrap().name, upstream.name);
}
