//! Wrong configurations and what is said about them; right ones and what they mean.

mod every_key;
mod named_files;
mod wrong;

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
