//! Follows the cache: its files are there while it answers, and gone when it has not answered for a while.
//!
//! containerd asks a mirror that is down again for each object, and may wait 30 s each time: what is withdrawn in time costs nothing.
//! The credentials are read again before each question, so that what others renew is shown from the next one on.
//!
//! | the cache | for how long | files | so |
//! |---|---|---|---|
//! | answers | | any | apply: write, or heal what somebody removed |
//! | fails | less than `remove_after` | any | leave them |
//! | fails | `remove_after` or more | there, or not known | withdraw |
//! | fails | `remove_after` or more | withdrawn | leave them |

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::agent::{Agent, AgentError};
use super::probe::ProbeError;
use super::report::Report;
use super::{NodeError, Refusal, apply_holding, remove_holding};
use crate::telemetry::sentence;

/// How often, and how long.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From one question to the next.
    pub interval: Duration,
    /// From the last answer until the files go.
    pub remove_after: Duration,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The cache answers, for the first time or again, or a file had to be written again.
    Applied(Report),
    /// The cache did not answer this time; told once for each outage.
    Unanswered(ProbeError),
    /// The cache has not answered for too long.
    Withdrawn(Report),
    /// The credentials could not be read again, and those of before hold on; told once for each reason.
    Stale(String),
    /// The node's files could not be brought to what they should be; told once for each reason.
    Failed(String),
}

/// What to do about an answer, or about none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Apply,
    Withdraw,
    Wait,
}

/// What is remembered from one question to the next.
#[derive(Debug)]
struct Memory {
    /// When the cache answered last; at first, when the watch began.
    answered: Instant,
    is_withdrawn: bool,
    is_out: bool,
    /// What was told last, so that it is not told again.
    told: Option<String>,
    /// Why the credentials are those of before, likewise.
    stale: Option<String>,
}

impl Memory {
    fn new(now: Instant) -> Self {
        Self { answered: now, is_withdrawn: false, is_out: false, told: None, stale: None }
    }

    /// The table above.
    fn decide(&mut self, now: Instant, answers: bool, remove_after: Duration) -> Action {
        if answers {
            self.answered = now;
            self.is_withdrawn = false;
            return Action::Apply;
        }
        let is_over = now.duration_since(self.answered) >= remove_after;
        if is_over && !self.is_withdrawn { Action::Withdraw } else { Action::Wait }
    }

    /// Returns when to ask next: in time to withdraw on the second.
    fn next(&self, now: Instant, patience: Patience) -> Instant {
        let deadline = self.answered + patience.remove_after;
        let next = now + patience.interval;
        if !self.is_withdrawn && deadline > now { next.min(deadline) } else { next }
    }

    /// Tells of what changed; what is as it was the last time is no news.
    fn tell_once(&mut self, tell: &mut impl FnMut(&Event), event: &Event) {
        let text = event.lines().join("\n");
        let has_changed = match event {
            Event::Applied(report) | Event::Withdrawn(report) => !report.changes.is_empty(),
            Event::Stale(_) | Event::Failed(_) | Event::Unanswered(_) => false,
        };
        if has_changed || (!text.is_empty() && self.told.as_ref() != Some(&text)) {
            tell(event);
        }
        self.told = Some(text);
    }

    /// Tells why the credentials of before hold on.
    fn tell_of_credentials(&mut self, renewed: Result<(), AgentError>, tell: &mut impl FnMut(&Event)) {
        let why = renewed.err().map(|error| sentence(&error));
        if let Some(why) = why.as_ref().filter(|why| self.stale.as_ref() != Some(*why)) {
            tell(&Event::Stale(why.clone()));
        }
        self.stale = why;
    }
}

/// Watches until it is dropped. The node's files stay as they are then.
///
/// # Errors
/// A refusal at the first answer: this node cannot be configured, and waiting does not change that.
///
/// # Cancel safety
/// It can be dropped at any time: what changes files does not await.
pub async fn watch(
    agent: &mut Agent,
    patience: Patience,
    mut tell: impl FnMut(&Event),
) -> Result<Infallible, NodeError> {
    let mut memory = Memory::new(Instant::now());
    let mut has_applied = false;
    // Held until this is dropped: a clean-up that comes meanwhile would be undone at the next answer.
    let mut held = None;
    loop {
        let renewed = agent.renew();
        memory.tell_of_credentials(renewed, &mut tell);
        let answer = agent.ask().await;
        let action = memory.decide(Instant::now(), answer.is_ok(), patience.remove_after);
        match answer {
            Ok(()) => memory.is_out = false,
            Err(error) if !memory.is_out => {
                memory.is_out = true;
                tell(&Event::Unanswered(error));
            }
            Err(_) => {}
        }
        let options = agent.options();
        let done = match action {
            Action::Wait => Ok(None),
            Action::Apply => apply_holding(options, &mut held).map(Event::Applied).map(Some),
            Action::Withdraw => {
                remove_holding(&options.root, &options.state_dir, &mut held).map(Event::Withdrawn).map(Some)
            }
        };
        match done {
            Err(NodeError::Refused(refusal)) if !has_applied && !is_passing(&refusal) => return Err(refusal.into()),
            Err(error) => memory.tell_once(&mut tell, &Event::Failed(sentence(&error))),
            Ok(Some(event)) => {
                has_applied |= action == Action::Apply;
                memory.is_withdrawn = action == Action::Withdraw;
                if action == Action::Apply {
                    // Time that a slow disk takes is none in which the cache was asked in vain.
                    memory.answered = Instant::now();
                }
                memory.tell_once(&mut tell, &event);
            }
            Ok(None) => {}
        }
        sleep_until(memory.next(Instant::now(), patience)).await;
    }
}

/// Whether it may be over without anybody's doing here: a file is being written, or the agent before us is about to end.
fn is_passing(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Unreadable { .. } | Refusal::Held { .. })
}

impl Event {
    /// Returns what there is to tell, a line each.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Applied(report) => report.lines().collect(),
            Self::Unanswered(error) => vec![format!("the cache does not answer: {}", sentence(error))],
            Self::Withdrawn(report) => {
                let lines = report.lines().map(|line| format!("the cache has not answered for too long: {line}"));
                lines.collect()
            }
            Self::Stale(why) => vec![format!("{why}; what was there before is shown until that is mended")],
            Self::Failed(why) => vec![why.clone()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { interval: Duration::from_secs(5), remove_after: Duration::from_secs(12) };

    #[test]
    fn files_go_when_the_cache_is_gone_for_long_and_come_back_with_it() {
        let start = Instant::now();
        let mut memory = Memory::new(start);
        // Seconds, whether it answers, what follows, and when to ask next.
        let rows = [
            (0, true, Action::Apply, 5),
            (5, true, Action::Apply, 10),
            (10, false, Action::Wait, 15),
            (15, false, Action::Wait, 17),
            (16, true, Action::Apply, 21),
            (21, false, Action::Wait, 26),
            (26, false, Action::Wait, 28),
            (28, false, Action::Withdraw, 33),
            (33, false, Action::Wait, 38),
            (500, false, Action::Wait, 505),
            (505, true, Action::Apply, 510),
            (510, false, Action::Wait, 515),
            (530, false, Action::Withdraw, 535),
        ];
        for (seconds, answers, expected, next) in rows {
            let now = start + Duration::from_secs(seconds);
            let action = memory.decide(now, answers, PATIENCE.remove_after);
            assert_eq!(action, expected, "at {seconds} s");
            if action == Action::Withdraw {
                memory.is_withdrawn = true;
            }
            assert_eq!(memory.next(now, PATIENCE).duration_since(start).as_secs(), next, "after {seconds} s");
        }
    }

    #[test]
    fn files_of_an_earlier_watch_go_as_well() {
        let start = Instant::now();
        let mut memory = Memory::new(start);
        assert_eq!(memory.decide(start + Duration::from_secs(11), false, PATIENCE.remove_after), Action::Wait);
        assert_eq!(memory.decide(start + Duration::from_secs(12), false, PATIENCE.remove_after), Action::Withdraw);
    }
}
