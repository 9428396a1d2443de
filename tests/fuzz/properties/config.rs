//! A configuration file: it is read to the end, and every problem has a place that is in it.

use std::fs;

use cachalot::settings::{Settings, Sources};

pub(super) fn holds(input: &[u8]) {
    // What it names is read, too: only this machine's own files could be of interest, and some of them never end.
    if input.windows(4).any(|bytes| bytes == b"/dev" || bytes == b"/pro") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("cachalot.toml");
    fs::write(&file, input).expect("a file");
    let sources = Sources { file: Some(file), environment: Vec::new(), ..Sources::default() };
    match Settings::load(&sources) {
        Ok(settings) => {
            assert!(!settings.upstreams.is_empty() || settings.server.default_upstream.is_none());
            assert_eq!(Settings::load(&sources).ok(), Some(settings), "the same file means the same");
        }
        Err(problems) => {
            let told = problems.to_string();
            assert!(!told.is_empty(), "a refusal says why");
            let lines = input.split(|byte| *byte == b'\n').count();
            for line in told.lines().filter_map(|line| line.split_once("cachalot.toml:")) {
                let number = line.1.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
                assert!(number.parse::<usize>().is_ok_and(|number| (1..=lines).contains(&number)), "{told}");
            }
        }
    }
}
