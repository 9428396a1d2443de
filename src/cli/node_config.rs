//! `cachalot node-config`: has this node's container runtime pull through the cache, and takes that back.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use tokio::signal::unix::{SignalKind, signal};
use url::Url;

use super::wish::{WishArgs, duration, registry};
use super::{FAILURE, OK, UNREACHABLE, USAGE, say, tell};
use crate::node::{
    self, Agent, AgentError, Asking, Copies, Event, FileStatus, Files, Installed, NodeError, Options, Patience, Probe,
    ProbeError, Report, Root,
};
use crate::oci::UpstreamName;
use crate::snippets::{self, Fallback, Token, Wish};
use crate::telemetry::{self, sentence};

/// Have this node's container runtime pull through the cache.
///
/// Writes files of its own beside those that are there, once the cache has answered; never restarts anything, and takes
/// everything back with `remove`.
#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:
  cachalot node-config apply --endpoint http://10.0.0.7:30500
  cachalot node-config watch --endpoint http://10.0.0.7:30500 --host-root /host
  cachalot node-config remove")]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Write the files, once the cache answers; run again, change nothing
    Apply(Common),
    /// Write the files while the cache answers, and withdraw them while it does not, until SIGTERM
    Watch(Watch),
    /// Take back everything; originals are back byte for byte
    Remove(Common),
    /// Print the files instead of writing them
    Print(Print),
    /// Tell which files are in place, and whether the cache answers
    Status(Common),
}

#[derive(Debug, clap::Args)]
struct Common {
    #[command(flatten)]
    wish: WishArgs,
    #[command(flatten)]
    install: Install,
    /// Who pulls on this node; may be repeated
    #[arg(
        long = "runtime",
        env = "CACHALOT_NODE_RUNTIME",
        value_enum,
        value_delimiter = ',',
        default_value = "containerd"
    )]
    runtimes: Vec<Runtime>,
    /// What kind of node this is
    #[arg(long, env = "CACHALOT_NODE_FLAVOUR", value_enum, default_value_t = Flavour::Auto)]
    flavour: Flavour,
    /// What becomes of files that somebody else has put there
    #[arg(long, env = "CACHALOT_NODE_MERGE", value_enum, default_value_t = Merge::Keep)]
    merge: Merge,
    /// A registry that never goes through the cache, such as that of the cache's own image; may be repeated
    #[arg(long = "exclude", value_name = "HOST", env = "CACHALOT_NODE_EXCLUDE", value_delimiter = ',', value_parser = registry)]
    excluded: Vec<UpstreamName>,
    /// Where the node's root is mounted; the other directories are below it
    #[arg(long, value_name = "DIR", env = "CACHALOT_NODE_HOST_ROOT", default_value = "/")]
    host_root: PathBuf,
    /// Where containerd looks for hosts [default: /etc/containerd/certs.d]
    #[arg(long, value_name = "DIR", env = "CACHALOT_NODE_CERTS_DIR")]
    certs_dir: Option<PathBuf>,
    /// Where CRI-O looks for drop-ins
    #[arg(
        long,
        value_name = "DIR",
        env = "CACHALOT_NODE_REGISTRIES_DIR",
        default_value = "/etc/containers/registries.conf.d"
    )]
    registries_dir: PathBuf,
    /// Where it is written down what was done
    #[arg(long, value_name = "DIR", env = "CACHALOT_NODE_STATE_DIR", default_value = "/var/lib/cachalot-node")]
    state_dir: PathBuf,
    /// A further URL that must answer 200 before anything is written, such as the /readyz of the cache
    #[arg(long, value_name = "URL", env = "CACHALOT_NODE_READY_URL")]
    ready_url: Option<Url>,
    /// Write the files also where the cache asks who one is: it serves who shows nothing as well
    #[arg(long, env = "CACHALOT_NODE_ALLOW_UNAUTHORIZED", conflicts_with = "token_file")]
    allow_unauthorized: bool,
}

/// Files that the node does not have. They are where this command runs, and the node gets copies, for as long as it has the rest.
#[derive(Debug, clap::Args)]
struct Install {
    /// As --ca, but the file is where this command runs, and the node gets a copy, by a watch again when it changes
    #[arg(long = "install-ca", value_name = "FILE", env = "CACHALOT_NODE_INSTALL_CA", conflicts_with = "ca")]
    authority: Option<PathBuf>,
    /// As --client-cert, likewise
    #[arg(
        long = "install-client-cert",
        value_name = "FILE",
        env = "CACHALOT_NODE_INSTALL_CLIENT_CERT",
        requires = "key",
        conflicts_with = "client_cert"
    )]
    certificate: Option<PathBuf>,
    /// As --client-key, likewise; the copy is for root alone
    #[arg(
        long = "install-client-key",
        value_name = "FILE",
        env = "CACHALOT_NODE_INSTALL_CLIENT_KEY",
        requires = "certificate",
        conflicts_with = "client_key"
    )]
    key: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Watch {
    #[command(flatten)]
    common: Common,
    /// From one question to the cache to the next
    #[arg(long, value_name = "TIME", env = "CACHALOT_NODE_INTERVAL", default_value = "5s", value_parser = duration)]
    interval: Duration,
    /// From its last answer until the files are withdrawn
    #[arg(long, value_name = "TIME", env = "CACHALOT_NODE_REMOVE_AFTER", default_value = "60s", value_parser = duration)]
    remove_after: Duration,
    /// Take back everything at SIGTERM
    #[arg(long, env = "CACHALOT_NODE_REMOVE_ON_EXIT")]
    remove_on_exit: bool,
}

#[derive(Debug, clap::Args)]
struct Print {
    #[command(flatten)]
    common: Common,
    /// The files' own text, or a document for cloud-init that writes them
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    CloudInit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Runtime {
    Containerd,
    Crio,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Flavour {
    Auto,
    Generic,
    K3s,
    Rke2,
    K0s,
    Microk8s,
    Talos,
    Bottlerocket,
    Gke,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Merge {
    /// Leave them alone; what they are about does not go through the cache
    Keep,
    /// The cache first, then what they say
    Prepend,
    /// Put them away, and back again at the end
    Replace,
}

pub(super) fn run(args: Args) -> u8 {
    let done = match args.action {
        Action::Apply(common) => apply(&common),
        Action::Watch(args) => watch(&args),
        Action::Remove(common) => remove(&common),
        Action::Print(args) => print(&args),
        Action::Status(common) => status(&common),
    };
    done.unwrap_or_else(|error| {
        say(format_args!("cachalot: {error}"));
        error.code()
    })
}

/// Why a command ends, and with which code.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("{}; nothing was changed", sentence(.0))]
    Unreachable(ProbeError),
    #[error("{}", sentence(.0))]
    Credentials(#[from] AgentError),
    #[error("{}", sentence(.0))]
    Node(#[from] NodeError),
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Credentials(AgentError::Files(_)) => USAGE,
            Self::Unreachable(_) => UNREACHABLE,
            Self::Credentials(AgentError::Probe(_)) | Self::Node(_) | Self::Runtime(_) => FAILURE,
        }
    }
}

impl Common {
    /// Returns what is wanted, with the credentials themselves in it.
    fn agent(&self) -> Result<Agent, Failure> {
        Ok(Agent::new(self.printable()?, self.urls(), self.files(), self.allow_unauthorized)?)
    }

    fn printable(&self) -> Result<Options, Failure> {
        let wish = self.wish.wish(&self.excluded).map_err(Failure::Usage)?;
        if wish.fallback == Fallback::None && self.merge == Merge::Prepend {
            let why = "--no-fallback leaves no way around the cache, --merge prepend keeps those that there are; say one of them";
            return Err(Failure::Usage(why.into()));
        }
        if wish.with_default && !self.runtimes.contains(&Runtime::Containerd) {
            let why = "CRI-O has no setting for registries that are not named; leave out --default and name them";
            return Err(Failure::Usage(why.into()));
        }
        if wish.ca.is_some() && self.runtimes.contains(&Runtime::Crio) {
            let why = "CRI-O takes no certificate authority in a drop-in; add it to the node's own and leave out --ca";
            return Err(Failure::Usage(why.into()));
        }
        self.check_proofs(&wish)?;
        self.check_copies(&wish)?;
        for (name, path) in self.directories() {
            if !path.is_absolute() {
                return Err(Failure::Usage(format!(
                    "{name} {} is relative; write a path from the root",
                    path.display()
                )));
            }
        }
        Ok(Options {
            root: self.root(),
            runtimes: self.runtimes.iter().map(|runtime| (*runtime).into()).collect(),
            flavour: self.flavour.into(),
            wish,
            installed: Installed::default(),
            excluded: self.excluded.clone(),
            merge: self.merge.into(),
            certs_dir: self.certs_dir.clone(),
            registries_dir: self.registries_dir.clone(),
            state_dir: self.state_dir.clone(),
            binary: node::Binary::default(),
        })
    }

    /// Refuses what the files cannot hold, or must not.
    fn check_proofs(&self, wish: &Wish) -> Result<(), Failure> {
        let has_crio = self.runtimes.contains(&Runtime::Crio);
        if wish.token.is_some() && has_crio {
            let why = "CRI-O shows a mirror no header: leave out --token-file, and give it an account or a client certificate";
            return Err(Failure::Usage(why.into()));
        }
        if wish.token.is_some() && self.merge == Merge::Prepend {
            let why = "--merge prepend would put the token into files of somebody else's; say --merge keep or replace";
            return Err(Failure::Usage(why.into()));
        }
        let Some(certificate) = wish.certificate.as_ref().filter(|_| has_crio) else { return Ok(()) };
        let found =
            |name: &str| format!("{}/{}/client.{name}", snippets::containers::CERTS_DIR, wish.endpoint.authority());
        if [&certificate.cert, &certificate.key] != [&found("cert"), &found("key")] {
            let (cert, key) = (found("cert"), found("key"));
            return Err(Failure::Usage(format!(
                "CRI-O finds a client certificate by the name of the cache only: put it at {cert}, its key at {key}, and name these"
            )));
        }
        Ok(())
    }

    /// Refuses copies that nobody would look for.
    fn check_copies(&self, wish: &Wish) -> Result<(), Failure> {
        if !self.files().copies.any() {
            return Ok(());
        }
        let endpoint = &wish.endpoint;
        if !endpoint.is_https() {
            let why = format!(
                "--install-ca and --install-client-cert are for an endpoint with https, and {endpoint} has http"
            );
            return Err(Failure::Usage(why));
        }
        if self.runtimes.contains(&Runtime::Crio) {
            return Err(Failure::Usage(format!(
                "--install-ca and --install-client-cert are for containerd; CRI-O looks into {}/{} only: put the files there",
                snippets::containers::CERTS_DIR,
                endpoint.authority()
            )));
        }
        Ok(())
    }

    fn directories(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let certs_dir = self.certs_dir.iter().map(|path| ("--certs-dir", path));
        certs_dir.chain([("--registries-dir", &self.registries_dir), ("--state-dir", &self.state_dir)])
    }

    fn root(&self) -> Root {
        Root::new(&self.host_root)
    }

    fn urls(&self) -> Vec<Url> {
        let endpoint = self.wish.endpoint().map(|endpoint| endpoint.join("/v2/"));
        endpoint.into_iter().chain(self.ready_url.clone()).collect()
    }

    fn files(&self) -> Files {
        let here = |path: &str| self.root().here(path.as_ref());
        let Install { authority, certificate, key } = &self.install;
        let installed = certificate.clone().zip(key.clone());
        Files {
            copies: Copies { ca: authority.is_some(), certificate: installed.is_some() },
            ca: authority.clone().or(self.wish.ca().map(here)),
            certificate: installed.or(self.wish.certificate().map(|pair| (here(&pair.cert), here(&pair.key)))),
            token: self.wish.token_file().map(PathBuf::from),
        }
    }
}

fn apply(args: &Common) -> Result<u8, Failure> {
    let agent = args.agent()?;
    block_on(agent.ask())?.map_err(Failure::Unreachable)?;
    let report = node::apply(agent.options())?;
    if report.changes.is_empty() && report.kept.is_empty() {
        say("cachalot: everything is in place already");
    }
    say_all(&report);
    Ok(OK)
}

fn remove(args: &Common) -> Result<u8, Failure> {
    let report = node::remove(&args.root(), &args.state_dir)?;
    if report == Report::default() {
        say("cachalot: there is nothing to remove");
    }
    say_all(&report);
    Ok(OK)
}

fn say_all(report: &Report) {
    for line in report.lines() {
        say(format_args!("cachalot: {line}"));
    }
}

fn watch(args: &Watch) -> Result<u8, Failure> {
    let mut agent = args.common.agent()?;
    let _logs =
        telemetry::init("info", telemetry::Format::Text).map_err(|error| Failure::Runtime(io::Error::other(error)))?;
    let patience = Patience { interval: args.interval, remove_after: args.remove_after };
    let ended = block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(Failure::Runtime)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::Runtime)?;
        // From here on it can be asked to end.
        tracing::info!("watching {}", agent.options().wish.endpoint);
        tokio::select! {
            ended = node::watch(&mut agent, patience, log) => ended.map(|_: Infallible| ()).map_err(Failure::Node),
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })?;
    ended?;
    if args.remove_on_exit {
        let report = node::remove(&args.common.root(), &args.common.state_dir)?;
        report.lines().for_each(|line| tracing::info!("ending: {line}"));
    }
    Ok(OK)
}

fn log(event: &Event) {
    for line in event.lines() {
        match event {
            Event::Applied(_) => tracing::info!("{line}"),
            Event::Unanswered(_) | Event::Withdrawn(_) => tracing::warn!("{line}"),
            Event::Failed(_) | Event::Stale(_) => tracing::error!("{line}"),
        }
    }
}

fn print(args: &Print) -> Result<u8, Failure> {
    let options = args.common.printable()?;
    if args.common.files().copies.any() {
        let why = "print installs nothing: put the files on the node, and name their places by --ca, --client-cert and --client-key";
        return Err(Failure::Usage(why.into()));
    }
    let files = node::files(&options);
    if let Some(advice) = options.wish.token.as_ref().and_then(Token::advice) {
        say(format_args!("cachalot: {advice}"));
    }
    Ok(match (files.as_slice(), args.output) {
        ([(path, text)], Output::Text) => {
            say(format_args!("cachalot: this is {}", path.display()));
            tell(text.trim_end())
        }
        (_, Output::Text) => {
            let texts: Vec<String> = files.iter().map(|(path, text)| format!("# {}\n{text}", path.display())).collect();
            tell(texts.join("\n").trim_end())
        }
        (_, Output::CloudInit) => tell(cloud_init(&files, args.common.wish.token_file().is_some()).trim_end()),
    })
}

/// A node that has the files from its first boot on loses no race against its first pods.
fn cloud_init(files: &[(PathBuf, String)], is_secret: bool) -> String {
    let mode = if is_secret { "0600" } else { "0644" };
    let mut document = String::from("#cloud-config\nwrite_files:\n");
    for (path, text) in files {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        document.extend([format!("  - path: {}\n    permissions: \"{mode}\"\n", quoted(&path.to_string_lossy()))]);
        document.extend([format!("    content: {}\n", quoted(text))]);
    }
    document
}

fn status(args: &Common) -> Result<u8, Failure> {
    let files = node::status(&args.root(), &args.state_dir)?;
    let probe = || {
        let credentials = args.files().read()?;
        let asking = Asking { credentials: &credentials, may_ask_who: args.allow_unauthorized };
        Ok::<_, AgentError>(Probe::new(args.urls(), asking)?)
    };
    let probe = args.wish.endpoint().map(|_| probe()).transpose()?;
    let answer = probe.map(|probe| block_on(async move { probe.ask().await })).transpose()?;
    for (path, status) in &files {
        let status = match status {
            FileStatus::Applied => "applied",
            FileStatus::Changed => "changed by somebody else",
            FileStatus::Missing => "missing",
        };
        tell(format_args!("{}: {status}", path.display()));
    }
    if let Some(Err(error)) = answer {
        say(format_args!("cachalot: {}", sentence(&error)));
        return Ok(UNREACHABLE);
    }
    if files.is_empty() {
        say("cachalot: nothing is applied");
    }
    let is_applied = !files.is_empty() && files.iter().all(|(_, status)| *status == FileStatus::Applied);
    Ok(if is_applied { OK } else { FAILURE })
}

fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)?;
    Ok(runtime.block_on(work))
}

impl From<Runtime> for node::Runtime {
    fn from(runtime: Runtime) -> Self {
        match runtime {
            Runtime::Containerd => Self::Containerd,
            Runtime::Crio => Self::Crio,
        }
    }
}

impl From<Flavour> for Option<node::Flavour> {
    fn from(flavour: Flavour) -> Self {
        Some(match flavour {
            Flavour::Auto => return None,
            Flavour::Generic => node::Flavour::Generic,
            Flavour::K3s => node::Flavour::K3s,
            Flavour::Rke2 => node::Flavour::Rke2,
            Flavour::K0s => node::Flavour::K0s,
            Flavour::Microk8s => node::Flavour::Microk8s,
            Flavour::Talos => node::Flavour::Talos,
            Flavour::Bottlerocket => node::Flavour::Bottlerocket,
            Flavour::Gke => node::Flavour::Gke,
        })
    }
}

impl From<Merge> for node::Merge {
    fn from(merge: Merge) -> Self {
        match merge {
            Merge::Keep => Self::Keep,
            Merge::Prepend => Self::Prepend,
            Merge::Replace => Self::Replace,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn code(words: &[&str]) -> u8 {
        Line::try_parse_from([&["node-config"], words].concat()).map_or(USAGE, |line| run(line.args))
    }

    #[test]
    fn exit_codes_tell_wrong_usage_from_a_cache_that_is_not_there_from_a_refusal() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_str().unwrap();
        let token = directory.path().join("token");
        std::fs::write(&token, "s3cret\n").unwrap();
        let token = token.to_str().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let rows: &[(&[&str], u8)] = &[
            (&["apply"], USAGE),
            (&["apply", "--endpoint", "cache:5000"], USAGE),
            (&["apply", "--endpoint", "http://cache/v2"], USAGE),
            (&["apply", "--endpoint", &endpoint, "--registry", "https://quay.io"], USAGE),
            (&["apply", "--endpoint", &endpoint, "--registry", "quay.io", "--exclude", "quay.io"], USAGE),
            (&["apply", "--endpoint", &endpoint, "--capabilities", "resolve"], USAGE),
            (&["apply", "--endpoint", &endpoint, "--no-fallback", "--merge", "prepend"], USAGE),
            (&["apply", "--endpoint", &endpoint, "--runtime", "crio", "--default"], USAGE),
            (&["apply", "--endpoint", &endpoint, "--ca", "/ca.pem"], USAGE),
            (&["apply", "--endpoint", &endpoint, "--certs-dir", "certs.d"], USAGE),
            (&["apply", "--endpoint", &endpoint, "--client-cert", "/c.pem", "--client-key", "/c.key"], USAGE),
            (&["apply", "--endpoint", "https://cache", "--client-cert", "/c.pem"], USAGE),
            (&["apply", "--endpoint", &endpoint, "--token-file", "/none"], USAGE),
            (&["apply", "--endpoint", &endpoint, "--token-file", "/dev/null"], USAGE),
            (&["apply", "--endpoint", &endpoint, "--token-file", token, "--merge", "prepend"], USAGE),
            (&["apply", "--endpoint", &endpoint, "--token-file", token, "--runtime", "crio"], USAGE),
            (&["apply", "--endpoint", &endpoint, "--token-file", token, "--allow-unauthorized"], USAGE),
            (&["print", "--endpoint", &endpoint, "--token-file", "/none"], OK),
            (&["apply", "--endpoint", &endpoint, "--install-ca", token], USAGE),
            (&["apply", "--endpoint", "https://cache", "--install-client-cert", token], USAGE),
            (&["apply", "--endpoint", "https://cache", "--install-ca", token, "--ca", "/ca.pem"], USAGE),
            (&["apply", "--endpoint", "https://cache", "--install-ca", token, "--runtime", "crio"], USAGE),
            (&["apply", "--endpoint", "https://cache", "--install-ca", "/none"], USAGE),
            (&["print", "--endpoint", "https://cache", "--install-ca", token], USAGE),
            (&["watch", "--endpoint", &endpoint, "--remove-after", "0s"], USAGE),
            (&["remove", "--host-root", root], OK),
            (&["status", "--host-root", root], FAILURE),
            (&["print", "--endpoint", &endpoint, "--output", "cloud-init"], OK),
        ];
        for (words, expected) in rows {
            assert_eq!(code(words), *expected, "{words:?}");
        }
        let apply = ["apply", "--endpoint", &endpoint, "--host-root", root];
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 1024];
            assert!(stream.read(&mut head).unwrap() > 0);
            let answer =
                "HTTP/1.1 200 OK\r\nDocker-Distribution-Api-Version: registry/2.0\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).unwrap();
        });
        assert_eq!(code(&apply), FAILURE, "there is no containerd");
        server.join().unwrap();
        assert_eq!(code(&apply), UNREACHABLE);
    }

    #[test]
    fn the_document_for_the_first_boot_holds_each_file() {
        let files = [("/etc/a/hosts.toml".into(), "server = \"https://a\"\n".to_owned())];
        assert_eq!(
            cloud_init(&files, false),
            "#cloud-config\nwrite_files:\n  - path: \"/etc/a/hosts.toml\"\n    permissions: \"0644\"\n    \
             content: \"server = \\\"https://a\\\"\\n\"\n"
        );
    }
}
