//! The closed label sets of the metrics: each label value is an enum's word, never a text from outside (S-41).

use std::io;

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $variant:ident = $word:literal),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$about])* $variant),+
        }

        impl $name {
            /// All values, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the label value.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }
    )+};
}

labels! {
    /// What a question to the cache is about.
    Kind {
        ManifestTag = "manifest_tag",
        ManifestDigest = "manifest_digest",
        Blob = "blob",
        Referrers = "referrers",
        Tags = "tags",
        Other = "other",
    }

    /// How somebody came to be let in to a repository that is for callers, or not.
    Admission {
        Allowed = "allowed",
        Cached = "cached",
        Stale = "stale",
        Denied = "denied",
        Error = "error",
    }

    /// Who wanted bytes from an upstream.
    Trigger { Client = "client", Prefetch = "prefetch" }

    /// A tier of the store.
    Tier { Disk = "disk", Memory = "memory" }

    /// Which part of the program served a request.
    Handler {
        Manifests = "manifests",
        Blobs = "blobs",
        Referrers = "referrers",
        Tags = "tags",
        Ping = "ping",
        Token = "token",
        Admin = "admin",
        Health = "health",
        Other = "other",
    }

    /// Why a request was sent away unanswered.
    Shed { Overload = "overload", Quota = "quota" }

    /// Why a client was not let in.
    AuthFailure {
        Missing = "missing",
        Malformed = "malformed",
        Password = "password",
        Token = "token",
        Expired = "expired",
        TooOften = "too_often",
        Busy = "busy",
        Denied = "denied",
    }

    /// Why a stale answer was given.
    StaleReason {
        UpstreamError = "upstream_error",
        RateLimited = "rate_limited",
        Offline = "offline",
        WhileRevalidate = "while_revalidate",
    }

    /// What asking about a known tag brought.
    Revalidation {
        Unchanged = "unchanged",
        Changed = "changed",
        Gone = "gone",
        Error = "error",
        RateLimited = "rate_limited",
    }

    /// How a fill ended.
    FillEnd { Ok = "ok", Error = "error", Aborted = "aborted", DigestMismatch = "digest_mismatch" }

    /// How fetching ahead for one image ended.
    Prefetched { Ok = "ok", Error = "error" }

    /// What a certificate is shown for.
    CertificateUse { Server = "server", ClientCa = "client_ca", UpstreamClient = "upstream_client" }

    /// How a TLS handshake with a client ended.
    Handshake {
        Ok = "ok",
        Timeout = "timeout",
        /// The client spoke plain HTTP, and was told so.
        PlainHttp = "plain_http",
        /// The client showed no certificate, or one that is not believed.
        ClientCertificate = "client_certificate",
        /// The client said that it does not believe us, or broke off by an alert of its own.
        RefusedByClient = "refused_by_client",
        /// What came was no TLS that we speak.
        Protocol = "protocol",
        /// The client left.
        Closed = "closed",
    }

    /// Why a connection was ended, or not begun.
    ConnectionShed {
        /// One client has as many as it may have.
        ClientLimit = "client_limit",
        /// Its client took nothing of what it was given.
        WriteStall = "write_stall",
        /// Its client asked again and again, and did not wait for the answers.
        AbandonedRequests = "abandoned_requests",
    }

    /// Who gave bytes that do not match their digest.
    MismatchSource { Upstream = "upstream", Disk = "disk" }

    /// Why an object was removed.
    EvictReason {
        Capacity = "capacity",
        MinFree = "min_free",
        Corrupt = "corrupt",
        Unreadable = "unreadable",
    }

    /// What reading a stored object again brought.
    Scrubbed { Ok = "ok", Corrupt = "corrupt", Unreadable = "unreadable", Missing = "missing" }

    /// What was done to the disk.
    StoreOperation {
        Open = "open",
        Read = "read",
        Write = "write",
        Fsync = "fsync",
        Rename = "rename",
        Delete = "delete",
    }

    /// How the disk refused.
    StoreErrorReason {
        Enospc = "enospc",
        Eio = "eio",
        Permission = "permission",
        Corrupt = "corrupt",
        Other = "other",
    }

    /// What a look into the memory tier brought.
    MemoryLookup { Hit = "hit", Miss = "miss" }
}

impl StoreErrorReason {
    /// Returns the word for what the disk said.
    pub fn of(error: &io::Error) -> Self {
        if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) {
            return Self::Eio;
        }
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Enospc,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::Permission,
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::Corrupt,
            _ => Self::Other,
        }
    }
}
