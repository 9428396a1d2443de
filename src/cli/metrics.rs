//! `cachalot metrics --list`: what a server exports, for dashboards, for rules, and for people.

use std::fmt::Write;

use super::{FAILURE, say, tell};
use crate::telemetry::{Family, Metrics, sentence};

/// List every metric that a server exports, without starting one.
///
/// One line for each family: name, type, labels separated by commas, and help, separated by tabs.
#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:
  cachalot metrics --list
  cachalot metrics --list | grep upstream
  cachalot metrics --list --markdown")]
pub(super) struct Args {
    /// List them; there is nothing else to do with them here
    #[arg(long, required = true)]
    list: bool,
    /// As a table in Markdown
    #[arg(long)]
    markdown: bool,
}

pub(super) fn run(args: &Args) -> u8 {
    match Metrics::new(&[], 0) {
        Ok(metrics) if args.markdown => tell(markdown(metrics.catalogue()).trim_end()),
        Ok(metrics) => tell(lines(metrics.catalogue()).trim_end()),
        Err(error) => {
            say(format_args!("cachalot: cannot make the metrics: {}", sentence(&error)));
            FAILURE
        }
    }
}

fn lines(families: &[Family]) -> String {
    let mut text = String::new();
    for Family { name, kind, labels, help } in families {
        // Writing to a string does not fail.
        let _written = writeln!(text, "{name}\t{kind}\t{}\t{help}", labels.join(","));
    }
    text
}

fn markdown(families: &[Family]) -> String {
    let mut text = String::from("| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n");
    for Family { name, kind, labels, help } in families {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let _written = writeln!(text, "| `{name}` | {kind} | {} | {help} |", labels.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_one_line_and_one_row() {
        let families = [Family {
            name: "cachalot_x_total".into(),
            kind: "counter",
            labels: vec!["a".into(), "b".into()],
            help: "Xs.".into(),
        }];
        assert_eq!(lines(&families), "cachalot_x_total\tcounter\ta,b\tXs.\n");
        assert!(markdown(&families).ends_with("| `cachalot_x_total` | counter | `a`, `b` | Xs. |\n"));
    }
}
