//! Reads the files that settings name.

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::{ConfigError, invalid};

/// The most bytes of a file that a setting names. A larger one is a mistake, such as `/dev/zero`.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// How long the start waits for a file: the writer of a pipe may fetch secrets over a network.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(10);

/// The bytes of a file without a byte order mark, wiped from memory when dropped because they may
/// hold secrets.
pub type Content = Zeroizing<Vec<u8>>;

/// A file that was read at the start.
pub(super) struct Opened {
    pub(super) content: Content,
    /// What it is if it is not a regular file. Such a file can be read only once: a pipe, a
    /// process substitution (`<(…)`), a device.
    pub(super) special: Option<&'static str>,
}

/// Reads a file that is text.
///
/// # Errors
///
/// If it cannot be read or is not UTF-8.
pub fn read_text(variable: &'static str, path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    let Opened { content, .. } = open(variable, path)?;
    let text = text(&content).map_err(|problem| at(variable, path, problem))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// The text of a file.
///
/// # Errors
///
/// Where it stops being text.
pub(super) fn text(content: &[u8]) -> Result<&str, String> {
    let line = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'\n').count() + 1;
    if let Some(nul) = content.iter().position(|&byte| byte == 0) {
        let line = content.get(..nul).map_or(1, line);
        return Err(format!(
            "line {line} has a NUL byte, so it is not UTF-8 text; save it as UTF-8"
        ));
    }
    str::from_utf8(content).map_err(|error| {
        let line = content.get(..error.valid_up_to()).map_or(1, line);
        format!("line {line} is not valid UTF-8; save the file as UTF-8")
    })
}

/// Reads a file at the start, on a thread of its own, so that a pipe without a writer or a network
/// file system that does not answer ends the start with a message instead of holding it up.
///
/// # Errors
///
/// If it cannot be read, or not in time.
pub(super) fn open(variable: &'static str, path: &Path) -> Result<Opened, ConfigError> {
    open_within(START_TIMEOUT, variable, path)
}

fn open_within(
    limit: Duration,
    variable: &'static str,
    path: &Path,
) -> Result<Opened, ConfigError> {
    let file = path.to_owned();
    match within(limit, move || read_any(&file)) {
        Ok(Some(read)) => read,
        Ok(None) => {
            let problem = format!(
                "was not read within {limit:?}; if it is a pipe, start its writer; if it is on a network disk, check that"
            );
            return Err(at(variable, path, problem));
        }
        Err(error) => Err(error.into()),
    }
    .map_err(|error| error.of(variable, path))
}

/// Runs a function that reads files on a thread of its own. `None` if it has not ended in time.
///
/// # Errors
///
/// If there can be no thread.
pub(super) fn within<T: Send + 'static>(
    limit: Duration,
    read: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Option<T>> {
    let (send, result) = mpsc::channel();
    let reader = thread::Builder::new().name("settings file".to_owned());
    // The receiver may have given up.
    reader.spawn(move || send.send(read()).unwrap_or_default())?;
    Ok(result.recv_timeout(limit).ok())
}

/// Why a file was not read.
#[derive(Debug)]
pub(super) enum ReadError {
    Io(io::Error),
    /// It is not a regular file, but this.
    Special(&'static str),
    TooLarge,
    Utf16,
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl ReadError {
    /// The error of the setting that names this file.
    pub(super) fn of(&self, variable: &'static str, path: &Path) -> ConfigError {
        let problem = match self {
            Self::Io(error) => {
                use ErrorKind::{InvalidFilename, NotADirectory, NotFound};
                let write = match error.kind() {
                    NotFound | NotADirectory | InvalidFilename => {
                        "write the path of an existing file"
                    }
                    _ => "make it readable for the user of the service",
                };
                let problem = format!("cannot read {}: {error}; {write}", path.display());
                return invalid(variable, problem);
            }
            Self::Special(kind) => {
                format!("is {kind}; a regular file is needed here")
            }
            Self::TooLarge => "is larger than 1 MiB; name the right file".to_owned(),
            Self::Utf16 => "is UTF-16; save it as UTF-8".to_owned(),
        };
        at(variable, path, problem)
    }
}

/// A problem of the contents of a file.
pub(super) fn at(
    variable: &'static str,
    path: &Path,
    problem: impl std::fmt::Display,
) -> ConfigError {
    invalid(variable, format!("{}: {problem}", path.display()))
}

/// Reads any file that can be read to its end. Waits for the writer of a pipe.
fn read_any(path: &Path) -> Result<Opened, ReadError> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_dir() || kind.is_socket() {
        return Err(ReadError::Special(name(kind)));
    }
    let file = File::open(path)?;
    Ok(Opened {
        special: (!kind.is_file()).then(|| name(kind)),
        content: content(&file)?,
    })
}

/// Reads a regular file, and nothing else: neither opening nor reading waits for another process,
/// unless the file system does.
///
/// # Errors
///
/// If it cannot be read, or is not a regular file.
pub(super) fn read_regular(path: &Path) -> Result<Content, ReadError> {
    // Before it is opened: the writer of a pipe that is opened and closed loses its text.
    let kind = fs::metadata(path)?.file_type();
    if !kind.is_file() {
        return Err(ReadError::Special(name(kind)));
    }
    // It may have become a pipe meanwhile. Without this flag, opening one waits for its writer.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        // Another process has a lease on the file, which only regular files can have, and is
        // giving it up.
        Err(error) if error.kind() == ErrorKind::WouldBlock => File::open(path),
        opened => opened,
    }?;
    let kind = file.metadata()?.file_type();
    if !kind.is_file() {
        return Err(ReadError::Special(name(kind)));
    }
    content(&file)
}

fn content(file: &File) -> Result<Content, ReadError> {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    // A buffer that grows leaves copies of secrets behind. Pipes and `/proc` have the length 0.
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let capacity = length.clamp(4096, MAX_FILE_BYTES) + 1;
    let mut content = Zeroizing::new(Vec::with_capacity(capacity));
    file.take(MAX_FILE_BYTES as u64 + 1)
        .read_to_end(&mut content)?;
    if content.len() > MAX_FILE_BYTES {
        return Err(ReadError::TooLarge);
    }
    if content.starts_with(b"\xff\xfe") || content.starts_with(b"\xfe\xff") {
        return Err(ReadError::Utf16);
    }
    while content.starts_with(BYTE_ORDER_MARK) {
        content.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(content)
}

fn name(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use tempfile::TempDir;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    fn folder() -> TempDir {
        tempfile::tempdir().expect("a folder")
    }

    fn file(folder: &TempDir, content: &[u8]) -> PathBuf {
        let path = folder.path().join("file");
        fs::write(&path, content).expect("it can be written");
        path
    }

    fn pipe(folder: &TempDir) -> PathBuf {
        let path = folder.path().join("pipe");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        path
    }

    /// Reads it at the start and again, which must have the same result.
    fn both(path: &Path) -> Result<String, String> {
        let opened = open("FILE", path).map(|opened| {
            assert_eq!(opened.special, None);
            String::from_utf8(opened.content.to_vec()).expect("UTF-8")
        });
        let again = read_regular(path).map_err(|error| error.of("FILE", path));
        let again = again.map(|content| String::from_utf8(content.to_vec()).expect("UTF-8"));
        assert_eq!(opened, again);
        opened.map_err(|error| error.to_string())
    }

    #[test]
    fn a_byte_order_mark_in_front_is_not_part_of_the_content() {
        let folder = folder();
        for (content, text) in [
            (&b"\xef\xbb\xbfa\xef\xbb\xbf"[..], "a\u{feff}"),
            (b"\xef\xbb\xbf\xef\xbb\xbfa", "a"),
            (b"\xef\xbb\xbf", ""),
            (b"", ""),
        ] {
            assert_eq!(both(&file(&folder, content)).as_deref(), Ok(text));
        }
    }

    #[test]
    fn utf_16_is_refused_with_advice() {
        let folder = folder();
        for content in [&b"\xff\xfe1\0=\0"[..], b"\xfe\xff\x001\0=", b"\xff\xfe\0\0"] {
            let path = file(&folder, content);
            let problem = both(&path).expect_err("UTF-16");
            let wanted = format!("FILE: {}: is UTF-16; save it as UTF-8", path.display());
            assert_eq!(problem, wanted);
        }
    }

    #[test]
    fn text_ends_at_a_nul_byte_or_at_bytes_that_are_not_utf_8_and_the_line_is_named() {
        assert_eq!(text("ä\nb".as_bytes()), Ok("ä\nb"));
        for (content, line) in [
            (&b"1\0=\0a\0"[..], "line 1 has a NUL byte"),
            (b"a\nb\n\0", "line 3 has a NUL byte"),
            (b"a\nb\xe4\n", "line 2 is not valid UTF-8"),
            (b"\xe4", "line 1 is not valid UTF-8"),
        ] {
            let problem = text(content).expect_err("not text");
            assert!(problem.starts_with(line), "{problem}");
        }
    }

    #[test]
    fn a_file_has_at_most_1_mib() {
        let folder = folder();
        let path = file(&folder, &vec![b'a'; MAX_FILE_BYTES]);
        assert_eq!(both(&path).map(|text| text.len()), Ok(MAX_FILE_BYTES));
        let path = file(&folder, &vec![b'a'; MAX_FILE_BYTES + 1]);
        let problem = both(&path).expect_err("too large");
        assert!(problem.contains("is larger than 1 MiB"), "{problem}");
        let problem = open("FILE", Path::new("/dev/zero")).map(|_| ());
        let problem = problem.expect_err("without end").to_string();
        assert_eq!(
            problem,
            "FILE: /dev/zero: is larger than 1 MiB; name the right file"
        );
    }

    #[test]
    fn a_device_can_be_read_once() {
        let opened = open("FILE", Path::new("/dev/null")).expect("it is empty");
        assert_eq!(
            (opened.content.len(), opened.special),
            (0, Some("a device"))
        );
        let again = read_regular(Path::new("/dev/null"));
        assert!(matches!(again, Err(ReadError::Special("a device"))));
    }

    #[test]
    fn a_pipe_is_read_once_and_then_its_writer_is_left_alone() {
        let folder = folder();
        let path = pipe(&folder);
        let write = |text: &'static str| {
            let path = path.clone();
            // Opening waits for a reader.
            thread::spawn(move || {
                let mut pipe = OpenOptions::new().write(true).open(path)?;
                pipe.write_all(text.as_bytes())
            })
        };
        let writer = write("\u{feff}1=a");
        let opened = open("FILE", &path).expect("it has a writer");
        assert_eq!(
            (opened.content.as_slice(), opened.special),
            (&b"1=a"[..], Some("a pipe"))
        );
        writer.join().expect("no panic").expect("it was read");

        let writer = write("2=b");
        for _ in 0..3 {
            let again = read_regular(&path);
            assert!(matches!(again, Err(ReadError::Special("a pipe"))));
        }
        assert_eq!(fs::read(&path).expect("nobody else read it"), b"2=b");
        writer.join().expect("no panic").expect("it was read");
    }

    #[test]
    fn a_pipe_without_a_writer_does_not_hold_up_the_start() {
        let folder = folder();
        let path = pipe(&folder);
        let problem = open_within(SHORT, "FILE", &path).map(|_| ());
        let problem = problem.expect_err("nobody writes").to_string();
        let wanted = format!("FILE: {}: was not read within 50ms;", path.display());
        assert!(problem.starts_with(&wanted), "{problem}");
        // One that opens it and then is silent.
        let _writer = OpenOptions::new().read(true).write(true).open(&path);
        let problem = open_within(SHORT, "FILE", &path).map(|_| ());
        assert!(problem.is_err());
    }

    #[test]
    fn folders_sockets_and_missing_files_are_named() {
        let folder = folder();
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).expect("a socket");
        for (path, problem) in [
            (folder.path(), "is a folder; a regular file is needed here"),
            (&socket, "is a socket; a regular file is needed here"),
        ] {
            let wanted = Err(format!("FILE: {}: {problem}", path.display()));
            assert_eq!(both(path), wanted);
        }
        let long = "a".repeat(300);
        for (name, reason) in [
            ("none", "No such file"),
            ("file/none", "Not a directory"),
            (&long, "File name too long"),
        ] {
            file(&folder, b"");
            let path = folder.path().join(name);
            let problem = both(&path).expect_err("there is none");
            let beginning = format!("FILE: cannot read {}: {reason}", path.display());
            assert!(problem.starts_with(&beginning), "{problem}");
            let write = "; write the path of an existing file";
            assert!(problem.ends_with(write), "{problem}");
        }
        // It refers to itself.
        let path = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &path).expect("a link");
        let problem = both(&path).expect_err("it leads nowhere");
        let write = "; make it readable for the user of the service";
        assert!(problem.ends_with(write), "{problem}");
    }
}
