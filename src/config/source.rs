//! Files that are read at the start, and again when they have changed.

use std::fs;
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

use super::{ConfigError, wrong};

/// Files, and what is made of them.
pub struct Source<T> {
    files: Vec<(&'static str, PathBuf)>,
    parse: fn(&[Content]) -> Result<T, ConfigError>,
    /// What was found by the last look.
    last: Found,
    /// What was last judged: taken, or said to be unusable.
    judged: Found,
}

/// A file's bytes, wiped from memory when dropped: it may hold secrets.
pub type Content = Zeroizing<Vec<u8>>;

/// Tells what was found from what will be found, without keeping it.
type Found = Result<[u8; 20], ConfigError>;

impl<T> Source<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    ///
    /// Where one cannot be read, or what they hold cannot be taken.
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
            judged: found,
        };
        Ok((source, parse(&contents)?))
    }

    /// Looks whether the files hold something new, and returns what is to be made of it.
    ///
    /// A change is taken with the second look that finds the same: the first may see a file that is
    /// half written, or one of two that belong together. Who knows that they are whole says `now`.
    pub fn look(&mut self, now: bool) -> Option<Result<T, ConfigError>> {
        let contents = read(&self.files);
        let found = match &contents {
            Ok(contents) => Ok(digest(contents)),
            Err(error) => Err(error.clone()),
        };
        let is_settled = self.last == found;
        self.last = found.clone();
        if !now && (!is_settled || found == self.judged) {
            return None;
        }
        self.judged = found;
        Some(contents.and_then(|contents| (self.parse)(&contents)))
    }

    /// The variables that name the files.
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
    wrong(variable, format!("cannot read {}: {error}", path.display()))
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
        text.parse().map_err(|_| wrong("FILE", "holds no number"))
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
    fn a_change_is_taken_once_it_has_settled() {
        let (mut source, write, _folder) = source();
        assert_eq!(source.look(false), None);
        write("2");
        assert_eq!(source.look(false), None, "it may be half written");
        write("23");
        assert_eq!(source.look(false), None, "it was");
        assert_eq!(source.look(false), Some(Ok(23)));
        assert_eq!(source.look(false), None);
    }

    #[test]
    fn who_asks_gets_what_is_there_changed_or_not() {
        let (mut source, write, _folder) = source();
        assert_eq!(source.look(true), Some(Ok(1)));
        write("2");
        assert_eq!(source.look(true), Some(Ok(2)));
        assert_eq!(source.look(false), None);
    }

    #[test]
    fn what_cannot_be_taken_is_said_once_and_the_way_back_is_a_change_too() {
        let (mut source, write, folder) = source();
        write("many");
        assert_eq!(source.look(false), None);
        assert!(matches!(source.look(false), Some(Err(_))));
        assert_eq!(source.look(false), None);
        write("1");
        assert_eq!(source.look(false), None);
        assert_eq!(source.look(false), Some(Ok(1)));
        drop(folder);
        assert_eq!(source.look(false), None);
        assert!(matches!(source.look(false), Some(Err(_))));
        assert_eq!(source.look(false), None);
    }
}
