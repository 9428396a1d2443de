//! Wrong files, and every line that is said about each.

use super::*;

/// A file, and every line that is said about it.
struct Wrong {
    name: &'static str,
    file: &'static str,
    told: &'static [&'static str],
}

const WRONG: &[Wrong] = &[
    Wrong {
        name: "identities that cannot work",
        file: "[identity]\nanonymous = false\ncertificates = \"san\"\ntoken_life = \"30s\"\n\
               service_accounts_issuer = \"https://a.test\"\nservice_accounts_jwks = \"http://a.test/keys\"\n",
        told: &[
            "cachalot.toml:3:16: identity.certificates: \"san\" is not known; write \"off\", \"cn\", \"dns\" or \"uri\"",
            "cachalot.toml:4:14: identity.token_life: 30s is out of bounds; write a duration from 1m to 1h",
            "cachalot.toml:4:14: identity.token_life: has no use without server.public_url: clients get tokens where that leads; set it as well",
            "cachalot.toml:5:27: identity.service_accounts_issuer: is not enough to know service accounts by; set service_accounts_audience as well",
            "cachalot.toml:6:25: identity.service_accounts_jwks: http://a.test/keys is not https: whoever is on the way could make keys; write an https URL",
        ],
    },
    Wrong {
        name: "nobody would be let in",
        file: "[identity]\nanonymous = false\n",
        told: &[
            "cachalot.toml:2:13: identity.anonymous: is false, and there is no way to be somebody: nobody would be let in; set htpasswd, tokens, certificates or service_accounts_issuer",
        ],
    },
    Wrong {
        name: "rules about nobody",
        file: "[[principal]]\nrepositories = [\"a b\"]\nburst = 3\n[[principal]]\nmatch = []\nmatches = [\"user:a\"]\n",
        told: &[
            "cachalot.toml:1:1: principal: says not whom it is about; write match = [\"…\"] with patterns such as \"user:alice\", \"token:*\" or \"anonymous\"",
            "cachalot.toml:2:17: principal.repositories: \"a b\" holds ' ', which no name has; write a name in which * stands for any text without /, ** for any text, ? for one character",
            "cachalot.toml:3:9: principal.burst: has no rate beside it; set rate as well",
            "cachalot.toml:4:1: principal: says not whom it is about; write match = [\"…\"] with patterns such as \"user:alice\", \"token:*\" or \"anonymous\"",
            "cachalot.toml:6:1: principal.matches: unknown key; did you mean \"match\"?",
        ],
    },
    Wrong {
        name: "passwords in the open",
        file: "[server]\npublic_url = \"http://cache.test\"\n[[upstream]]\nname = \"a.test\"\npush = true\n",
        told: &[
            "cachalot.toml:2:14: server.public_url: clients would send credentials to http://cache.test/ without encryption, and some refuse to; write an https URL",
        ],
    },
    Wrong {
        name: "a misspelt key, at its own place",
        file: "[store]\n  capcity = \"10GiB\"\n",
        told: &["cachalot.toml:2:3: store.capcity: unknown key; did you mean \"capacity\"?"],
    },
    Wrong {
        name: "a key in the wrong section",
        file: "[server]\ncapacity = \"10GiB\"\ntag_ttl = \"1s\"\n",
        told: &[
            "cachalot.toml:2:1: server.capacity: unknown key; it belongs in [store]",
            "cachalot.toml:3:1: server.tag_ttl: unknown key; it belongs in [freshness] or [[upstream]]",
        ],
    },
    Wrong {
        name: "a key like no other",
        file: "[fills]\nxyzzy = 1\n",
        told: &["cachalot.toml:2:1: fills.xyzzy: unknown key; [fills] has max, unfinished, unattended"],
    },
    Wrong {
        name: "a misspelt section, and a key without one",
        file: "listen = \"0.0.0.0:5000\"\n[stroe]\npath = \"/a\"\n",
        told: &[
            "cachalot.toml:1:1: listen: unknown section; this key belongs in [server] or [admin]",
            "cachalot.toml:2:2: stroe: unknown section; did you mean [store]?",
        ],
    },
    Wrong {
        name: "one table where there may be several",
        file: "[upstream]\nname = \"quay.io\"\n",
        told: &[
            "cachalot.toml:1:2: upstream: is not a section; write [[upstream]] on a line of its own, and the keys below it",
        ],
    },
    Wrong {
        name: "wrong types",
        file: "[server]\nlisten = \"0.0.0.0:5000\"\nconnections = \"5\"\n[freshness]\noffline = \"yes\"\n[log]\nlevel = 3\n",
        told: &[
            "cachalot.toml:2:10: server.listen: is not a list; write [\"0.0.0.0:5000\"]",
            "cachalot.toml:3:15: server.connections: holds a text; write a whole number without quotes",
            "cachalot.toml:5:11: freshness.offline: holds a text; write true or false, without quotes",
            "cachalot.toml:7:9: log.level: holds a whole number; write a text in quotes",
        ],
    },
    Wrong {
        name: "what can let nobody in, or has no effect",
        file: "[[upstream]]\nname = \"a.test\"\naccess = \"caller\"\noffline = true\n\
               [[upstream]]\nname = \"b.test\"\naccess_ttl = \"1m\"\n\
               [[upstream]]\nname = \"c.test\"\naccess = \"caller\"\ncredential_helper = \"ecr-login\"\n\
               [[upstream]]\nname = \"d.test\"\naccess_except = [\"private/*\"]\noffline = true\n\
               [[upstream]]\nname = \"e.test\"\naccess = \"private\"\n",
        told: &[
            "cachalot.toml:3:10: upstream.access: lets nobody in: whether a caller may read is asked upstream, which offline = true rules out; share what is offline, or take offline out",
            "cachalot.toml:7:14: upstream.access_ttl: has no effect where everything is shared; write access = \"caller\", or take it out",
            "cachalot.toml:10:10: upstream.access: leaves no use for the account of this upstream: callers are asked for by their own; take the account out, or name the repositories that are shared in access_except",
            "cachalot.toml:14:17: upstream.access_except: lets nobody in: whether a caller may read is asked upstream, which offline = true rules out; share what is offline, or take offline out",
            "cachalot.toml:18:10: upstream.access: \"private\" is not one of shared, caller",
        ],
    },
    Wrong {
        name: "numbers without a unit",
        file: "[store]\nmemory = 256\ncapacity = \"100\"\n[freshness]\ntag_ttl = 10\n",
        told: &[
            "cachalot.toml:2:10: store.memory: \"256\" has no unit; write for example \"256MiB\" or \"100GiB\"",
            "cachalot.toml:3:12: store.capacity: \"100\" has no unit; write for example \"100GiB\", or a share such as \"80%\"",
            "cachalot.toml:5:11: freshness.tag_ttl: \"10\" is not a duration; write a number and a unit, such as \"30s\", \"5min\" or \"7d\"",
        ],
    },
    Wrong {
        name: "values out of bounds",
        file: "[server]\nconnections = 0\nheader_timeout = \"1h\"\n[store]\ncapacity = \"101%\"\nmanifests = \"1KiB\"\n\
               [fills]\nmax = 99999999999999999999\n[freshness]\nnegative_ttl = \"6m\"\n",
        told: &[
            "cachalot.toml:2:15: server.connections: is out of bounds; write a whole number from 1 to 1000000",
            "cachalot.toml:3:18: server.header_timeout: 1h is out of bounds; write a duration from 1s to 10m",
            "cachalot.toml:5:12: store.capacity: \"101%\" is not a share of the file system; write whole percents from \"1%\" to \"100%\"",
            "cachalot.toml:6:13: store.manifests: 1KiB is out of bounds; write a size from 1.0 MiB to 1.0 TiB",
            "cachalot.toml:8:7: fills.max: is out of bounds; write a whole number from 1 to 10000",
            "cachalot.toml:10:16: freshness.negative_ttl: 6m is out of bounds; write a duration from 0s to 5m",
        ],
    },
    Wrong {
        name: "addresses, each at its place in the list",
        file: "[server]\nlisten = [\n  \"0.0.0.0:5000\",\n  \":5000\",\n  \"localhost\",\n  \"0.0.0.0:5000\",\n]\n",
        told: &[
            "cachalot.toml:4:3: server.listen: \":5000\" has no address; write \"0.0.0.0:5000\" for every IPv4 address, or \"[::]:5000\"",
            "cachalot.toml:5:3: server.listen: \"localhost\" is not an IP address with a port; write for example \"0.0.0.0:5000\" or \"[::1]:5000\"",
            "cachalot.toml:6:3: server.listen: 0.0.0.0:5000 is in the list twice; take one out",
        ],
    },
    Wrong {
        name: "patterns, words, networks, and a burst without a rate",
        file: "[clients]\nburst = 5\ntrusted_proxies = [\"10.0.0.0/40\"]\n[freshness]\nimmutable_tags = [\"v{1,2}\"]\n\
               when_limited = [\"stale\"]\n[[upstream]]\nname = \"a.test\"\nallow = [\"\"]\nwhen_limited = [\"500\"]\n",
        told: &[
            "cachalot.toml:2:9: clients.burst: has no rate beside it; set rate as well",
            "cachalot.toml:3:20: clients.trusted_proxies: \"10.0.0.0/40\" has a prefix length that its address does not have room for; write for example \"10.0.0.0/8\" or \"10.0.0.7\"",
            "cachalot.toml:5:19: freshness.immutable_tags: \"v{1,2}\" holds '{', which no name has; write a name in which * stands for any text without /, ** for any text, ? for one character",
            "cachalot.toml:6:16: freshness.when_limited: does not end with one status; write [\"stale\", \"503\"], [\"stale\", \"429\"], [\"503\"] or [\"429\"]",
            "cachalot.toml:9:10: upstream.allow: \"\" is empty; write a name in which * stands for any text without /, ** for any text, ? for one character",
            "cachalot.toml:10:17: upstream.when_limited: holds \"500\"; write [\"stale\", \"503\"], or \"429\" in the place of \"503\"",
        ],
    },
    Wrong {
        name: "a list of wrong elements is not called empty as well",
        file: "[[upstream]]\nname = \"a.test\"\nendpoints = [\"a.test\"]\naliases = [\"b/c\", 5]\n",
        told: &[
            "cachalot.toml:3:14: upstream.endpoints: \"a.test\" is not a URL with http or https; write for example \"https://registry.example\"",
            "cachalot.toml:4:12: upstream.aliases: \"b/c\" is not the name of a registry; write the host alone, such as \"quay.io\"",
            "cachalot.toml:4:19: upstream.aliases: holds a whole number in the list; write a text in quotes",
        ],
    },
    Wrong {
        name: "no address at all",
        file: "[server]\nlisten = []\n",
        told: &[
            "cachalot.toml:2:10: server.listen: is empty; write at least one address, such as [\"127.0.0.1:5000\"], or add a [[listener]]",
        ],
    },
    Wrong {
        name: "listeners that cannot both be",
        file: "[server]\nlisten = [\"0.0.0.0:5000\", \"127.0.0.1:5000\"]\n[admin]\nlisten = \"127.0.0.1:5000\"\n",
        told: &[
            "cachalot.toml:2:27: server.listen: 127.0.0.1:5000 cannot be listened on beside 0.0.0.0:5000; take one out or change a port",
            "cachalot.toml:4:10: admin.listen: server.listen (0.0.0.0:5000) and admin.listen (127.0.0.1:5000) are the same; change a port",
            "cachalot.toml:4:10: admin.listen: server.listen (127.0.0.1:5000) and admin.listen (127.0.0.1:5000) are the same; change a port",
        ],
    },
    Wrong {
        name: "a store too small for its own manifests",
        file: "[store]\ncapacity = \"512MiB\"\n",
        told: &[
            "cachalot.toml:2:12: store.capacity: capacity (512.0 MiB) leaves nothing for layers beside manifests (1.0 GiB); raise the one or lower the other",
        ],
    },
    Wrong {
        name: "an unknown default upstream",
        file: "[server]\ndefault_upstream = \"dokcer.io\"\n",
        told: &[
            "cachalot.toml:2:20: server.default_upstream: dokcer.io is not an upstream; did you mean \"docker.io\"?",
        ],
    },
    Wrong {
        name: "names that lead to two upstreams",
        file: "[[upstream]]\nname = \"a.test\"\naliases = [\"quay.io\"]\n[[upstream]]\nname = \"A.test\"\n[[upstream]]\nname = \"index.docker.io\"\n",
        told: &[
            "cachalot.toml:3:12: upstream.aliases: quay.io is a built-in upstream already; leave it out, or set server.builtin_upstreams = false",
            "cachalot.toml:5:8: upstream.name: a.test names another upstream already; give each name once",
            "cachalot.toml:7:8: upstream.name: index.docker.io is an alias of the built-in upstream docker.io already; write docker.io instead",
        ],
    },
    Wrong {
        name: "a virtual host that leads to two upstreams",
        file: "[[upstream]]\nname = \"a.test\"\nhosts = [\"h.test\"]\n[[upstream]]\nname = \"b.test\"\nhosts = [\"H.test.\"]\n",
        told: &["cachalot.toml:6:10: upstream.hosts: H.test. leads to a.test already; a host leads to one upstream"],
    },
    Wrong {
        name: "URLs of endpoints",
        file: "[[upstream]]\nname = \"a.test\"\nendpoints = [\"a.test\", \"ftp://a.test\", \"https://u:hunter2@a.test\", \"https://a.test/v2/\", \"https://a.test?b\"]\n",
        told: &[
            "cachalot.toml:3:14: upstream.endpoints: \"a.test\" is not a URL with http or https; write for example \"https://registry.example\"",
            "cachalot.toml:3:24: upstream.endpoints: \"ftp://a.test\" is not a URL with http or https; write for example \"https://registry.example\"",
            "cachalot.toml:3:40: upstream.endpoints: the URL holds a user name or a password; set username and password_file instead",
            "cachalot.toml:3:68: upstream.endpoints: \"https://a.test/v2/\" ends with /v2; leave that out, it is added to every request",
            "cachalot.toml:3:90: upstream.endpoints: \"https://a.test?b\" has a query or a fragment; leave out what follows ? or #",
        ],
    },
    Wrong {
        name: "passwords where none belongs",
        file: "[[upstream]]\nname = \"a.test\"\nendpoints = \"https://u:hunter2@a.test\"\nproxy = \"u:hunter2@proxy.test:3128\"\n",
        told: &[
            "cachalot.toml:3:13: upstream.endpoints: is not a list; write it in brackets",
            "cachalot.toml:4:9: upstream.proxy: the URL holds a user name or a password; set HTTPS_PROXY in the environment and proxy = \"environment\" instead",
        ],
    },
    Wrong {
        name: "half of the credentials, and files that are not there",
        file: "[[upstream]]\nname = \"a.test\"\nusername = \"bot\"\nca = \"/nonexistent/ca.pem\"\n[[upstream]]\nname = \"b.test\"\npassword_file = \"/nonexistent/password\"\n",
        told: &[
            "cachalot.toml:3:12: upstream.username: has no password beside it; set password_file as well",
            "cachalot.toml:4:6: upstream.ca: cannot read /nonexistent/ca.pem: No such file or directory (os error 2)",
            "cachalot.toml:7:17: upstream.password_file: cannot read /nonexistent/password: No such file or directory (os error 2)",
            "cachalot.toml:7:17: upstream.password_file: has no user beside it; set username as well",
        ],
    },
    Wrong {
        name: "an account from two places, and names that are none",
        file: "[[upstream]]\nname = \"a.test\"\nusername = \"bot\"\ndocker_config = \"/nonexistent/config.json\"\n\
               credential_helper = \"../ecr-login\"\ntoken_hosts = [\"sso.test:443\", \"https://sso.test\"]\ntoken_timeout = \"1m\"\n\
               client_key = \"/nonexistent/key.pem\"\n",
        told: &[
            "cachalot.toml:3:12: upstream.username: has no password beside it; set password_file as well",
            "cachalot.toml:4:17: upstream.docker_config: cannot read /nonexistent/config.json: No such file or directory (os error 2)",
            "cachalot.toml:4:17: upstream.docker_config: stands beside username; an upstream has one account, so take one of them out",
            "cachalot.toml:5:21: upstream.credential_helper: \"../ecr-login\" is not the name of a credential helper; write what stands after docker-credential-, such as \"ecr-login\"",
            "cachalot.toml:5:21: upstream.credential_helper: stands beside username; an upstream has one account, so take one of them out",
            "cachalot.toml:6:16: upstream.token_hosts: \"sso.test:443\" is not a host; write its name alone, such as \"sso.example\", without scheme, port and path",
            "cachalot.toml:6:32: upstream.token_hosts: \"https://sso.test\" is not a host; write its name alone, such as \"sso.example\", without scheme, port and path",
            "cachalot.toml:7:17: upstream.token_timeout: 1m is out of bounds; write a duration from 100ms to 25s",
            "cachalot.toml:8:14: upstream.client_key: cannot read /nonexistent/key.pem: No such file or directory (os error 2)",
            "cachalot.toml:8:14: upstream.client_key: has no certificate beside it; set client_cert as well",
        ],
    },
    Wrong {
        name: "an upstream without a name, checked nevertheless",
        file: "[[upstream]]\nheader_timeout = \"60s\"\nproxy = \"proxy.test\"\n",
        told: &[
            "cachalot.toml:1:1: upstream: has no name; write name = \"…\", the host of the registry, such as \"quay.io\"",
            "cachalot.toml:2:18: upstream.header_timeout: 60s is out of bounds; write a duration from 100ms to 25s",
            "cachalot.toml:3:9: upstream.proxy: \"proxy.test\" is not a proxy; write \"environment\", \"none\", or a URL such as \"http://proxy.example:3128\"",
        ],
    },
    Wrong {
        name: "listeners that cannot be",
        file: "[server]\npublic_url = \"https://cache.test/v2\"\n[[listener]]\ncert = \"/nonexistent/cert.pem\"\n\
               [[listener]]\naddress = \"127.0.0.1:5001\"\nhttp2 = true\nclient_certificate = \"maybe\"\n\
               [[listener]]\naddress = \"0.0.0.0:5001\"\nkey = \"/nonexistent/key.pem\"\n",
        told: &[
            "cachalot.toml:2:14: server.public_url: \"https://cache.test/v2\" has a path; leave out \"/v2\", clients ask for /v2/ at the root of a host",
            "cachalot.toml:3:1: listener: has no address; write address = \"…\", an IP address with a port, such as \"0.0.0.0:5443\"",
            "cachalot.toml:4:8: listener.cert: cannot read /nonexistent/cert.pem: No such file or directory (os error 2)",
            "cachalot.toml:4:8: listener.cert: has no key beside it; set key as well",
            "cachalot.toml:6:11: listener.address: listener.address (127.0.0.1:5001) and admin.listen (127.0.0.1:5001) are the same; change a port",
            "cachalot.toml:7:9: listener.http2: means nothing without TLS; set cert and key as well, or take it out",
            "cachalot.toml:8:22: listener.client_certificate: \"maybe\" is not known; write \"required\" or \"optional\"",
            "cachalot.toml:8:22: listener.client_certificate: has no authorities beside it; set client_ca, the file of those that sign clients' certificates",
            "cachalot.toml:10:11: listener.address: 0.0.0.0:5001 cannot be listened on beside 127.0.0.1:5001; take one out or change a port",
            "cachalot.toml:10:11: listener.address: listener.address (0.0.0.0:5001) and admin.listen (127.0.0.1:5001) are the same; change a port",
            "cachalot.toml:11:7: listener.key: cannot read /nonexistent/key.pem: No such file or directory (os error 2)",
            "cachalot.toml:11:7: listener.key: has no certificate beside it; set cert as well",
        ],
    },
    Wrong {
        name: "a misspelt level and format",
        file: "[log]\nlevel = \"inof\"\nformat = \"yaml\"\n",
        told: &[
            "cachalot.toml:2:9: log.level: \"inof\" is not a level; write one of off, error, warn, info, debug, trace",
            "cachalot.toml:3:10: log.format: \"yaml\" is not a format; write \"text\" or \"json\"",
        ],
    },
    Wrong {
        name: "keys and sections that stand there twice, with the rest of the file",
        file: "[fills]\nmax = 1\nmax = 2\n[log]\n[log]\n[store]\ncapcity = 1\n",
        told: &[
            "cachalot.toml:3:1: max: stands above already; take one of them out",
            "cachalot.toml:5:2: log: stands above already; take one of them out",
            "cachalot.toml:7:1: store.capcity: unknown key; did you mean \"capacity\"?",
        ],
    },
    Wrong {
        name: "columns are characters, not bytes",
        file: "[log]\nlevel = \"é\" # é\n\"é\" = 1\n[store]\npath = \"é\"; capcity = 1\n",
        told: &["cachalot.toml:5:11: unexpected key or value, expected newline, `#`"],
    },
    Wrong {
        name: "all syntax errors at once",
        file: "[store]\ncapacity = 100GiB\n[log\nlevel = \"info\"\n",
        told: &[
            "cachalot.toml:2:12: string values must be quoted, expected literal string",
            "cachalot.toml:3:5: unclosed table, expected `]`",
        ],
    },
];

#[test]
fn every_problem_of_a_file_is_told_with_its_place() {
    for Wrong { name, file, told } in WRONG {
        let ground = Ground::new(file);
        assert_eq!(ground.told(&ground.sources()), *told, "{name}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_like_others() {
    let ground = Ground::new("");
    let file = Some(ground.0.path().join("absent.toml"));
    let environment = variables(&[("CACHALOT_LOG__LEVLE", "info")]);
    let sources = Sources { file, environment, ..Sources::default() };
    assert_eq!(
        ground.told(&sources),
        [
            "absent.toml: cannot be read: No such file or directory (os error 2)",
            "CACHALOT_LOG__LEVLE: log.levle: unknown variable; did you mean CACHALOT_LOG__LEVEL?",
        ]
    );
}

#[test]
fn a_file_that_is_no_text_or_far_too_large_is_told_so() {
    let large = "#\n".repeat(1 << 20);
    for (bytes, expected) in [
        (&b"[log]\nlevel = \"\xff\""[..], "cachalot.toml:2:10: is not UTF-8 from here on"),
        (large.as_bytes(), "cachalot.toml: is larger than 1.0 MiB; is it the right file?"),
    ] {
        let ground = Ground::new("");
        std::fs::write(ground.0.path().join("cachalot.toml"), bytes).unwrap();
        assert_eq!(ground.told(&ground.sources()), [expected]);
    }
}
