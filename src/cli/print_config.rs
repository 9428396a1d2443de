//! `cachalot print-config CLIENT`: what a client needs to be told so that it pulls through the cache.

use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::wish::WishArgs;
use super::{USAGE, say, tell};
use crate::snippets::{Client, render};

/// Print what a client needs to be told so that it pulls through the cache.
///
/// The text goes to stdout, in the client's own format and with the file it belongs into; what else there is to do, to stderr.
#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:
  cachalot print-config containerd --endpoint http://10.0.0.7:30500 --registry docker.io
  cachalot print-config podman --endpoint http://cache.example:5000
  cachalot print-config k3s --endpoint http://cache.example:5000 --default")]
pub(super) struct Args {
    /// Who pulls
    #[arg(value_parser = PossibleValuesParser::new(Client::all().map(|(_, name)| name)).map(|name| client(&name)))]
    client: Client,
    #[command(flatten)]
    wish: WishArgs,
}

/// The parser has refused every other name.
fn client(name: &str) -> Client {
    Client::all().find(|(_, known)| *known == name).map_or(Client::Containerd, |(client, _)| client)
}

pub(super) fn run(args: &Args) -> u8 {
    let snippet = args.wish.wish(&[]).and_then(|wish| render(args.client, &wish).map_err(|error| error.to_string()));
    match snippet {
        Ok(snippet) => {
            for note in &snippet.notes {
                say(format_args!("cachalot: {note}"));
            }
            tell(snippet.text.trim_end())
        }
        Err(error) => {
            say(format_args!("cachalot: {error}"));
            USAGE
        }
    }
}
