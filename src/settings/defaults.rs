//! What holds where an operator says nothing, and the bounds of what may be said, each with its reason.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::schema::{Fills, Freshness, WhenLimited};
use super::units::Quantity;

const fn seconds(least: u64, most: u64) -> RangeInclusive<Duration> {
    Duration::from_secs(least)..=Duration::from_secs(most)
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const DAY: u64 = 24 * 60 * 60;

/// `server.listen`: reachable from this machine only, until an operator decides otherwise.
pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5000);
/// `admin.listen`: beside [`LISTEN`]; who asks there is asked for nothing, unless that is configured.
pub const ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5001);
/// `server.default_upstream`: dockerd mirrors Docker Hub only and does not name it (P-116).
pub const DEFAULT_UPSTREAM: &str = "docker.io";
/// `server.drain_timeout`: Kubernetes kills after 30 s.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// `server.header_timeout`: beyond the 60 s of common load balancers, so that it is they who close an idle connection.
pub const SERVER_HEADER_TIMEOUT: Duration = Duration::from_secs(75);
/// `server.handshake_timeout`: two round trips and some arithmetic; who is slower than this on purpose holds a place for nothing.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// `server.connections`: a large cluster pulling at once, with room for file descriptors under common limits.
pub const SERVER_CONNECTIONS: u32 = 10_000;
/// `server.write_stall_timeout`: nobody who still wants the bytes waits for a minute with a full buffer.
pub const WRITE_STALL_TIMEOUT: Duration = Duration::from_mins(1);
/// `identity.token_life`: a user who is taken out is out after it; a pull asks for a few tokens, not for one a request.
pub const TOKEN_LIFE: Duration = Duration::from_mins(5);
/// `clients.connections`: this part of `server.connections`; one client that misbehaves leaves the rest to the others.
pub const CLIENT_SHARE: u32 = 4;
/// `clients.fills` and `clients.unfinished`: this part of those of `[fills]`; the largest rollout behind one address still runs at once.
pub const CLIENT_FILLS_SHARE: u32 = 2;
/// `store.path` where there is no home directory: the place for caches of services.
pub const STORE_PATH: &str = "/var/cache/cachalot";
/// `store.capacity`: a share, so that it fits every disk; the rest is for others on the same file system.
pub const CAPACITY: Quantity = Quantity::Percent(80);
/// `store.min_free`: room for logs and for a file system that grows slow when it is full.
pub const MIN_FREE: Quantity = Quantity::Bytes(5 * GIB);
/// `store.memory`: the manifests and configs of several thousand images.
pub const MEMORY_BYTES: u64 = 256 * MIB;
/// `store.manifests`: about a hundred thousand manifests and configs of 10 KiB.
pub const MANIFESTS_BYTES: u64 = GIB;
/// `store.scrub_rate`: a tenth of what a slow disk reads; a terabyte takes less than a day.
pub const SCRUB_RATE: u64 = 16 * MIB;
/// `freshness.tag_ttl`: a pushed tag is seen soon; a herd of nodes still asks the upstream once.
pub const TAG_TTL: Duration = Duration::from_secs(10);
/// `freshness.stale_if_error`: an outage over a long weekend.
pub const STALE_IF_ERROR: Duration = Duration::from_secs(7 * DAY);
/// `freshness.stale_wait`: a healthy upstream answers within a fraction of it, and nobody who pulls minds it.
pub const STALE_WAIT: Duration = Duration::from_secs(2);
/// `freshness.when_limited`: a client that has another host goes there, one that has none comes again.
pub const WHEN_LIMITED: WhenLimited = WhenLimited { stale: true, is_429: false };
/// `freshness.negative_ttl`: a herd asks once, and who pushes the missing tag finds it at once.
pub const NEGATIVE_TTL: Duration = Duration::from_secs(5);
/// `fills.max`: a fill takes a connection, a file and a few buffers; more of them at once would not be faster.
pub const FILLS_MAX: u32 = 256;
/// `fills.unfinished`: more is no use, and would fill a disk with what nobody can be served to the end.
pub const UNFINISHED_BYTES: u64 = 512 * GIB;
/// `fills.unattended`: a rollout that was stopped half-way is finished, a scanner that asks and leaves does not fill the disk.
pub const UNATTENDED: u32 = 64;
/// `upstream.fills`: half of all, so that a stuck upstream leaves places for the others.
pub const UPSTREAM_FILLS: u32 = 128;
/// `upstream.unfinished`: half of all, likewise.
pub const UPSTREAM_UNFINISHED_BYTES: u64 = 256 * GIB;
/// `upstream.unattended`: half of all, likewise.
pub const UPSTREAM_UNATTENDED: u32 = 32;
/// `upstream.connections_per_blob`: registries' content networks limit each connection; four are a multiple that none minds.
pub const CONNECTIONS_PER_BLOB: u32 = 4;
/// `upstream.parallel_from`: a smaller blob is there before further connections have gathered speed.
pub const PARALLEL_FROM_BYTES: u64 = 32 * MIB;
/// `upstream.access_ttl`: who loses a right keeps it for no longer than a long pull takes, and a pull asks once.
pub const ACCESS_TTL: Duration = Duration::from_mins(1);
/// `upstream.access_stale_if_error`: the restart of a registry or of its token service; whoever was in stays in.
pub const ACCESS_STALE_IF_ERROR: Duration = Duration::from_mins(10);
/// `log.level`: life cycle and one line for each request.
pub const LOG_LEVEL: &str = "info";
/// `upstream.connections`: as many layers as some nodes fetch at once; public registries take it without complaint.
pub const UPSTREAM_CONNECTIONS: u32 = 32;
/// `upstream.requests`: HTTP/2 carries several on one connection.
pub const UPSTREAM_REQUESTS: u32 = 64;
/// `upstream.connect_timeout`: leaves room for a second endpoint within the 30 s of clients (P-124).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// `upstream.header_timeout`: leaves room to answer from the store within the 30 s of clients (P-124).
pub const UPSTREAM_HEADER_TIMEOUT: Duration = Duration::from_secs(20);
/// `upstream.token_timeout`: half of [`UPSTREAM_HEADER_TIMEOUT`], so that a second try still fits (P-170).
pub const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);
/// `upstream.idle_timeout`: a transfer that is silent so long will not go on (P-125).
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// `[freshness]` where it says nothing.
pub(super) const FRESHNESS: Freshness = Freshness {
    tag_ttl: TAG_TTL,
    stale_if_error: STALE_IF_ERROR,
    stale_wait: STALE_WAIT,
    immutable_tags: Vec::new(),
    when_limited: WHEN_LIMITED,
    negative_ttl: NEGATIVE_TTL,
    offline: false,
};
/// `[fills]` where it says nothing.
pub(super) const FILLS: Fills = Fills { max: FILLS_MAX, unfinished: UNFINISHED_BYTES, unattended: UNATTENDED };
/// An upstream's bounds on fills where it says nothing.
pub(super) const FILLS_OF_UPSTREAM: Fills =
    Fills { max: UPSTREAM_FILLS, unfinished: UPSTREAM_UNFINISHED_BYTES, unattended: UPSTREAM_UNATTENDED };

pub(super) const DRAIN_TIMEOUT_BOUNDS: RangeInclusive<Duration> = seconds(0, 3600);
pub(super) const SERVER_HEADER_TIMEOUT_BOUNDS: RangeInclusive<Duration> = seconds(1, 600);
pub(super) const HANDSHAKE_TIMEOUT_BOUNDS: RangeInclusive<Duration> = seconds(1, 60);
pub(super) const SERVER_CONNECTIONS_BOUNDS: RangeInclusive<u32> = 1..=1_000_000;
pub(super) const WRITE_STALL_TIMEOUT_BOUNDS: RangeInclusive<Duration> = seconds(1, 3600);
/// P-179: clients take a shorter life for 60 s.
pub(super) const TOKEN_LIFE_BOUNDS: RangeInclusive<Duration> = seconds(60, 3600);
pub(super) const METRICS_REPOSITORIES_BOUNDS: RangeInclusive<u32> = 0..=10_000;
pub(super) const DISK_BYTES_BOUNDS: RangeInclusive<u64> = MIB..=1024 * TIB;
pub(super) const CAPACITY_PERCENT_BOUNDS: RangeInclusive<u8> = 1..=100;
pub(super) const MIN_FREE_BYTES_BOUNDS: RangeInclusive<u64> = 0..=1024 * TIB;
pub(super) const MIN_FREE_PERCENT_BOUNDS: RangeInclusive<u8> = 0..=99;
pub(super) const MEMORY_BYTES_BOUNDS: RangeInclusive<u64> = 0..=TIB;
pub(super) const MANIFESTS_BYTES_BOUNDS: RangeInclusive<u64> = MIB..=TIB;
pub(super) const SCRUB_RATE_BOUNDS: RangeInclusive<u64> = 0..=TIB;
pub(super) const TAG_TTL_BOUNDS: RangeInclusive<Duration> = seconds(0, 30 * DAY);
pub(super) const STALE_IF_ERROR_BOUNDS: RangeInclusive<Duration> = seconds(0, 365 * DAY);
/// Longer would leave those in who were put out.
pub(super) const ACCESS_TTL_BOUNDS: RangeInclusive<Duration> = seconds(0, 3600);
pub(super) const ACCESS_STALE_IF_ERROR_BOUNDS: RangeInclusive<Duration> = seconds(0, DAY);
/// Above it there would be no time left to answer in.
pub(super) const STALE_WAIT_BOUNDS: RangeInclusive<Duration> = seconds(0, 20);
/// Longer would hide a tag from the one who has just pushed it.
pub(super) const NEGATIVE_TTL_BOUNDS: RangeInclusive<Duration> = seconds(0, 300);
pub(super) const FILLS_MAX_BOUNDS: RangeInclusive<u32> = 1..=10_000;
pub(super) const UNFINISHED_BYTES_BOUNDS: RangeInclusive<u64> = MIB..=1024 * TIB;
pub(super) const UNATTENDED_BOUNDS: RangeInclusive<u32> = 0..=10_000;
pub(super) const CONNECTIONS_PER_BLOB_BOUNDS: RangeInclusive<u32> = 1..=64;
pub(super) const PARALLEL_FROM_BYTES_BOUNDS: RangeInclusive<u64> = 0..=1024 * TIB;
pub(super) const UPSTREAM_CONNECTIONS_BOUNDS: RangeInclusive<u32> = 1..=1024;
pub(super) const UPSTREAM_REQUESTS_BOUNDS: RangeInclusive<u32> = 1..=10_000;
pub(super) const RATE_BOUNDS: RangeInclusive<u32> = 1..=1_000_000;
/// Clients give up on the head of an answer at 30 s (P-124).
pub(super) const ANSWER_TIMEOUT_BOUNDS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(25);
pub(super) const IDLE_TIMEOUT_BOUNDS: RangeInclusive<Duration> = seconds(1, 600);
/// Bytes in a configuration file at the most: a table of ten thousand upstreams.
pub(super) const FILE_BYTES_MAX: u64 = MIB;
/// Bytes in a PEM file, or one of identities, at the most: the system's whole collection of certificates is a quarter of it.
pub(super) const PEM_BYTES_MAX: u64 = MIB;
