//! Wrong configurations and what is said about them; right ones and what they mean.

use url::Url;

use super::keys::{BUILTIN_UPSTREAMS, SECTIONS};
use super::*;
use crate::identity::CertificateName;
use crate::upstream::Credentials;

/// A directory with a configuration file, and whatever the file names.
struct Ground(tempfile::TempDir);

impl Ground {
    fn new(file: &str) -> Self {
        let ground = Self(tempfile::tempdir().unwrap());
        ground.write("cachalot.toml", file);
        ground
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn sources(&self) -> Sources {
        Sources { file: Some(self.0.path().join("cachalot.toml")), ..Sources::default() }
    }

    /// Returns what is wrong, without the directory, one line each.
    fn told(&self, sources: &Sources) -> Vec<String> {
        let directory = format!("{}/", self.0.path().display());
        let told = Settings::load(sources).map_or_else(|problems| problems.to_string(), |_| String::new());
        told.replace(&directory, "").lines().map(str::to_owned).collect()
    }
}

fn load(file: &str) -> Settings {
    Settings::load(&Ground::new(file).sources()).unwrap_or_else(|problems| panic!("{problems}"))
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

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

#[test]
fn problems_of_variables_and_flags_carry_their_names() {
    let ground = Ground::new("[fills]\nmax = 0\n");
    let sources = Sources {
        environment: variables(&[
            ("CACHALOT_FILLS__MAXX", "3"),
            ("CACHALOT_SERVER__LISTEN", "127.0.0.1:5000,:6000"),
            ("CACHALOT_SREVER__LISTEN", "127.0.0.1:5000"),
            ("CACHALOT_UPSTREAM__NAME", "a.test"),
            ("CACHALOT__LOG__LEVEL", "info"),
            ("CACHALOT_FRESHNESS__OFFLINE", "maybe"),
            ("CACHALOT_SERVER__CONNECTIONS", "many"),
        ]),
        flags: Flags {
            admin: Some("5001".into()),
            upstreams: vec!["a.test".into(), "b.test=b".into(), "c d=https://c.test".into()],
            ..Flags::default()
        },
        ..ground.sources()
    };
    assert_eq!(
        ground.told(&sources),
        [
            "cachalot.toml:2:7: fills.max: is out of bounds; write a whole number from 1 to 10000",
            "CACHALOT_FILLS__MAXX: fills.maxx: unknown variable; did you mean CACHALOT_FILLS__MAX?",
            "CACHALOT_FRESHNESS__OFFLINE: freshness.offline: \"maybe\" is neither true nor false",
            "CACHALOT_SERVER__CONNECTIONS: server.connections: is out of bounds; write a whole number from 1 to 1000000",
            "CACHALOT_SERVER__LISTEN: server.listen: \":6000\" has no address; write \"0.0.0.0:6000\" for every IPv4 address, or \"[::]:6000\"",
            "CACHALOT_SREVER__LISTEN: srever.listen: unknown variable; did you mean CACHALOT_SERVER__LISTEN?",
            "CACHALOT_UPSTREAM__NAME: upstream.name: an upstream cannot be set by a variable; write it to the file, or use --upstream NAME=URL",
            "CACHALOT__LOG__LEVEL: _log.level: unknown variable; did you mean CACHALOT_LOG__LEVEL?",
            "--admin: admin.listen: \"5001\" is not an IP address with a port; write for example \"0.0.0.0:5000\" or \"[::1]:5000\"",
            "--upstream: \"b\" is not a URL with http or https; write for example \"https://registry.example\"",
            "--upstream: \"c d\" is not the name of a registry; write a host, such as \"quay.io\" or \"registry.example:5000\"",
            "--upstream: has no =; write NAME=URL, such as registry.example=https://registry.example:8443",
        ]
    );
}

#[test]
fn flags_beat_the_environment_which_beats_the_file_which_beats_the_defaults() {
    let ground = Ground::new(
        "[server]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\nconnections = 7\n[store]\npath = \"/file\"\ncapacity = \"7GiB\"\n",
    );
    let mut sources = ground.sources();
    let settings = |sources: &Sources| Settings::load(sources).unwrap();
    let listen = |settings: &Settings| settings.server.listen.iter().map(ToString::to_string).collect::<Vec<_>>();

    let from_file = settings(&sources);
    assert_eq!(listen(&from_file), ["127.0.0.1:1", "127.0.0.1:2"]);
    assert_eq!(from_file.store.path, PathBuf::from("/file"));
    assert_eq!((from_file.admin.listen, from_file.fills.max), (ADMIN_LISTEN, FILLS_MAX));

    sources.environment = variables(&[
        ("CACHALOT_SERVER__LISTEN", "127.0.0.1:3, [::1]:3"),
        ("CACHALOT_SERVER__CONNECTIONS", "9"),
        ("CACHALOT_STORE__PATH", "/variable"),
        ("CACHALOT_STORE__MIN_FREE", "1%"),
        ("CACHALOT_FRESHNESS__OFFLINE", "true"),
    ]);
    let from_environment = settings(&sources);
    assert_eq!(listen(&from_environment), ["127.0.0.1:3", "[::1]:3"]);
    assert_eq!(from_environment.server.connections, 9);
    assert_eq!(from_environment.store.path, PathBuf::from("/variable"));
    assert_eq!(from_environment.store.capacity, Quantity::Bytes(7 << 30));
    assert_eq!(from_environment.store.min_free, Quantity::Percent(1));
    assert!(from_environment.freshness.offline && from_environment.upstreams.iter().all(|up| up.freshness.offline));

    sources.flags = Flags {
        listen: vec!["127.0.0.1:4".into()],
        admin: Some("127.0.0.1:5".into()),
        store: Some("/flag".into()),
        upstreams: Vec::new(),
    };
    let from_flags = settings(&sources);
    assert_eq!(listen(&from_flags), ["127.0.0.1:4"]);
    assert_eq!(from_flags.admin.listen.to_string(), "127.0.0.1:5");
    assert_eq!(from_flags.store.path, PathBuf::from("/flag"));
    assert_eq!(from_flags.server.connections, 9);
}

#[test]
fn a_wrong_value_that_a_later_layer_replaces_is_no_problem() {
    let ground = Ground::new("[server]\nlisten = [\"nowhere\"]\n");
    let flags = Flags { listen: vec!["127.0.0.1:1".into()], ..Flags::default() };
    assert_eq!(ground.told(&Sources { flags, ..ground.sources() }), [""; 0]);
}

#[test]
fn what_kubernetes_puts_into_the_environment_is_not_ours() {
    let environment = variables(&[
        ("CACHALOT_PORT", "tcp://10.0.0.1:5000"),
        ("CACHALOT_PORT_5000_TCP_ADDR", "10.0.0.1"),
        ("CACHALOT_SERVICE_HOST", "10.0.0.1"),
        ("CACHALOT_SERVICE_PORT_HTTP", "5000"),
        ("CACHALOT_CONFIG", "/etc/cachalot.toml"),
        ("OTHER_SERVER__LISTEN", "x"),
    ]);
    assert!(Settings::load(&Sources { environment, ..Sources::default() }).is_ok());
}

#[test]
fn one_underscore_where_two_belong_is_told() {
    let environment = variables(&[("CACHALOT_LOG_LEVEL", "debug")]);
    let problems = Settings::load(&Sources { environment, ..Sources::default() }).unwrap_err();
    assert_eq!(
        problems.to_string().trim(),
        "CACHALOT_LOG_LEVEL: log.level: has one underscore where two belong: between the section and the key"
    );
}

#[test]
fn the_store_is_in_the_cache_directory_of_the_user() {
    for (environment, path) in [
        (&[("XDG_CACHE_HOME", "/x"), ("HOME", "/home/a")][..], "/x/cachalot"),
        (&[("XDG_CACHE_HOME", "relative"), ("HOME", "/home/a")], "/home/a/.cache/cachalot"),
        (&[("XDG_CACHE_HOME", ""), ("HOME", "/home/a")], "/home/a/.cache/cachalot"),
        (&[("HOME", "")], "/var/cache/cachalot"),
        (&[], "/var/cache/cachalot"),
    ] {
        let sources = Sources { environment: variables(environment), ..Sources::default() };
        assert_eq!(Settings::load(&sources).unwrap().store.path, PathBuf::from(path), "{environment:?}");
    }
}

/// Alice, whose password is `secret`.
const HTPASSWD: &str = "alice:$2y$05$P3QfFcPNDiuSMhSZh9edk.DRGWsW.SL3ElXF04l3vb57YWcnPbdae\n";

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
fn an_open_admin_listener_is_warned_of() {
    let ground = Ground::new("[admin]\nlisten = \"0.0.0.0:5001\"\n");
    let warned = Settings::load(&ground.sources()).unwrap().warnings(std::time::SystemTime::now());
    assert!(matches!(warned.as_slice(), [one] if one.starts_with("admin.listen: ")), "{warned:?}");
    ground.write("tokens", "a:0123456789abcdef");
    let tokens = ground.0.path().join("tokens");
    ground.write("cachalot.toml", &format!("[admin]\nlisten = \"0.0.0.0:5001\"\ntokens = {tokens:?}\n"));
    let warned = Settings::load(&ground.sources()).unwrap().warnings(std::time::SystemTime::now());
    assert!(!warned.iter().any(|one| one.starts_with("admin.listen: ")), "{warned:?}");
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
fn a_listener_stands_beside_plain_addresses_or_alone() {
    let plain = |file: &str| load(file).server.listen.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(plain(""), ["127.0.0.1:5000"]);
    assert_eq!(plain("[[listener]]\naddress = \"127.0.0.1:5443\"\n"), [""; 0]);
    assert_eq!(plain("[server]\nlisten = []\n[[listener]]\naddress = \"127.0.0.1:5443\"\n"), [""; 0]);
    let both = "[server]\nlisten = [\"127.0.0.1:1\"]\n[[listener]]\naddress = \"127.0.0.1:5443\"\n";
    assert_eq!(plain(both), ["127.0.0.1:1"]);
    assert_eq!(load("[server]\nconnections = 100\n").clients.connections, 25, "a quarter");
    let clients = load("[fills]\nmax = 9\nunfinished = \"10GiB\"\n").clients;
    assert_eq!((clients.fills, clients.unfinished), (4, 5 << 30), "a half");
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

#[test]
fn without_a_file_the_well_known_registries_are_there() {
    let settings = Settings::load(&Sources::default()).unwrap();
    let names: Vec<&str> = settings.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "docker.io",
            "ghcr.io",
            "quay.io",
            "registry.k8s.io",
            "gcr.io",
            "mcr.microsoft.com",
            "public.ecr.aws",
            "nvcr.io",
            "registry.gitlab.com"
        ]
    );
    for alias in ["docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"] {
        assert_eq!(settings.table.find(alias).unwrap().name.as_str(), "docker.io");
    }
    assert_eq!(settings.table.default_upstream().unwrap().name.as_str(), "docker.io");
    assert!(settings.upstreams.iter().all(|upstream| upstream.endpoints.iter().all(|url| url.scheme() == "https")));
}

#[test]
fn an_upstream_of_the_file_replaces_the_built_in_one_of_its_name_or_is_added() {
    let settings = load(
        "[[upstream]]\nname = \"docker.io\"\nconnections = 3\n[[upstream]]\nname = \"a.test\"\nendpoints = [\"http://a.test\"]\n",
    );
    assert_eq!(settings.upstreams.len(), BUILTIN_UPSTREAMS.len() + 1);
    let find = |name: &str| settings.upstreams.iter().find(|upstream| upstream.name.as_str() == name).unwrap();
    let hub = find("docker.io");
    assert_eq!((hub.connections, hub.aliases.len()), (3, 3));
    assert_eq!(hub.endpoints.first().map(Url::as_str), Some("https://registry-1.docker.io/"));
    assert_eq!(find("a.test").requests, UPSTREAM_REQUESTS);
    // P-112: port 80 is the default port of a plain-http upstream.
    assert_eq!(settings.table.find("a.test:80").unwrap().name.as_str(), "a.test");
}

#[test]
fn the_built_in_upstreams_can_be_switched_off() {
    let settings = load("[server]\nbuiltin_upstreams = false\n[[upstream]]\nname = \"a.test\"\n");
    assert_eq!(settings.upstreams.len(), 1);
    assert_eq!(settings.server.default_upstream, None);
    let settings = load("[server]\ndefault_upstream = \"\"\n");
    assert_eq!(settings.table.default_upstream(), None);
}

#[test]
fn a_flag_adds_an_upstream_or_gives_a_known_one_other_endpoints() {
    let ground = Ground::new("[[upstream]]\nname = \"a.test\"\nconnections = 3\n");
    let flags = [
        "a.test=http://127.0.0.1:1",
        "b.test=https://b.test/p",
        "index.docker.io=http://127.0.0.1:2",
        "a.test=http://127.0.0.1:3",
    ];
    let flags = Flags { upstreams: flags.map(str::to_owned).to_vec(), ..Flags::default() };
    let settings = Settings::load(&Sources { flags, ..ground.sources() }).unwrap();
    let endpoints = |name: &str| {
        let upstream = settings.upstreams.iter().find(|upstream| upstream.name.as_str() == name).unwrap();
        (upstream.connections, upstream.endpoints.iter().map(Url::to_string).collect::<Vec<_>>())
    };
    assert_eq!(endpoints("a.test"), (3, vec!["http://127.0.0.1:1/".to_owned(), "http://127.0.0.1:3/".to_owned()]));
    assert_eq!(endpoints("b.test"), (UPSTREAM_CONNECTIONS, vec!["https://b.test/p".to_owned()]));
    assert_eq!(endpoints("docker.io").1, ["http://127.0.0.1:2/"]);
}
