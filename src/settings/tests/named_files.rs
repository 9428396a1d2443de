//! Files that a configuration names: what is wrong with them is told, and no secret of theirs.

use super::*;

#[test]
fn files_that_an_upstream_names_are_checked_and_secrets_are_not_told() {
    let ground = Ground::new("");
    let name = |file: &str| ground.0.path().join(file).display().to_string();
    for (id, password, ca, told) in [
        (
            "empty",
            "\n",
            "",
            vec![
                "password_file: password is empty; write the password to it",
                "ca: ca.pem holds no certificate; write one or more in PEM (-----BEGIN CERTIFICATE-----)",
            ],
        ),
        (
            "garbage",
            "hunter2",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            vec!["ca: certificate 1 in ca.pem cannot be used"],
        ),
        ("broken PEM", "hunter2", "-----BEGIN CERTIFICATE-----\n!\n", vec!["ca: ca.pem is not valid PEM"]),
        (
            "huge",
            &"hunter2".repeat(20_000),
            "",
            vec!["password_file: password is larger than", "ca: ca.pem holds no certificate"],
        ),
    ] {
        ground.write("password", password);
        ground.write("ca.pem", ca);
        ground.write(
            "cachalot.toml",
            &format!(
                "[[upstream]]\nname = \"a.test\"\nusername = \"bot\"\npassword_file = {:?}\nca = {:?}\n",
                name("password"),
                name("ca.pem")
            ),
        );
        let found = ground.told(&ground.sources());
        assert_eq!(found.len(), told.len(), "{id}: {found:?}");
        for words in told {
            assert!(found.iter().any(|line| line.contains(words)), "{id}: {found:?}");
        }
        assert!(!found.iter().any(|line| line.contains("hunter2")), "{id}: {found:?}");
    }
}

#[test]
fn files_of_identities_are_checked_and_secrets_are_not_told() {
    use std::os::unix::fs::PermissionsExt;
    let ground = Ground::new("");
    let name = |file: &str| ground.0.path().join(file).display().to_string();
    let keys = ["htpasswd", "tokens", "token_key_file", "service_accounts_jwks"];
    let mut file = "[server]\npublic_url = \"https://cache.test\"\n[identity]\nservice_accounts_issuer = \"i\"\n\
                    service_accounts_audience = \"a\"\n"
        .to_owned();
    for key in keys {
        file.extend([key, " = ", &format!("{:?}", name(key)), "\n"]);
    }
    ground.write("cachalot.toml", &file);
    let told = |texts: [&str; 4]| {
        for (key, text) in keys.into_iter().zip(texts) {
            ground.write(key, text);
        }
        let told = ground.told(&ground.sources());
        assert!(!told.iter().any(|line| line.contains("hunter2")), "S-43: {told:?}");
        told
    };
    let found = told(["a:hunter2", "b:hunter2", "hunter2", "hunter2"]);
    assert_eq!(found.len(), 4, "{found:?}");
    for words in [
        "identity.htpasswd: htpasswd, line 1: the hash of a is crypt or plain text; only bcrypt is accepted: make it again with htpasswd -B",
        "identity.tokens: tokens, line 1: the token of b has less than 16 characters; make one with openssl rand -hex 32",
        "identity.token_key_file: token_key_file, line 1: the key has less than 32 characters",
        "identity.service_accounts_jwks: service_accounts_jwks is no JSON Web Key Set",
    ] {
        assert!(found.iter().any(|line| line.contains(words)), "{words}: {found:?}");
    }
    let key = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let good = [HTPASSWD, "ci:0123456789abcdef", &"k".repeat(32), key];
    assert_eq!(told(good), Vec::<String>::new());
    let before = Settings::load(&ground.sources()).unwrap();
    told([HTPASSWD, "ci:0123456789abcdeg", &"k".repeat(32), key]);
    let after = Settings::load(&ground.sources()).unwrap();
    assert_ne!(before, after, "a file's content is part of the settings");

    let mode = |mode| std::fs::set_permissions(name("tokens"), std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o600);
    std::fs::set_permissions(name("htpasswd"), std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::set_permissions(name("token_key_file"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let warned = Settings::load(&ground.sources()).unwrap().warnings(std::time::SystemTime::now());
    assert!(matches!(warned.as_slice(), [one] if one.starts_with("identity.htpasswd: ")), "{warned:?}");
    mode(0o602);
    let found = ground.told(&ground.sources());
    assert!(
        matches!(found.as_slice(), [one] if one.contains("identity.tokens: tokens can be written by everybody")),
        "{found:?}"
    );
}

#[test]
fn a_docker_config_and_a_client_certificate_are_checked_and_secrets_are_not_told() {
    let ground = Ground::new("");
    let [ours, other] = [0, 1].map(|_| rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap());
    let (ours, key) = (ours.cert.pem(), other.signing_key.serialize_pem());
    let broken = key.replace("=\n-----END", "*\n-----END").replace("\n-----END", "!\n-----END");
    for (config, cert, key, told) in [
        (
            "{",
            ours.as_str(),
            "hunter2",
            ["config.json is not a docker config (line 1, column 1)", "key.pem holds no private key"],
        ),
        (
            r#"{"auths":{"b.test":{"auth":"hunter2"}}}"#,
            &ours,
            &broken,
            ["config.json holds no account for a.test; add one with docker login a.test", "key.pem is not valid PEM"],
        ),
        (
            r#"{"auths":{"a.test":{"auth":"hunter2"}}}"#,
            &ours,
            &key,
            [
                "config.json holds an auth for \"a.test\" that is not base64 of user:password",
                "key.pem does not fit cert.pem: the key is not that of the certificate",
            ],
        ),
        (
            r#"{"auths":{"a.test":7}}"#,
            &key,
            &key,
            ["config.json is not a docker config", "cert.pem holds no certificate"],
        ),
    ] {
        let files = [
            ("docker_config", "config.json", config),
            ("client_cert", "cert.pem", cert),
            ("client_key", "key.pem", key),
        ];
        let mut file = "[[upstream]]\nname = \"a.test\"\n".to_owned();
        for (name, path, content) in files {
            ground.write(path, content);
            file.extend([name, " = ", &format!("{:?}", ground.0.path().join(path)), "\n"]);
        }
        ground.write("cachalot.toml", &file);
        let found = ground.told(&ground.sources());
        assert_eq!(found.len(), 2, "P-174: {found:?}");
        for words in told {
            assert!(found.iter().any(|line| line.contains(words)), "{words}: {found:?}");
        }
        let key_line = key.lines().nth(1).unwrap_or("hunter2");
        assert!(!found.iter().any(|line| line.contains("hunter2") || line.contains(key_line)), "S-43: {found:?}");
    }
}

#[test]
fn a_listeners_certificate_and_key_are_checked_and_an_expired_one_is_warned_of() {
    let ground = Ground::new("");
    let [ours, other] = [0, 1].map(|_| rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap());
    let [cert, key] = ["cert.pem", "key.pem"].map(|file| ground.0.path().join(file));
    ground.write("cert.pem", &ours.cert.pem());
    ground.write("cachalot.toml", &format!("[[listener]]\naddress = \"[::1]:1\"\ncert = {cert:?}\nkey = {key:?}\n"));
    for (content, told) in [
        (other.signing_key.serialize_pem(), "key.pem does not fit cert.pem: the key is not that of the certificate"),
        ("hunter2".to_owned(), "key.pem holds no private key"),
        ("x".repeat((1 << 20) + 1), "key.pem is larger than 1.0 MiB; is it the right file?"),
    ] {
        ground.write("key.pem", &content);
        let found = ground.told(&ground.sources());
        assert!(found.len() == 1 && found[0].contains(told) && !found[0].contains("hunter2"), "P-174: {found:?}");
    }
    ground.write("key.pem", &ours.signing_key.serialize_pem());
    let settings = Settings::load(&ground.sources()).unwrap();
    assert!(settings.warnings(std::time::SystemTime::now()).is_empty());
    // The end of 4095: what rcgen writes when it is not told.
    let late = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_hours(67_090_118_400 / 3600);
    let warnings = settings.warnings(late);
    assert!(warnings.len() == 1 && warnings[0].contains("expired on Sun, 01 Jan 4096"), "{warnings:?}");
}
