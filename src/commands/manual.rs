//! `man`: the manual page. One for the program with all its commands, because a package has one for
//! each program.

use std::io::{self, Write};

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::help::{ENVIRONMENT, EXIT_CODES};
use super::{Cli, Failure, output};
use crate::config::Faults;

/// The end of `man --help`.
pub(super) const EXAMPLES: &str = "\
Read it, or install it:
  zim2kafka man | man --local-file -
  zim2kafka man >/usr/local/share/man/man1/zim2kafka.1";

pub(super) async fn run(faults: Faults) -> Result<(), Failure> {
    faults.finish(Some(()))?;
    let page = page(Cli::command());
    let page = page.map_err(|error| Failure::System("cannot format the manual page", error))?;
    output::print(formatted(&String::from_utf8_lossy(&page)).trim_end()).await
}

/// Defines the apostrophe. clap_mangen repeats it in each part.
const APOSTROPHE: [&str; 2] = [r".ie \n(.g .ds Aq \(aq", ".el .ds Aq '"];

/// How an item of a list in the help of a flag begins. It has a line of its own.
const LIST_ITEM: &str = r"\- ";

/// The page for groff and mandoc. Lines that begin with a blank are tables and commands, which must
/// not be filled; other characters than ASCII are escaped, because groff takes its input for Latin-1.
fn formatted(page: &str) -> String {
    let mut text = APOSTROPHE.map(|line| format!("{line}\n")).concat();
    let mut is_filled = true;
    for line in page.lines().filter(|line| !APOSTROPHE.contains(line)) {
        if line.starts_with(' ') == is_filled {
            text.push_str(if is_filled { ".nf\n" } else { ".fi\n" });
            is_filled = !is_filled;
        }
        if line.starts_with(LIST_ITEM) {
            text.push_str(".br\n");
        }
        for char in line.chars() {
            match char.is_ascii() {
                true => text.push(char),
                false => text.push_str(&format!("\\[u{:04X}]", u32::from(char))),
            }
        }
        text.push('\n');
    }
    text
}

fn page(mut program: Command) -> io::Result<Vec<u8>> {
    program.build();
    let mut page = Vec::new();
    let whole = Man::new(program.clone());
    // Without a date, so that equal sources make an equal page; clap_mangen would leave out the
    // quotes too, and the version would stand for the date.
    let version = env!("CARGO_PKG_VERSION");
    writeln!(
        page,
        ".TH zim2kafka 1 \"\" \"zim2kafka {version}\" \"User Commands\""
    )?;
    whole.render_name_section(&mut page)?;
    whole.render_synopsis_section(&mut page)?;
    whole.render_description_section(&mut page)?;
    let mut list = Roff::default();
    list.control("SH", ["COMMANDS"]);
    for command in commands(&program) {
        list.control("TP", []);
        list.text([bold(command.get_name())]);
        list.text([roman(
            command
                .get_about()
                .map(ToString::to_string)
                .unwrap_or_default(),
        )]);
    }
    list.to_writer(&mut page)?;
    whole.render_options_section(&mut page)?;
    for command in commands(&program) {
        render_command(command, &mut page)?;
    }
    for (heading, text) in [("ENVIRONMENT", ENVIRONMENT), ("EXIT STATUS", EXIT_CODES)] {
        let mut section = Roff::default();
        section.control("SH", [heading]);
        for line in text.lines() {
            section.text([roman(line)]);
        }
        section.to_writer(&mut page)?;
    }
    Ok(page)
}

/// The commands of the program, or those of a command, without clap's own `help`.
fn commands(of: &Command) -> impl Iterator<Item = &Command> {
    of.get_subcommands()
        .filter(|command| command.get_name() != "help")
}

/// A section for a command, with its headings as subsections, and those of its own commands.
fn render_command(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    // Those that all commands have are in the section of the program.
    let command = command.clone().mut_args(|arg| {
        let is_common = arg.is_global_set() || arg.get_id() == "help";
        arg.hide(is_common).hide_short_help(false)
    });
    let name = command.get_bin_name().unwrap_or_default().to_owned();
    let man = Man::new(command.clone());
    let mut head = Roff::default();
    head.control("SH", [name.to_uppercase().as_str()]);
    head.to_writer(page)?;
    let mut rest = Vec::new();
    man.render_description_section(&mut rest)?;
    man.render_options_section(&mut rest)?;
    if command.get_after_help().is_some() {
        man.render_extra_section(&mut rest)?;
    }
    // The description follows the heading at once.
    let text = String::from_utf8_lossy(&rest);
    for line in text.lines().filter(|line| *line != ".SH DESCRIPTION") {
        match line.strip_prefix(".SH ") {
            Some("EXTRA") => writeln!(page, ".SS EXAMPLES")?,
            Some(heading) => writeln!(page, ".SS {heading}")?,
            None => writeln!(page, "{line}")?,
        }
    }
    commands(&command).try_for_each(|command| render_command(command, page))
}
