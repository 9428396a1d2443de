//! Cachalot: a pull-through caching proxy and mirror for OCI registries.
//!
//! Container runtimes and OCI tools pull through it. It fetches each byte from the upstream registry once, verifies it, keeps
//! it, and serves everybody from memory or disk: also while it is still being fetched, and also when the upstream is down.
//!
//! # Bird's eye
//!
//! ```text
//!  containerd, docker, podman, …                                         registries
//!        │ HTTP                                                              ▲ HTTPS
//!  ┌─────▼─────┐   question    ┌────────────┐   Origin    ┌──────────────────┴─┐
//!  │  server   ├──────────────►│   cache    ├────────────►│      upstream      │
//!  │           │◄──────────────┤            │             │ tokens, redirects, │
//!  └───────────┘    answer     │ decide     │             │ retries, limits    │
//!  ┌───────────┐               │ flights    │  BlobStore  └────────────────────┘
//!  │   admin   │               │ fills ─────┼────────────►┌────────────────────┐
//!  │ /metrics  │               └────────────┘             │       store        │
//!  └───────────┘                                          │ memory, disk,      │
//!                                                         │ ledger             │
//!                                                         └────────────────────┘
//! ```
//!
//! # Code map
//!
//! Imports point downwards only; `tests/tidy.rs` holds the table and fails on any other edge.
//!
//! ```text
//! 5 assembly     main → cli → app → settings    knows everything; imported by nothing below
//! 4 surface      server, admin, node            HTTP towards clients; health and metrics; the node's own runtime
//! 3 policy       cache | snippets               when to serve, ask, fill, refuse | what clients need to be told
//! 2 mechanism    store | upstream | identity    disk and memory | network | who asks; they never import each other
//! 1 platform     telemetry, tasks, fetch
//! 0 vocabulary   oci, wire                      pure values: no clock, no I/O, no runtime
//! ```
//!
//! * [`oci`]: digests, names, tags, manifests, routes, error codes. Text from a peer is parsed here, once.
//! * [`wire`]: the HTTP header values of a registry cache: ranges, conditions, challenges, cache status.
//! * [`telemetry`]: [`telemetry::Metrics`], logs, and [`telemetry::Secret`], which cannot print.
//! * [`tasks`]: [`tasks::TaskGroup`], the only place that spawns.
//! * [`fetch`]: one GET to an address that the operator has named.
//! * [`store`]: [`store::BlobStore`] is its seam. [`store::Disk`] keeps files by digest within budgets, [`store::Memory`] is a tier
//!   in front, [`store::Ledger`] knows tags, grants and who refers to whom.
//! * [`upstream`]: [`upstream::Origin`] is its seam, [`upstream::Client`] the real thing. Credentials never come above it. `health` is the
//!   circuit breaker, [`upstream::egress`] says which addresses may be dialled.
//! * [`identity`]: [`identity::Identities`] finds out who shows a credential, as a [`identity::Principal`], and says what that may. It seals our
//!   own tokens. `identity::passwords` and `identity::failures` bound what strangers can make us compute.
//! * [`cache`]: [`cache::Cache`] answers questions about manifests, blobs, and lists of tags and referrers. `cache::fill` is the heart: one download,
//!   many followers. `cache::access` lets callers in where an upstream is for them. `cache::decide` is the freshness policy as a table,
//!   `cache::flight` the single flight of small questions.
//! * [`server`]: HTTP/1.1 and HTTP/2 in front of the cache, plain or by [`server::Tls`]. [`server::Directory`] is what a request may name,
//!   [`server::Door`] who is let in to it; `server::admission` asks the upstream about callers; `server::respond` alone turns errors into
//!   statuses; `server::flow` knows what a client leaves lying.
//! * [`admin`]: health and metrics, on a listener of its own.
//! * [`snippets`]: what to tell each client so that it pulls through the cache; pure text.
//! * [`node`]: the agent of a node: writes that for its container runtime while the cache answers, and takes it back without a trace.
//!   `node::plan` is the decision table.
//! * [`settings`]: defaults, file, environment and flags, merged and checked; every problem at once.
//! * [`cli`], [`app`]: subcommands; making everything, ending it in order, and `app::reload`: a new configuration in between.
//!   `app::supervisor` tells systemd.
//!
//! # Invariants
//!
//! * **One fill per (upstream, digest).** `cache::fill::Inflight` is the only way to one. The disk may slow it; a client may not. When its
//!   last client leaves it goes on, as long as there are places for such fills; what it has when it ends early is kept for the next.
//! * **No byte is asked for twice.** `cache::fill::schedule` decides what is fetched next, purely: pieces end where present bytes or
//!   other pieces begin.
//! * **No last byte before the digest is known good.** Bodies that run to a blob's end have their tail withheld until then. Hashing
//!   happens in the fill; in a response only for a whole blob that an earlier process stored and this one has not read yet.
//! * **Every ending is explicit.** A fill is verified or failed with a reason; a task that vanishes fails it. Silence is never success.
//! * **A file under its final name is complete and was verified.** Temporary file, fsync, rename, fsync of the directory.
//!   Disks rot: each process reads it once more, in a response or by [`store::scrub()`], and drops what does not match any more.
//! * **Knowing a digest is no right to read it.** Bytes are shared; grants are per (upstream, repository, kind, digest), and given by
//!   the upstream only.
//! * **A caller is let in by the upstream, or not at all.** Where an upstream is for callers, no question is put before
//!   [`cache::Cache::admit`]: it stops what comes another way. Our account is never a caller's, nor one caller's another's, and what one is
//!   told is nothing to the others.
//! * **The disk never decides.** What it refuses is streamed through memory to those who asked; a client never gets an error for it.
//! * **Memory per connection is bounded**, however large the blob and however slow the client: one chunk of [`store::CHUNK_BYTES`] on its
//!   way and as much in hyper's buffer; with TLS as much again in records; with HTTP/2 a chunk for each of its streams. `server::limits`
//!   has the sums. On a plain connection what lies in a file is sent from there and takes none.
//! * **Who takes nothing holds nothing.** What was given to a client and is not taken for `server.write_stall_timeout` ends its connection,
//!   whether a socket, a window or a reader is in the way.
//! * **Nobody has all places.** Connections are limited in all and by client; a client's misbehaviour ends its own.
//! * **Nothing is asked of an upstream before the door.** Whom `server::door` refuses causes no request, and is told the same of what exists and
//!   what does not. What is wrong is never taken for nobody.
//! * **A credential of ours goes nowhere.** `Routed::authorization` is the only one that an upstream sees, and holds a caller's own, or nothing.
//! * **A write is the caller's own.** It goes to the upstream once, with the caller's credentials and never with ours, streaming; what it
//!   changes is known here before it is answered.
//! * **A request never dials what it names.** `ns`, path prefix and `Host` are keys into a closed table ([`oci::Table`]). What an upstream
//!   names is looked up, checked and dialled by [`upstream::egress`] alone: nothing private, unless the upstream is internal.
//! * **A configuration holds as a whole.** A reload makes a new directory and swaps it in; a request ends with the one that routed it.
//! * **No lock is held across an await, and none over I/O.**
//! * What is absent on purpose: nothing decompresses or parses layers; nothing re-encodes a manifest; nothing below [`app`] knows the
//!   configuration; nothing is global but the log.
//!
//! # Walkthrough: a cold pull by tag
//!
//! 1. containerd sends `HEAD /v2/library/alpine/manifests/3.20?ns=docker.io`. [`oci::route`] finds upstream `docker.io` in the table,
//!    repository `library/alpine`, a tag.
//! 2. [`cache::Cache::manifest`] finds no tag entry: `decide` says *ask*. One flight asks [`upstream::Origin::manifest_head`], however
//!    many clients ask together. The client is answered from the HEAD; nothing is downloaded for it.
//! 3. containerd sends `GET …/manifests/sha256:…`. There is no grant: one flight fetches the manifest by digest, verifies it, reads it
//!    ([`oci::Manifest::read`] refuses what could be taken for two things), grants it to the repository with its media type, and stores it.
//! 4. The image config and the layers follow as blobs.
//!
//! # Walkthrough: a blob that two clients want
//!
//! 1. The first client finds neither a stored object nor a fill; it leads: a fill is listed and its task spawned. The task looks once
//!    more at the store (the blob may have been committed a moment ago, or an earlier fill have left a part), asks the upstream for the
//!    segment that the client wants first. A `206` tells the length, and that ranges work. Room is reserved and a partial begun.
//! 2. The upstream says yes: the phase becomes *streaming*, the grant is recorded, and the client's headers go out with the length.
//! 3. Bytes land in the partial and are published; the first ones are handed out while they are still being written. The client's
//!    follower finds the others in the page cache and sends them on. A large blob is fetched over several connections once the first
//!    bytes are there, in pieces that shrink towards its end.
//! 4. The second client finds the fill and follows it from byte 0: what is there comes at disk speed, the rest as it lands. If it wants a
//!    range far ahead, its waiting cursor makes the scheduler fetch that segment at once by a ranged request.
//! 5. A connection to the upstream breaks. The task asks for what is missing, at another endpoint if there is one; no client notices.
//!    The process is killed: the record beside the partial tells the next one what is there, and the fill goes on from it.
//! 6. The verifier, one more reader, has hashed all bytes: they match. The phase becomes *verified*, the withheld tails go out, the partial
//!    is made durable and renamed, and the fill leaves the list. Had they not matched, both bodies would have ended short, visibly, the
//!    partial would be gone, and the next request would start afresh.
//!
//! # Walkthrough: a private blob that two people want
//!
//! 1. Ann asks for the blob with her account. Its repository is for callers, and nothing is known of Ann, who is a hash of what she has
//!    shown: [`upstream::Origin::as_caller`] gives the upstream in her name, and the registry is asked by HEAD whether it gives her the blob.
//!    It wants a token, which its token service gives to her account. Then it redirects to its content network: that is a yes. Nobody is
//!    asked there. The yes holds for a minute.
//! 2. The question goes on as any other, in her name: a fill begins, and Ann follows it.
//! 3. Bob asks for the same blob. Whether it is here makes no difference yet: the registry is asked in his name, says yes, and he follows
//!    the fill from byte 0, ready to lend it his name.
//! 4. Eve asks for it with an account that may read something else. The registry says 403, and so does Cachalot: the same bytes as if
//!    nobody had ever asked for the blob. For five seconds it does not ask about her again.
//! 5. Ann's right is taken and her connection breaks. The fill asks for what is missing, is denied, forgets the yes about Ann, and asks again
//!    in Bob's name. Ann's body goes on, for she was let in when it began; her next request is refused.
//!
//! # Walkthrough: a signature is pushed in front of a registry that lists no referrers
//!
//! 1. `POST …/blobs/uploads/` is relayed; the upstream's session gets a name here, bound to the caller (`cache::push`). `PATCH` and `PUT`
//!    stream through it: each chunk is hashed and written to a partial on its way. The upstream says `201`, the digest is right, the
//!    partial is committed, and the blob granted to the repository.
//! 2. `PUT …/manifests/sha256:…` is relayed whole. The manifest is kept, its subject recorded, and what was remembered of tags, lists and
//!    absences forgotten.
//! 3. The answer had no `OCI-Subject`: nobody there will list it. The list under the subject's fallback tag is read, merged, written and
//!    read again; then the client is answered, with `OCI-Subject`.
//! 4. `GET …/referrers/sha256:…` asks the upstream for its list, hears that it has none, reads the fallback tag, and answers with an index.
//!
//! # Walkthrough: the upstream is down
//!
//! A tag older than `tag_ttl` is asked about in vain. `decide` says *serve stale*: the manifest that the tag last meant is served with a
//! `Warning` and `Cache-Status: … stale`, for `stale_if_error` at the longest. Who waits for it waits `stale_wait` at the most; the
//! question goes on behind the answer. When nobody answers, `upstream::health` opens the endpoint's circuit: from then on the answer is
//! stale at once, and every few seconds one question is the endpoint's trial. Blobs and manifests by digest are served as ever: digests
//! do not expire.
//!
//! # Walkthrough: SIGTERM in the middle of a fill
//!
//! [`app::App::drain`]: `/readyz` turns 503, listeners stop, each connection finishes its request and closes, fills finish, all within
//! `drain_timeout`; what remains is cut, and what it had is left for the next start. The ledger is written last.

pub mod admin;
pub mod app;
pub mod cache;
pub mod cli;
pub mod fetch;
pub mod identity;
pub mod node;
pub mod oci;
pub mod server;
pub mod settings;
pub mod snippets;
pub mod store;
pub mod tasks;
pub mod telemetry;
pub mod upstream;
pub mod wire;
