//! How an endpoint has been doing: the circuit breaker, as a pure state machine.
//!
//! ```text
//!                  a question failed in vain              the pause is over
//!   closed ──────────────────────────────────► open ─────────────────────────► half-open
//!     ▲                                          ▲                                 │
//!     │                                          └─────────── it fails ────────────┤
//!     └──────────────────────────── any answer that the registry meant ────────────┘
//! ```
//!
//! | what happened | what follows |
//! |---|---|
//! | an attempt failed: no connection, TLS, a time-out, 5xx or 408, a body that broke off, nonsense | asked last for [`PAUSE_FIRST`], doubled each time, at most [`PAUSE_MAX`] |
//! | a whole question failed, retries included: nobody was there, or nobody answered | open: not asked for that pause |
//! | [`OPEN_AFTER`] of them in a row failed with 408, 502, 503, 504 or a connection that broke | open, likewise |
//! | the pause of an open one is over | half-open: one request tries it, the others go elsewhere or are refused |
//! | 429 | nothing: it says more about who asked (`cooling`) |
//! | wrong bytes | asked last for [`DISTRUST`] |
//! | any answer that the registry meant, 404 and 401 included | closed |
//!
//! One question counts once, however often it was tried, and only when nothing was heard since it began: what fails together is one
//! failure. Nonsense and 500 are about what was asked for more often than about the registry, and open nothing. `now` is an argument.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::{RateLimit, UpstreamError};

/// The first pause: a restarting registry is back by then.
const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// The longest pause: a registry that is mended is used again within a quarter of a minute, at the price of four requests a minute.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Questions in a row after which an endpoint that answers with errors is not asked for a while.
const OPEN_AFTER: u32 = 3;

/// How long a trial may take before the next one is allowed.
const TRIAL_MAX: Duration = Duration::from_secs(10);

/// Who sent wrong bytes is not believed so soon again.
const DISTRUST: Duration = Duration::from_mins(10);

/// The health of one endpoint.
#[derive(Debug, Clone, Default)]
pub(super) struct Health {
    /// Attempts that failed in a row.
    strikes: u32,
    /// Questions that failed in a row; [`OPEN_AFTER`] and more is an open circuit.
    failures: u32,
    /// When it was last heard of: an answer, or a failure that counted.
    heard_at: Option<Instant>,
    paused_until: Option<Instant>,
    trial_until: Option<Instant>,
    distrusted_until: Option<Instant>,
    /// Of the last failure.
    cause: Option<Arc<UpstreamError>>,
    /// It has answered a probe since.
    is_revived: bool,
}

/// How an endpoint stands towards a request.
#[derive(Debug)]
enum Standing {
    Healthy,
    /// Asked last.
    PassedOver(Instant),
    /// One request may try it, in the place of a probe where there are others to ask.
    HalfOpen(Arc<UpstreamError>),
    /// One request may try it, in its turn.
    Revived(Arc<UpstreamError>),
    /// Not asked.
    Open(Instant, Arc<UpstreamError>),
}

/// Whom to ask, in this order, and whom to try beside that, by index.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) ask: Vec<usize>,
    /// Half-open ones, while others can be asked: who tries them must not make a client wait.
    pub(super) probe: Vec<usize>,
    /// The one in `ask` that is half-open, if there is one, and until when nobody else tries it.
    pub(super) trial: Option<(usize, Instant)>,
    /// Why somebody else is not asked, if there is one: what the others do not have, that one may.
    pub(super) refused: Option<UpstreamError>,
}

impl Health {
    /// Notes an answer that the registry meant.
    pub(super) fn answered(&mut self, now: Instant) {
        (self.strikes, self.failures, self.heard_at) = (0, 0, Some(now));
        (self.paused_until, self.trial_until, self.cause, self.is_revived) = (None, None, None, false);
    }

    /// Notes that it answered a probe. That is not what it is there for: one question is asked next, and decides.
    pub(super) fn revived(&mut self) {
        (self.paused_until, self.trial_until, self.is_revived) = (None, None, true);
    }

    /// Notes that an attempt failed.
    pub(super) fn failed(&mut self, error: &UpstreamError, now: Instant) {
        match weight(error) {
            Weight::Answer => self.answered(now),
            Weight::Nothing => {}
            Weight::Strike | Weight::Failure(_) => {
                // What fails together is one failure.
                if self.paused_until.is_none_or(|until| until <= now) {
                    self.paused_until = Some(now + pause_after(self.strikes));
                    self.strikes = self.strikes.saturating_add(1);
                }
            }
        }
    }

    /// Notes that a question which began at `began` got no answer here, retries included. Returns true when that opened the circuit.
    pub(super) fn failed_in_vain(&mut self, error: &UpstreamError, began: Instant, now: Instant) -> bool {
        let Weight::Failure(weight) = weight(error) else { return false };
        if self.heard_at.is_some_and(|heard| heard > began) {
            return false;
        }
        let was_open = self.is_open();
        (self.failures, self.heard_at) = (self.failures.saturating_add(weight), Some(now));
        (self.trial_until, self.is_revived) = (None, false);
        self.paused_until = self.paused_until.max(Some(now + pause_after(self.strikes.saturating_sub(1))));
        self.cause = Some(Arc::new(error.clone()));
        self.is_open() && !was_open
    }

    /// Notes that the trial that was to take until `until` is over, whatever it brought: the next one need not wait so long.
    pub(super) fn end_trial(&mut self, until: Instant) {
        self.trial_until = self.trial_until.filter(|of_another| *of_another != until);
    }

    /// Notes that it sent wrong bytes.
    pub(super) fn distrust(&mut self, now: Instant) {
        self.distrusted_until = Some(now + DISTRUST);
    }

    pub(super) fn is_open(&self) -> bool {
        self.failures >= OPEN_AFTER
    }

    fn standing(&self, now: Instant) -> Standing {
        let is_later = |until: &Instant| *until > now;
        if let Some(cause) = self.cause.as_ref().filter(|_| self.is_open()) {
            let until = self.paused_until.max(self.trial_until).filter(is_later);
            return match until {
                Some(until) => Standing::Open(until, Arc::clone(cause)),
                None if self.is_revived => Standing::Revived(Arc::clone(cause)),
                None => Standing::HalfOpen(Arc::clone(cause)),
            };
        }
        let passed_over = self.paused_until.max(self.distrusted_until).filter(is_later);
        passed_over.map_or(Standing::Healthy, Standing::PassedOver)
    }
}

/// Returns how long who has failed so often before is left alone.
fn pause_after(strikes: u32) -> Duration {
    PAUSE_FIRST.saturating_mul(2_u32.saturating_pow(strikes)).min(PAUSE_MAX)
}

/// Returns whom to ask what a limit of the kind `about` would be about, and begins the trials that are due: those in good health as
/// configured, with one that has answered a probe among them, then those passed over, who is back first first; when there is none of
/// them, one that is half-open. Those that `limited` knows an end for are not asked.
///
/// # Errors
/// When nobody is to be asked now: the reason that passes first.
pub(super) fn plan(
    endpoints: &mut [Health],
    about: RateLimit,
    limited: impl Fn(usize) -> Option<Instant>,
    now: Instant,
) -> Result<Plan, UpstreamError> {
    let (mut ask, mut half_open, mut refusals) = (Vec::new(), Vec::new(), Vec::new());
    let (mut trial, until) = (None, now + TRIAL_MAX);
    for (index, health) in endpoints.iter().enumerate() {
        if let Some(until) = limited(index) {
            refusals.push((until, UpstreamError::RateLimited { retry_after: Some(until - now), limit: about }));
            continue;
        }
        match health.standing(now) {
            Standing::Healthy => ask.push((None, index)),
            Standing::PassedOver(until) => ask.push((Some(until), index)),
            Standing::Revived(_) if trial.is_none() => {
                ask.push((None, index));
                trial = Some((index, until));
            }
            Standing::Revived(cause) => refusals.push((now + PAUSE_FIRST, refusal(PAUSE_FIRST, &cause))),
            Standing::HalfOpen(cause) => half_open.push((index, cause)),
            Standing::Open(until, cause) => refusals.push((until, refusal(until - now, &cause))),
        }
    }
    ask.sort_unstable();
    let mut ask: Vec<_> = ask.into_iter().map(|(_, index)| index).collect();
    if ask.is_empty() && !half_open.is_empty() {
        let (index, _) = half_open.remove(0);
        ask.push(index);
        trial = Some((index, until));
    }
    // What is only probed is not asked either.
    refusals.extend(half_open.iter().map(|(_, cause)| (now + PAUSE_FIRST, refusal(PAUSE_FIRST, cause))));
    let probe: Vec<_> = half_open.into_iter().map(|(index, _)| index).collect();
    for index in ask.iter().chain(&probe) {
        if let Some(health) = endpoints.get_mut(*index).filter(|health| health.is_open()) {
            health.trial_until = Some(until);
        }
    }
    let refused = refusals.into_iter().min_by_key(|(until, _)| *until).map(|(_, refusal)| refusal);
    match refused {
        Some(refusal) if ask.is_empty() => Err(refusal),
        refused => Ok(Plan { ask, probe, trial, refused }),
    }
}

/// Returns why nobody can be asked at this moment, if that is so; begins nothing.
pub(super) fn refusal_now(
    endpoints: &[Health],
    about: RateLimit,
    limited: impl Fn(usize) -> Option<Instant>,
    now: Instant,
) -> Option<UpstreamError> {
    plan(&mut endpoints.to_vec(), about, limited, now).err()
}

fn refusal(wait: Duration, cause: &Arc<UpstreamError>) -> UpstreamError {
    UpstreamError::CircuitOpen { retry_after: wait, cause: Arc::clone(cause) }
}

/// What a failure says of the endpoint.
enum Weight {
    /// It lives, and says no.
    Answer,
    /// It lives, and says something of who asked.
    Nothing,
    /// This attempt is better made elsewhere.
    Strike,
    /// As a strike; and a question that ends so counts so much.
    Failure(u32),
}

fn weight(error: &UpstreamError) -> Weight {
    match error {
        UpstreamError::NotFound { .. } | UpstreamError::Denied { .. } | UpstreamError::TooLarge { .. } => {
            Weight::Answer
        }
        UpstreamError::RateLimited { .. } => Weight::Nothing,
        UpstreamError::TimedOut { .. }
        | UpstreamError::Dns { .. }
        | UpstreamError::Connect { .. }
        | UpstreamError::Tls { .. } => Weight::Failure(OPEN_AFTER),
        UpstreamError::Status { status: 408 | 502 | 503 | 504, .. } | UpstreamError::Truncated { .. } => {
            Weight::Failure(1)
        }
        UpstreamError::Status { status, .. } if *status < 500 => Weight::Answer,
        UpstreamError::Status { .. }
        | UpstreamError::Auth { .. }
        | UpstreamError::Protocol { .. }
        | UpstreamError::Range { .. }
        | UpstreamError::Forbidden { .. }
        | UpstreamError::CircuitOpen { .. } => Weight::Strike,
    }
}

/// Returns the error to tell when several endpoints failed: the first one that is not "not found", for an absence counts only
/// when nobody has it.
pub(super) fn more_telling(told: Option<UpstreamError>, error: UpstreamError) -> UpstreamError {
    match told {
        None | Some(UpstreamError::NotFound { .. }) => error,
        Some(told) => told,
    }
}

#[cfg(test)]
mod tests;
