//! Whether containerd will read what is written: its configuration says where it looks for hosts, and it may look nowhere.
//!
//! | `config_path` | containerd 1.x | containerd 2.x | not known which |
//! |---|---|---|---|
//! | names our directory | write | write | write |
//! | names others only | refuse | refuse | refuse |
//! | not set, `mirrors` set | refuse | refuse | refuse |
//! | not set | refuse | write, with a warning: it looks into [`DEFAULT_PATHS`] | write, with a warning |
//!
//! Of several paths, containerd 2.x may read none: its transfer service takes them for one (seen with 2.2.9 and 2.4.2, from its own
//! default as well as from a configuration). That is told of, unless the configuration says `use_local_image_pull`.
//!
//! Which it is, the version of the file says (3 is 2.x), else the module path in its binary, if that can be seen. A file of version 2
//! is read by both.

use std::cell::OnceCell;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::flavour::Flavour;
use super::refusal::Refusal;
use super::root::Root;
use crate::oci::Pattern;
use crate::snippets::containerd as snippet;

/// Where containerd 2.x looks when it is told nothing (containerd docs/cri/registry.md).
const DEFAULT_PATHS: [&str; 2] = ["/etc/containerd/certs.d", "/etc/docker/certs.d"];

/// Where its socket is.
const SOCKETS: [&str; 2] = ["/run/containerd/containerd.sock", "/run/k0s/containerd.sock"];

/// Where its binary is.
const BINARIES: [&str; 3] = ["/usr/bin/containerd", "/usr/local/bin/containerd", "/opt/bin/containerd"];

/// What stands in every binary of containerd 2.x: the path of its module.
const MODULE_OF_TWO: &[u8] = b"github.com/containerd/containerd/v2/";

/// What a snap's own directory is called in its configuration.
const SNAP_DATA: (&str, &str) = ("${SNAP_DATA}", "/var/snap/microk8s/current");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Generation {
    One,
    Two,
    Unknown,
}

/// What containerd's binary tells of itself. It is large, and is read once, and only where that matters.
#[derive(Debug, Clone, Default)]
pub struct Binary(OnceCell<Generation>);

/// What the configuration says of hosts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Hosts {
    /// In the order in which containerd looks.
    paths: Option<Vec<PathBuf>>,
    /// Whether there are mirrors in the configuration itself, beside which containerd looks for no hosts.
    has_mirrors: bool,
    /// Whether images are pulled as by 1.x.
    pulls_locally: bool,
    /// The version of the main file.
    version: Option<i64>,
}

/// That containerd reads our directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reads {
    /// Directories in which it looks before ours: a registry that is found there is not looked for in ours.
    pub earlier: Vec<PathBuf>,
    pub warning: Option<String>,
}

/// Says whether containerd reads `certs_dir`.
pub(super) fn check(root: &Root, flavour: Flavour, certs_dir: &Path, binary: &Binary) -> Result<Reads, Refusal> {
    let config = Path::new(flavour.config());
    let has_any = |paths: &[&str]| paths.iter().any(|path| root.exists(path));
    let is_there = root.exists(flavour.config()) || has_any(&SOCKETS) || root.exists(&certs_dir.to_string_lossy());
    if !is_there {
        return Err(Refusal::NoContainerd { config: config.to_owned(), certs_dir: certs_dir.to_owned() });
    }
    let unreadable = |(path, why): (PathBuf, String)| Refusal::Unreadable { path, why };
    let files = read_all(root, config, flavour.drop_ins()).map_err(unreadable)?;
    let hosts = Hosts::of(&files);
    let generation = || match hosts.version {
        Some(3..) => Generation::Two,
        Some(_) | None => *binary.0.get_or_init(|| generation_of_binary(root)),
    };
    if let Some(reads) = decide(root, &hosts, generation, certs_dir) {
        return Ok(reads);
    }
    let add_to = flavour.drop_ins().map_or_else(|| config.to_owned(), |path| Path::new(path).join("cachalot.toml"));
    let advice = snippet::config_path(&certs_dir.to_string_lossy());
    Err(match hosts.paths {
        Some(paths) => Refusal::OtherPath { config: config.to_owned(), paths, certs_dir: certs_dir.to_owned() },
        None if hosts.has_mirrors => Refusal::Mirrors { config: add_to, advice },
        None => Refusal::NoConfigPath { config: add_to, advice },
    })
}

/// The table above; `None` is to refuse.
fn decide(root: &Root, hosts: &Hosts, generation: impl Fn() -> Generation, certs_dir: &Path) -> Option<Reads> {
    let defaults = || DEFAULT_PATHS.map(PathBuf::from).to_vec();
    let paths = match (&hosts.paths, hosts.has_mirrors) {
        (Some(paths), _) => paths.clone(),
        (None, true) => return None,
        (None, false) => match generation() {
            Generation::One => return None,
            Generation::Two => defaults(),
            Generation::Unknown => {
                let warning = format!(
                    "containerd's configuration sets no config_path, and its version is not known: 2.x reads {} all the same, 1.x \
                 does not until this is added and containerd restarted once:\n{}",
                    certs_dir.display(),
                    snippet::config_path(&certs_dir.to_string_lossy())
                );
                return Some(Reads { earlier: Vec::new(), warning: Some(warning) });
            }
        },
    };
    let resolved = |path: &PathBuf| root.resolve(path).unwrap_or_else(|_| path.clone());
    let ours = paths.iter().position(|path| resolved(path) == certs_dir)?;
    let may_be_taken_for_one = paths.len() > 1 && !hosts.pulls_locally && generation() != Generation::One;
    let warning = may_be_taken_for_one.then(|| {
        format!(
            "containerd 2.x looks into several directories ({}), of which some releases read none; to be sure, add this and \
             restart containerd once:\n{}",
            paths.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>().join(":"),
            snippet::config_path(&certs_dir.to_string_lossy())
        )
    });
    Some(Reads { earlier: paths.iter().take(ours).map(resolved).collect(), warning })
}

impl Hosts {
    /// Of the files in the order in which containerd reads them: a later one wins.
    fn of(files: &[toml::Table]) -> Self {
        let mut hosts = Self::default();
        for (index, file) in files.iter().enumerate() {
            let version = file.get("version").and_then(toml::Value::as_integer);
            if index == 0 {
                hosts.version = version;
            }
            for plugin in plugins_of(version) {
                let Some(plugin) = file.get("plugins").and_then(|plugins| plugins.get(plugin)) else { continue };
                let pulls_locally = plugin.get("use_local_image_pull").and_then(toml::Value::as_bool);
                hosts.pulls_locally = pulls_locally.unwrap_or(hosts.pulls_locally);
                let Some(registry) = plugin.get("registry").and_then(toml::Value::as_table) else { continue };
                let is_set =
                    |key: &str| registry.get(key).and_then(toml::Value::as_table).is_some_and(|t| !t.is_empty());
                hosts.has_mirrors |= is_set("mirrors");
                if let Some(paths) = registry.get("config_path").and_then(toml::Value::as_str) {
                    let paths = paths.replace(SNAP_DATA.0, SNAP_DATA.1);
                    let paths: Vec<_> = paths.split(':').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
                    hosts.paths = (!paths.is_empty()).then_some(paths);
                }
            }
        }
        hosts
    }
}

/// Returns the plugins that pull for Kubernetes, by the version of the file; a drop-in may say none.
fn plugins_of(version: Option<i64>) -> &'static [&'static str] {
    const ONE: &str = "cri";
    const TWO: &str = "io.containerd.grpc.v1.cri";
    const THREE: &str = "io.containerd.cri.v1.images";
    match version {
        Some(1) => &[ONE],
        Some(2) => &[TWO],
        Some(3..) => &[THREE],
        Some(_) | None => &[ONE, TWO, THREE],
    }
}

/// Reads the main file, what it imports, and the drop-ins.
fn read_all(root: &Root, config: &Path, drop_ins: Option<&str>) -> Result<Vec<toml::Table>, (PathBuf, String)> {
    let mut files = Vec::new();
    let Some(main) = read_toml(root, config)? else { return Ok(files) };
    let imports: Vec<String> = main
        .get("imports")
        .and_then(toml::Value::as_array)
        .map_or_else(Vec::new, |imports| imports.iter().filter_map(toml::Value::as_str).map(str::to_owned).collect());
    files.push(main);
    let mut paths = Vec::new();
    for import in imports {
        // Relative to the file, as containerd has it.
        let import = config.parent().unwrap_or(Path::new("/")).join(import);
        paths.extend(matching(root, &import).map_err(|error| (import, error.to_string()))?);
    }
    if let Some(directory) = drop_ins {
        let directory = Path::new(directory);
        paths.extend(root.list(directory, ".toml").map_err(|error| (directory.to_owned(), error.to_string()))?);
    }
    for path in paths {
        files.extend(read_toml(root, &path)?);
    }
    Ok(files)
}

fn read_toml(root: &Root, path: &Path) -> Result<Option<toml::Table>, (PathBuf, String)> {
    let text = root.read(path).map_err(|error| (path.to_owned(), error.to_string()))?;
    let parse =
        |text: String| text.parse().map_err(|error: toml::de::Error| (path.to_owned(), error.message().to_owned()));
    text.map(parse).transpose()
}

/// Returns the files that a path with stars in its last part means, sorted.
fn matching(root: &Root, path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let Ok(pattern) = name.parse::<Pattern>() else { return Ok(vec![path.to_owned()]) };
    let is_meant =
        |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| pattern.matches(name));
    Ok(root.list(directory, "")?.into_iter().filter(is_meant).collect())
}

fn generation_of_binary(root: &Root) -> Generation {
    for path in BINARIES {
        let Ok(path) = root.resolve(Path::new(path)) else { continue };
        let Ok(file) = std::fs::File::open(root.here(&path)) else { continue };
        return match contains(file, MODULE_OF_TWO) {
            Ok(true) => Generation::Two,
            Ok(false) => Generation::One,
            Err(_) => Generation::Unknown,
        };
    }
    Generation::Unknown
}

/// Looks for some bytes in a stream, a piece at a time; the pieces overlap.
fn contains(mut stream: impl Read, needle: &[u8]) -> io::Result<bool> {
    let mut buffer = Vec::new();
    loop {
        let read = stream.by_ref().take(1 << 20).read_to_end(&mut buffer)?;
        let first = needle.first();
        let mut starts = buffer.iter().enumerate().filter(|(_, byte)| Some(*byte) == first);
        if starts.any(|(start, _)| buffer.get(start..).is_some_and(|rest| rest.starts_with(needle))) {
            return Ok(true);
        }
        if read == 0 {
            return Ok(false);
        }
        buffer.drain(..buffer.len().saturating_sub(needle.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(texts: &[&str]) -> Vec<toml::Table> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    const V2: &str = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n";
    const V3: &str = "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\n";

    /// Files, directories, whether there are mirrors.
    type Row<'r> = (&'r [&'r str], Option<&'r [&'r str]>, bool);

    #[test]
    fn the_configuration_says_where_containerd_looks() {
        let path = |text: &str| format!("config_path = \"{text}\"\n");
        let rows: &[Row] = &[
            (&[], None, false),
            (&["version = 2\n"], None, false),
            (&[&(V2.to_owned() + &path("/a"))], Some(&["/a"]), false),
            (&[&(V2.to_owned() + &path("/a:/b"))], Some(&["/a", "/b"]), false),
            (&[&(V2.to_owned() + &path(""))], None, false),
            (&[&(V3.to_owned() + &path("/a"))], Some(&["/a"]), false),
            // The key of the other version is not read.
            (&[&(V3.replace('3', "2") + &path("/a"))], None, false),
            (&[&(V2.replace("= 2", "= 3") + &path("/a"))], None, false),
            (&["[plugins.cri.registry]\nconfig_path = \"/a\"\n"], Some(&["/a"]), false),
            (&[&(V2.to_owned() + &path("/a")), &(V2.to_owned() + &path("/b"))], Some(&["/b"]), false),
            (&[&(V2.to_owned() + "[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"a\"]\n")], None, true),
            (
                &[&(V2.to_owned() + &path("${SNAP_DATA}/args/certs.d"))],
                Some(&["/var/snap/microk8s/current/args/certs.d"]),
                false,
            ),
        ];
        for (files, paths, has_mirrors) in rows {
            let hosts = Hosts::of(&parsed(files));
            let expected = paths.map(|paths| paths.iter().map(PathBuf::from).collect::<Vec<_>>());
            assert_eq!((hosts.paths, hosts.has_mirrors), (expected, *has_mirrors), "{files:?}");
        }
    }

    #[test]
    fn what_is_not_certain_is_written_with_a_warning() {
        use Generation::{One, Two, Unknown};
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        let ours = Path::new("/etc/containerd/certs.d");
        let decided = |paths: Option<&[&str]>, has_mirrors, generation| {
            let paths = paths.map(|paths| paths.iter().map(PathBuf::from).collect());
            let reads = decide(&root, &Hosts { paths, has_mirrors, ..Hosts::default() }, || generation, ours)?;
            Some((reads.earlier.len(), reads.warning.is_some()))
        };
        for generation in [One, Two, Unknown] {
            assert_eq!(decided(Some(&["/etc/containerd/certs.d"]), false, generation), Some((0, false)));
            let several = decided(Some(&["/a", "/etc/containerd/certs.d", "/b"]), false, generation);
            assert_eq!(several, Some((1, generation != One)));
            assert_eq!(decided(Some(&["/a"]), false, generation), None);
            assert_eq!(decided(None, true, generation), None);
        }
        assert_eq!(decided(None, false, One), None);
        assert_eq!(decided(None, false, Two), Some((0, true)));
        assert_eq!(decided(None, false, Unknown), Some((0, true)));
    }

    #[test]
    fn a_containerd_that_pulls_as_before_is_not_warned_of() {
        let directory = tempfile::tempdir().unwrap();
        let config = "version = 3\n[plugins.\"io.containerd.cri.v1.images\"]\nuse_local_image_pull = true\n";
        let hosts = Hosts::of(&parsed(&[config]));
        let reads =
            decide(&Root::new(directory.path()), &hosts, || Generation::Two, Path::new("/etc/containerd/certs.d"));
        assert_eq!(reads, Some(Reads { earlier: Vec::new(), warning: None }));
    }

    #[test]
    fn the_generation_is_read_from_the_binary_across_pieces() {
        let mut binary = vec![0_u8; (1 << 20) - 7];
        assert!(!contains(&binary[..], MODULE_OF_TWO).unwrap());
        binary.extend(MODULE_OF_TWO);
        assert!(contains(&binary[..], MODULE_OF_TWO).unwrap());
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        assert_eq!(generation_of_binary(&root), Generation::Unknown);
        std::fs::create_dir_all(directory.path().join("usr/bin")).unwrap();
        std::fs::write(directory.path().join("usr/bin/containerd"), "\x7fELF").unwrap();
        assert_eq!(generation_of_binary(&root), Generation::One);
        std::fs::write(directory.path().join("usr/bin/containerd"), &binary).unwrap();
        assert_eq!(generation_of_binary(&root), Generation::Two);
    }

    #[test]
    fn imports_are_read_after_the_main_file() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        let etc = directory.path().join("etc/containerd");
        std::fs::create_dir_all(etc.join("conf.d")).unwrap();
        std::fs::write(
            etc.join("config.toml"),
            "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\", \"one.toml\"]\n",
        )
        .unwrap();
        std::fs::write(etc.join("conf.d/b.toml"), V2.to_owned() + "config_path = \"/b\"\n").unwrap();
        std::fs::write(etc.join("conf.d/a.toml"), V2.to_owned() + "config_path = \"/a\"\n").unwrap();
        std::fs::write(etc.join("conf.d/c.txt"), "no TOML").unwrap();
        let read = || Hosts::of(&read_all(&root, Path::new("/etc/containerd/config.toml"), None).unwrap()).paths;
        assert_eq!(read(), Some(vec![PathBuf::from("/b")]));
        std::fs::write(etc.join("one.toml"), V2.to_owned() + "config_path = \"/one\"\n").unwrap();
        assert_eq!(read(), Some(vec![PathBuf::from("/one")]));
    }
}
