//! The agent on nodes of its own: what it writes, what it leaves alone, and what is left after a kill at any step.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;
use crate::snippets::{Fallback, Token};
use crate::telemetry::Secret;

mod credentials;

const STATE_DIR: &str = "/var/lib/cachalot-node";
const V2: &str =
    "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n";

/// A node in a directory.
struct Node {
    directory: tempfile::TempDir,
    options: Options,
}

impl Node {
    /// A node with containerd, and nothing to read hosts yet.
    fn new(merge: Merge) -> Self {
        let node = Self::bare(merge);
        node.put("etc/containerd/config.toml", V2);
        fs::create_dir_all(node.here("var/lib")).unwrap();
        node
    }

    fn bare(merge: Merge) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = Options {
            root: Root::new(directory.path()),
            runtimes: vec![Runtime::Containerd],
            flavour: None,
            wish: crate::snippets::tests::wish("http://10.0.0.7:30500", &["docker.io", "quay.io"]),
            installed: Installed::default(),
            excluded: Vec::new(),
            merge,
            certs_dir: None,
            registries_dir: "/etc/containers/registries.conf.d".into(),
            state_dir: STATE_DIR.into(),
            binary: Binary::default(),
        };
        Self { directory, options }
    }

    fn here(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn put(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.here(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.here(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn apply(&self) -> Report {
        apply(&self.options).unwrap_or_else(|error| panic!("{error}"))
    }

    fn remove(&self) -> Report {
        remove(&self.options.root, &self.options.state_dir).unwrap_or_else(|error| panic!("{error}"))
    }

    fn refusal(&self) -> String {
        match apply(&self.options) {
            Err(NodeError::Refused(refusal)) => refusal.to_string(),
            other => panic!("this was not refused: {other:?}"),
        }
    }

    /// Everything on the node: modes and bytes, by path.
    fn tree(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let (mut tree, mut rest) = (BTreeMap::new(), vec![self.directory.path().to_owned()]);
        while let Some(path) = rest.pop() {
            let metadata = fs::symlink_metadata(&path).unwrap();
            let bytes = if metadata.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else if metadata.is_dir() {
                rest.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                Vec::new()
            } else {
                fs::read(&path).unwrap()
            };
            tree.insert(path, (metadata.mode(), bytes));
        }
        tree
    }

    /// Plans as [`apply`] or [`remove`] would, and does nothing.
    fn plan(&self, is_wanted: bool) -> (Disk, Plan) {
        let disk = disk(&self.options.root, &self.options.state_dir).unwrap();
        let wanted = || containerd_items(&self.options, &disk, &mut Vec::new()).unwrap();
        let items = if is_wanted { wanted() } else { Vec::new() };
        let plan = plan_for(&disk, items, self.options.merge).unwrap();
        (disk, plan)
    }
}

const OURS: &str = "etc/containerd/certs.d/docker.io/hosts.toml";
const THEIRS: &str = "etc/containerd/certs.d/quay.io/hosts.toml";
const THEIR_TEXT: &str =
    "server = \"https://quay.io\"\n\n# ours, says somebody\n[host.\"https://mirror.example\"]\n  ca = \"ca.crt\"";

#[test]
fn files_are_written_once_and_removed_without_a_trace() {
    let node = Node::new(Merge::Keep);
    let before = node.tree();
    let report = node.apply();
    assert_eq!(report.changes.len(), 2);
    let text = node.text(OURS);
    assert!(text.starts_with("# managed by cachalot node-config, release "), "{text}");
    let table: toml::Table = text.parse().unwrap();
    assert_eq!(table["server"].as_str(), Some("https://registry-1.docker.io"));
    assert_eq!(table["host"]["http://10.0.0.7:30500"]["dial_timeout"].as_str(), Some("300ms"));
    assert_eq!(fs::metadata(node.here(OURS)).unwrap().mode() & 0o777, 0o644);
    assert_eq!(fs::metadata(node.here(OURS).parent().unwrap()).unwrap().mode() & 0o777, 0o755);
    let applied = node.tree();
    assert_eq!(node.apply(), Report::default(), "the second time there is nothing to do");
    assert_eq!(node.tree(), applied);
    assert_eq!(status(&node.options.root, &node.options.state_dir).unwrap().len(), 2);
    assert_eq!(node.remove().changes.len(), 2);
    assert_eq!(node.tree(), before);
    assert_eq!(node.remove(), Report::default());
    assert_eq!(node.tree(), before);
}

#[test]
fn somebody_elses_file_is_kept_merged_or_replaced_and_comes_back_byte_for_byte() {
    for merge in [Merge::Keep, Merge::Prepend, Merge::Replace] {
        let node = Node::new(merge);
        node.put(THEIRS, THEIR_TEXT);
        node.put("etc/containerd/certs.d/quay.io/ca.crt", "a certificate");
        fs::set_permissions(node.here(THEIRS), fs::Permissions::from_mode(0o600)).unwrap();
        let before = node.tree();
        let report = node.apply();
        let text = node.text(THEIRS);
        let table: toml::Table = text.parse().unwrap();
        let hosts: Vec<&str> = text.lines().filter(|line| line.starts_with("[host.")).collect();
        match merge {
            Merge::Keep => assert_eq!((text.as_str(), report.kept.len()), (THEIR_TEXT, 1)),
            Merge::Prepend => {
                assert_eq!(hosts, ["[host.\"http://10.0.0.7:30500\"]", "[host.\"https://mirror.example\"]"]);
                assert!(text.ends_with(THEIR_TEXT.split_once("\n\n").unwrap().1));
                assert_eq!(table["server"].as_str(), Some("https://quay.io"));
            }
            Merge::Replace => assert_eq!(hosts, ["[host.\"http://10.0.0.7:30500\"]"]),
        }
        // It may hold a password: whoever could not read it cannot now.
        assert_eq!(fs::metadata(node.here(THEIRS)).unwrap().mode() & 0o777, 0o600);
        assert_eq!(node.text("etc/containerd/certs.d/quay.io/ca.crt"), "a certificate");
        let again = node.apply();
        assert!(again.changes.is_empty(), "{again:?}");
        node.remove();
        assert_eq!(node.tree(), before, "{merge:?}");
    }
}

/// Stops after each step, with what a write leaves that is killed in its middle, and goes on with either command.
#[test]
fn a_kill_at_any_step_loses_nothing() {
    let mut kills = 0;
    for merge in [Merge::Keep, Merge::Prepend, Merge::Replace] {
        // Before and after: what the killed command was to do, and what is done next.
        for (was_applied, is_wanted) in [(false, true), (true, false)] {
            for done in 0.. {
                let node = Node::new(merge);
                node.put(THEIRS, THEIR_TEXT);
                let before = node.tree();
                if was_applied {
                    node.apply();
                }
                let (disk, plan) = node.plan(is_wanted);
                if done > plan.steps.len() {
                    break;
                }
                for step in &plan.steps[..done] {
                    disk.run(step).unwrap();
                }
                let state_file = Path::new(STATE_DIR).join("state.json");
                let torn = match plan.steps.get(done) {
                    Some(Step::Write { path, .. }) => Some(path.clone()),
                    Some(Step::Record(_)) if node.options.root.here(Path::new(STATE_DIR)).exists() => Some(state_file),
                    // The directory of the state is made beside its place.
                    Some(Step::Record(_)) => {
                        let staging = node.here("var/lib/.cachalot-node.tmp");
                        fs::create_dir(&staging).unwrap();
                        fs::write(staging.join("state.json"), "half of it").unwrap();
                        None
                    }
                    _ => None,
                };
                if let Some(path) = torn {
                    let half = node.options.root.here(&path.with_file_name(".cachalot-node.tmp"));
                    fs::write(half, "half of it").unwrap();
                }
                kills += 1;
                if done % 2 == 0 {
                    let report = node.apply();
                    assert!(report.warnings.is_empty(), "{report:?}");
                    let expected = Node::new(merge);
                    expected.put(THEIRS, THEIR_TEXT);
                    expected.apply();
                    assert_eq!(node.text(THEIRS), expected.text(THEIRS), "{merge:?} {was_applied} {done}");
                }
                node.remove();
                assert_eq!(node.tree(), before, "{merge:?}, killed after {done} steps of {:#?}", plan.steps);
            }
        }
    }
    assert!(kills > 35, "{kills} kills");
}

#[test]
fn options_that_change_take_effect_and_go_away_again() {
    let mut node = Node::new(Merge::Prepend);
    node.put(THEIRS, THEIR_TEXT);
    let before = node.tree();
    node.apply();
    node.options.wish.endpoint = "http://10.0.0.8:30500".parse().unwrap();
    assert_eq!(node.apply().changes.len(), 2);
    assert!(!node.text(THEIRS).contains("10.0.0.7") && node.text(THEIRS).contains("10.0.0.8"));
    node.options.merge = Merge::Replace;
    node.apply();
    assert!(!node.text(THEIRS).contains("mirror.example"));
    node.options.merge = Merge::Keep;
    node.apply();
    assert_eq!(node.text(THEIRS), THEIR_TEXT);
    node.options.wish.registries = vec!["ghcr.io".parse().unwrap()];
    node.apply();
    assert!(!node.here(OURS).parent().unwrap().exists());
    node.remove();
    assert_eq!(node.tree(), before);
}

#[test]
fn a_file_of_ours_that_somebody_changed_is_theirs() {
    let node = Node::new(Merge::Keep);
    node.apply();
    node.put(OURS, "server = \"https://registry-1.docker.io\"\n");
    let report = node.apply();
    assert_eq!((report.changes.len(), report.kept.len()), (0, 1), "{report:?}");
    node.put(THEIRS, "# changed\n");
    let report = node.remove();
    assert_eq!(report.kept.len(), 1, "{report:?}");
    assert!(report.kept[0].why.contains("changed it"), "{report:?}");
    assert_eq!(node.text(OURS), "server = \"https://registry-1.docker.io\"\n");
    assert_eq!(node.text(THEIRS), "# changed\n");
    assert!(!node.here("var/lib/cachalot-node").exists());
}

#[test]
fn what_they_change_beside_our_part_stays_when_our_part_goes() {
    let node = Node::new(Merge::Prepend);
    node.put(THEIRS, THEIR_TEXT);
    node.apply();
    node.put(THEIRS, node.text(THEIRS).replace("mirror.example", "other.example"));
    assert!(node.apply().changes.is_empty(), "the cache is first already");
    node.remove();
    assert_eq!(node.text(THEIRS), THEIR_TEXT.replace("mirror.example", "other.example"));
    assert!(!node.here("var/lib/cachalot-node").exists());
}

#[test]
fn a_kill_while_our_part_is_taken_out_of_what_they_changed_loses_nothing() {
    for done in 0.. {
        let node = Node::new(Merge::Prepend);
        node.put(THEIRS, THEIR_TEXT);
        node.apply();
        node.put(THEIRS, node.text(THEIRS).replace("mirror.example", "other.example"));
        let (disk, plan) = node.plan(false);
        if done > plan.steps.len() {
            assert!(done > 5, "{:?}", plan.steps);
            break;
        }
        for step in &plan.steps[..done] {
            disk.run(step).unwrap();
        }
        let report = node.remove();
        assert!(report.kept.is_empty() && report.warnings.is_empty(), "{report:?}");
        assert_eq!(node.text(THEIRS), THEIR_TEXT.replace("mirror.example", "other.example"));
        assert!(!node.here("var/lib/cachalot-node").exists(), "killed after {done} steps of {:#?}", plan.steps);
    }
}

#[test]
fn an_original_whose_place_is_taken_stays_put_away() {
    let node = Node::new(Merge::Replace);
    node.put(THEIRS, THEIR_TEXT);
    node.apply();
    node.put(THEIRS, "# new\n");
    let report = node.remove();
    assert_eq!(node.text(THEIRS), "# new\n");
    assert_eq!(report.warnings.len(), 1, "{report:?}");
    let saved = node.here("var/lib/cachalot-node/saved");
    let saved: Vec<_> =
        fs::read_dir(saved).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    assert_eq!(saved, [THEIR_TEXT]);
}

#[test]
fn what_somebody_removed_is_written_again() {
    let node = Node::new(Merge::Replace);
    node.put(THEIRS, THEIR_TEXT);
    let before = node.tree();
    node.apply();
    let applied = node.tree();
    fs::remove_dir_all(node.here(OURS).parent().unwrap()).unwrap();
    fs::remove_dir_all(node.here(THEIRS).parent().unwrap()).unwrap();
    assert_eq!(node.apply().changes.len(), 2);
    assert_eq!(node.tree().len(), applied.len());
    fs::remove_dir_all(node.here(THEIRS).parent().unwrap()).unwrap();
    node.remove();
    assert_eq!(node.tree(), before);
}

#[test]
fn certificates_beside_it_are_not_hidden() {
    let directory = "etc/containerd/certs.d/quay.io";
    let put = |node: &Node| {
        for name in ["ca.crt", "client.cert", "client.key", "alone.cert"] {
            node.put(&format!("{directory}/{name}"), name);
        }
    };
    let node = Node::new(Merge::Keep);
    put(&node);
    let report = node.apply();
    assert!(!node.here(THEIRS).exists());
    assert!(report.kept[0].why.contains("ca.crt"), "{report:?}");
    let node = Node::new(Merge::Prepend);
    put(&node);
    let before = node.tree();
    node.apply();
    let table: toml::Table = node.text(THEIRS).parse().unwrap();
    assert_eq!(table["ca"].as_array().unwrap().len(), 1);
    assert_eq!(table["client"][0][1].as_str(), Some("client.key"));
    node.remove();
    assert_eq!(node.tree(), before);
}

#[test]
fn links_are_not_followed_out_of_the_directory() {
    let node = Node::new(Merge::Replace);
    node.put("etc/elsewhere/hosts.toml", "server = \"https://a\"\n");
    fs::create_dir_all(node.here("etc/containerd/certs.d/quay.io")).unwrap();
    symlink("/etc/elsewhere", node.here("etc/containerd/certs.d/docker.io")).unwrap();
    symlink("/etc/elsewhere/hosts.toml", node.here(THEIRS)).unwrap();
    let before = node.tree();
    let report = node.apply();
    assert_eq!((report.changes.len(), report.kept.len()), (0, 2), "{report:?}");
    assert_eq!(node.tree(), before);
}

#[test]
fn a_registry_with_a_port_has_the_directory_that_is_there() {
    let mut node = Node::new(Merge::Prepend);
    node.options.wish.registries = vec!["a.example:5000".parse().unwrap(), "b.example:5000".parse().unwrap()];
    node.put("etc/containerd/certs.d/a.example:5000/hosts.toml", "[host.\"https://m\"]\n");
    node.apply();
    assert!(node.text("etc/containerd/certs.d/a.example:5000/hosts.toml").contains("10.0.0.7"));
    assert!(!node.here("etc/containerd/certs.d/a.example_5000_").exists());
    assert!(node.here("etc/containerd/certs.d/b.example_5000_/hosts.toml").exists());
}

#[test]
fn with_a_default_the_excluded_registry_is_reached_directly() {
    let mut node = Node::new(Merge::Keep);
    node.options.wish.with_default = true;
    node.options.excluded = vec!["ghcr.io".parse().unwrap()];
    node.apply();
    let direct: toml::Table = node.text("etc/containerd/certs.d/ghcr.io/hosts.toml").parse().unwrap();
    assert_eq!(direct["server"].as_str(), Some("https://ghcr.io"));
    assert!(direct["host"].as_table().unwrap().keys().eq(["https://ghcr.io"]));
    let default: toml::Table = node.text("etc/containerd/certs.d/_default/hosts.toml").parse().unwrap();
    assert!(!default.contains_key("server"));
}

#[test]
fn a_directory_that_containerd_reads_first_is_told_of() {
    let node = Node::bare(Merge::Keep);
    node.put("etc/containerd/config.toml", V2.replace("\"/etc/containerd", "\"/etc/first:/etc/containerd"));
    node.put("etc/first/docker.io/hosts.toml", "");
    let report = node.apply();
    assert_eq!(report.kept[0].path, Path::new("/etc/first/docker.io"));
    assert!(!node.here(OURS).exists() && node.here(THEIRS).exists());
}

#[test]
fn where_writing_is_unsafe_nothing_is_written_and_the_way_is_said() {
    let rows: &[(&[(&str, &str)], &str)] = &[
        (&[], "no containerd here"),
        (&[("etc/rancher/k3s/x", "")], "/etc/rancher/k3s/registries.yaml"),
        (&[("etc/rancher/rke2/x", "")], "/etc/rancher/rke2/registries.yaml"),
        (&[("etc/os-release", "ID=talos\n")], "kind: RegistryMirrorConfig"),
        (&[("etc/os-release", "ID=bottlerocket\n")], "[[settings.container-registry.mirrors]]"),
        (&[("home/kubernetes/bin/x", "")], "registryHosts:"),
        (
            &[("etc/k0s/containerd.toml", "version = 2\n"), ("usr/bin/containerd", "")],
            "/etc/k0s/containerd.d/cachalot.toml",
        ),
        (
            &[("etc/containerd/config.toml", "version = 2\n"), ("usr/bin/containerd", "")],
            "config_path = \"/etc/containerd/certs.d\"",
        ),
        (&[("etc/containerd/config.toml", "version = \n")], "cannot be read"),
        (&[("etc/containerd/config.toml", &V2.replace("/etc/containerd/certs.d", "/etc/other"))], "--certs-dir"),
    ];
    for (files, expected) in rows {
        let node = Node::bare(Merge::Replace);
        for (path, text) in *files {
            node.put(path, text);
        }
        let before = node.tree();
        let refusal = node.refusal();
        assert!(refusal.contains(expected) && refusal.contains("nothing was changed"), "{refusal}");
        assert_eq!(node.tree(), before, "{refusal}");
    }
}

#[test]
fn containerd_2_and_what_may_be_it_is_written_for_without_a_config_path() {
    let node = Node::bare(Merge::Keep);
    node.put("etc/containerd/config.toml", "version = 3\n");
    let report = node.apply();
    assert!(report.warnings[0].contains("of which some releases read none"), "{report:?}");
    let node = Node::bare(Merge::Keep);
    node.put("etc/containerd/config.toml", "version = 2\n");
    let report = node.apply();
    assert!(report.warnings[0].contains("restarted once"), "{report:?}");
    assert!(node.here(OURS).exists());
}

#[test]
fn crio_gets_a_drop_in_and_a_word_on_reloading() {
    let mut node = Node::bare(Merge::Keep);
    node.options.runtimes = vec![Runtime::Crio];
    assert!(node.refusal().contains("no CRI-O here"));
    node.put("etc/crio/crio.conf", "");
    node.put("etc/containers/registries.conf", "[[registry]]\nlocation = \"quay.io\"\nblocked = true\n");
    let before = node.tree();
    let report = node.apply();
    assert!(report.warnings[0].contains("systemctl reload crio"), "{report:?}");
    assert!(report.kept[0].why.contains("quay.io"), "{report:?}");
    let drop_in: toml::Table = node.text("etc/containers/registries.conf.d/50-cachalot.conf").parse().unwrap();
    assert_eq!(drop_in["registry"].as_array().unwrap().len(), 1);
    node.remove();
    assert_eq!(node.tree(), before);
}

#[test]
fn no_fallback_is_no_fallback() {
    let mut node = Node::new(Merge::Replace);
    node.options.wish.fallback = Fallback::None;
    // The certificate is the registry's, which is not asked.
    node.put("etc/containerd/certs.d/docker.io/ca.crt", "a certificate");
    node.apply();
    let table: toml::Table = node.text(OURS).parse().unwrap();
    assert_eq!(table["server"].as_str(), Some("http://10.0.0.7:30500"));
    assert!(!node.text(OURS).contains("docker") && !node.text(OURS).contains("ca.crt"));
}

#[test]
fn a_state_that_cannot_be_read_stops_everything() {
    let node = Node::new(Merge::Keep);
    node.apply();
    node.put("var/lib/cachalot-node/state.json", "{ \"files\": ");
    let before = node.tree();
    for result in [apply(&node.options), remove(&node.options.root, &node.options.state_dir)] {
        let error = result.unwrap_err();
        let text = crate::telemetry::sentence(&error);
        assert!(text.contains("/var/lib/cachalot-node/state.json"), "{text}");
        assert!(text.contains("move /var/lib/cachalot-node away"), "it says what to do next: {text}");
    }
    assert_eq!(node.tree(), before);
}

#[test]
fn two_agents_do_not_work_at_once() {
    let node = Node::new(Merge::Keep);
    node.apply();
    let mut held = None;
    disk(&node.options.root, &node.options.state_dir).unwrap().lock(&mut held).unwrap();
    assert!(held.is_some());
    assert!(node.refusal().contains("another cachalot node-config"));
    drop(held);
    node.apply();
}

/// What it holds is the directory of the state, also when that was made anew.
#[test]
fn who_holds_a_node_keeps_others_from_undoing_what_it_does() {
    let node = Node::new(Merge::Keep);
    let Options { root, state_dir, .. } = &node.options;
    let mut held = None;
    for _ in 0..2 {
        apply_holding(&node.options, &mut held).unwrap();
        assert_eq!(
            apply_holding(&node.options, &mut held).unwrap(),
            Report::default(),
            "it does not stand in its own way"
        );
        let before = node.tree();
        let refusal = remove(root, state_dir).unwrap_err().to_string();
        assert!(refusal.contains("stop it first") && refusal.contains("nothing was changed"), "{refusal}");
        assert_eq!(node.tree(), before);
        remove_holding(root, state_dir, &mut held).unwrap();
    }
    drop(held);
    node.apply();
    assert_eq!(node.remove().changes.len(), 2);
}

/// The node on which nothing can be written may be the one whose pulls hang.
#[test]
fn files_are_withdrawn_from_a_full_disk() {
    let node = Node::new(Merge::Keep);
    node.apply();
    let (_, plan) = node.plan(false);
    let takes_space =
        |step: &&Step| matches!(step, Step::Save(_) | Step::Record(_) | Step::MakeDirectory(_) | Step::Write { .. });
    assert_eq!(plan.steps.iter().find(takes_space), None, "{:?}", plan.steps);
    assert_eq!(plan.report.changes.len(), 2);
}

#[test]
fn what_is_planted_in_the_place_of_a_half_written_file_is_in_nobodys_way() {
    let node = Node::new(Merge::Keep);
    node.put("etc/containerd/certs.d/docker.io/.cachalot-node.tmp/deep/file", "");
    assert_eq!(node.apply().changes.len(), 2);
    assert!(!node.here("etc/containerd/certs.d/docker.io/.cachalot-node.tmp").exists());
}

#[test]
fn what_is_printed_is_what_is_written() {
    let node = Node::new(Merge::Keep);
    node.apply();
    let files = files(&node.options);
    assert_eq!(files.len(), 2);
    for (path, text) in files {
        assert_eq!(fs::read_to_string(node.options.root.here(&path)).unwrap(), text);
    }
}

#[test]
fn files_that_came_with_the_machine_are_taken_as_ours() {
    let node = Node::new(Merge::Keep);
    let before = node.tree();
    for (path, text) in files(&node.options) {
        node.put(path.strip_prefix("/").unwrap().to_str().unwrap(), text);
    }
    let report = node.apply();
    assert_eq!(report, Report::default());
    node.remove();
    assert!(!node.here(OURS).exists());
    assert!(node.tree().len() > before.len(), "directories that we did not make stay");
}

#[test]
fn a_token_is_in_the_files_and_nowhere_else_and_nobody_else_may_read_them() {
    let mut node = Node::new(Merge::Replace);
    node.put(THEIRS, THEIR_TEXT);
    let before = node.tree();
    node.options.wish.with_default = true;
    node.options.excluded = vec!["own.example".parse().unwrap()];
    node.options.wish.token = Some(Token::Known(Secret::new("s3cret")));
    let report = node.apply();
    assert!(report.lines().all(|line| !line.contains("s3cret")), "{report:?}");
    for path in [OURS, THEIRS, "etc/containerd/certs.d/_default/hosts.toml"] {
        let table: toml::Table = node.text(path).parse().unwrap();
        let header = &table["host"]["http://10.0.0.7:30500"]["header"];
        assert_eq!(header["Authorization"].as_str(), Some("Bearer s3cret"), "{path}");
        assert_eq!(fs::metadata(node.here(path)).unwrap().mode() & 0o777, 0o600, "{path}");
    }
    let direct = "etc/containerd/certs.d/own.example/hosts.toml";
    assert_eq!(fs::metadata(node.here(direct)).unwrap().mode() & 0o777, 0o644);
    let hosts = |path: &Path| path.file_name().is_some_and(|name| name == "hosts.toml");
    for (path, (_, bytes)) in node.tree().iter().filter(|(path, _)| !hosts(path)) {
        assert!(!String::from_utf8_lossy(bytes).contains("s3cret"), "{}", path.display());
    }
    assert!(!node.text(direct).contains("s3cret"));
    assert_eq!(node.apply(), Report::default());
    fs::set_permissions(node.here(OURS), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(node.apply().changes.len(), 1, "what was opened is closed again");
    assert_eq!(fs::metadata(node.here(OURS)).unwrap().mode() & 0o777, 0o600);
    node.options.wish.token = Some(Token::Known(Secret::new("other")));
    assert_eq!(node.apply().changes.len(), 3, "a new token is written");
    node.options.wish.token = None;
    node.apply();
    assert_eq!(fs::metadata(node.here(OURS)).unwrap().mode() & 0o777, 0o644, "as it was without one");
    node.remove();
    assert_eq!(node.tree(), before);
}
