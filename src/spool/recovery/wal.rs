//! A reader of SQLite's write-ahead log, because SQLite ignores damage in it: at the first frame
//! with a wrong checksum it takes the WAL for ended, as after a write that a crash interrupted, and
//! drops every commit behind it without an error.
//!
//! The format is that of <https://sqlite.org/fileformat2.html#the_write_ahead_log>.

use std::collections::BTreeMap;

use crate::spool::connection::PAGE_BYTES;

pub(in crate::spool) const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const FRAME: usize = FRAME_HEADER + PAGE_BYTES as usize;

/// With this magic number, checksums read words as little-endian; with the next one, as big-endian.
/// SQLite writes the byte order of its machine.
const MAGIC: u32 = 0x377f_0682 + cfg!(target_endian = "big") as u32;
const VERSION: u32 = 3_007_000;

type Pair = (u32, u32);

/// A page in a frame of the WAL: its number, from 1, and its bytes.
pub(in crate::spool) type Page<'a> = (u32, &'a [u8]);

/// The committed pages of a WAL.
#[derive(Debug, Default)]
pub(in crate::spool) struct Wal<'a> {
    /// The pages that SQLite reads.
    pub(in crate::spool) sound: Vec<Page<'a>>,
    /// The damaged pages and those behind them, which SQLite would ignore.
    pub(in crate::spool) beyond: Vec<Page<'a>>,
}

impl<'a> Wal<'a> {
    /// Reads the bytes of a WAL file. If some of them could not be read (`is_complete` is false),
    /// frames behind the last commit are damage, and not a write that a crash interrupted.
    pub(in crate::spool) fn read(wal: &'a [u8], is_complete: bool) -> Self {
        let Some((header, frames)) = wal.split_at_checked(HEADER) else {
            return Self::default();
        };
        let frames: Vec<&[u8]> = frames.chunks_exact(FRAME).collect();
        let (sound, damaged_to) = match is_sound(header) {
            true => match extent(header, &frames) {
                (sound, 0) if !is_complete => (sound, end(&frames, pair(header, 16))),
                extent => extent,
            },
            // SQLite would ignore all of it.
            false => (0, end(&frames, most_common_salts(&frames))),
        };
        let pages = |from: usize, to: usize| {
            let frames = frames.get(from..to.max(from)).unwrap_or_default().iter();
            let page = |frame: &&'a [u8]| Some((word(frame, 0), frame.get(FRAME_HEADER..)?));
            frames.filter_map(page).collect()
        };
        Self {
            sound: pages(0, sound),
            beyond: pages(sound, damaged_to),
        }
    }

    /// The versions of the file's first page, in order, those that SQLite would ignore included.
    pub(in crate::spool) fn first_pages(&self) -> impl Iterator<Item = &'a [u8]> {
        let pages = self.sound.iter().chain(&self.beyond);
        pages
            .filter(|(number, _)| *number == 1)
            .map(|(_, page)| *page)
    }

    pub(in crate::spool) fn is_damaged(&self) -> bool {
        !self.beyond.is_empty()
    }
}

/// The salts of most frames. Without the header, nothing else shows which generation is the last.
fn most_common_salts(frames: &[&[u8]]) -> Pair {
    let mut counts = BTreeMap::<Pair, usize>::new();
    for frame in frames {
        *counts.entry(pair(frame, 8)).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map_or((0, 0), |(salts, _)| salts)
}

/// Where the frames with these salts end. Frames behind them are older: SQLite has restarted the
/// WAL at its beginning since, with other salts.
fn end(frames: &[&[u8]], salts: Pair) -> usize {
    let last = frames.iter().rposition(|frame| pair(frame, 8) == salts);
    last.map_or(0, |last| last + 1)
}

/// How many frames SQLite reads, up to the last commit, and where the frames behind damage end; 0
/// if there is no damage.
fn extent(header: &[u8], frames: &[&[u8]]) -> (usize, usize) {
    let salts = pair(header, 16);
    let end = end(frames, salts);
    let is_commit = |frame: &[u8]| word(frame, 4) != 0;
    let (mut committed, mut sum) = (0, pair(header, 24));
    for (at, frame) in frames.iter().enumerate() {
        let belongs = pair(frame, 8) == salts;
        let expected = checksum_of_frame(sum, frame);
        match (belongs, expected == pair(frame, 16)) {
            (true, true) => sum = expected,
            // The checksum does not cover the salts, and no older frame continues this sum.
            (false, true) => return (committed, end.max(at + 1)),
            // A write that a crash interrupted has nothing behind it and is not a commit. Damage to
            // the last frames looks the same and is treated as such a write.
            (_, false) if end > at + 1 || belongs && is_commit(frame) => return (committed, end),
            (_, false) => break,
        }
        if is_commit(frame) {
            committed = at + 1;
        }
    }
    (committed, 0)
}

fn is_sound(header: &[u8]) -> bool {
    let covered = header.get(..24).unwrap_or_default();
    word(header, 0) == MAGIC
        && pair(header, 4) == (VERSION, PAGE_BYTES as u32)
        && checksum((0, 0), covered) == pair(header, 24)
}

/// Covers the page's number, the size that marks a commit, and the page, but not the salts.
fn checksum_of_frame(sum: Pair, frame: &[u8]) -> Pair {
    let sum = checksum(sum, frame.get(..8).unwrap_or_default());
    checksum(sum, frame.get(FRAME_HEADER..).unwrap_or_default())
}

fn checksum((mut one, mut two): Pair, bytes: &[u8]) -> Pair {
    let (words, _) = bytes.as_chunks::<4>();
    let (pairs, _) = words.as_chunks::<2>();
    for [first, second] in pairs {
        one = one
            .wrapping_add(u32::from_ne_bytes(*first))
            .wrapping_add(two);
        two = two
            .wrapping_add(u32::from_ne_bytes(*second))
            .wrapping_add(one);
    }
    (one, two)
}

/// Numbers in the WAL are big-endian on every machine.
fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
    u32::from_be_bytes(word.copied().unwrap_or_default())
}

fn pair(bytes: &[u8], at: usize) -> Pair {
    (word(bytes, at), word(bytes, at + 4))
}
