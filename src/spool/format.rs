//! The formats of the file.

/// A format that this version can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Only read: a start [migrates](super::migration) it. Its rows have a lane and a description
    /// of the event, from a closed set.
    One = 1,
    /// Read and written. Its rows have the event's name, and the file has the last number.
    Two = 2,
}

/// What the file is, and the version of its tables. The version is in two of the four bytes, so
/// that one damaged byte never looks like another version.
const fn user_version(version: u8) -> i32 {
    0x7a00_6b00 | (version as i32) << 16 | version as i32
}

impl Format {
    /// The format that is written.
    pub(super) const CURRENT: Self = Self::Two;

    /// SQLite's `user_version` of a file with this format.
    pub(super) const fn user_version(self) -> i32 {
        user_version(self as u8)
    }

    /// The format that this `user_version` names, if it is one that can be read.
    pub(super) fn of(found: i32) -> Option<Self> {
        [Self::One, Self::Two]
            .into_iter()
            .find(|format| format.user_version() == found)
    }
}

/// The version of the format if a newer program wrote it.
pub(super) fn newer_version(found: i32) -> Option<u8> {
    (Format::CURRENT as u8 + 1..=u8::MAX).find(|version| user_version(*version) == found)
}
