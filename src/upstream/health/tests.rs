//! The circuit breaker, transition by transition.

use super::*;

const ABOUT: RateLimit = RateLimit::Requests;

fn status(status: u16) -> UpstreamError {
    UpstreamError::Status { status, message: None }
}

fn absent() -> UpstreamError {
    UpstreamError::NotFound { message: None }
}

fn nobody_there() -> UpstreamError {
    UpstreamError::Connect { host: "a".to_owned(), source: Arc::new(std::io::Error::other("refused")) }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A question that fails with this error, after one attempt.
fn fail(health: &mut Health, error: &UpstreamError, now: Instant) {
    health.failed(error, now);
    health.failed_in_vain(error, now, now);
}

/// Returns whom to ask and whom to probe, or the word for the refusal and its wait.
fn planned(endpoints: &[Health], now: Instant) -> Result<(Vec<usize>, Vec<usize>), (String, Duration)> {
    planned_where(endpoints, |_| None, now)
}

/// The same, where some are limited until then.
fn planned_where(
    endpoints: &[Health],
    limited: impl Fn(usize) -> Option<Instant>,
    now: Instant,
) -> Result<(Vec<usize>, Vec<usize>), (String, Duration)> {
    match plan(&mut endpoints.to_vec(), ABOUT, limited, now) {
        Ok(Plan { ask, probe, .. }) => Ok((ask, probe)),
        Err(UpstreamError::CircuitOpen { retry_after, .. }) => Err(("open".to_owned(), retry_after)),
        Err(UpstreamError::RateLimited { retry_after, .. }) => {
            Err(("limited".to_owned(), retry_after.expect("it is known here")))
        }
        Err(other) => panic!("{other:?}"),
    }
}

fn broken(now: Instant) -> Health {
    let mut health = Health::default();
    fail(&mut health, &nobody_there(), now);
    health
}

#[test]
fn each_failure_has_its_weight() {
    let (ask, last, refuse) = (Ok((vec![0], vec![])), Ok((vec![0], vec![])), |wait| Err(("open".to_owned(), wait)));
    let timed_out = || UpstreamError::TimedOut { limit: "connect", after: Duration::ZERO };
    let truncated = || UpstreamError::Truncated { received_bytes: 0, source: None };
    let nonsense = || UpstreamError::Protocol { reason: String::new() };
    for (name, error, questions, expected) in [
        ("nobody is there", nobody_there(), 1, refuse(seconds(1))),
        ("nobody answers", timed_out(), 1, refuse(seconds(1))),
        ("503, twice", status(503), 2, last.clone()),
        ("503, thrice", status(503), 3, refuse(seconds(4))),
        ("broken connections", truncated(), 3, refuse(seconds(4))),
        ("500", status(500), 9, last.clone()),
        ("nonsense", nonsense(), 9, last),
        ("404", absent(), 9, ask.clone()),
        ("403", UpstreamError::Denied { status: 403, message: None }, 9, ask.clone()),
        ("418", status(418), 9, ask),
    ] {
        let (mut health, mut now) = (Health::default(), Instant::now());
        for _ in 0..questions {
            now += PAUSE_MAX;
            fail(&mut health, &error, now);
        }
        assert_eq!(planned(&[health], now), expected, "{name}");
    }
}

#[test]
fn pauses_double_up_to_their_limit_and_end_with_an_answer() {
    let (mut health, mut now) = (Health::default(), Instant::now());
    for pause in [1, 2, 4, 8, 15, 15] {
        fail(&mut health, &nobody_there(), now);
        assert_eq!(planned(&[health.clone()], now), Err(("open".to_owned(), seconds(pause))));
        now += seconds(pause);
    }
    health.answered(now);
    assert_eq!(planned(&[health.clone()], now), Ok((vec![0], vec![])));
    fail(&mut health, &nobody_there(), now);
    assert_eq!(planned(&[health], now), Err(("open".to_owned(), PAUSE_FIRST)));
}

#[test]
fn one_request_is_the_trial_and_its_end_decides() {
    let now = Instant::now();
    let due = now + PAUSE_FIRST;
    let mut endpoints = [broken(now)];
    assert_eq!(plan(&mut endpoints, ABOUT, |_| None, due).expect("the trial").ask, [0]);
    assert_eq!(planned(&endpoints, due), Err(("open".to_owned(), TRIAL_MAX)), "the others wait for its end");
    assert_eq!(planned(&endpoints, due + TRIAL_MAX), Ok((vec![0], vec![])), "a trial that vanished is over");
    let mut failed = endpoints.clone();
    fail(&mut failed[0], &nobody_there(), due);
    assert_eq!(planned(&failed, due), Err(("open".to_owned(), seconds(2))));
    endpoints[0].answered(due);
    assert_eq!(planned(&endpoints, due), Ok((vec![0], vec![])));
}

#[test]
fn a_broken_one_is_probed_while_others_are_asked_and_then_asked_again() {
    let now = Instant::now();
    let mut endpoints = [broken(now), Health::default()];
    assert_eq!(planned(&endpoints, now), Ok((vec![1], vec![])));
    let due = now + PAUSE_FIRST;
    let begun = plan(&mut endpoints, ABOUT, |_| None, due).expect("the other is there");
    assert!(begun.refused.is_some(), "what the other does not have, this one may");
    assert_eq!((begun.ask, begun.probe), (vec![1], vec![0]));
    assert_eq!(planned(&endpoints, due), Ok((vec![1], vec![])), "one probe at a time");
    endpoints[0].revived();
    let trial = plan(&mut endpoints, ABOUT, |_| None, due).expect("both");
    assert_eq!((trial.ask, trial.trial.map(|(index, _)| index)), (vec![0, 1], Some(0)), "one question is its trial");
    assert_eq!(planned(&endpoints, due), Ok((vec![1], vec![])), "the others do not wait for it");
    let mut well = endpoints.clone();
    well[0].answered(due);
    assert_eq!(planned(&well, due), Ok((vec![0, 1], vec![])));
    fail(&mut endpoints[0], &nobody_there(), due);
    let expected = Ok((vec![1], vec![]));
    assert_eq!(planned(&endpoints, due + PAUSE_FIRST), expected, "its pause goes on where it was: 2 s");
}

#[test]
fn what_fails_together_is_one_failure_and_an_answer_meanwhile_is_an_answer() {
    let (mut health, began) = (Health::default(), Instant::now());
    for after in 1..50 {
        let now = began + Duration::from_millis(after);
        health.failed(&status(503), now);
        health.failed_in_vain(&status(503), began, now);
    }
    let now = began + seconds(1);
    assert_eq!((health.failures, health.strikes), (1, 1));
    let mut health = Health::default();
    health.answered(now);
    assert!(!health.failed_in_vain(&nobody_there(), began, now + seconds(5)), "it answered somebody since");
}

#[test]
fn a_limit_at_one_endpoint_sends_requests_to_the_other() {
    let (now, good) = (Instant::now(), Health::default());
    let limited = |endpoint| (endpoint == 0).then_some(now + seconds(7));
    let at = |second: &Health, after| planned_where(&[good.clone(), second.clone()], limited, now + after);
    assert_eq!(at(&good, Duration::ZERO), Ok((vec![1], vec![])));
    assert_eq!(at(&broken(now), Duration::ZERO), Err(("open".to_owned(), PAUSE_FIRST)), "it passes first");
    assert_eq!(at(&broken(now), PAUSE_FIRST), Ok((vec![1], vec![])), "as its trial");
    let alone = planned_where(std::slice::from_ref(&good), limited, now);
    assert_eq!(alone, Err(("limited".to_owned(), seconds(7))), "P-106");
}

#[test]
fn the_healthy_come_first_as_configured_then_who_is_back_first() {
    let now = Instant::now();
    let (good, mut bad, mut worse) = (Health::default(), Health::default(), Health::default());
    bad.failed(&status(503), now);
    worse.distrust(now);
    worse.answered(now);
    for (endpoints, expected) in [
        ([&good, &good, &good], [0, 1, 2]),
        ([&bad, &good, &good], [1, 2, 0]),
        ([&worse, &bad, &good], [2, 1, 0]),
        ([&bad, &worse, &bad], [0, 2, 1]),
    ] {
        assert_eq!(planned(&endpoints.map(Health::clone), now), Ok((expected.to_vec(), vec![])));
    }
    assert_eq!(planned(&[bad, good], now + PAUSE_FIRST), Ok((vec![0, 1], vec![])));
    assert_eq!(planned(&[worse, Health::default()], now + DISTRUST), Ok((vec![0, 1], vec![])));
}

#[test]
fn an_absence_counts_only_when_nobody_has_it() {
    let denied = || UpstreamError::Denied { status: 403, message: None };
    for (errors, expected) in [
        (vec![absent(), absent()], "not found"),
        (vec![absent(), status(503)], "unexpected status 503"),
        (vec![status(503), absent()], "unexpected status 503"),
        (vec![denied(), status(503)], "access denied (status 403)"),
    ] {
        let told = errors.into_iter().fold(None, |told, error| Some(more_telling(told, error)));
        assert_eq!(told.map(|error| error.to_string()).as_deref(), Some(expected));
    }
}
