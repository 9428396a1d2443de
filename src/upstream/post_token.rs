//! Which token services do not take a POST: a capability of each, learnt by asking and remembered for a while.
//!
//! An identity token is exchanged by a POST. A service that refuses it gets a GET with Basic instead; when that gives a token, the POST was
//! the trouble and not the account, and the next exchange begins with the GET (P-167).

use std::time::Duration;

use http::StatusCode;
use url::Url;

/// For how long a refusal is believed, so that a service may learn.
const REFUSED_FOR: Duration = Duration::from_hours(1);

/// Token services remembered at the most; an upstream has one, and one more while it moves.
const REALMS_MAX: u64 = 64;

/// The token services of one upstream that refused a POST.
pub(super) struct PostToken {
    /// By realm, with its query.
    refused: moka::sync::Cache<String, ()>,
}

impl PostToken {
    pub(super) fn new() -> Self {
        Self { refused: moka::sync::Cache::builder().max_capacity(REALMS_MAX).time_to_live(REFUSED_FOR).build() }
    }

    /// Returns true when the POST is worth a try.
    pub(super) fn may_be_taken(&self, realm: &Url) -> bool {
        !self.refused.contains_key(realm.as_str())
    }

    /// Remembers that the POST was refused where a GET was not.
    pub(super) fn note_refused(&self, realm: &Url) {
        self.refused.insert(realm.as_str().to_owned(), ());
    }
}

/// Returns true when an answer says that the service takes no POST, or not this one (P-167). A redirect is such an answer as well: what
/// the form holds is sent to nobody else (S-27).
pub(super) fn is_refusal(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 401 | 404 | 405) || status.is_redirection()
}
