//! Whether a password is a user's: bcrypt, at a desk where few are served at once and few may wait.
//!
//! | what comes | what it costs |
//! |---|---|
//! | a password that was right within [`RIGHT_FOR`] | a keyed hash |
//! | one that was wrong within [`WRONG_FOR`] | a keyed hash |
//! | the same one as is being computed | waiting for that |
//! | any other, of a user that there is or is not | one bcrypt |

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use moka::future::Cache;
use tokio::sync::Semaphore;

use super::failures::Attempt;
use super::htpasswd::Htpasswd;
use super::{Refused, random};
use crate::telemetry::{Metrics, Secret, Shed};

/// How long a password that was right needs not be computed again: pulls of one node, not more.
const RIGHT_FOR: Duration = Duration::from_mins(5);

/// How long a wrong one is wrong without a look: who retries without a pause gets nothing by it.
const WRONG_FOR: Duration = Duration::from_secs(10);

/// Passwords that are remembered at the most, some 100 bytes each.
const REMEMBERED_MAX: u64 = 10_000;

/// Passwords that may wait to be computed: a few seconds of work; who comes later is sent away.
const WAITING_MAX: usize = 64;

/// What is told to who is sent away.
const BUSY_PAUSE: Duration = Duration::from_secs(2);

/// Where passwords are computed, by all who ask for it in this process.
#[derive(Debug)]
pub(super) struct Desk {
    /// Half of the cores: the rest go on serving.
    seats: Arc<Semaphore>,
    /// Those who are seated, and those who may wait.
    places: Semaphore,
}

impl Default for Desk {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let seats = cores.div_ceil(2);
        Self { seats: Arc::new(Semaphore::new(seats)), places: Semaphore::new(seats + WAITING_MAX) }
    }
}

impl Desk {
    /// Computes. A computation that has begun goes on when nobody waits for it any more, and keeps its seat.
    async fn verify(&self, password: Secret, hash: Secret, metrics: &Metrics) -> Result<bool, Refused> {
        let busy = Refused::Busy { retry_after: BUSY_PAUSE };
        let _place = self.places.try_acquire().map_err(|_| {
            metrics.http().shed(Shed::Overload);
            busy
        })?;
        let seat = Arc::clone(&self.seats).acquire_owned().await.map_err(|_| busy)?;
        metrics.clients().password_computed();
        let computed = tokio::task::spawn_blocking(move || {
            let is_right = bcrypt::verify(password.expose(), hash.expose()).unwrap_or(false);
            drop(seat);
            is_right
        });
        computed.await.map_err(|_| busy)
    }
}

/// The passwords of an htpasswd file, and what was found out about them.
pub(super) struct Passwords {
    pub(super) file: Htpasswd,
    /// Known to nobody: what is remembered is no use elsewhere.
    key: hmac::Key,
    verdicts: Cache<[u8; 32], bool>,
    desk: Arc<Desk>,
    metrics: Arc<Metrics>,
}

impl Passwords {
    pub(super) fn new(file: Htpasswd, desk: Arc<Desk>, metrics: Arc<Metrics>) -> Self {
        let verdicts = Cache::builder().max_capacity(REMEMBERED_MAX).expire_after(Expiry).build();
        Self { file, key: hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()), verdicts, desk, metrics }
    }

    /// Finds out whether the password is the user's. Who is not there takes as long as who is. Before it is computed, `attempt` is taken;
    /// of those who show the same at once, one takes it.
    pub(super) async fn verify(
        &self,
        user: &str,
        password: &Secret,
        attempt: impl FnOnce() -> Result<Attempt, Refused>,
    ) -> Result<bool, Refused> {
        let compute = async {
            let attempt = attempt()?;
            let is_right = self.desk.verify(password.clone(), self.file.hash(user), &self.metrics).await?;
            if is_right {
                attempt.succeeded();
            }
            Ok(is_right)
        };
        let verdict = self.verdicts.try_get_with(self.fingerprint(user, password), compute).await;
        verdict.map_err(|refused: Arc<Refused>| *refused)
    }

    fn fingerprint(&self, user: &str, password: &Secret) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(user.as_bytes());
        // No user's name holds it.
        context.update(b":");
        context.update(password.expose().as_bytes());
        let mut fingerprint = [0; 32];
        fingerprint.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
        fingerprint
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Right passwords are remembered longer than wrong ones.
struct Expiry;

impl moka::Expiry<[u8; 32], bool> for Expiry {
    fn expire_after_create(&self, _key: &[u8; 32], is_right: &bool, _now: Instant) -> Option<Duration> {
        Some(if *is_right { RIGHT_FOR } else { WRONG_FOR })
    }
}

#[cfg(test)]
mod tests {
    use super::super::failures::Failures;
    use super::*;

    const FILE: &str = "alice:$2y$05$P3QfFcPNDiuSMhSZh9edk.DRGWsW.SL3ElXF04l3vb57YWcnPbdae";

    fn passwords(desk: Desk) -> Passwords {
        let metrics = Arc::new(Metrics::new(&[], 0).unwrap());
        Passwords::new(Htpasswd::parse(FILE).unwrap(), Arc::new(desk), metrics)
    }

    async fn verify(passwords: &Passwords, user: &str, password: &Secret) -> Result<bool, Refused> {
        let failures = Failures::default();
        let attempt = || failures.attempt([192, 0, 2, 1].into(), Instant::now()).map_err(|_| unreachable!());
        passwords.verify(user, password, attempt).await
    }

    fn computed(passwords: &Passwords) -> u64 {
        let text = passwords.metrics.encode().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("cachalot_client_passwords_computed_total "));
        line.unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn a_password_is_computed_once_however_often_and_by_however_many_it_is_shown() {
        let passwords = passwords(Desk::default());
        let [right, wrong] = ["secret", "Secret"].map(Secret::new);
        let herd = (0..500).map(|_| verify(&passwords, "alice", &right));
        assert!(futures_util::future::join_all(herd).await.iter().all(|verdict| *verdict == Ok(true)));
        assert_eq!(computed(&passwords), 1);
        for _ in 0..10 {
            assert_eq!(verify(&passwords, "alice", &wrong).await, Ok(false));
            assert_eq!(verify(&passwords, "mallory", &right).await, Ok(false), "who is not there is computed as well");
        }
        assert_eq!(computed(&passwords), 3);
    }

    #[tokio::test]
    async fn who_finds_the_desk_full_is_sent_away_and_that_is_not_remembered() {
        let full = passwords(Desk { seats: Arc::new(Semaphore::new(1)), places: Semaphore::new(1) });
        let taken = full.desk.places.acquire().await.unwrap();
        let right = Secret::new("secret");
        assert!(matches!(verify(&full, "alice", &right).await, Err(Refused::Busy { .. })));
        drop(taken);
        assert_eq!(verify(&full, "alice", &right).await, Ok(true));
    }
}
