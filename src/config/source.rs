//! Files that are read at startup and again when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha1::{Digest, Sha1};

use super::file::{self, Content};
use super::{ConfigError, ConfigErrors, Faults};

/// A set of files that are parsed together.
pub struct Source<T> {
    files: Vec<SourceFile>,
    parse: fn(&[Content]) -> Result<T, ConfigError>,
    /// The state of the files at the last check.
    last: FilesState,
    /// The state that was last parsed, successfully or not.
    parsed: FilesState,
    /// The place of the file that is being read.
    at: Arc<AtomicUsize>,
}

/// Names the file of a [`Source`] that is being read, on another thread.
#[derive(Debug, Default)]
pub struct Reading {
    files: Vec<String>,
    at: Arc<AtomicUsize>,
}

impl Reading {
    /// The variable and the path of the file that was last begun to be read.
    pub fn file(&self) -> &str {
        let at = self.at.load(Ordering::Relaxed);
        self.files.get(at).map_or("", String::as_str)
    }
}

struct SourceFile {
    variable: &'static str,
    path: PathBuf,
    /// If it is not a regular file: what it is, and what it held at the start. It is not read again,
    /// because a pipe has nothing more to read, and waiting for its writer could take for ever.
    once: Option<(&'static str, Content)>,
}

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
    ) -> Result<(Self, T), ConfigErrors> {
        let (mut watched, mut contents) = (Vec::new(), Vec::new());
        let mut faults = Faults::default();
        for &(variable, path) in files {
            let Some(opened) = faults.take(file::open(variable, path)) else {
                continue;
            };
            watched.push(SourceFile {
                variable,
                path: path.to_path_buf(),
                once: opened.special.map(|kind| (kind, opened.content.clone())),
            });
            contents.push(opened.content);
        }
        faults.finish(Some(()))?;
        let found = Ok(digest(&contents));
        let source = Self {
            files: watched,
            parse,
            last: found.clone(),
            parsed: found,
            at: Arc::default(),
        };
        let first = source.parse(&contents)?;
        Ok((source, first))
    }

    /// Checks the files, and parses them if they have changed.
    ///
    /// A change is parsed once two checks in a row have found the same: a single check may see a
    /// file that is half written, or only one of two that belong together. `now` parses them in any
    /// case.
    ///
    /// It may take for ever if a file system does not answer.
    pub fn check(&mut self, now: bool) -> Option<Result<T, ConfigError>> {
        let contents = self.read();
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
        Some(contents.and_then(|contents| self.parse(&contents)))
    }

    fn read(&self) -> Result<Vec<Content>, ConfigError> {
        let read = |(at, file): (usize, &SourceFile)| match &file.once {
            Some((_, content)) => Ok(content.clone()),
            None => {
                self.at.store(at, Ordering::Relaxed);
                file::read_regular(&file.path).map_err(|error| error.of(file.variable, &file.path))
            }
        };
        self.files.iter().enumerate().map(read).collect()
    }

    fn parse(&self, contents: &[Content]) -> Result<T, ConfigError> {
        (self.parse)(contents).map_err(|error| {
            let is_named = |file: &&SourceFile| file.variable == error.variable;
            match self.files.iter().find(is_named) {
                Some(file) => file::at(file.variable, &file.path, &error.problem),
                None => error,
            }
        })
    }

    /// Whether there is a file that can change.
    pub fn is_watched(&self) -> bool {
        self.files.iter().any(|file| file.once.is_none())
    }

    /// The files that are not read again, with their variables and what they are.
    pub fn read_once(&self) -> Vec<String> {
        let describe = |file: &SourceFile| {
            let (kind, _) = file.once.as_ref()?;
            Some(format!(
                "{}: {} is {kind}",
                file.variable,
                file.path.display()
            ))
        };
        self.files.iter().filter_map(describe).collect()
    }

    /// The variables that hold the paths of the files.
    pub fn variables(&self) -> String {
        let names: Vec<_> = self.files.iter().map(|file| file.variable).collect();
        names.join(", ")
    }

    /// Names the file that [`Self::check`] is reading, while that has not ended.
    pub fn reading(&self) -> Reading {
        let name =
            |file: &SourceFile| format!("{}: reading {}", file.variable, file.path.display());
        Reading {
            files: self.files.iter().map(name).collect(),
            at: Arc::clone(&self.at),
        }
    }
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
    use std::fs;

    use super::super::invalid;
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
    fn two_files_that_belong_together_are_parsed_once_both_are_replaced() {
        fn pair(contents: &[Content]) -> Result<Content, ConfigError> {
            match contents {
                [one, two] if one == two => Ok(one.clone()),
                _ => Err(invalid("ONE", "does not belong to TWO")),
            }
        }
        let folder = tempfile::tempdir().expect("a folder");
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        let write = |path: &Path, text: &str| fs::write(path, text).expect("it can be written");
        write(&one, "1");
        write(&two, "1");
        let (mut source, _) =
            Source::open(&[("ONE", &one), ("TWO", &two)], pair).expect("both are there");
        let reading = source.reading();
        for (path, variable) in [(&one, "ONE"), (&two, "TWO")] {
            // That of the file which cannot be read, as if it hung there.
            fs::rename(path, folder.path().join("away")).expect("it was written");
            assert!(source.check(false).is_none());
            let name = format!("{variable}: reading {}", path.display());
            assert_eq!(reading.file(), name);
            write(path, "1");
        }
        assert_eq!(source.check(false), None);
        write(&one, "2");
        assert_eq!(source.check(false), None, "the other may follow");
        write(&two, "2");
        assert_eq!(source.check(false), None);
        let parsed = source
            .check(false)
            .map(|parsed| parsed.expect("they are a pair"));
        assert_eq!(parsed.as_deref().map(Vec::as_slice), Some(&b"2"[..]));
    }

    /// As kubelet does it: the file is a link through `..data`, a link to the folder of a version.
    #[test]
    fn a_folder_that_is_replaced_behind_links_is_a_change() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let version = |name: &str, text: &str| {
            fs::create_dir(folder.join(name)).expect("a folder");
            fs::write(folder.join(name).join("file"), text).expect("it can be written");
            symlink(name, folder.join("..new")).expect("a link");
            fs::rename(folder.join("..new"), folder.join("..data")).expect("it is replaced");
        };
        version("..1", "1");
        symlink("..data/file", folder.join("file")).expect("a link");
        let (mut source, _) =
            Source::open(&[("FILE", &folder.join("file"))], number).expect("it is there");
        version("..2", "2");
        assert_eq!(source.check(false), None);
        assert_eq!(source.check(false), Some(Ok(2)));
    }

    #[test]
    fn a_change_within_the_files_last_modification_time_is_seen() {
        let (mut source, write, folder) = source();
        let path = folder.path().join("file");
        let file = fs::File::open(&path).expect("it is there");
        let time = file
            .metadata()
            .and_then(|data| data.modified())
            .expect("a time");
        write("2");
        file.set_modified(time).expect("it is ours");
        assert_eq!(source.check(false), None);
        assert_eq!(source.check(false), Some(Ok(2)));
    }

    #[test]
    fn a_file_that_becomes_a_pipe_is_an_error_until_it_is_a_file_again() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let (mut source, write, folder) = source();
        let path = folder.path().join("file");
        fs::remove_file(&path).expect("it was written");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
        assert_eq!(source.check(false), None);
        let Some(Err(error)) = source.check(false) else {
            panic!("it is not a regular file");
        };
        assert!(
            error
                .to_string()
                .ends_with("/file: is a pipe; a regular file is needed here")
        );
        assert_eq!(source.check(false), None);
        fs::remove_file(&path).expect("it was created");
        write("2");
        assert_eq!(source.check(false), None);
        assert_eq!(source.check(false), Some(Ok(2)));
    }

    #[test]
    fn a_special_file_keeps_what_it_held_at_the_start() {
        fn sum(contents: &[Content]) -> Result<usize, ConfigError> {
            Ok(contents.iter().map(|content| content.len()).sum())
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        fs::write(&path, "12").expect("it can be written");
        let null = Path::new("/dev/null");
        let (source, first) = Source::open(&[("NULL", null)], sum).expect("it is empty");
        assert_eq!((first, source.is_watched()), (0, false));
        let (mut source, first) =
            Source::open(&[("FILE", &path), ("NULL", null)], sum).expect("both are there");
        assert_eq!((first, source.is_watched()), (2, true));
        assert_eq!(source.read_once(), ["NULL: /dev/null is a device"]);
        fs::write(&path, "123").expect("it can be written");
        assert_eq!(source.check(true), Some(Ok(3)));
    }

    #[test]
    fn an_error_of_the_contents_names_the_file() {
        let (mut source, write, folder) = source();
        write("many");
        let Some(Err(error)) = source.check(true) else {
            panic!("it is not a number");
        };
        let path = folder.path().join("file");
        assert_eq!(
            error.to_string(),
            format!("FILE: {}: holds no number", path.display())
        );
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
