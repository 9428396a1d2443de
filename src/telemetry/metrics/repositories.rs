//! Which repositories are asked for most: off unless it is asked for, and bounded, since clients choose the names (S-41).

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use prometheus::IntCounterVec;

use super::OTHER;
use super::families::Families;
use crate::oci::{RepositoryName, UpstreamName};
use crate::wire::Outcome;

/// The series of repositories: at most so many have their own, those that came first; the others share one.
#[derive(Debug)]
pub(super) struct Repositories {
    requests: IntCounterVec,
    served_bytes: IntCounterVec,
    max: usize,
    // A plain lock: held for a look-up, exclusively only when a repository is seen for the first time.
    known: RwLock<HashSet<(UpstreamName, RepositoryName)>>,
}

impl Repositories {
    pub(super) fn new(families: &Families<'_>, max: usize) -> prometheus::Result<Self> {
        Ok(Self {
            requests: families.counters(
                "repository_requests_total",
                "Questions about a repository by how they were answered; only with metrics.repositories.",
                &["upstream", "repository", "result"],
            )?,
            served_bytes: families.counters(
                "repository_served_bytes_total",
                "Bytes of a repository handed to clients; only with metrics.repositories.",
                &["upstream", "repository"],
            )?,
            max,
            known: RwLock::default(),
        })
    }

    /// Counts an answered question. Only a repository in which something `is_found` takes a place: names that somebody makes up do not
    /// push out those that exist.
    pub(super) fn served(
        &self,
        (upstream, repository): (&UpstreamName, &RepositoryName),
        is_found: bool,
        outcome: Outcome,
        bytes: u64,
    ) {
        if self.max == 0 {
            return;
        }
        let has_its_own = self.has_its_own(upstream, repository, is_found);
        let (upstream, repository) =
            if has_its_own { (upstream.as_str(), repository.as_str()) } else { (OTHER, OTHER) };
        self.requests.with_label_values(&[upstream, repository, outcome.as_str()]).inc();
        self.served_bytes.with_label_values(&[upstream, repository]).inc_by(bytes);
    }

    fn has_its_own(&self, upstream: &UpstreamName, repository: &RepositoryName, may_begin: bool) -> bool {
        let key = (upstream.clone(), repository.clone());
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if known.contains(&key) || known.len() >= self.max || !may_begin {
            return known.contains(&key);
        }
        drop(known);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        // Another may have taken the last place meanwhile.
        known.len() < self.max && known.insert(key.clone()) || known.contains(&key)
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Registry, TextEncoder};

    use super::*;

    #[test]
    fn the_first_repositories_have_their_own_series_and_all_others_share_one() {
        let registry = Registry::new();
        let repositories = Repositories::new(&Families::new(&registry), 2).unwrap();
        let upstream = "docker.io".parse().unwrap();
        for repository in ["library/one", "library/two", "library/three", "library/four", "library/one"] {
            repositories.served((&upstream, &repository.parse().unwrap()), true, Outcome::Hit, 7);
        }
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let mut series: Vec<&str> = text.lines().filter(|line| line.contains("requests_total{")).collect();
        series.sort_unstable();
        assert_eq!(
            series,
            [
                r#"cachalot_repository_requests_total{repository="_other",result="hit",upstream="_other"} 2"#,
                r#"cachalot_repository_requests_total{repository="library/one",result="hit",upstream="docker.io"} 2"#,
                r#"cachalot_repository_requests_total{repository="library/two",result="hit",upstream="docker.io"} 1"#,
            ]
        );
        assert!(text.contains(r#"served_bytes_total{repository="library/one",upstream="docker.io"} 14"#), "{text}");
    }

    #[test]
    fn names_that_are_made_up_take_no_place() {
        let registry = Registry::new();
        let repositories = Repositories::new(&Families::new(&registry), 1).unwrap();
        let upstream = "docker.io".parse().unwrap();
        let ask = |repository: &str, is_found| {
            repositories.served((&upstream, &repository.parse().unwrap()), is_found, Outcome::Miss, 7);
        };
        (0..1_000).for_each(|number| ask(&format!("made-up/{number}"), false));
        ask("library/one", true);
        ask("library/one", false);
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(text.contains(r#"requests_total{repository="_other",result="miss",upstream="_other"} 1000"#), "{text}");
        assert!(
            text.contains(r#"requests_total{repository="library/one",result="miss",upstream="docker.io"} 2"#),
            "{text}"
        );
    }

    #[test]
    fn there_are_no_series_unless_they_are_asked_for() {
        let registry = Registry::new();
        let repositories = Repositories::new(&Families::new(&registry), 0).unwrap();
        repositories.served((&"docker.io".parse().unwrap(), &"library/one".parse().unwrap()), true, Outcome::Hit, 7);
        assert!(registry.gather().is_empty());
    }
}
