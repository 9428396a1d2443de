//! Who failed lately: an address that guesses is told to wait before anything is computed for it.
//!
//! Each address may fail [`AT_ONCE`] times at once, and once a [`PERIOD`] after that. An attempt takes its place before it is looked
//! at, for a hundred of them may come at once, and gives it back when it was right.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::sync::Cache;

/// Failures of an address at once: a person who mistypes, a node with a handful of wrong secrets.
const AT_ONCE: u32 = 10;

/// After that, one failure in this time: too slow for guessing, fast enough for who has just mended a secret.
const PERIOD: Duration = Duration::from_secs(1);

/// Addresses that are remembered at the most, some 100 bytes each. When there are more, those that are seldom seen are forgotten.
const ADDRESSES_MAX: u64 = 65_536;

/// The failures of all addresses.
#[derive(Debug)]
pub(super) struct Failures(Cache<IpAddr, Arc<Mutex<Account>>>);

/// The failures of one address, as a bucket that runs empty over time.
#[derive(Debug)]
struct Account {
    /// When nothing will be left of the failures so far.
    empty_at: Instant,
}

/// The place of an attempt; dropped, it stays taken.
#[derive(Debug)]
pub(super) struct Attempt(Arc<Mutex<Account>>);

impl Default for Failures {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(ADDRESSES_MAX).time_to_idle(PERIOD * AT_ONCE).build())
    }
}

impl Failures {
    /// Takes a place for an attempt of `address` that may fail.
    ///
    /// # Errors
    /// How long the address has to wait for one.
    pub(super) fn attempt(&self, address: IpAddr, now: Instant) -> Result<Attempt, Duration> {
        let account = self.0.get_with(address, || Arc::new(Mutex::new(Account { empty_at: now })));
        {
            // A plain mutex: held for an addition.
            let mut entry = account.lock().unwrap_or_else(PoisonError::into_inner);
            let empty_at = entry.empty_at.max(now) + PERIOD;
            let over = empty_at.saturating_duration_since(now).saturating_sub(PERIOD * AT_ONCE);
            if !over.is_zero() {
                return Err(over);
            }
            entry.empty_at = empty_at;
        }
        Ok(Attempt(account))
    }
}

impl Attempt {
    /// Gives the place back: it was no failure.
    pub(super) fn succeeded(self) {
        let mut entry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entry.empty_at = entry.empty_at.checked_sub(PERIOD).unwrap_or(entry.empty_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_guesses_waits_and_others_do_not() {
        let (failures, now) = (Failures::default(), Instant::now());
        let [bad, good] = ["192.0.2.1", "192.0.2.2"].map(|address| address.parse().unwrap());
        for _ in 0..AT_ONCE {
            assert!(failures.attempt(bad, now).is_ok());
        }
        assert_eq!(failures.attempt(bad, now).err(), Some(PERIOD));
        assert!(failures.attempt(good, now).is_ok());
        let later = now + PERIOD * 2;
        assert!(failures.attempt(bad, later).is_ok() && failures.attempt(bad, later).is_ok());
        assert_eq!(failures.attempt(bad, later).err(), Some(PERIOD));
    }

    #[test]
    fn who_is_right_does_not_use_up_anything() {
        let (failures, now) = (Failures::default(), Instant::now());
        let address = "192.0.2.1".parse().unwrap();
        for _ in 0..AT_ONCE * 3 {
            failures.attempt(address, now).unwrap().succeeded();
        }
        let together: Vec<_> = (0..AT_ONCE).map(|_| failures.attempt(address, now).unwrap()).collect();
        assert!(failures.attempt(address, now).is_err(), "so many may be under way at once");
        together.into_iter().for_each(Attempt::succeeded);
        assert!(failures.attempt(address, now).is_ok());
    }
}
