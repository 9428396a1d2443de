//! The code's own rules: what compiles, passes clippy and is wrong nevertheless.
//!
//! Everything under `src` is read as text, with comments, strings and test code told apart from the rest; all violations
//! are printed at once. What a lint can say is in `Cargo.toml`, not here.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module, its layer, and the modules of its own layer that it may import. Arrows point down only.
const LAYERS: &[(&str, u8, &[&str])] = &[
    ("main", 5, &["cli", "app", "settings"]),
    ("cli", 5, &["app", "settings"]),
    ("app", 5, &["settings"]),
    ("settings", 5, &[]),
    ("server", 4, &[]),
    ("admin", 4, &[]),
    ("node", 4, &[]),
    ("mirror", 3, &["cache"]),
    ("cache", 3, &[]),
    ("snippets", 3, &[]),
    ("store", 2, &[]),
    ("upstream", 2, &[]),
    ("identity", 2, &[]),
    ("tasks", 1, &["telemetry"]),
    ("fetch", 1, &["telemetry"]),
    ("telemetry", 1, &[]),
    ("wire", 0, &["oci"]),
    ("oci", 0, &[]),
];

/// Text that may stand nowhere in code outside tests, and why.
const FORBIDDEN: &[(&str, &str)] = &[
    (".unwrap()", "return an error, or expect(\"the invariant in words\") where the line above proves it"),
    ("println!", "write to a given writer, or log"),
    ("print!(", "write to a given writer, or log"),
];

/// Ways to start a task that nobody owns; `src/tasks.rs` is the one place for them.
const SPAWNS: &[&str] = &["tokio::spawn", "task::spawn(", "spawn_local(", "Handle::current(", "thread::spawn("];

/// Text that may not stand in layer 0: clock, I/O, runtime.
const IMPURE: &[&str] =
    &["Instant::now", "SystemTime::now", "tokio::", "std::fs", "std::env", "std::thread", "TcpStream", "UdpSocket"];

/// Words for work that belongs into the tracker. Written in two halves: this file follows its own rules.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// How a metric's name ends: a base unit, a count, or, for gauges without a unit, the thing that is counted or claimed.
const METRIC_ENDINGS: &[&str] = &[
    "_seconds",
    "_bytes",
    "_ratio",
    "_total",
    "_info", // units
    "_in_flight",
    "_followers",
    "_objects",
    "_available",
    "_capable",
    "_successful",
    "_remaining",
    "_quota", // things
];

/// Lines of code in a file at the most, without tests, comments and blank lines.
const FILE_LINES_MAX: usize = 600;
/// Lines in a function at the most, from `fn` to its last brace.
const FUNCTION_LINES_MAX: usize = 80;

#[test]
fn the_code_keeps_its_own_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a readable source file");
        let name = path.strip_prefix(root).expect("a file of ours").to_string_lossy().replace('\\', "/");
        Source::new(name, &text)
    };
    let sources: Vec<Source> = rust_files(&root.join("src")).into_iter().map(read).collect();
    let tests: Vec<Source> = rust_files(&root.join("tests")).into_iter().map(read).collect();
    assert!(sources.len() > 5 && !tests.is_empty(), "the sources are not where they should be");
    let found = violations(&sources, &tests);
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a readable directory");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable entry").path()).collect();
    paths.sort();
    let is_built = |path: &Path| path.file_name().is_some_and(|name| name == "target");
    let nested = paths.into_iter().filter(|path| !is_built(path));
    let nested = nested.map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] });
    nested.flatten().filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

fn violations(sources: &[Source], tests: &[Source]) -> Vec<String> {
    let test_modules: HashSet<&str> =
        sources.iter().flat_map(|source| &source.test_modules).map(String::as_str).collect();
    let mut found = Vec::new();
    for source in sources.iter().chain(tests) {
        source.check_text(&mut found);
    }
    for source in sources.iter().filter(|source| !source.is_below(&test_modules)) {
        source.check_imports(&mut found);
        source.check_patterns(&mut found);
        source.check_sizes(&mut found);
        source.check_metrics(&mut found);
    }
    found
}

/// One file. Every text in it is as long as the file, so that offsets and line numbers agree.
struct Source {
    /// Relative to the repository: `src/oci/digest.rs`.
    name: String,
    text: String,
    /// The text with comments, the insides of strings and test code blanked.
    code: String,
    /// The insides of string literals outside tests, with their offsets.
    strings: Vec<(usize, String)>,
    /// Paths without extension of modules that are declared for tests only: `src/oci/route/tests`.
    test_modules: Vec<String>,
}

impl Source {
    fn new(name: String, text: &str) -> Self {
        let (mut code, mut strings) = blank_comments_and_strings(text);
        let mut test_modules = Vec::new();
        while let Some(start) = code.find("#[cfg(test)]") {
            let end = item_end(&code, start);
            let item = &code[start..end];
            if let Some((_, module)) = item.strip_suffix(';').and_then(|item| item.rsplit_once("mod ")) {
                test_modules.push(format!("{}/{module}", module_directory(&name)));
            }
            strings.retain(|(offset, _)| !(start..end).contains(offset));
            code.replace_range(start..end, &blank(&code[start..end]));
        }
        Self { name, text: text.to_owned(), code, strings, test_modules }
    }

    fn is_below(&self, modules: &HashSet<&str>) -> bool {
        let path = self.name.trim_end_matches(".rs").trim_end_matches("/mod");
        Path::new(path).ancestors().any(|ancestor| ancestor.to_str().is_some_and(|path| modules.contains(path)))
    }

    /// Returns the top-level module that the file belongs to: `oci` for `src/oci/digest.rs`.
    fn module(&self) -> &str {
        let path = self.name.strip_prefix("src/").unwrap_or(&self.name);
        path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    fn report(&self, found: &mut Vec<String>, offset: usize, message: &str) {
        let line = self.text[..offset].matches('\n').count() + 1;
        found.push(format!("{}:{line}: {message}", self.name));
    }

    fn report_all(&self, found: &mut Vec<String>, text: &str, pattern: &str, message: &str) {
        for (offset, _) in text.match_indices(pattern) {
            self.report(found, offset, message);
        }
    }

    fn check_text(&self, found: &mut Vec<String>) {
        if !self.text.starts_with("//! ") {
            self.report(found, 0, "a file starts with //! and a sentence that a newcomer understands");
        }
        for word in UNFINISHED {
            self.report_all(found, &self.text, word, &format!("{word}: finish it, or say why it is so"));
        }
        self.report_all(found, &self.code, "#[ignore", "an ignored test tests nothing");
    }

    fn check_imports(&self, found: &mut Vec<String>) {
        let module = self.module();
        if module == "lib" {
            return;
        }
        let Some((_, layer, beside)) = LAYERS.iter().find(|(name, ..)| *name == module) else {
            return self.report(found, 0, &format!("module {module} has no row in LAYERS"));
        };
        // `super::` as often as the file is deep leads to the crate's root as well.
        let depth = module_directory(&self.name).matches('/').count().max(1);
        let above = format!(" {}", "super::".repeat(depth));
        for root in ["crate::", "cachalot::", &above] {
            for (offset, _) in self.code.match_indices(root) {
                for name in names_after(&self.code[offset + root.len()..]) {
                    let allowed = LAYERS.iter().all(|(other, below, _)| {
                        *other != name || *other == module || below < layer || beside.contains(other)
                    });
                    if !allowed {
                        self.report(found, offset, &format!("{module} may not import {name}: layers point down only"));
                    }
                }
            }
        }
    }

    fn check_patterns(&self, found: &mut Vec<String>) {
        for (pattern, message) in FORBIDDEN {
            self.report_all(found, &self.code, pattern, &format!("{pattern}: {message}"));
        }
        if self.module() != "tasks" {
            for pattern in SPAWNS {
                self.report_all(found, &self.code, pattern, &format!("{pattern}: tasks are started in tasks.rs only"));
            }
        }
        if LAYERS.iter().any(|(name, layer, _)| *name == self.module() && *layer == 0) {
            for pattern in IMPURE {
                self.report_all(found, &self.code, pattern, &format!("{pattern}: layer 0 is pure"));
            }
        }
    }

    fn check_sizes(&self, found: &mut Vec<String>) {
        let lines = self.code.lines().filter(|line| !line.trim().is_empty()).count();
        if lines > FILE_LINES_MAX {
            self.report(found, 0, &format!("{lines} lines of code: a file has at most {FILE_LINES_MAX}"));
        }
        for (offset, _) in self.code.match_indices("fn ") {
            let starts_word = !self.code[..offset].ends_with(|before: char| before.is_alphanumeric() || before == '_');
            let lines = self.code[offset..item_end(&self.code, offset)].lines().count();
            if starts_word && lines > FUNCTION_LINES_MAX {
                self.report(found, offset, &format!("{lines} lines: a function has at most {FUNCTION_LINES_MAX}"));
            }
        }
    }

    fn check_metrics(&self, found: &mut Vec<String>) {
        for (offset, string) in &self.strings {
            let is_word = string.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
            let is_registered = self.code[..*offset].trim_end_matches(['"', ' ', '\n']).ends_with("Opts::new(");
            let is_metric = is_word && (string.starts_with("cachalot_") || is_registered);
            if is_metric && !METRIC_ENDINGS.iter().any(|ending| string.ends_with(ending)) {
                self.report(found, *offset, &format!("metric {string} does not end in a base unit, _total or _info"));
            }
        }
    }
}

/// Returns the directory of a file's submodules: `src/oci` for `src/oci/mod.rs`, `src/oci/route` for `src/oci/route.rs`.
fn module_directory(name: &str) -> &str {
    match name {
        "src/lib.rs" | "src/main.rs" => "src",
        name => name.trim_end_matches(".rs").trim_end_matches("/mod"),
    }
}

/// Returns the first names of the paths behind a root, one or a group in braces.
fn names_after(text: &str) -> Vec<&str> {
    let name_of =
        |text: &'_ str| text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len());
    let Some(group) = text.strip_prefix('{') else { return vec![&text[..name_of(text)]] };
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (offset, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                let item = group[start..offset].trim_start();
                names.push(&item[..name_of(item)]);
                start = offset + 1;
                if letter == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

/// Returns where the item at `start` ends: behind the brace that closes its body, or behind its semicolon.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, letter) in code[start..].char_indices() {
        match letter {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && letter == '}' {
                    return start + offset + 1;
                }
            }
            ';' if depth == 0 => return start + offset + 1,
            _ => {}
        }
    }
    code.len()
}

fn blank(text: &str) -> String {
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

/// Splits Rust text into code and strings; what is blanked keeps its length and its line breaks.
fn blank_comments_and_strings(text: &str) -> (String, Vec<(usize, String)>) {
    let (mut code, mut strings) = (String::with_capacity(text.len()), Vec::new());
    while let Some(first) = text[code.len()..].chars().next() {
        let rest = &text[code.len()..];
        let raw_hashes = rest.strip_prefix('r').map(|tail| tail.len() - tail.trim_start_matches('#').len());
        let in_word = code.ends_with(|before: char| before != 'b' && (before.is_alphanumeric() || before == '_'));
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment_length(rest)
        } else if let Some(hashes) = raw_hashes.filter(|hashes| !in_word && rest[1 + hashes..].starts_with('"')) {
            let (open, close) = (2 + hashes, format!("\"{}", "#".repeat(hashes)));
            let inside = rest[open..].find(&close).unwrap_or(rest.len() - open);
            strings.push((code.len() + open, rest[open..open + inside].to_owned()));
            (open + inside + close.len()).min(rest.len())
        } else if first == '"' {
            let inside = closing_quote(&rest[1..], '"');
            strings.push((code.len() + 1, rest[1..=inside].to_owned()));
            (inside + 2).min(rest.len())
        } else if first == '\'' && is_char_literal(rest) {
            closing_quote(&rest[1..], '\'') + 2
        } else {
            code.push(first);
            continue;
        };
        code.push_str(&blank(&rest[..length]));
    }
    (code, strings)
}

fn block_comment_length(text: &str) -> usize {
    let mut depth = 0;
    for (offset, _) in text.char_indices() {
        match text.get(offset..offset + 2) {
            Some("/*") => depth += 1,
            Some("*/") if depth == 1 => return offset + 2,
            Some("*/") => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

/// Returns the offset of the first quote that no backslash stands before.
fn closing_quote(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    let end = text.find(|letter| {
        let is_end = letter == quote && !is_escaped;
        is_escaped = letter == '\\' && !is_escaped;
        is_end
    });
    end.unwrap_or(text.len())
}

/// Tells `'a'` and `'\n'` from the lifetime `'a`.
fn is_char_literal(text: &str) -> bool {
    let mut letters = text.chars().skip(1);
    matches!((letters.next(), letters.next()), (Some('\\'), _) | (Some(_), Some('\'')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, text: &str, expected: &[&str]) {
        let found = violations(&[Source::new(name.to_owned(), text)], &[]);
        let lines: Vec<String> = found.iter().map(|found| found.replace(name, "")).collect();
        assert_eq!(lines.len(), expected.len(), "{lines:#?}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.starts_with(expected), "{line} is not {expected}");
        }
    }

    #[test]
    fn each_rule_finds_its_violation() {
        let long = format!("//! A.\nfn f() {{\n{}}}\n", "    a;\n".repeat(FUNCTION_LINES_MAX));
        let longer = format!("//! A.\n{}", "const A: u8 = 0;\n".repeat(FILE_LINES_MAX + 1));
        let unfinished = format!("//! A.\n// {}: b\n", UNFINISHED.concat());
        let rows: &[(&str, &str, &[&str])] = &[
            ("src/oci/a.rs", "fn f() {}\n", &[":1: a file starts"]),
            ("src/oci/a.rs", "//! A.\nfn f() { Instant::now() }\n", &[":2: Instant::now"]),
            ("src/oci/a.rs", "//! A.\nuse crate::wire::A;\n", &[":2: oci may not import wire"]),
            ("src/oci/a.rs", "//! A.\nuse super::super::wire::A;\n", &[":2: oci may not import wire"]),
            ("src/oci/mod.rs", "//! A.\n\nuse super::wire::A;\n", &[":3: oci may not import wire"]),
            (
                "src/store/a.rs",
                "//! A.\nuse crate::{\n    oci::A,\n    upstream::{B, cache},\n};\n",
                &[":2: store may not import upstream"],
            ),
            ("src/settings.rs", "//! A.\nfn f(a: crate::app::A) {}\n", &[":2: settings may not import app"]),
            ("src/stray.rs", "//! A.\n", &[":1: module stray"]),
            ("src/cache/a.rs", "//! A.\nfn f() { a.unwrap(); println!(); }\n", &[":2: .unwrap()", ":2: println!"]),
            ("src/cache/a.rs", "//! A.\nfn f() { tokio::spawn(a) }\n", &[":2: tokio::spawn"]),
            ("src/cache/a.rs", "//! A.\n#[ignore]\nfn f() {}\n", &[":2: an ignored test"]),
            ("src/cache/a.rs", &unfinished, &[":2: "; UNFINISHED.len()]),
            ("src/cache/a.rs", &long, &[":2: 82 lines"]),
            ("src/cache/a.rs", &longer, &[":1: 601 lines"]),
            ("src/cache/a.rs", "//! A.\nconst A: &str = \"cachalot_hits\";\n", &[":2: metric cachalot_hits"]),
            ("src/cache/a.rs", "//! A.\nlet a = Opts::new(\n    \"hits\", \"help\");\n", &[":3: metric hits"]),
        ];
        for (name, text, expected) in rows {
            check(name, text, expected);
        }
    }

    #[test]
    fn what_is_allowed_is_not_found() {
        let rows = [
            ("src/oci/a.rs", "//! A.\nuse super::super::oci::A;\nuse crate::oci::{B, wire};\n"),
            ("src/cache/a.rs", "//! A.\nuse crate::{oci::A, store::B, wire};\nuse super::upstream::C;\n"),
            ("src/main.rs", "//! A.\nuse cachalot::{cli, settings};\n"),
            ("src/tasks.rs", "//! A.\nfn f() { tokio::spawn(a) }\n"),
            ("src/cache/a.rs", "//! A.\n// a.unwrap()\n/* /* */ a.unwrap() */\nconst A: &str = r#\"a.unwrap()\"\"#;\n"),
            ("src/cache/a.rs", "//! A.\nfn f<'a>(a: &'a str) { ['\"', '\\'', '{']; \"\\\"a.unwrap()\" }\n"),
            ("src/cache/a.rs", "//! A.\n#[cfg(test)]\nmod tests {\n    fn f() { a.unwrap() }\n}\n"),
            (
                "src/cache/a.rs",
                "//! A.\nconst A: &str = \"cachalot_hits_total\";\nlet a = Opts::new(\"b_bytes\", \"hits\");\n",
            ),
        ];
        for (name, text) in rows {
            check(name, text, &[]);
        }
    }

    #[test]
    fn the_files_of_test_modules_are_test_code() {
        let parent = Source::new("src/cache/a.rs".into(), "//! A.\n#[cfg(test)]\npub(crate) mod tests;\n");
        let child = |name: &str| Source::new(name.into(), "//! A.\nfn f() { a.unwrap() }\n");
        let inside = ["src/cache/a/tests.rs", "src/cache/a/tests/b.rs", "src/cache/a/tests/mod.rs"].map(child);
        let outside = child("src/cache/tests.rs");
        let sources: Vec<Source> = inside.into_iter().chain([parent, outside]).collect();
        assert_eq!(violations(&sources, &[]).len(), 1);
    }
}
