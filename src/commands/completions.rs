//! `completions`: scripts with which shells complete the command line. They hold names only: of
//! commands, flags and values that are one of a closed set.

use clap::{Command, CommandFactory};
use clap_complete::aot::{Bash, Fish, Zsh, generate};
use strum::{IntoStaticStr, VariantArray};

use super::names::{Named, one_of};
use super::{Cli, Failure, output};
use crate::config::Faults;

/// The end of `completions --help`.
pub(super) const EXAMPLES: &str = "\
Install it with one of:
  zim2kafka completions bash \\
      >~/.local/share/bash-completion/completions/zim2kafka
  zim2kafka completions zsh >\"${fpath[1]}/_zim2kafka\"
  zim2kafka completions fish >~/.config/fish/completions/zim2kafka.fish";

/// The flags of `completions`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Shell to complete for: bash, zsh or fish
    #[arg(value_name = "SHELL", value_parser = Named::of(Shell::named, Shell::names()),
          hide_possible_values = true)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "lowercase")]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    fn named(name: &str) -> Result<Self, String> {
        one_of("a shell with completions", Self::VARIANTS, name)
    }

    fn names() -> impl Iterator<Item = &'static str> {
        Self::VARIANTS.iter().map(<&'static str>::from)
    }

    fn script(self, mut command: Command) -> Vec<u8> {
        let (name, mut script) = (command.get_name().to_owned(), Vec::new());
        match self {
            Self::Bash => generate(Bash, &mut command, name, &mut script),
            Self::Zsh => generate(Zsh, &mut command, name, &mut script),
            Self::Fish => generate(Fish, &mut command, name, &mut script),
        }
        script
    }
}

pub(super) async fn run(args: Args, faults: Faults) -> Result<(), Failure> {
    faults.finish(Some(()))?;
    let script = args.shell.script(Cli::command());
    output::print(String::from_utf8_lossy(&script).trim_end()).await
}
