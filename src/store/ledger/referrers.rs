//! The subject index: which manifests refer to which, and what the upstream last said of it.
//!
//! A **record** says that a manifest which passed through names another one as its subject; it goes with the manifest. A **list** is
//! what the upstream said of a subject's referrers as a whole. Both are of one repository: referrers never cross (P-90).

use std::time::{Duration, SystemTime};

use serde_json::value::RawValue;

use super::{Ledger, algorithm_of};
use crate::oci::{DESCRIPTORS_MAX, Digest, Referrer, Referrers, RepositoryName, UpstreamName};
use crate::store::time::Time;

/// Bytes of a list that is written to disk at the most; a longer one is asked for again after a restart.
const LIST_BYTES_MAX: usize = 64 * 1024;

/// A list that says the same again is written again after so long only: what stands there is how old it may be when it is served stale.
const LIST_REWRITTEN: Duration = Duration::from_hours(1);

/// What the key of a list begins with.
pub(super) const LIST_PREFIX: &[u8] = b"l";

/// What the upstream said of a subject's referrers.
#[derive(Debug, Clone)]
pub struct ListEntry {
    pub list: Referrers,
    /// When it said so.
    pub checked_at: SystemTime,
}

impl Ledger {
    /// Notes that `referrer` names `subject`.
    pub fn record_referrer(
        &self,
        upstream: &UpstreamName,
        repository: &RepositoryName,
        subject: &Digest,
        referrer: &Referrer,
    ) {
        let place = place(upstream, repository);
        let subject_text = subject.to_string().into_bytes();
        self.set(back_key(referrer.digest(), &place), Some(subject_text));
        self.set(record_key(subject, &place, referrer.digest()), Some(referrer.as_json().as_bytes().to_vec()));
    }

    /// Returns the referrers of `subject` that passed through and are still stored, in no particular order. Blocks.
    pub fn recorded_referrers(
        &self,
        upstream: &UpstreamName,
        repository: &RepositoryName,
        subject: &Digest,
    ) -> Referrers {
        let keys = self.keys_under(&records_prefix(subject, &place(upstream, repository))).unwrap_or_else(|error| {
            tracing::warn!(%subject, %error, "the subject index cannot be read");
            Vec::new()
        });
        keys.into_iter().take(DESCRIPTORS_MAX).filter_map(|key| read_record(self.get(key)?)).collect()
    }

    /// Returns the subject that `referrer` is recorded for, if it is.
    pub fn recorded_subject(
        &self,
        upstream: &UpstreamName,
        repository: &RepositoryName,
        referrer: &Digest,
    ) -> Option<Digest> {
        parse(&self.get(back_key(referrer, &place(upstream, repository)))?)
    }

    /// Returns the record of `referrer` under `subject`.
    pub fn recorded_referrer(
        &self,
        upstream: &UpstreamName,
        repository: &RepositoryName,
        subject: &Digest,
        referrer: &Digest,
    ) -> Option<Referrer> {
        read_record(self.get(record_key(subject, &place(upstream, repository), referrer))?)
    }

    /// Drops the record of a manifest that the repository has no more.
    pub fn drop_referrer(&self, upstream: &UpstreamName, repository: &RepositoryName, referrer: &Digest) {
        self.drop_record(back_key(referrer, &place(upstream, repository)), referrer);
    }

    /// Drops all records of a manifest whose content is gone.
    pub(super) fn forget_referrer(&self, referrer: &Digest) -> Result<(), redb::Error> {
        for key in self.keys_under(&back_prefix(referrer))? {
            self.drop_record(key, referrer);
        }
        Ok(())
    }

    fn drop_record(&self, back_key: Vec<u8>, referrer: &Digest) {
        let place = back_key.get(back_prefix(referrer).len()..).unwrap_or_default().to_vec();
        if let Some(subject) = self.get(back_key.clone()).as_deref().and_then(parse) {
            self.set(record_key(&subject, &place, referrer), None);
            self.set(back_key, None);
        }
    }

    /// Returns what the upstream last said of the referrers of `subject`.
    pub fn referrers(
        &self,
        upstream: &UpstreamName,
        repository: &RepositoryName,
        subject: &Digest,
    ) -> Option<ListEntry> {
        let value = self.get(list_key(subject, &place(upstream, repository)))?;
        let (checked_at, json) = value.split_first_chunk()?;
        let checked_at = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from_be_bytes(*checked_at));
        Some(ListEntry { list: Referrers::read(json).ok()?, checked_at })
    }

    /// Keeps what the upstream said of the referrers of `subject`, as an index.
    pub fn set_referrers(
        &self,
        upstream: &UpstreamName,
        repository: &RepositoryName,
        subject: &Digest,
        json: &[u8],
        checked_at: SystemTime,
    ) {
        let key = list_key(subject, &place(upstream, repository));
        if json.len() > LIST_BYTES_MAX {
            // What an older and shorter one says is not the upstream's last word.
            self.set(key, None);
            return;
        }
        let checked_at = Time::from(checked_at).seconds();
        let known = self.get(key.clone());
        let is_the_same = known.as_deref().and_then(|known| known.split_first_chunk()).is_some_and(|(then, known)| {
            known == json && checked_at.saturating_sub(u64::from_be_bytes(*then)) < LIST_REWRITTEN.as_secs()
        });
        if !is_the_same {
            self.set(key, Some([&checked_at.to_be_bytes(), json].concat()));
        }
    }

    /// Drops what the upstream said of the referrers of `subject`.
    pub fn drop_referrers(&self, upstream: &UpstreamName, repository: &RepositoryName, subject: &Digest) {
        self.set(list_key(subject, &place(upstream, repository)), None);
    }
}

/// Returns when a list on disk was said, in seconds since the epoch.
pub(super) fn list_time(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |seconds| u64::from_be_bytes(*seconds))
}

fn read_record(value: Vec<u8>) -> Option<Referrer> {
    Referrer::read(RawValue::from_string(String::from_utf8(value).ok()?).ok()?)
}

fn parse(value: &[u8]) -> Option<Digest> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Upstream, NUL, repository: neither can hold a NUL.
fn place(upstream: &UpstreamName, repository: &RepositoryName) -> Vec<u8> {
    [upstream.as_str().as_bytes(), b"\0", repository.as_str().as_bytes()].concat()
}

/// `s`, subject, place, NUL: all referrers of a subject stand together.
fn records_prefix(subject: &Digest, place: &[u8]) -> Vec<u8> {
    [b"s", algorithm_of(subject), subject.as_bytes(), place, b"\0"].concat()
}

fn record_key(subject: &Digest, place: &[u8], referrer: &Digest) -> Vec<u8> {
    [&records_prefix(subject, place), algorithm_of(referrer), referrer.as_bytes()].concat()
}

/// `r`, referrer: finds its records when it goes.
fn back_prefix(referrer: &Digest) -> Vec<u8> {
    [b"r", algorithm_of(referrer), referrer.as_bytes()].concat()
}

fn back_key(referrer: &Digest, place: &[u8]) -> Vec<u8> {
    [&back_prefix(referrer), place].concat()
}

fn list_key(subject: &Digest, place: &[u8]) -> Vec<u8> {
    [LIST_PREFIX, algorithm_of(subject), subject.as_bytes(), place].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Manifest;

    fn names() -> (UpstreamName, RepositoryName) {
        ("docker.io".parse().unwrap(), "library/alpine".parse().unwrap())
    }

    fn referrer(name: &str) -> Referrer {
        let document = format!(
            r#"{{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"annotations":{{"n":"{name}"}}}}"#
        );
        let manifest = Manifest::read(document.as_bytes(), None).unwrap();
        Referrer::of(&manifest, &Digest::sha256(name.as_bytes()), 1)
    }

    fn ledger() -> (tempfile::TempDir, Ledger) {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&directory.path().join("ledger.redb")).unwrap();
        (directory, ledger)
    }

    #[test]
    fn a_record_is_of_its_subject_and_repository_and_goes_with_its_manifest() {
        let (directory, mut ledger) = ledger();
        let (upstream, repository) = names();
        let (subject, one, two) = (Digest::sha256(b"subject"), referrer("one"), referrer("two"));
        for is_flushed in [false, true] {
            ledger.record_referrer(&upstream, &repository, &subject, &one);
            ledger.record_referrer(&upstream, &repository, &subject, &two);
            if is_flushed {
                ledger.flush().unwrap();
                drop(ledger);
                ledger = Ledger::open(&directory.path().join("ledger.redb")).unwrap();
            }
            let other = ledger.recorded_referrers(&upstream, &"library/alpine2".parse().unwrap(), &subject);
            assert!(other.is_empty(), "P-90");
            assert!(ledger.recorded_referrers(&upstream, &repository, one.digest()).is_empty());
            assert_eq!(ledger.recorded_subject(&upstream, &repository, one.digest()), Some(subject));
            let known = ledger.recorded_referrer(&upstream, &repository, &subject, one.digest()).unwrap();
            assert_eq!(known.as_json(), one.as_json());
            ledger.forget(one.digest());
            let left = ledger.recorded_referrers(&upstream, &repository, &subject);
            assert!(left.len() == 1 && left.contains(two.digest()), "flushed: {is_flushed}");
            ledger.drop_referrer(&upstream, &repository, two.digest());
            assert!(ledger.recorded_referrers(&upstream, &repository, &subject).is_empty());
            assert_eq!(ledger.recorded_subject(&upstream, &repository, two.digest()), None);
        }
    }

    #[test]
    fn a_list_is_kept_with_its_time_and_a_longer_one_is_not() {
        let (_directory, ledger) = ledger();
        let (upstream, repository) = names();
        let subject = Digest::sha256(b"subject");
        let list: Referrers = [referrer("one")].into_iter().collect();
        let then = SystemTime::UNIX_EPOCH + Duration::from_hours(1000);
        let set = |list: &Referrers, at| ledger.set_referrers(&upstream, &repository, &subject, &list.to_json(), at);
        let get =
            || ledger.referrers(&upstream, &repository, &subject).map(|entry| (entry.list.len(), entry.checked_at));
        assert!(get().is_none());
        set(&list, then);
        assert_eq!(get(), Some((1, then)));
        set(&list, then + LIST_REWRITTEN / 2);
        assert_eq!(get(), Some((1, then)), "it says the same");
        set(&Referrers::default(), then + LIST_REWRITTEN / 2);
        assert_eq!(get(), Some((0, then + LIST_REWRITTEN / 2)));
        set(&(0..1000).map(|n| referrer(&n.to_string())).collect(), then);
        assert!(get().is_none());
        set(&list, then);
        ledger.flush().unwrap();
        ledger.prune(then + super::super::KEPT + Duration::from_hours(1));
        assert!(get().is_none());
    }
}
