//! The network side: what the cache may ask a remote registry, and how it is asked.
//!
//! The seam is [`Origin`]: the cache knows nothing else of the network, so the whole cache is tested without sockets.
//! Credentials, tokens, redirects, proxies, TLS, time-outs, connection limits and rates live below it.
//!
//! ```text
//! client    the questions of Origin, as requests; transfer: the bytes of a blob
//!   └ exchange    one question: attempts, redirects, proofs
//!       ├ retry, redirect, realm, range, given, capability    decisions and what was learnt, pure
//!       ├ endpoints ─ health               who is asked, in which order
//!       ├ auth ─ token ─ token_request     what proves us to whom
//!       │   ├ credentials                  the account, and where it comes from
//!       │   └ caller                       what a caller shows, in whose name the upstream is asked
//!       ├ write                            what callers push, relayed in their own name
//!       ├ limit                            turns, rate, the header budget
//!       └ transport ─ connect ─ tls, egress    one request over a pooled connection, to an address that may be dialled
//! ```
//!
//! Invariants: the upstream's credentials, and those of a caller, go to its own origin and to token services that `realm` allows, nowhere
//! else; neither are used in the place of the other;
//! no error and no log line holds a token, a password, userinfo or the query of a redirect; dropping what was returned
//! ends what was begun.

mod answer;
mod auth;
mod caller;
mod capability;
mod client;
mod connect;
mod cooling;
mod credentials;
pub mod egress;
mod endpoints;
mod error;
mod exchange;
mod given;
mod health;
mod limit;
mod observe;
mod options;
mod origin;
mod range;
mod realm;
mod redirect;
mod retry;
mod tls;
mod token;
mod token_request;
mod transfer;
mod transport;
mod write;
mod write_proof;

pub use caller::{Caller, CallerId, CallerKey};
pub use capability::{Capabilities, Capability};
pub use client::Client;
pub use credentials::{Account, Credentials, CredentialsError, HelperName, HelperNameError};
pub use error::{RateLimit, UpstreamError};
pub use observe::{Observer, RequestKind};
pub use options::{CONNECTIONS_DEFAULT, Options, OptionsError, REQUESTS_DEFAULT, Timeouts};
pub use origin::{BlobHead, BlobTransfer, Chunks, EndpointId, ListPage, ManifestAnswer, ManifestHead, Origin};
pub use tls::{ClientIdentity, ClientIdentityError};
pub use write::{Outgoing, SendError, Target, UploadUrl, Write, Written};
