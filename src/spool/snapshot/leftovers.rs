//! What recoveries have left in the folder of a spool.

use std::fs::{self, Metadata};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::super::folder::DAMAGE_MARK;
use super::super::new_file::{NEW_FILE, NEW_WAL_FILE};
use super::super::recovery::{ASIDE_PREFIX, COPIES_FOLDER};

/// A file or folder that is not a part of the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Its name in the folder.
    pub name: String,
    /// What it is, and what becomes of it.
    pub about: &'static str,
    /// Its bytes, or those of the files in it.
    pub bytes: u64,
    /// When it was changed last.
    pub modified: Option<SystemTime>,
}

/// What recoveries have left in this folder, by name.
///
/// # Errors
///
/// If the folder cannot be read.
pub fn leftovers(folder: &Path) -> io::Result<Vec<Leftover>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(about) = about(&name) else {
            continue;
        };
        // It may be removed meanwhile.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        found.push(Leftover {
            name,
            about,
            bytes: bytes(&entry.path(), &metadata),
            modified: metadata.modified().ok(),
        });
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

fn about(name: &str) -> Option<&'static str> {
    match name {
        _ if name.starts_with(ASIDE_PREFIX) => {
            Some("damaged files that a recovery has moved aside; delete them once examined")
        }
        COPIES_FOLDER => Some(
            "copies of a recovery that is running or was interrupted; the next start removes them",
        ),
        NEW_FILE | NEW_WAL_FILE => Some(
            "a new file that is being filled or was interrupted; the next start completes or removes it",
        ),
        DAMAGE_MARK => {
            Some("the mark that a run has found damage; the next start recovers the spool")
        }
        _ => None,
    }
}

fn bytes(path: &Path, metadata: &Metadata) -> u64 {
    if !metadata.is_dir() {
        return metadata.len();
    }
    let files = fs::read_dir(path).into_iter().flatten().flatten();
    files
        .filter_map(|file| Some(file.metadata().ok()?.len()))
        .sum()
}
