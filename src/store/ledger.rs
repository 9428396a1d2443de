//! What is known beside the content: which tag means which digest, who was granted what, and what refers to what.
//!
//! A **grant** says that an upstream once gave a repository's reader this digest, as a manifest or as a blob; without one, stored
//! bytes are not served from that repository (S-3, P-48). A **tag entry** says what a tag meant when the upstream was last asked.
//!
//! Lookups are answered from memory or from the database's page cache. Changes are visible at once and written to disk in
//! groups by [`Ledger::write_behind`]; what a crash loses costs one question to an upstream. The database is a cache too:
//! one that cannot be read is set aside and begun anew.

mod referrers;

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use moka::sync::Cache;
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase, TableDefinition};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use self::referrers::ListEntry;

use super::StoreError;
use super::layout::open_or_create;
use super::time::Time;
use crate::oci::{Algorithm, Digest, MediaType, RepositoryName, Tag, UpstreamName};

const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");

/// Bytes of the entries kept in memory, those that are known to be absent included.
const RECENT_BYTES_MAX: u64 = 24 * 1024 * 1024;

/// What such an entry costs beside its key and its value.
const RECENT_OVERHEAD_BYTES: usize = 128;

/// Changes that may wait for the disk; beyond, further ones stay in memory only until the writer has caught up.
const PENDING_MAX: usize = 100_000;

/// Changes gathered before one durable write; what a crash may lose is what came in this long.
const GROUP_DELAY: Duration = Duration::from_millis(50);

/// How long a tag or a list that nobody asks for is kept: the longest time for which it may be served stale (settings allow no more).
const KEPT: Duration = Duration::from_hours(365 * 24);

/// Bytes of tags that are kept at the most, some 100,000 of them; the ones that were asked about longest ago go first.
const TAGS_BYTES_MAX: usize = 20 * 1024 * 1024;

/// Bytes of lists of referrers that are kept at the most.
const LISTS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of the database's own page cache.
const DATABASE_CACHE_BYTES: usize = 16 * 1024 * 1024;

/// How a digest was granted: the two keyspaces never mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GrantKind {
    Manifest,
    Blob,
}

/// What a grant is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Grant<'a> {
    pub upstream: &'a UpstreamName,
    pub repository: &'a RepositoryName,
    pub kind: GrantKind,
    pub digest: &'a Digest,
}

/// What a tag meant when the upstream was last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagEntry {
    pub digest: Digest,
    pub media_type: MediaType,
    pub size_bytes: u64,
    /// When the upstream last said so.
    pub checked_at: SystemTime,
}

/// The tags and grants of one store.
#[derive(Debug)]
pub struct Ledger {
    database: Database,
    recent: Cache<Vec<u8>, Option<Vec<u8>>>,
    // A plain mutex: held for a map operation, never over I/O.
    pending: Mutex<HashMap<Vec<u8>, Option<Vec<u8>>>>,
    changed: Notify,
}

impl Ledger {
    /// Opens the ledger at `path`, or begins a new one when it cannot be read.
    ///
    /// # Errors
    /// When another process holds it, or the directory cannot be written.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let shown = path.display().to_string();
        let database = match create(path) {
            Err(DatabaseError::DatabaseAlreadyOpen) => return Err(StoreError::InUse { path: shown }),
            // A file that is no database is reported as an I/O error, too.
            Err(DatabaseError::Storage(redb::StorageError::Io(error))) if error.kind() != ErrorKind::InvalidData => {
                return Err(ledger_error(shown, error));
            }
            Err(damaged) => {
                let aside = path.with_extension("damaged");
                tracing::warn!(ledger = shown, error = %damaged, set_aside = %aside.display(), "the ledger is damaged; beginning a new one");
                std::fs::rename(path, &aside).map_err(|error| ledger_error(shown.clone(), error))?;
                create(path).map_err(|error| ledger_error(shown.clone(), error))?
            }
            Ok(database) => database,
        };
        let ledger = Self { database, recent: recent(), pending: Mutex::default(), changed: Notify::new() };
        // Makes the table, so that readers need not tell a missing table from a missing entry.
        ledger.commit(&[]).map_err(|error| ledger_error(shown, error))?;
        Ok(ledger)
    }

    /// Returns what `tag` meant when last asked.
    pub fn tag(&self, upstream: &UpstreamName, repository: &RepositoryName, tag: &Tag) -> Option<TagEntry> {
        let value = self.get(tag_key(upstream, repository, tag))?;
        serde_json::from_slice::<StoredTag>(&value).ok()?.into_entry()
    }

    pub fn set_tag(&self, upstream: &UpstreamName, repository: &RepositoryName, tag: &Tag, entry: &TagEntry) {
        // Strings and numbers only: encoding cannot fail.
        let value = serde_json::to_vec(&StoredTag::from_entry(entry)).unwrap_or_default();
        self.set(tag_key(upstream, repository, tag), Some(value));
    }

    pub fn drop_tag(&self, upstream: &UpstreamName, repository: &RepositoryName, tag: &Tag) {
        self.set(tag_key(upstream, repository, tag), None);
    }

    /// Returns true when the blob was granted.
    pub fn holds_blob(&self, upstream: &UpstreamName, repository: &RepositoryName, digest: &Digest) -> bool {
        self.get(grant_key(&Grant { upstream, repository, kind: GrantKind::Blob, digest })).is_some()
    }

    /// Returns the media type under which the manifest was granted: one per digest for ever (S-11).
    pub fn manifest_type(
        &self,
        upstream: &UpstreamName,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Option<MediaType> {
        let value = self.get(grant_key(&Grant { upstream, repository, kind: GrantKind::Manifest, digest }))?;
        MediaType::parse(std::str::from_utf8(&value).ok()?)
    }

    pub fn grant_blob(&self, upstream: &UpstreamName, repository: &RepositoryName, digest: &Digest) {
        self.set(grant_key(&Grant { upstream, repository, kind: GrantKind::Blob, digest }), Some(Vec::new()));
    }

    pub fn grant_manifest(
        &self,
        upstream: &UpstreamName,
        repository: &RepositoryName,
        digest: &Digest,
        media_type: &MediaType,
    ) {
        let value = media_type.as_str().as_bytes().to_vec();
        self.set(grant_key(&Grant { upstream, repository, kind: GrantKind::Manifest, digest }), Some(value));
    }

    /// Takes a grant back: the upstream's repository has the content no more.
    pub fn revoke(&self, grant: &Grant<'_>) {
        self.set(grant_key(grant), None);
    }

    /// Drops the tags of a repository that mean `digest`. Blocks.
    pub fn drop_tags_of(&self, upstream: &UpstreamName, repository: &RepositoryName, digest: &Digest) {
        let prefix = tags_prefix(upstream, repository);
        let keys = self.keys_under(&prefix).unwrap_or_else(|error| {
            tracing::warn!(%digest, %error, "tags of a deleted manifest stay in the ledger");
            Vec::new()
        });
        let means_it = |key: &Vec<u8>| {
            let stored = serde_json::from_slice::<StoredTag>(&self.get(key.clone())?).ok()?;
            Some(stored.digest == digest.to_string())
        };
        for key in keys.into_iter().filter(|key| means_it(key) == Some(true)) {
            self.set(key, None);
        }
    }

    /// Drops every grant of a digest whose content is gone. Blocks.
    pub fn forget(&self, digest: &Digest) {
        for kind in [GrantKind::Manifest, GrantKind::Blob] {
            match self.keys_under(&grant_prefix(kind, digest)) {
                Ok(keys) => keys.into_iter().for_each(|key| self.set(key, None)),
                Err(error) => tracing::warn!(%digest, %error, "the grants of an evicted object stay in the ledger"),
            }
        }
        if let Err(error) = self.forget_referrer(digest) {
            tracing::warn!(%digest, %error, "an evicted manifest stays in the subject index");
        }
    }

    /// Drops the tags and lists of referrers that were asked about too long ago, or longest ago when there are too many. Blocks.
    pub fn prune(&self, now: SystemTime) {
        let tag_time = |value: &[u8]| serde_json::from_slice::<StoredTag>(value).map_or(0, |tag| tag.checked_at);
        for result in [
            self.prune_under(TAG_PREFIX, tag_time, now, TAGS_BYTES_MAX),
            self.prune_under(referrers::LIST_PREFIX, referrers::list_time, now, LISTS_BYTES_MAX),
        ] {
            if let Err(error) = result {
                tracing::warn!(%error, "old tags and lists stay in the ledger");
            }
        }
    }

    /// Drops entries with keys that begin with `prefix`: those older than [`KEPT`], and the oldest while all take more than `bytes_max`.
    fn prune_under(
        &self,
        prefix: &[u8],
        time_of: impl Fn(&[u8]) -> u64,
        now: SystemTime,
        bytes_max: usize,
    ) -> Result<(), redb::Error> {
        let mut entries = Vec::new();
        let mut bytes: usize = 0;
        let table = self.database.begin_read()?.open_table(ENTRIES)?;
        for entry in table.range(prefix..)? {
            let (key, value) = entry?;
            if !key.value().starts_with(prefix) {
                break;
            }
            let len = key.value().len() + value.value().len();
            bytes += len;
            // By seconds since the epoch.
            entries.push((time_of(value.value()), len, key.value().to_vec()));
        }
        entries.sort_unstable();
        let oldest_kept = Time::from(now.checked_sub(KEPT).unwrap_or(SystemTime::UNIX_EPOCH)).seconds();
        for (time, len, key) in entries {
            if bytes <= bytes_max && time >= oldest_kept {
                break;
            }
            bytes -= len;
            self.set(key, None);
        }
        Ok(())
    }

    /// Writes changes to disk, in groups, until `stop` is cancelled and the last one is written.
    pub async fn write_behind(self: std::sync::Arc<Self>, stop: CancellationToken) {
        loop {
            let stopping = tokio::select! {
                () = stop.cancelled() => true,
                () = self.changed.notified() => false,
            };
            if !stopping {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(GROUP_DELAY) => {}
                }
            }
            let ledger = std::sync::Arc::clone(&self);
            if let Err(error) = super::blocking(move || ledger.flush()).await {
                tracing::warn!(
                    error = crate::telemetry::sentence(&error),
                    "the ledger cannot be written; tags and grants are kept in memory only"
                );
            }
            if stopping {
                return;
            }
        }
    }

    /// Writes all pending changes durably. Blocks.
    pub fn flush(&self) -> Result<(), StoreError> {
        let group: Vec<_> = self.pending().iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        if group.is_empty() {
            return Ok(());
        }
        let result = self.commit(&group).map_err(|error| ledger_error("ledger".into(), error));
        let mut pending = self.pending();
        for (key, value) in group {
            // Not what was set again meanwhile.
            if pending.get(&key) == Some(&value) {
                pending.remove(&key);
            }
        }
        result
    }

    fn get(&self, key: Vec<u8>) -> Option<Vec<u8>> {
        if let Some(known) = self.recent.get(&key) {
            return known;
        }
        if let Some(waiting) = self.pending().get(&key) {
            return waiting.clone();
        }
        let value = self.read(&key).unwrap_or_else(|error| {
            tracing::warn!(%error, "the ledger cannot be read; the entry counts as absent");
            None
        });
        // A change between the read and here is newer than what was read.
        self.recent.entry(key).or_insert(value).into_value()
    }

    fn set(&self, key: Vec<u8>, value: Option<Vec<u8>>) {
        {
            let mut pending = self.pending();
            if pending.len() < PENDING_MAX || pending.contains_key(&key) {
                pending.insert(key.clone(), value.clone());
            }
        }
        self.recent.insert(key, value);
        self.changed.notify_one();
    }

    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, redb::Error> {
        let table = self.database.begin_read()?.open_table(ENTRIES)?;
        Ok(table.get(key)?.map(|value| value.value().to_vec()))
    }

    fn keys_under(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, redb::Error> {
        let mut keys: Vec<_> = self.pending().keys().filter(|key| key.starts_with(prefix)).cloned().collect();
        let table = self.database.begin_read()?.open_table(ENTRIES)?;
        for entry in table.range(prefix..)? {
            let key = entry?.0.value().to_vec();
            if !key.starts_with(prefix) {
                break;
            }
            keys.push(key);
        }
        Ok(keys)
    }

    fn commit(&self, group: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), redb::Error> {
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(ENTRIES)?;
            for (key, value) in group {
                match value {
                    Some(value) => table.insert(key.as_slice(), value.as_slice())?,
                    None => table.remove(key.as_slice())?,
                };
            }
        }
        write.commit()?;
        Ok(())
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Option<Vec<u8>>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tag entry as it stands in the database.
#[derive(Debug, Serialize, Deserialize)]
struct StoredTag {
    digest: String,
    media_type: String,
    size_bytes: u64,
    /// Seconds since the epoch.
    checked_at: u64,
}

impl StoredTag {
    fn from_entry(entry: &TagEntry) -> Self {
        Self {
            digest: entry.digest.to_string(),
            media_type: entry.media_type.to_string(),
            size_bytes: entry.size_bytes,
            checked_at: Time::from(entry.checked_at).seconds(),
        }
    }

    fn into_entry(self) -> Option<TagEntry> {
        Some(TagEntry {
            digest: self.digest.parse().ok()?,
            media_type: MediaType::parse(&self.media_type)?,
            size_bytes: self.size_bytes,
            checked_at: SystemTime::UNIX_EPOCH + Duration::from_secs(self.checked_at),
        })
    }
}

fn recent() -> Cache<Vec<u8>, Option<Vec<u8>>> {
    let weigh = |key: &Vec<u8>, value: &Option<Vec<u8>>| {
        let len = key.len() + value.as_ref().map_or(0, Vec::len) + RECENT_OVERHEAD_BYTES;
        u32::try_from(len).unwrap_or(u32::MAX)
    };
    Cache::builder().max_capacity(RECENT_BYTES_MAX).weigher(weigh).build()
}

/// Opens the database, or makes it. It names private repositories: it is for nobody else.
fn create(path: &Path) -> Result<Database, DatabaseError> {
    let mut builder = Database::builder();
    builder.set_cache_size(DATABASE_CACHE_BYTES);
    builder.create_with_backend(FileBackend::new(open_or_create(path)?)?)
}

fn ledger_error(path: String, source: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Ledger { path, source: Box::new(source) }
}

/// What the key of a tag begins with.
const TAG_PREFIX: &[u8] = b"t";

/// `t`, upstream, NUL, repository, NUL, tag: none of them can hold a NUL.
fn tag_key(upstream: &UpstreamName, repository: &RepositoryName, tag: &Tag) -> Vec<u8> {
    [&tags_prefix(upstream, repository), tag.as_str().as_bytes()].concat()
}

fn tags_prefix(upstream: &UpstreamName, repository: &RepositoryName) -> Vec<u8> {
    [TAG_PREFIX, upstream.as_str().as_bytes(), b"\0", repository.as_str().as_bytes(), b"\0"].concat()
}

/// `g`, kind, digest, upstream, NUL, repository: all grants of a digest stand together.
fn grant_key(grant: &Grant<'_>) -> Vec<u8> {
    let mut key = grant_prefix(grant.kind, grant.digest);
    key.extend_from_slice(grant.upstream.as_str().as_bytes());
    key.push(0);
    key.extend_from_slice(grant.repository.as_str().as_bytes());
    key
}

fn grant_prefix(kind: GrantKind, digest: &Digest) -> Vec<u8> {
    let kind = match kind {
        GrantKind::Manifest => b"m",
        GrantKind::Blob => b"b",
    };
    [b"g", &kind[..], algorithm_of(digest), digest.as_bytes()].concat()
}

fn algorithm_of(digest: &Digest) -> &'static [u8] {
    match digest.algorithm() {
        Algorithm::Sha256 => b"1",
        Algorithm::Sha512 => b"2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> (UpstreamName, RepositoryName, Tag) {
        ("docker.io".parse().unwrap(), "library/alpine".parse().unwrap(), "3.20".parse().unwrap())
    }

    fn entry(content: &[u8]) -> TagEntry {
        TagEntry {
            digest: Digest::sha256(content),
            media_type: MediaType::parse(MediaType::OCI_INDEX).unwrap(),
            size_bytes: 7,
            checked_at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000),
        }
    }

    #[test]
    fn tags_and_grants_survive_a_restart_once_flushed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.redb");
        let (upstream, repository, tag) = names();
        let blob = Digest::sha256(b"blob");
        {
            let ledger = Ledger::open(&path).unwrap();
            ledger.set_tag(&upstream, &repository, &tag, &entry(b"a"));
            ledger.grant_blob(&upstream, &repository, &blob);
            ledger.grant_manifest(&upstream, &repository, &entry(b"a").digest, &entry(b"a").media_type);
            ledger.flush().unwrap();
        }
        let ledger = Ledger::open(&path).unwrap();
        assert_eq!(ledger.tag(&upstream, &repository, &tag), Some(entry(b"a")));
        assert!(ledger.holds_blob(&upstream, &repository, &blob));
        assert_eq!(ledger.manifest_type(&upstream, &repository, &entry(b"a").digest), Some(entry(b"a").media_type));
    }

    #[test]
    fn a_grant_holds_for_its_kind_its_repository_and_its_upstream_only() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&directory.path().join("ledger.redb")).unwrap();
        let (upstream, repository, _) = names();
        let digest = Digest::sha256(b"x");
        ledger.grant_blob(&upstream, &repository, &digest);
        assert!(ledger.holds_blob(&upstream, &repository, &digest));
        assert_eq!(ledger.manifest_type(&upstream, &repository, &digest), None);
        assert!(!ledger.holds_blob(&upstream, &"library/alpine2".parse().unwrap(), &digest));
        assert!(!ledger.holds_blob(&"ghcr.io".parse().unwrap(), &repository, &digest));
    }

    #[test]
    fn forgetting_a_digest_drops_all_its_grants_flushed_or_not() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&directory.path().join("ledger.redb")).unwrap();
        let (upstream, repository, _) = names();
        let (digest, other) = (Digest::sha256(b"x"), Digest::sha256(b"y"));
        ledger.grant_blob(&upstream, &repository, &digest);
        ledger.grant_blob(&upstream, &repository, &other);
        ledger.flush().unwrap();
        ledger.grant_manifest(&upstream, &repository, &digest, &entry(b"").media_type);
        ledger.forget(&digest);
        assert!(!ledger.holds_blob(&upstream, &repository, &digest));
        assert_eq!(ledger.manifest_type(&upstream, &repository, &digest), None);
        assert!(ledger.holds_blob(&upstream, &repository, &other));
    }

    #[test]
    fn tags_that_nobody_has_asked_for_in_a_year_are_pruned() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&directory.path().join("ledger.redb")).unwrap();
        let (upstream, repository, old) = names();
        let young: Tag = "young".parse().unwrap();
        let now = entry(b"a").checked_at + KEPT + Duration::from_hours(1);
        ledger.set_tag(&upstream, &repository, &old, &entry(b"a"));
        ledger.set_tag(&upstream, &repository, &young, &TagEntry { checked_at: now, ..entry(b"a") });
        ledger.flush().unwrap();
        ledger.prune(now);
        assert_eq!(ledger.tag(&upstream, &repository, &old), None);
        assert!(ledger.tag(&upstream, &repository, &young).is_some());
    }

    #[test]
    fn a_damaged_ledger_is_set_aside_and_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.redb");
        std::fs::write(&path, b"this is no database, and long enough to be read as a header of one").unwrap();
        let (upstream, repository, tag) = names();
        let ledger = Ledger::open(&path).unwrap();
        assert_eq!(ledger.tag(&upstream, &repository, &tag), None);
        assert!(path.with_extension("damaged").exists());
    }

    #[test]
    fn a_ledger_in_use_is_refused_with_that_reason() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.redb");
        let _holder = Ledger::open(&path).unwrap();
        assert!(matches!(Ledger::open(&path), Err(StoreError::InUse { .. })));
    }
}
