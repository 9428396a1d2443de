//! Each snippet is read again by a parser of its format, or compared with the text that its client's documentation asks for.

use super::*;
use crate::telemetry::Secret;

pub(crate) fn wish(endpoint: &str, registries: &[&str]) -> Wish {
    Wish {
        endpoint: endpoint.parse().unwrap(),
        registries: registries.iter().map(|name| name.parse().unwrap()).collect(),
        with_default: false,
        resolves: true,
        dial_timeout: Some(Duration::from_millis(300)),
        fallback: Fallback::Origin,
        ca: None,
        token: None,
        certificate: None,
    }
}

fn text(client: Client, wish: &Wish) -> String {
    render(client, wish).unwrap().text
}

fn toml(client: Client, wish: &Wish) -> toml::Table {
    let text = text(client, wish);
    text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn containerd_gets_a_file_for_each_registry() {
    let mut wish = wish("http://10.0.0.7:30500", &["docker.io", "registry.example:5000"]);
    wish.with_default = true;
    let expected = r#"# /etc/containerd/certs.d/docker.io/hosts.toml
server = "https://registry-1.docker.io"

[host."http://10.0.0.7:30500"]
  capabilities = ["pull", "resolve"]
  dial_timeout = "300ms"

# /etc/containerd/certs.d/registry.example_5000_/hosts.toml
server = "https://registry.example:5000"

[host."http://10.0.0.7:30500"]
  capabilities = ["pull", "resolve"]
  dial_timeout = "300ms"

# /etc/containerd/certs.d/_default/hosts.toml
[host."http://10.0.0.7:30500"]
  capabilities = ["pull", "resolve"]
  dial_timeout = "300ms"
"#;
    assert_eq!(text(Client::Containerd, &wish), expected);
    assert_eq!(text(Client::Nerdctl, &wish), expected);
    let kind = text(Client::Kind, &wish);
    for command in [
        "--dial-timeout 300ms --registry docker.io >certs.d/docker.io/hosts.toml",
        "--registry registry.example:5000 >certs.d/registry.example_5000_/hosts.toml",
        "--default >certs.d/_default/hosts.toml",
    ] {
        assert!(kind.contains(command), "{kind}");
    }
}

#[test]
fn without_a_fallback_the_cache_takes_the_place_of_the_registry() {
    let mut wish = wish("https://cache.example", &["quay.io"]);
    wish.fallback = Fallback::None;
    wish.resolves = false;
    wish.ca = Some("/etc/cachalot/ca.pem".into());
    let hosts = toml(Client::Containerd, &wish);
    assert_eq!(hosts["server"].as_str(), Some("https://cache.example"));
    assert_eq!(hosts["ca"].as_str(), Some("/etc/cachalot/ca.pem"));
    assert_eq!(hosts["capabilities"].as_array().unwrap().len(), 1);
    // containerd 1.6 refuses a file without a host.
    assert!(hosts["host"].as_table().unwrap().keys().eq(["https://cache.example"]));
    wish.ca = None;
    let registry = &toml(Client::Podman, &wish)["registry"][0];
    assert_eq!(registry["prefix"].as_str(), Some("quay.io"));
    assert_eq!(registry["location"].as_str(), Some("cache.example/quay.io"));
    assert!(registry.get("mirror").is_none() && registry.get("insecure").is_none());
    wish.resolves = true;
    assert!(text(Client::Talos, &wish).ends_with("skipFallback: true\n"));
    assert!(text(Client::K3s, &wish).contains("--disable-default-registry-endpoint"));
}

#[test]
fn containers_tools_get_one_drop_in() {
    let mut wish = wish("http://10.0.0.7:30500", &["docker.io", "quay.io"]);
    wish.resolves = false;
    for client in [Client::Crio, Client::Podman, Client::Buildah, Client::Skopeo] {
        let file = toml(client, &wish);
        for (index, name) in ["docker.io", "quay.io"].into_iter().enumerate() {
            let registry = &file["registry"][index];
            assert_eq!((registry["prefix"].as_str(), registry["location"].as_str()), (Some(name), Some(name)));
            let mirror = &registry["mirror"][0];
            assert_eq!(mirror["location"].as_str(), Some(format!("10.0.0.7:30500/{name}").as_str()));
            assert_eq!(mirror["insecure"].as_bool(), Some(true));
            assert_eq!(mirror["pull-from-mirror"].as_str(), Some("digest-only"));
        }
        assert!(text(client, &wish).starts_with("# /etc/containers/registries.conf.d/50-cachalot.conf"));
    }
}

#[test]
fn docker_and_its_kin_get_the_address() {
    let both = wish("http://10.0.0.7:30500", &["docker.io", "quay.io"]);
    let config: serde_json::Value = serde_json::from_str(&text(Client::Docker, &both)).unwrap();
    assert_eq!(config["registry-mirrors"][0], "http://10.0.0.7:30500");
    assert_eq!(config["insecure-registries"][0], "10.0.0.7:30500");
    let hub = wish("http://10.0.0.7:30500", &["docker.io"]);
    let config: serde_json::Value = serde_json::from_str(&text(Client::Docker, &hub)).unwrap();
    assert_eq!(config.as_object().unwrap().len(), 1);
    let runner = toml(Client::GitlabRunner, &hub);
    let service = &runner["runners"][0]["docker"]["services"][0];
    assert_eq!(service["name"].as_str(), Some("docker:dind"));
    assert_eq!(service["command"][1].as_str(), Some("http://10.0.0.7:30500"));
}

#[test]
fn buildkit_gets_a_mirror_for_each_registry() {
    let mut wish = wish("https://cache.example:5000", &["docker.io", "quay.io"]);
    wish.ca = Some("/ca.pem".into());
    let file = toml(Client::Buildkit, &wish);
    for name in ["docker.io", "quay.io"] {
        assert_eq!(file["registry"][name]["mirrors"][0].as_str(), Some("cache.example:5000"));
    }
    let cache = &file["registry"]["cache.example:5000"];
    assert_eq!((cache["http"].as_bool(), cache["ca"][0].as_str()), (Some(false), Some("/ca.pem")));
}

#[test]
fn distributions_get_their_own_documents() {
    let mut wish = wish("http://10.0.0.7:30500", &["docker.io"]);
    wish.with_default = true;
    let rows = [
        (
            Client::K3s,
            "mirrors:\n  \"docker.io\":\n    endpoint:\n      - \"http://10.0.0.7:30500\"\n  \"*\":\n    endpoint:\n      - \"http://10.0.0.7:30500\"\n",
        ),
        (
            Client::Talos,
            "apiVersion: v1alpha1\nkind: RegistryMirrorConfig\nname: \"docker.io\"\nendpoints:\n  - url: \"http://10.0.0.7:30500\"\n\
             ---\napiVersion: v1alpha1\nkind: RegistryMirrorConfig\nname: \"*\"\nendpoints:\n  - url: \"http://10.0.0.7:30500\"\n",
        ),
        (
            Client::Bottlerocket,
            "[[settings.container-registry.mirrors]]\nregistry = \"docker.io\"\nendpoint = [\"http://10.0.0.7:30500\"]\n\n\
             [[settings.container-registry.mirrors]]\nregistry = \"*\"\nendpoint = [\"http://10.0.0.7:30500\"]\n",
        ),
    ];
    for (client, expected) in rows {
        let text = text(client, &wish);
        let (comment, rest) = text.split_once('\n').unwrap();
        assert!(comment.starts_with("# "));
        assert_eq!(rest, expected);
    }
    assert!(text(Client::Rke2, &wish).starts_with("# /etc/rancher/rke2/registries.yaml"));
    wish.with_default = false;
    wish.resolves = false;
    let gke = text(Client::Gke, &wish);
    let (_, gke) = gke.split_once('\n').unwrap();
    assert_eq!(
        gke,
        "registryHosts:\n  - server: \"docker.io\"\n    hosts:\n      - host: \"http://10.0.0.7:30500\"\n        capabilities:\n          \
         - \"HOST_CAPABILITY_PULL\"\n        dialTimeout: \"0.3s\"\n"
    );
}

#[test]
fn tools_without_mirrors_get_the_prefix() {
    let plain = wish("http://10.0.0.7:30500", &["quay.io"]);
    let secure = wish("https://cache.example", &["quay.io"]);
    let command = |client, wish: &Wish| text(client, wish).lines().last().unwrap().to_owned();
    let rows = [
        (Client::Crane, &plain, "crane pull --insecure 10.0.0.7:30500/quay.io/REPOSITORY:TAG image.tar"),
        (Client::Crane, &secure, "crane pull cache.example/quay.io/REPOSITORY:TAG image.tar"),
        (Client::Oras, &plain, "oras pull --plain-http 10.0.0.7:30500/quay.io/REPOSITORY:TAG"),
        (Client::Oras, &secure, "oras pull cache.example/quay.io/REPOSITORY:TAG"),
        (Client::Helm, &plain, "helm pull --plain-http oci://10.0.0.7:30500/quay.io/CHART --version VERSION"),
        (Client::Helm, &secure, "helm pull oci://cache.example/quay.io/CHART --version VERSION"),
    ];
    for (client, wish, expected) in rows {
        assert_eq!(command(client, wish), expected);
    }
}

#[test]
fn what_a_client_cannot_do_is_refused_and_all_else_is_rendered() {
    for (client, _, able) in ABILITIES {
        let can = |ability| able.contains(&ability);
        let plain = wish("https://cache.example", &["docker.io"]);
        assert!(render(client, &plain).is_ok(), "{client}");
        let mut default = plain.clone();
        default.with_default = true;
        let mut alone = plain.clone();
        alone.fallback = Fallback::None;
        let mut digests = plain.clone();
        digests.resolves = false;
        let mut ca = plain.clone();
        ca.ca = Some("/ca.pem".into());
        let mut token = plain.clone();
        token.token = Some(Token::In("/token".into()));
        let mut certificate = plain.clone();
        certificate.certificate = Some(certificate_of("/node"));
        let rows = [
            (default, can(Ability::Default), SnippetError::Default(client)),
            (alone, can(Ability::NoFallback), SnippetError::Fallback(client)),
            (digests, can(Ability::DigestsOnly), SnippetError::Tags(client)),
            (ca, can(Ability::Ca), SnippetError::Ca(client)),
            (token, can(Ability::Token), SnippetError::Token(client)),
            (certificate, can(Ability::Certificate), SnippetError::Certificate(client)),
        ];
        for (wish, is_able, refusal) in rows {
            match render(client, &wish) {
                Ok(snippet) => {
                    assert!(is_able, "{client} is said not to be able");
                    // Who names the cache in the image's name has no other way anyhow.
                    let is_by_name = matches!(client, Client::Crane | Client::Oras | Client::Helm);
                    let is_the_same = snippet == render(client, &plain).unwrap();
                    assert_eq!(
                        is_the_same,
                        is_by_name && wish.certificate.is_none(),
                        "{client} ignores what it is said to be able to"
                    );
                }
                Err(error) => assert_eq!((is_able, error), (false, refusal)),
            }
        }
    }
    let quay = wish("http://cache.example", &["quay.io"]);
    assert_eq!(render(Client::Docker, &quay), Err(SnippetError::DockerHubOnly(Client::Docker)));
    let names: Vec<String> = (0..26).map(|number| format!("r{number}.example")).collect();
    let many = wish("http://cache.example", &names.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(render(Client::Gke, &many), Err(SnippetError::TooMany(Client::Gke, 25)));
}

fn certificate_of(stem: &str) -> Certificate {
    Certificate { cert: format!("{stem}.pem"), key: format!("{stem}.key") }
}

#[test]
fn a_token_is_a_header_of_the_cache_and_is_not_printed_unless_it_is_to_be_written() {
    let mut wish = wish("https://cache.example", &["quay.io"]);
    wish.token = Some(Token::In("/etc/cachalot/token".into()));
    let snippet = render(Client::Containerd, &wish).unwrap();
    assert_eq!(
        snippet.notes,
        [
            "put what /etc/cachalot/token holds in the place of TOKEN, and let nobody but root read the result: chmod 600"
        ]
    );
    let header = |wish: &Wish, host: &str| {
        let hosts = toml(Client::Containerd, wish);
        let table = if host.is_empty() { &toml::Value::Table(hosts) } else { &hosts["host"][host] };
        table["header"]["Authorization"].as_str().unwrap().to_owned()
    };
    assert_eq!(header(&wish, "https://cache.example"), "Bearer TOKEN");
    wish.token = Some(Token::Known(Secret::new("a\"b")));
    assert_eq!(header(&wish, "https://cache.example"), "Bearer a\"b");
    wish.fallback = Fallback::None;
    assert_eq!(header(&wish, ""), "Bearer a\"b", "the registry itself is the cache as well");
    assert!(!format!("{wish:?}").contains("a\\\"b"), "it is in no log: {wish:?}");
    wish.endpoint = "http://cache.example".parse().unwrap();
    assert!(render(Client::Nerdctl, &wish).unwrap().notes.iter().any(|note| note.contains("without https")));
}

#[test]
fn a_certificate_is_named_or_put_where_it_is_found() {
    let mut wish = wish("https://cache.example:5000", &["docker.io"]);
    wish.certificate = Some(certificate_of("/node"));
    let pair = ["/node.pem", "/node.key"];
    let hosts = toml(Client::Containerd, &wish);
    let client = &hosts["host"]["https://cache.example:5000"]["client"][0];
    assert_eq!([client[0].as_str(), client[1].as_str()], pair.map(Some));
    let keypair = &toml(Client::Buildkit, &wish)["registry"]["cache.example:5000"]["keypair"][0];
    assert_eq!([keypair["cert"].as_str(), keypair["key"].as_str()], pair.map(Some));
    let commands = |certs_d: &str| {
        [
            format!("install -D -m 644 /node.pem {certs_d}/cache.example:5000/client.cert"),
            format!("install -D -m 600 /node.key {certs_d}/cache.example:5000/client.key"),
        ]
    };
    let [cert, key] = commands("/etc/containers/certs.d");
    assert!(text(Client::Podman, &wish).contains(&format!("# {cert}\n# {key}\n")), "{}", text(Client::Podman, &wish));
    let notes = render(Client::Docker, &wish).unwrap().notes;
    assert!(notes.ends_with(&commands("/etc/docker/certs.d")), "{notes:?}");
    let expected = "configs:\n  \"cache.example:5000\":\n    tls:\n      cert_file: \"/node.pem\"\n      key_file: \"/node.key\"\n";
    assert!(text(Client::K3s, &wish).ends_with(expected), "{}", text(Client::K3s, &wish));
    assert!(
        text(Client::Oras, &wish).contains("oras pull --cert-file /node.pem --key-file /node.key cache.example:5000/")
    );
    assert!(text(Client::Kind, &wish).contains("--client-cert /node.pem --client-key /node.key --registry docker.io"));
    wish.endpoint = "http://cache.example:5000".parse().unwrap();
    assert_eq!(render(Client::Containerd, &wish), Err(SnippetError::CertificateWithoutTls));
}
