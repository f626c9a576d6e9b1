//! Writes to stdout or stderr without the standard library's buffers, which cannot write to a
//! nonblocking file and ignore some errors.

use std::io;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Writes the first bytes of `bytes`, and returns how many. May block: another program that shares
/// the file may have made it nonblocking, but a reader is waited for in either case.
pub(crate) fn write_some(file: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match rustix::io::write(&file, bytes) {
            Ok(0) if !bytes.is_empty() => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => return Ok(written),
            Err(Errno::INTR) => {}
            // The next write has the reason if the wait fails.
            Err(Errno::AGAIN) => drop(poll(&mut [PollFd::new(&file, PollFlags::OUT)], None)),
            Err(error) => return Err(error.into()),
        }
    }
}
