//! Writes the results of the commands to stdout. Commands print only with this: `println!` panics
//! if it cannot write, and would hold up the threads that wait for signals if nobody reads.

use std::fmt::Display;
use std::io;

use anstream::{AutoStream, ColorChoice};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::tcgetwinsize;

use super::{Failure, blocking};
use crate::config;
use crate::log::write_some;

/// Prints one line, or several. Waits on another thread, so that signals and the service go on.
///
/// # Errors
///
/// [`Failure::StdoutClosed`] or [`Failure::Output`].
pub(super) async fn print(text: impl Display) -> Result<(), Failure> {
    let text = format!("{text}\n");
    blocking(move || write(&text)).await?
}

/// Writes this text. Waits while stdout blocks.
///
/// # Errors
///
/// [`Failure::StdoutClosed`] or [`Failure::Output`].
pub(super) fn write(text: &str) -> Result<(), Failure> {
    let mut left = text.as_bytes();
    while !left.is_empty() {
        let written = write_some(io::stdout(), left).map_err(failure)?;
        (_, left) = left.split_at(written);
    }
    Ok(())
}

/// The width of a terminal that does not report one.
const USUAL_COLUMNS: usize = 80;

/// The width to which long lines are wrapped: `COLUMNS`, or that of the terminal. `None` if stdout
/// is neither read by a person nor of a known width.
pub(super) fn columns() -> Option<usize> {
    let of_terminal = || match tcgetwinsize(io::stdout()).ok()?.ws_col {
        0 => Some(USUAL_COLUMNS),
        columns => Some(columns.into()),
    };
    config::columns().or_else(of_terminal)
}

/// Whether stdout takes colours: a terminal, unless variables such as `NO_COLOR` decide otherwise.
pub(super) fn has_colours() -> bool {
    AutoStream::choice(&io::stdout()) != ColorChoice::Never
}

fn failure(error: io::Error) -> Failure {
    match error.kind() {
        // Of a pipe, and of a socket.
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Failure::StdoutClosed,
        _ => Failure::Output(error),
    }
}

/// Whether the other end has closed stdout. For a command that may print nothing for a long time.
pub(super) fn is_stdout_closed() -> bool {
    let stdout = io::stdout();
    let mut files = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // A pipe that was closed is an error; a terminal that was closed, a hangup.
    let gone = PollFlags::ERR | PollFlags::HUP;
    poll(&mut files, Some(&now)).is_ok() && files.iter().any(|file| file.revents().intersects(gone))
}
