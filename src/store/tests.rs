//! What every store must do, run against each tier; and what the disk alone must do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::{BlobStore, Class, Damage, Disk, Ledger, Memory, Options, Present, StoreError};
use crate::oci::Digest;
use crate::telemetry::{Metrics, StoreErrorReason};

const KIB: u64 = 1024;

fn options(root: &Path) -> Options {
    Options { root: root.to_owned(), capacity_bytes: 100 * KIB, metadata_capacity_bytes: 10 * KIB, min_free_bytes: 0 }
}

fn disk(options: Options) -> (Disk, Arc<Ledger>) {
    Disk::open(options, Arc::new(Metrics::new(&[], 0).unwrap())).unwrap()
}

/// Runs a check against every store there is, each over an empty directory.
fn each(check: impl Fn(&dyn BlobStore, &Path)) {
    let metrics = Arc::new(Metrics::new(&[], 0).unwrap());
    let directory = tempfile::tempdir().unwrap();
    check(&disk(options(directory.path())).0, directory.path());
    let directory = tempfile::tempdir().unwrap();
    check(&Memory::over(disk(options(directory.path())).0, 64 * KIB, metrics), directory.path());
}

/// Returns `len` bytes that differ by `seed`, and their digest.
fn content(seed: u8, len: u64) -> (Digest, Bytes) {
    let bytes = Bytes::from(vec![seed; usize::try_from(len).unwrap()]);
    (Digest::sha256(&bytes), bytes)
}

fn put(store: &dyn BlobStore, seed: u8, len: u64) -> Digest {
    let (digest, bytes) = content(seed, len);
    store.put(&digest, Class::Layer, &bytes).unwrap();
    digest
}

fn holds(store: &dyn BlobStore, digest: &Digest) -> bool {
    store.open(digest).is_some()
}

fn partials(root: &Path) -> usize {
    std::fs::read_dir(root.join("partial")).unwrap().count()
}

#[test]
fn what_was_put_is_found_whole_and_nothing_else_is() {
    each(|store, _| {
        let (digest, bytes) = content(1, 3 * KIB);
        assert!(store.peek(&digest).is_none() && !holds(store, &digest));
        store.put(&digest, Class::Metadata, &bytes).unwrap();
        let object = store.open(&digest).unwrap();
        assert_eq!((object.size_bytes, object.read_all().unwrap()), (3 * KIB, bytes));
    });
}

#[test]
fn a_record_that_comes_after_the_bytes_were_found_wrong_keeps_nothing() {
    each(|store, root| {
        let (digest, bytes) = content(3, 8 * KIB);
        let partial = store.begin(&digest, Class::Layer, Some(8 * KIB)).unwrap();
        partial.write_at(0, &[bytes]).unwrap();
        partial.discard();
        let mut present = Present::default();
        present.insert(0..8 * KIB);
        partial.checkpoint(8 * KIB, &present).unwrap();
        drop(partial);
        assert!(store.resume(&digest).is_none());
        assert_eq!(partials(root), 0);
    });
}

#[test]
fn a_partial_is_invisible_until_its_commit_and_gone_without_one() {
    each(|store, root| {
        let (digest, bytes) = content(2, 8 * KIB);
        let partial = store.begin(&digest, Class::Layer, Some(8 * KIB)).unwrap();
        partial.write_at(4 * KIB, &[bytes.slice(4096..)]).unwrap();
        assert!(!holds(store, &digest));
        drop(partial);
        assert_eq!(partials(root), 0);
        let partial = store.begin(&digest, Class::Layer, None).unwrap();
        partial.write_at(0, &[bytes.slice(..100), bytes.slice(100..)]).unwrap();
        partial.commit(&digest, 8 * KIB).unwrap();
        assert!(holds(store, &digest));
        drop(partial);
        assert_eq!(store.open(&digest).unwrap().read_all().unwrap(), bytes);
    });
}

#[test]
fn the_least_recently_used_goes_first_and_an_open_object_reads_on() {
    each(|store, _| {
        let [a, b, c] = [1, 2, 3].map(|seed| put(store, seed, 30 * KIB));
        let open = store.open(&b).unwrap();
        assert!(holds(store, &c) && holds(store, &a));
        let d = put(store, 4, 30 * KIB);
        assert_eq!(open.read_all().unwrap(), content(2, 30 * KIB).1);
        assert!(store.open(&d).is_some() && store.open(&a).is_some() && store.open(&c).is_some());
    });
}

#[test]
fn what_cannot_fit_is_refused_and_costs_nobody_his_place() {
    each(|store, root| {
        let kept = put(store, 1, 30 * KIB);
        let refused = store.begin(&content(2, 1).0, Class::Layer, Some(101 * KIB));
        assert!(matches!(refused, Err(StoreError::NoRoom { .. })));
        assert!(holds(store, &kept));
        // What is reserved counts before it is written, and is given back when it is not used.
        let first = store.begin(&content(3, 1).0, Class::Layer, Some(60 * KIB)).unwrap();
        assert!(store.begin(&content(4, 1).0, Class::Layer, Some(60 * KIB)).is_err());
        drop(first);
        assert!(store.begin(&content(4, 1).0, Class::Layer, Some(60 * KIB)).is_ok());
        assert_eq!(partials(root), 0);
    });
}

#[test]
fn layers_do_not_push_manifests_out() {
    let directory = tempfile::tempdir().unwrap();
    let (disk, _) = disk(options(directory.path()));
    let (manifest, bytes) = content(1, KIB);
    disk.put(&manifest, Class::Metadata, &bytes).unwrap();
    for seed in 2..20 {
        put(&disk, seed, 30 * KIB);
    }
    assert!(holds(&disk, &manifest), "P-144");
}

#[test]
fn evicting_an_object_drops_its_grants() {
    let directory = tempfile::tempdir().unwrap();
    let (disk, ledger) = disk(options(directory.path()));
    let (upstream, repository) = ("registry.test".parse().unwrap(), "app".parse().unwrap());
    let evicted = put(&disk, 1, 60 * KIB);
    ledger.grant_blob(&upstream, &repository, &evicted);
    put(&disk, 2, 60 * KIB);
    assert!(!holds(&disk, &evicted) && !ledger.holds_blob(&upstream, &repository, &evicted));
}

#[test]
fn a_restart_serves_before_the_scan_and_evicts_in_the_old_order_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let digests = {
        let (disk, _) = disk(options(directory.path()));
        let digests = [1, 2, 3].map(|seed| put(&disk, seed, 30 * KIB));
        // Used long ago, in the order 2, 3, 1.
        for (age, digest) in [(3, digests[1]), (2, digests[2]), (1, digests[0])] {
            let path = disk.layout().object(Class::Layer, &digest);
            let used = SystemTime::now() - Duration::from_hours(age);
            std::fs::File::options().write(true).open(path).unwrap().set_modified(used).unwrap();
        }
        digests
    };
    std::fs::write(directory.path().join("partial/left.over"), b"x").unwrap();
    let (disk, _) = disk(options(directory.path()));
    assert_eq!(partials(directory.path()), 0);
    disk.scan().unwrap();
    put(&disk, 4, 30 * KIB);
    assert!(!disk.layout().object(Class::Layer, &digests[1]).exists());
    assert!(holds(&disk, &digests[2]) && holds(&disk, &digests[0]));
}

#[test]
fn free_space_is_kept_for_others() {
    let directory = tempfile::tempdir().unwrap();
    let held = put(&disk(options(directory.path())).0, 1, KIB);
    let (disk, _) = disk(Options { min_free_bytes: u64::MAX / 2, ..options(directory.path()) });
    disk.scan().unwrap();
    assert!(matches!(disk.begin(&held, Class::Layer, Some(1)), Err(StoreError::NoRoom { .. })));
    assert!(holds(&disk, &held), "removing it would not have helped");
}

#[test]
fn a_small_object_that_rotted_is_dropped_when_it_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let (below, _) = disk(options(directory.path()));
    let digest = put(&below, 1, KIB);
    std::fs::write(below.layout().object(Class::Layer, &digest), b"rotten").unwrap();
    let store = Memory::over(below, 64 * KIB, Arc::new(Metrics::new(&[], 0).unwrap()));
    assert!(!holds(&store, &digest));
    assert!(put(&store, 1, KIB) == digest && holds(&store, &digest));
}

fn layer(disk: &Disk, digest: &Digest) -> PathBuf {
    disk.layout().object(Class::Layer, digest)
}

fn used_bytes(disk: &Disk) -> [u64; 2] {
    [Class::Layer, Class::Metadata].map(|class| disk.shelf(class).used_bytes())
}

#[test]
fn each_process_trusts_what_it_has_verified_itself() {
    each(|store, root| {
        let digest = put(store, 1, 80 * KIB);
        assert!(store.open(&digest).unwrap().mark.is_verified());
        assert!(root.exists());
    });
    let directory = tempfile::tempdir().unwrap();
    let digest = put(&disk(options(directory.path())).0, 1, 80 * KIB);
    for is_scanned in [false, true] {
        let (disk, _) = disk(options(directory.path()));
        if is_scanned {
            disk.scan().unwrap();
        }
        let object = disk.open(&digest).unwrap();
        assert!(!object.mark.is_verified());
        disk.verified(&digest, &object);
        assert!(disk.open(&digest).unwrap().mark.is_verified());
    }
}

#[test]
fn a_file_that_changed_its_size_is_dropped_when_it_is_opened() {
    for len in [0, KIB, 81 * KIB] {
        let directory = tempfile::tempdir().unwrap();
        let (disk, ledger) = disk(options(directory.path()));
        let (upstream, repository) = ("registry.test".parse().unwrap(), "app".parse().unwrap());
        let digest = put(&disk, 1, 80 * KIB);
        ledger.grant_blob(&upstream, &repository, &digest);
        let path = layer(&disk, &digest);
        std::fs::File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
        assert!(!holds(&disk, &digest) && !path.exists(), "{len}");
        assert_eq!(used_bytes(&disk), [0, 0], "{len}");
        assert!(!ledger.holds_blob(&upstream, &repository, &digest));
        put(&disk, 1, 80 * KIB);
        assert!(holds(&disk, &digest));
    }
}

#[test]
fn an_empty_file_is_an_object_only_under_the_digest_of_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (empty, full) = {
        let (disk, _) = disk(options(directory.path()));
        let full = put(&disk, 1, 80 * KIB);
        std::fs::write(layer(&disk, &full), b"").unwrap();
        (put(&disk, 1, 0), full)
    };
    let (disk, _) = disk(options(directory.path()));
    disk.scan().unwrap();
    assert!(holds(&disk, &empty) && !holds(&disk, &full));
    assert!(!layer(&disk, &full).exists());
}

#[test]
fn a_file_that_cannot_be_opened_is_replaced_whatever_it_is_charged_to() {
    for class in [Class::Layer, Class::Metadata] {
        let directory = tempfile::tempdir().unwrap();
        let (disk, _) = disk(options(directory.path()));
        let (digest, bytes) = content(1, KIB);
        disk.put(&digest, class, &bytes).unwrap();
        let path = disk.layout().object(class, &digest);
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/", &path).unwrap();
        assert!(!holds(&disk, &digest), "a link is not followed, and so cannot be opened");
        disk.put(&digest, Class::Layer, &bytes).unwrap();
        assert_eq!(disk.open(&digest).unwrap().read_all().unwrap(), bytes);
        assert_eq!(used_bytes(&disk), [KIB, 0], "{class:?}");
        assert_eq!(path.symlink_metadata().is_ok(), class == Class::Layer, "what it replaced is gone");
    }
}

#[test]
fn a_damaged_object_that_cannot_be_removed_is_absent_until_it_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let (disk, _) = disk(options(directory.path()));
    let digest = put(&disk, 1, KIB);
    let object = disk.open(&digest).unwrap();
    // Removing a directory as if it were a file fails as removing from a read-only disk does.
    let path = layer(&disk, &digest);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(disk.discard(&digest, &object, Damage::Unreadable(StoreErrorReason::Eio)));
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, b"still rotten").unwrap();
    assert!(!holds(&disk, &digest));
    put(&disk, 1, KIB);
    assert!(holds(&disk, &digest));
    assert_eq!(used_bytes(&disk), [KIB, 0]);
}

#[test]
fn errors_about_memory_are_not_errors_about_the_object() {
    let raw = |errno: rustix::io::Errno| std::io::Error::from(errno);
    assert_eq!(Damage::of(&raw(rustix::io::Errno::IO)), Some(Damage::Unreadable(StoreErrorReason::Eio)));
    let short = std::io::ErrorKind::UnexpectedEof.into();
    assert_eq!(Damage::of(&short), Some(Damage::Unreadable(StoreErrorReason::Corrupt)));
    assert_eq!(Damage::of(&raw(rustix::io::Errno::NOMEM)), None);
    assert_eq!(Damage::of(&std::io::Error::other("a task was stopped")), None);
}

#[test]
fn what_is_reserved_and_not_written_yet_is_not_free() {
    let directory = tempfile::tempdir().unwrap();
    let (digest, bytes) = content(1, 64 * KIB);
    let available = super::disk::space_at(directory.path()).unwrap().0;
    let big = available / 4;
    let options =
        Options { capacity_bytes: u64::MAX, min_free_bytes: available - big - big / 2, ..options(directory.path()) };
    let (disk, _ledger) = disk(options);
    let begin = |seed| disk.begin(&content(seed, 1).0, Class::Layer, Some(big));
    let first = begin(2).unwrap();
    assert!(matches!(begin(3), Err(StoreError::NoRoom { .. })));
    drop(first);
    let second = begin(3).unwrap();
    assert!(disk.put(&digest, Class::Layer, &bytes).is_ok());
    drop(second);
    assert_eq!(disk.shelves().unwritten_bytes(), 0);
}

#[test]
fn files_are_for_this_user_only_and_links_are_not_followed() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let (disk, _) = disk(options(directory.path()));
    let digest = put(&disk, 1, KIB);
    let path = disk.layout().object(Class::Layer, &digest);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700), "S-44");
    assert_eq!(mode(&disk.layout().ledger()), 0o600, "S-44: it names private repositories");
    let elsewhere = directory.path().join("elsewhere");
    std::fs::rename(&path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    assert!(!holds(&disk, &digest), "S-44");
}

#[test]
fn a_store_with_directories_that_are_not_ours_alone_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let metrics = Arc::new(Metrics::new(&[], 0).unwrap());
    let open = || {
        let opened = Disk::open(options(directory.path()), Arc::clone(&metrics));
        opened.map(drop).map_err(|error| crate::telemetry::sentence(&error))
    };
    let layers = directory.path().join("layer");
    std::os::unix::fs::symlink(elsewhere.path(), &layers).unwrap();
    let told = open().unwrap_err();
    assert!(told.contains("is a link"), "S-44: {told}");
    assert!(elsewhere.path().read_dir().unwrap().next().is_none(), "S-44: nothing was made behind it");
    std::fs::remove_file(&layers).unwrap();
    open().unwrap();
    std::fs::set_permissions(&layers, std::fs::Permissions::from_mode(0o777)).unwrap();
    let told = open().unwrap_err();
    assert!(told.contains("can be written to by everybody"), "S-44: {told}");
    std::fs::set_permissions(&layers, std::fs::Permissions::from_mode(0o2770)).unwrap();
    assert_eq!(open(), Ok(()), "the group of a volume may");
}

#[test]
fn what_cannot_be_read_or_removed_hides_nothing_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let known = put(&disk(options(directory.path())).0, 1, 30 * KIB);
    // Where a directory is expected, and where a file is.
    for stray in ["layer/sha256/0", "layer/sha256/zz", "metadata/sha256/0"] {
        std::fs::write(directory.path().join(stray), b"stray").unwrap();
    }
    std::fs::create_dir_all(directory.path().join("partial/stray/more")).unwrap();
    let (disk, _ledger) = disk(options(directory.path()));
    disk.scan().unwrap();
    assert!(disk.is_absent(&content(2, 1).0) && !disk.is_absent(&known));
    // As much as fits only without what was there.
    disk.put(&content(3, 90 * KIB).0, Class::Layer, &content(3, 90 * KIB).1).unwrap();
    assert!(!holds(&disk, &known));
}
