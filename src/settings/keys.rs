//! The names that a configuration may hold: sections, their keys, and the upstreams that are there without a file.

/// Sections that may be there several times: `[[listener]]`, `[[principal]]`, `[[upstream]]`.
const REPEATED: [&str; 3] = ["listener", "principal", "upstream"];

/// Returns true for a section that may be there several times.
pub(super) fn is_repeated(section: &str) -> bool {
    REPEATED.contains(&section)
}

/// Returns a section as it is written in a file.
pub(super) fn written(section: &str) -> String {
    if is_repeated(section) { format!("[[{section}]]") } else { format!("[{section}]") }
}

/// Every section and its keys.
pub(super) const SECTIONS: [(&str, &[&str]); 12] = [
    (
        "server",
        &[
            "listen",
            "public_url",
            "default_upstream",
            "builtin_upstreams",
            "drain_timeout",
            "header_timeout",
            "handshake_timeout",
            "connections",
            "write_stall_timeout",
        ],
    ),
    ("listener", &["address", "cert", "key", "client_ca", "client_certificate", "http2", "identities"]),
    ("admin", &["listen", "htpasswd", "tokens"]),
    ("clients", &["rate", "burst", "connections", "fills", "unfinished", "trusted_proxies"]),
    (
        "identity",
        &[
            "htpasswd",
            "tokens",
            "token_key_file",
            "certificates",
            "service_accounts_issuer",
            "service_accounts_audience",
            "service_accounts_jwks",
            "service_accounts_ca",
            "service_accounts_token_file",
            "anonymous",
            "token_life",
        ],
    ),
    ("principal", &["match", "repositories", "push", "rate", "burst"]),
    ("store", &["path", "capacity", "min_free", "memory", "manifests", "scrub_rate"]),
    (
        "freshness",
        &["tag_ttl", "stale_if_error", "stale_wait", "immutable_tags", "when_limited", "negative_ttl", "offline"],
    ),
    ("fills", &["max", "unfinished", "unattended"]),
    ("log", &["level", "format", "access"]),
    ("metrics", &["repositories"]),
    (
        "upstream",
        &[
            "name",
            "endpoints",
            "aliases",
            "hosts",
            "username",
            "password_file",
            "docker_config",
            "credential_helper",
            "token_hosts",
            "ca",
            "client_cert",
            "client_key",
            "insecure",
            "connections",
            "connections_per_blob",
            "parallel_from",
            "fills",
            "unfinished",
            "unattended",
            "prefetch",
            "push",
            "requests",
            "rate",
            "connect_timeout",
            "header_timeout",
            "idle_timeout",
            "token_timeout",
            "proxy",
            "tag_ttl",
            "stale_if_error",
            "stale_wait",
            "immutable_tags",
            "when_limited",
            "negative_ttl",
            "offline",
            "access",
            "access_except",
            "access_ttl",
            "access_stale_if_error",
            "allow",
            "deny",
            "internal",
        ],
    ),
];

/// The upstreams that are there without a file: name, aliases and endpoint (P-112).
pub(super) const BUILTIN_UPSTREAMS: [(&str, &[&str], &str); 9] = [
    (
        "docker.io",
        &["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"],
        "https://registry-1.docker.io",
    ),
    ("ghcr.io", &[], "https://ghcr.io"),
    ("quay.io", &[], "https://quay.io"),
    ("registry.k8s.io", &[], "https://registry.k8s.io"),
    ("gcr.io", &[], "https://gcr.io"),
    ("mcr.microsoft.com", &[], "https://mcr.microsoft.com"),
    ("public.ecr.aws", &[], "https://public.ecr.aws"),
    ("nvcr.io", &[], "https://nvcr.io"),
    ("registry.gitlab.com", &[], "https://registry.gitlab.com"),
];
