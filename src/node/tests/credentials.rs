//! Credentials that others renew: what of them is on the node, when, and for whom.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;

const CA: &str = "etc/containerd/certs.d/_cachalot/ca.pem";
const CLIENT: &str = "etc/containerd/certs.d/_cachalot/client.pem";
const HOST: &str = "https://10.0.0.7:30500";

/// A node whose runtime is to show a certificate.
fn node_with(merge: Merge) -> Node {
    let mut node = Node::new(merge);
    node.options.wish.endpoint = HOST.parse().unwrap();
    node.options.installed = Installed {
        ca: Some(Secret::new("an authority")),
        certificate: Some(Secret::new("a certificate and its key")),
    };
    node
}

fn mode(node: &Node, path: &str) -> u32 {
    fs::metadata(node.here(path)).unwrap().mode() & 0o777
}

#[test]
fn what_the_node_does_not_have_is_put_beside_the_files_that_name_it_and_goes_with_them() {
    for merge in [Merge::Keep, Merge::Prepend, Merge::Replace] {
        let mut node = node_with(merge);
        node.put(THEIRS, THEIR_TEXT);
        let before = node.tree();
        let report = node.apply();
        assert!(report.lines().all(|line| !line.contains("a certificate")), "{report:?}");
        let table: toml::Table = node.text(OURS).parse().unwrap();
        let host = &table["host"][HOST];
        assert_eq!(host["ca"].as_str(), Some("/etc/containerd/certs.d/_cachalot/ca.pem"));
        let pair = host["client"][0].as_array().unwrap();
        assert!(pair.iter().all(|path| path.as_str() == Some("/etc/containerd/certs.d/_cachalot/client.pem")));
        assert!(
            node.text(CA).ends_with("\nan authority\n") && node.text(CLIENT).ends_with("\na certificate and its key\n")
        );
        assert_eq!((mode(&node, CA), mode(&node, CLIENT), mode(&node, OURS)), (0o644, 0o600, 0o644));
        assert!(node.apply().changes.is_empty());

        fs::set_permissions(node.here(CLIENT), fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(node.apply().changes.len(), 1, "what was opened is closed again");
        assert_eq!(mode(&node, CLIENT), 0o600);
        node.options.installed.certificate = Some(Secret::new("another"));
        assert_eq!(node.apply().changes.len(), 1, "a new certificate changes no file that names it");
        assert!(node.text(CLIENT).ends_with("\nanother\n"));
        node.options.installed.certificate = None;
        node.apply();
        assert!(!node.here(CLIENT).exists() && node.here(CA).exists() && !node.text(OURS).contains("client"));
        node.remove();
        assert_eq!(node.tree(), before, "{merge:?}");
    }
}

/// containerd fails a pull over a certificate that is not there: it asks nobody else then.
#[test]
fn at_no_moment_does_a_file_name_what_is_not_there() {
    // Whether it is installed before and after the plan, which is done up to every step.
    for (was_installed, is_installed, is_wanted) in
        [(false, true, true), (true, false, true), (true, true, false), (false, false, true)]
    {
        for done in 0.. {
            let mut node = node_with(Merge::Keep);
            let installed = node.options.installed.clone();
            let before = node.tree();
            if was_installed {
                node.apply();
            }
            node.options.installed = if is_installed { installed } else { Installed::default() };
            let (disk, plan) = node.plan(is_wanted);
            if done > plan.steps.len() {
                break;
            }
            for step in &plan.steps[..done] {
                disk.run(step).unwrap();
            }
            for path in [OURS, THEIRS].iter().filter(|path| node.here(path).exists()) {
                let is_named = |name: &str| node.text(path).contains(name);
                assert!(!is_named("ca.pem") || node.here(CA).exists(), "after {done} of {:#?}", plan.steps);
                assert!(!is_named("client.pem") || node.here(CLIENT).exists(), "after {done} of {:#?}", plan.steps);
            }
            node.remove();
            assert_eq!(node.tree(), before, "killed after {done} of {:#?}", plan.steps);
        }
    }
}

#[test]
fn where_a_credential_cannot_be_put_nothing_is_written() {
    let node = node_with(Merge::Replace);
    fs::create_dir_all(node.here(CLIENT)).unwrap();
    let before = node.tree();
    let refusal = node.refusal();
    assert!(refusal.contains("client.pem is no file") && refusal.contains("nothing was changed"), "{refusal}");
    assert_eq!(node.tree(), before);
}

#[test]
fn files_that_cannot_be_used_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("empty"), "\n").unwrap();
    fs::write(path("two"), "one two").unwrap();
    fs::write(path("token"), "s3cret \n").unwrap();
    fs::write(path("huge"), vec![b'#'; 1 << 20 | 1]).unwrap();
    let token = |name: &str| Files { token: Some(path(name)), ..Files::default() }.read();
    assert_eq!(token("token").unwrap().token, Some(Secret::new("s3cret")));
    for (name, expected) in [
        ("none", "cannot read the token in "),
        ("empty", "holds no token"),
        ("two", "holds no token"),
        ("huge", "is larger than"),
    ] {
        let error = crate::telemetry::sentence(&token(name).unwrap_err());
        assert!(error.contains(expected) && error.contains(name), "{error} is not {expected}");
    }
    let pair = Files { certificate: Some((path("token"), path("none"))), ..Files::default() };
    assert!(crate::telemetry::sentence(&pair.read().unwrap_err()).starts_with("cannot read the key in "));
    let pair = Files { certificate: Some((path("token"), path("two"))), ..Files::default() };
    let copies = Copies { ca: true, certificate: true };
    let read = pair.read().unwrap();
    assert_eq!(read.installed(copies).certificate, Some(Secret::new("s3cret\none two\n")));
    assert_eq!(read.installed(Copies::default()), Installed::default());
}

/// A Secret changes, and a projected token does each hour: neither takes a restart (S-40: and neither is told).
#[tokio::test]
async fn a_token_that_is_renewed_is_shown_from_the_next_look_on() {
    let node = Node::new(Merge::Keep);
    let token = node.here("token");
    fs::write(&token, "first\n").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v2/", listener.local_addr().unwrap()).parse().unwrap();
    let files = Files { token: Some(token.clone()), ..Files::default() };
    let mut agent = Agent::new(node.options.clone(), vec![url], files, false).unwrap();
    let (told, mut events) = mpsc::unbounded_channel();
    let patience = Patience { interval: Duration::from_millis(1), remove_after: Duration::from_hours(1) };
    let watching = watch(&mut agent, patience, |event| told.send(event.lines().join("\n")).unwrap());
    let (shown, mut heads) = mpsc::unbounded_channel();
    let serving = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 1024];
            let length = stream.read(&mut head).await.unwrap();
            shown.send(String::from_utf8_lossy(&head[..length]).into_owned()).unwrap();
            let answer =
                "HTTP/1.1 200 OK\r\nDocker-Distribution-Api-Version: registry/2.0\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    };
    let renewing = async {
        assert!(events.recv().await.unwrap().contains("wrote"));
        assert!(node.text(OURS).contains("Bearer first"));
        // As the kubelet has it: the new one is there at once.
        fs::write(node.here("next"), "second\n").unwrap();
        fs::rename(node.here("next"), &token).unwrap();
        let text = events.recv().await.unwrap();
        assert!(text.contains("wrote") && !text.contains("second"), "{text}");
        assert!(node.text(OURS).contains("Bearer second") && node.text(THEIRS).contains("Bearer second"));
        assert_eq!(mode(&node, OURS), 0o600);
        while !heads.recv().await.unwrap().contains("Bearer second") {}

        fs::remove_file(&token).unwrap();
        let text = events.recv().await.unwrap();
        assert!(text.contains("cannot read the token in ") && text.contains("is shown until"), "{text}");
        while heads.try_recv().is_ok() {}
        assert!(heads.recv().await.unwrap().contains("Bearer second"), "what was there before holds on");
        assert!(node.text(OURS).contains("Bearer second"));
        fs::write(node.here("next"), "third\n").unwrap();
        fs::rename(node.here("next"), &token).unwrap();
        let text = events.recv().await.unwrap();
        assert!(text.contains("wrote") && node.text(OURS).contains("Bearer third"), "it is told once: {text}");
    };
    tokio::select! {
        ended = watching => panic!("{ended:?}"),
        () = serving => {}
        () = renewing => {}
    }
    node.remove();
    assert!(!node.here(OURS).exists());
}
