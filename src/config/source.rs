//! Files that are read at startup and again when they change.

use std::fs;
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

use super::{ConfigError, invalid};

/// A set of files that are parsed together.
pub struct Source<T> {
    files: Vec<(&'static str, PathBuf)>,
    parse: fn(&[Content]) -> Result<T, ConfigError>,
    /// The state of the files at the last check.
    last: FilesState,
    /// The state that was last parsed, successfully or not.
    parsed: FilesState,
}

/// The bytes of a file, wiped from memory when dropped because they may hold secrets.
pub type Content = Zeroizing<Vec<u8>>;

/// Identifies the contents of the files without keeping them.
type FilesState = Result<[u8; 20], ConfigError>;

impl<T> Source<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or its contents are invalid.
    pub(super) fn open(
        files: &[(&'static str, &Path)],
        parse: fn(&[Content]) -> Result<T, ConfigError>,
    ) -> Result<(Self, T), ConfigError> {
        let own = |(variable, path): &(&'static str, &Path)| (*variable, path.to_path_buf());
        let files: Vec<_> = files.iter().map(own).collect();
        let contents = read(&files)?;
        let found = Ok(digest(&contents));
        let source = Self {
            files,
            parse,
            last: found.clone(),
            parsed: found,
        };
        Ok((source, parse(&contents)?))
    }

    /// Checks the files, and parses them if they have changed.
    ///
    /// A change is parsed once two checks in a row have found the same: a single check may see a
    /// file that is half written, or only one of two that belong together. `now` parses them in any
    /// case.
    pub fn check(&mut self, now: bool) -> Option<Result<T, ConfigError>> {
        let contents = read(&self.files);
        let found = match &contents {
            Ok(contents) => Ok(digest(contents)),
            Err(error) => Err(error.clone()),
        };
        let is_stable = self.last == found;
        self.last = found.clone();
        if !now && (!is_stable || found == self.parsed) {
            return None;
        }
        self.parsed = found;
        Some(contents.and_then(|contents| (self.parse)(&contents)))
    }

    /// The variables that hold the paths of the files.
    pub fn variables(&self) -> String {
        let names: Vec<_> = self.files.iter().map(|(variable, _)| *variable).collect();
        names.join(", ")
    }
}

fn read(files: &[(&'static str, PathBuf)]) -> Result<Vec<Content>, ConfigError> {
    let read = |(variable, path): &(&'static str, PathBuf)| {
        let content = fs::read(path);
        content
            .map(Zeroizing::new)
            .map_err(|error| unreadable(variable, path, &error))
    };
    files.iter().map(read).collect()
}

pub(super) fn unreadable(
    variable: &'static str,
    path: &Path,
    error: &std::io::Error,
) -> ConfigError {
    invalid(
        variable,
        format!(
            "cannot read {}: {error}; make it readable for the user of the service",
            path.display()
        ),
    )
}

fn digest(contents: &[Content]) -> [u8; 20] {
    let mut digest = Sha1::new();
    for content in contents {
        digest.update(content.len().to_le_bytes());
        digest.update(content);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(contents: &[Content]) -> Result<u32, ConfigError> {
        let text = str::from_utf8(&contents[0]).expect("UTF-8").trim();
        text.parse().map_err(|_| invalid("FILE", "holds no number"))
    }

    /// A source of one file that holds `1`, and how to change it.
    fn source() -> (Source<u32>, impl Fn(&str), tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        fs::write(&path, "1").expect("it can be written");
        let (source, first) = Source::open(&[("FILE", &path)], number).expect("it is there");
        assert_eq!(first, 1);
        let write = move |text: &str| fs::write(&path, text).expect("it can be written");
        (source, write, folder)
    }

    #[test]
    fn a_change_is_parsed_once_the_file_is_stable() {
        let (mut source, write, _folder) = source();
        assert_eq!(source.check(false), None);
        write("2");
        assert_eq!(source.check(false), None, "it may be half written");
        write("23");
        assert_eq!(source.check(false), None, "it was");
        assert_eq!(source.check(false), Some(Ok(23)));
        assert_eq!(source.check(false), None);
    }

    #[test]
    fn a_forced_check_parses_the_files_changed_or_not() {
        let (mut source, write, _folder) = source();
        assert_eq!(source.check(true), Some(Ok(1)));
        write("2");
        assert_eq!(source.check(true), Some(Ok(2)));
        assert_eq!(source.check(false), None);
    }

    #[test]
    fn invalid_contents_are_reported_once_and_restoring_the_file_is_a_change_too() {
        let (mut source, write, folder) = source();
        write("many");
        assert_eq!(source.check(false), None);
        assert!(matches!(source.check(false), Some(Err(_))));
        assert_eq!(source.check(false), None);
        write("1");
        assert_eq!(source.check(false), None);
        assert_eq!(source.check(false), Some(Ok(1)));
        drop(folder);
        assert_eq!(source.check(false), None);
        assert!(matches!(source.check(false), Some(Err(_))));
        assert_eq!(source.check(false), None);
    }
}
