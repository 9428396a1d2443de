//! Who was told 429, and until when an endpoint is not asked in that name (P-106).
//!
//! Registries count by account, and by address those who show none. So a limit holds for the name that met it: one caller's keeps neither
//! the others waiting nor us, and ours no caller. A limit by address is learnt by each name on its own, at the price of one request.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::caller::CallerId;
use super::error::RateLimit;

/// How long a limit is believed to last that does not say so.
const COOL_DOWN: Duration = Duration::from_mins(1);

/// The shortest: at once is no answer to who was too fast.
const COOL_DOWN_MIN: Duration = Duration::from_secs(1);

/// Limits remembered of callers at one upstream, some 1 MiB; beyond that, the upstream is asked again. Ours are always remembered.
const CALLERS_MAX: usize = 10_000;

/// In whose name an upstream is asked; `None` is our own.
pub(super) type Name = Option<CallerId>;

/// The limits that hold at one upstream.
#[derive(Debug, Default)]
pub(super) struct Cooling(HashMap<(Name, usize), Until>);

/// Until when requests would only be told 429.
#[derive(Debug, Clone, Copy, Default)]
struct Until {
    pulls: Option<Instant>,
    requests: Option<Instant>,
}

impl Cooling {
    /// Notes that the endpoint of that index answered 429 to `name`.
    pub(super) fn begins(
        &mut self,
        name: Name,
        endpoint: usize,
        limit: RateLimit,
        retry_after: Option<Duration>,
        now: Instant,
    ) {
        if self.0.len() >= CALLERS_MAX {
            self.0.retain(|_, until| until.lasts(now));
        }
        let is_known = self.0.contains_key(&(name, endpoint));
        if self.0.len() >= CALLERS_MAX && name.is_some() && !is_known {
            return;
        }
        let end = Some(now + retry_after.unwrap_or(COOL_DOWN).max(COOL_DOWN_MIN));
        let until = self.0.entry((name, endpoint)).or_default();
        until.pulls = until.pulls.max(end);
        if limit == RateLimit::Requests {
            until.requests = until.requests.max(end);
        }
    }

    /// Returns until when the endpoint of that index is not to be asked in `name` what a limit of the kind `about` would be about.
    pub(super) fn until(&self, name: Name, endpoint: usize, about: RateLimit, now: Instant) -> Option<Instant> {
        let until = self.0.get(&(name, endpoint))?;
        let end = match about {
            RateLimit::Pulls => until.pulls,
            RateLimit::Requests => until.requests,
        };
        end.filter(|end| *end > now)
    }
}

impl Until {
    /// Returns true while any limit holds: one about everything is about pulls as well.
    fn lasts(&self, now: Instant) -> bool {
        self.pulls.is_some_and(|end| end > now)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::super::caller::{Caller, CallerKey};
    use super::*;

    const PULLS: RateLimit = RateLimit::Pulls;
    const REQUESTS: RateLimit = RateLimit::Requests;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn caller(key: &CallerKey, shown: &str) -> Option<CallerId> {
        let shown = HeaderValue::from_str(shown).expect("a header value");
        Caller::new(key, Some(&shown)).map(|caller| caller.id())
    }

    #[test]
    fn a_limit_holds_for_what_it_is_about_as_long_as_it_says() {
        let now = Instant::now();
        for (told, kept) in [(Some(0), 1), (Some(7), 7), (None, 60), (Some(3600), 3600)] {
            for (limit, holds_for, lets_by) in
                [(PULLS, &[PULLS] as &[_], &[REQUESTS] as &[_]), (REQUESTS, &[PULLS, REQUESTS], &[])]
            {
                let mut cooling = Cooling::default();
                cooling.begins(None, 0, limit, told.map(seconds), now);
                let until = |about, after| cooling.until(None, 0, about, now + after);
                for about in holds_for {
                    let end = Some(now + seconds(kept));
                    assert_eq!((until(*about, Duration::ZERO), until(*about, seconds(kept - 1))), (end, end), "P-106");
                    assert_eq!(until(*about, seconds(kept)), None);
                }
                for about in lets_by {
                    assert_eq!(until(*about, Duration::ZERO), None, "U-4: HEAD and blobs are free");
                }
                assert_eq!(cooling.until(None, 1, limit, now), None, "another endpoint");
            }
        }
    }

    #[test]
    fn a_limit_is_nobody_elses() {
        let (key, now) = (CallerKey::new(), Instant::now());
        let names = [None, caller(&key, "Bearer a"), caller(&key, "Bearer b")];
        for limited in names {
            let mut cooling = Cooling::default();
            cooling.begins(limited, 0, REQUESTS, None, now);
            for name in names {
                assert_eq!(cooling.until(name, 0, REQUESTS, now).is_some(), name == limited);
            }
        }
    }

    #[test]
    fn callers_do_not_fill_the_memory_and_ours_is_always_kept() {
        let (key, now) = (CallerKey::new(), Instant::now());
        let mut cooling = Cooling::default();
        for number in 0..CALLERS_MAX {
            cooling.begins(caller(&key, &format!("Bearer {number}")), 0, PULLS, Some(seconds(9)), now);
        }
        let (known, late) = (caller(&key, "Bearer 0"), caller(&key, "Bearer late"));
        for (name, is_kept) in [(late, false), (known, true), (None, true)] {
            cooling.begins(name, 0, PULLS, Some(seconds(99)), now);
            assert_eq!(cooling.until(name, 0, PULLS, now + seconds(9)).is_some(), is_kept);
        }
        cooling.begins(late, 0, PULLS, None, now + seconds(9));
        assert!(cooling.until(late, 0, PULLS, now + seconds(9)).is_some(), "those of the others have passed");
        assert_eq!(cooling.0.len(), 3);
    }
}
