//! What credential helpers answered: kept for a while, asked for once however many want it, and never lost to a failure.
//!
//! ```text
//! nothing known ─────────► the helper runs ──► an account, kept for 10 min; none, 1 min; a failure, seconds
//! a failure, one known ──► the last good account goes on, and is asked for again after 30 s
//! refused by a 401 ──────► the helper runs at once, once; the same account again is kept for 30 s and not asked for in between (U-22)
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use moka::future::Cache;
use moka::ops::compute::Op;

use super::helper::{self, Question};
use super::{Account, CredentialsError};
use crate::oci::UpstreamName;

/// How long an account is used without asking again; the shortest that clouds give out live for an hour.
const KEPT_FOR: Duration = Duration::from_mins(10);

/// How long "no account" is believed: somebody may be logging in at this moment.
const ABSENT_FOR: Duration = Duration::from_mins(1);

/// How long the last good account, or a refused one, is used before the helper is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// How long a failure without any account is told to others: a herd must not start a herd of helpers.
const FAILED_FOR: Duration = Duration::from_secs(5);

/// Questions of one upstream at the most: its hosts, for each helper that a docker config names.
const QUESTIONS_MAX: u64 = 64;

/// The answers for one upstream.
pub(super) struct Answers {
    name: UpstreamName,
    directories: Option<Vec<PathBuf>>,
    fresh: Cache<Question, Answer>,
    /// The last good one for each question.
    good: moka::sync::Cache<Question, Arc<Account>>,
    /// The last run failed, and that was told.
    is_failing: AtomicBool,
}

impl Answers {
    /// `directories` are searched for helpers in place of `PATH`.
    pub(super) fn new(name: UpstreamName, directories: Option<Vec<PathBuf>>) -> Self {
        let fresh = Cache::builder().max_capacity(QUESTIONS_MAX).expire_after(ByOwnLife).build();
        Self {
            name,
            directories,
            fresh,
            good: moka::sync::Cache::new(QUESTIONS_MAX),
            is_failing: AtomicBool::new(false),
        }
    }

    /// Returns the account, `None` when the helper knows none; everybody who asks meanwhile waits for one run of it.
    ///
    /// # Cancel safety
    /// When the asker that runs the helper is dropped, another that waits runs it anew.
    pub(super) async fn account(&self, question: &Question) -> Result<Option<Arc<Account>>, CredentialsError> {
        self.fresh.get_with_by_ref(question, self.ask(question)).await.outcome
    }

    /// Runs the helper again if its answer is still `refused`, and was not asked for again for that already.
    pub(super) async fn ask_again(&self, question: &Question, refused: &Account) {
        let decide = |entry: Option<moka::Entry<Question, Answer>>| async move {
            if !entry.is_some_and(|entry| entry.value().is_doubtful(refused)) {
                return Op::Nop;
            }
            Op::Put(self.ask(question).await.after_refusal(refused))
        };
        self.fresh.entry_by_ref(question).and_compute_with(decide).await;
    }

    async fn ask(&self, question: &Question) -> Answer {
        // On the heap, for it is rare and large: most questions find the answer here.
        let answer = Box::pin(helper::ask(question, self.directories.as_deref())).await;
        let was_failing = self.is_failing.swap(answer.is_err(), Ordering::Relaxed);
        match answer {
            Ok(Some(account)) => {
                let account = Arc::new(account);
                self.good.insert(question.clone(), Arc::clone(&account));
                Answer { outcome: Ok(Some(account)), kept_for: KEPT_FOR, is_settled: false }
            }
            Ok(None) => {
                self.good.invalidate(question);
                Answer { outcome: Ok(None), kept_for: ABSENT_FOR, is_settled: false }
            }
            Err(failure) => {
                let error = CredentialsError::Helper { question: question.clone(), failure };
                let Some(account) = self.good.get(question) else {
                    return Answer { outcome: Err(error), kept_for: FAILED_FOR, is_settled: false };
                };
                if !was_failing {
                    tracing::warn!(
                        upstream.name = %self.name,
                        %error,
                        "a credential helper fails; the last good account stays in use"
                    );
                }
                Answer { outcome: Ok(Some(account)), kept_for: RETRY_AFTER, is_settled: false }
            }
        }
    }
}

/// What a helper answered.
#[derive(Clone)]
struct Answer {
    outcome: Result<Option<Arc<Account>>, CredentialsError>,
    kept_for: Duration,
    /// Asked for again after a refusal, and the same: another refusal is no reason to ask again.
    is_settled: bool,
}

impl Answer {
    /// Returns true when the helper should be asked whether it has another account than the refused one.
    fn is_doubtful(&self, refused: &Account) -> bool {
        !self.is_settled && self.is(refused)
    }

    fn after_refusal(mut self, refused: &Account) -> Self {
        if self.is(refused) {
            self.is_settled = true;
            self.kept_for = RETRY_AFTER;
        }
        self
    }

    fn is(&self, account: &Account) -> bool {
        self.outcome.as_ref().is_ok_and(|known| known.as_deref() == Some(account))
    }
}

struct ByOwnLife;

impl moka::Expiry<Question, Answer> for ByOwnLife {
    fn expire_after_create(&self, _: &Question, answer: &Answer, _: Instant) -> Option<Duration> {
        Some(answer.kept_for)
    }

    fn expire_after_update(&self, _: &Question, answer: &Answer, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(answer.kept_for)
    }
}
