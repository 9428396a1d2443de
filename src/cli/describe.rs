//! `cachalot man` and `cachalot completion SHELL`: the command line described for others, from its own definition.

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::{Cli, FAILURE, USAGE, say, write};

/// Print the manual page, in roff.
///
/// With a subcommand's name, that one's.
#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:
  cachalot man | man -l -
  cachalot man serve > cachalot-serve.1")]
pub(super) struct ManArgs {
    /// The subcommand to describe
    #[arg(value_name = "SUBCOMMAND")]
    subcommand: Option<String>,
}

/// Print the completions of a shell.
#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:
  cachalot completion bash > /etc/bash_completion.d/cachalot
  source <(cachalot completion zsh)")]
pub(super) struct CompletionArgs {
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn man(args: &ManArgs) -> u8 {
    let Some(command) = page_of(args.subcommand.as_deref()) else {
        let names: Vec<String> = Cli::command().get_subcommands().map(|one| one.get_name().to_owned()).collect();
        say(format_args!("cachalot: there is no such subcommand; there are {}", names.join(", ")));
        return USAGE;
    };
    let mut page = Vec::new();
    match clap_mangen::Man::new(command).render(&mut page) {
        Ok(()) => write(&page),
        Err(error) => {
            say(format_args!("cachalot: cannot write the manual page: {error}"));
            FAILURE
        }
    }
}

/// Returns what a page is about.
fn page_of(subcommand: Option<&str>) -> Option<Command> {
    let mut all = Cli::command().disable_help_subcommand(true);
    // Gives each subcommand the name of its page, `cachalot-serve`, besides its own.
    all.build();
    match subcommand {
        None => Some(all),
        Some(name) => all.find_subcommand(name).cloned(),
    }
}

pub(super) fn completion(args: &CompletionArgs) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "cachalot", &mut script);
    write(&script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_the_program_and_for_each_subcommand() {
        let title =
            |subcommand| page_of(subcommand).map(|page| page.get_display_name().unwrap_or(page.get_name()).to_owned());
        assert_eq!(title(None).as_deref(), Some("cachalot"));
        for command in Cli::command().get_subcommands() {
            assert_eq!(title(Some(command.get_name())), Some(format!("cachalot-{}", command.get_name())));
        }
        assert!(page_of(Some("serv")).is_none());
    }
}
