//! What a write of a caller with an account is sent with: what the registry wants of it, which may be a token of its token service.
//!
//! A body streams through once, so a write cannot be tried to learn that. Where it is not known yet, an anonymous question tells: one for
//! each registry. The account goes where it would go for a read (S-26).

use http::{HeaderMap, Method, StatusCode};
use tokio::time::timeout;

use super::answer;
use super::auth::{Auth, Place, Proof};
use super::error::UpstreamError;
use super::exchange::{Exchange, PROBE_LIMIT};
use super::origin::EndpointId;
use super::transport::Pool;

/// What a token is asked for; registries have an action of its own for what removes something.
fn actions(method: &Method) -> &'static str {
    if *method == Method::DELETE { "pull,push,delete" } else { "pull,push" }
}

impl Exchange {
    /// Returns the proof to send with a write to `place`, or `None` where what the caller shows goes as it stands.
    ///
    /// `auth` is the caller's: our own account is not in it.
    pub(super) async fn prove_write(
        &self,
        auth: &Auth,
        endpoint: EndpointId,
        place: Place<'_>,
        method: &Method,
    ) -> Result<Option<Proof>, UpstreamError> {
        if !auth.knows(place) {
            self.learn(auth, endpoint, place).await?;
        }
        auth.for_write(&self.transport, place, actions(method)).await
    }

    /// Asks, showing nothing, how the registry wants to be convinced.
    async fn learn(&self, auth: &Auth, endpoint: EndpointId, place: Place<'_>) -> Result<(), UpstreamError> {
        let Some(url) = self.endpoints.url(endpoint, "") else { return Ok(()) };
        let headers = HeaderMap::new();
        let asked = timeout(PROBE_LIMIT, self.transport.send(Pool::Api, &Method::GET, &url, &headers)).await;
        let response =
            asked.unwrap_or(Err(UpstreamError::TimedOut { limit: "question how to log in", after: PROBE_LIMIT }))?;
        match response.status() {
            StatusCode::UNAUTHORIZED => auth.learn(place, Some(response.headers()))?,
            status if status.is_success() => auth.learn(place, None)?,
            // That says nothing, and the next write asks again.
            _ => {}
        }
        answer::drain(response).await;
        Ok(())
    }
}
