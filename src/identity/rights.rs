//! What a principal may: the `[[principal]]` rules, of which the first that fits decides.
//!
//! Without any rule, whoever is let in may everything. With rules, whom none fits may nothing.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use super::Principal;
use super::turns::Turns;
use crate::oci::{Pattern, RepositoryName, UpstreamName};

/// One `[[principal]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Whom it is about: patterns of principals' names.
    pub matches: Vec<Pattern>,
    /// Patterns of `upstream/repository`; none is all.
    pub repositories: Vec<Pattern>,
    /// Writes are relayed, where the upstream takes them.
    pub push: bool,
    /// Requests a second of each principal, and of each address of which nobody is known; `None` is no limit.
    pub rate: Option<NonZeroU32>,
    /// Requests at once after a pause.
    pub burst: Option<NonZeroU32>,
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy)]
pub enum Wish<'a> {
    /// Something that is about no repository.
    Ask,
    /// Something about a name that cannot be told here; who may have some repositories only is not told why.
    Elsewhere,
    Read(&'a UpstreamName, &'a RepositoryName),
    Write(&'a UpstreamName, &'a RepositoryName),
}

/// All rules.
#[derive(Debug, Default)]
pub(super) struct Rights(Vec<RuleAndTurns>);

type RuleAndTurns = (Rule, Option<Turns<Asker>>);

/// Whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Asker {
    Known(Principal),
    /// Whoever shows nothing is not one and the same.
    Nobody(IpAddr),
}

impl Rights {
    pub(super) fn new(rules: Vec<Rule>) -> Self {
        let turns = |rule: &Rule| rule.rate.map(|rate| Turns::new(rate, rule.burst));
        Self(rules.into_iter().map(|rule| (turns(&rule), rule)).map(|(turns, rule)| (rule, turns)).collect())
    }

    /// Returns true when the principal may do that.
    pub(super) fn allow(&self, principal: &Principal, wish: Wish<'_>) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let Some((rule, _)) = self.of(principal) else { return false };
        let has = |upstream: &UpstreamName, repository: &RepositoryName| {
            let name = format!("{upstream}/{repository}");
            rule.repositories.is_empty() || rule.repositories.iter().any(|pattern| pattern.matches(&name))
        };
        match wish {
            Wish::Ask => true,
            Wish::Elsewhere => rule.repositories.is_empty(),
            Wish::Read(upstream, repository) => has(upstream, repository),
            Wish::Write(upstream, repository) => rule.push && has(upstream, repository),
        }
    }

    /// Waits for the principal's turn.
    pub(super) async fn turn(&self, principal: &Principal, address: IpAddr) -> Result<(), Duration> {
        match self.of(principal) {
            Some((_, Some(turns))) if principal.is_anonymous() => turns.turn(&Asker::Nobody(address)).await,
            Some((_, Some(turns))) => turns.turn(&Asker::Known(principal.clone())).await,
            Some((_, None)) | None => Ok(()),
        }
    }

    pub(super) fn forget_idle(&self) {
        self.0.iter().filter_map(|(_, turns)| turns.as_ref()).for_each(Turns::forget_idle);
    }

    fn of(&self, principal: &Principal) -> Option<&RuleAndTurns> {
        if self.0.is_empty() {
            return None;
        }
        let name = principal.to_string();
        self.0.iter().find(|(rule, _)| rule.matches.iter().any(|pattern| pattern.matches(&name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(matches: &str, repositories: &[&str], push: bool) -> Rule {
        let pattern = |text: &str| Pattern::of_principals(text).unwrap();
        let repositories = repositories.iter().map(|text| pattern(text)).collect();
        Rule { matches: vec![pattern(matches)], repositories, push, ..Rule::default() }
    }

    #[test]
    fn the_first_rule_that_fits_decides_and_whom_none_fits_may_nothing() {
        let rights = Rights::new(vec![
            rule("user:root", &[], true),
            rule("user:*", &["docker.io/library/*", "localhost:5000/**"], false),
            rule("system:serviceaccount:ci:*", &["ghcr.io/team/**"], true),
            rule("anonymous", &["docker.io/library/*"], true),
        ]);
        for (who, upstream, repository, may) in [
            ("user:root", "ghcr.io", "a", "rwe"),
            ("user:alice", "docker.io", "library/alpine", "r"),
            ("user:alice", "localhost:5000", "a/b", "r"),
            ("user:alice", "docker.io", "other/a", ""),
            ("system:serviceaccount:ci:bot", "ghcr.io", "team/a/b", "rw"),
            ("system:serviceaccount:prod:bot", "ghcr.io", "team/a/b", "-"),
            ("anonymous", "docker.io", "library/alpine", "rw"),
            ("anonymous", "docker.io", "team/alpine", ""),
            ("cert:a", "docker.io", "library/alpine", "-"),
        ] {
            let principal: Principal = who.parse().unwrap();
            let (upstream, repository) = (upstream.parse().unwrap(), repository.parse().unwrap());
            let allows = |wish| rights.allow(&principal, wish);
            assert_eq!(allows(Wish::Ask), may != "-", "{who}");
            assert_eq!(allows(Wish::Elsewhere), may.contains('e'), "{who}");
            assert_eq!(allows(Wish::Read(&upstream, &repository)), may.contains('r'), "{who} {repository}");
            assert_eq!(allows(Wish::Write(&upstream, &repository)), may.contains('w'), "{who} {repository}");
        }
        assert!(Rights::default().allow(&Principal::Anonymous, Wish::Elsewhere), "without rules there is no rule");
    }
}
