//! SQLite's write-ahead log, read by ourselves, because SQLite passes over damage in it: at the first
//! frame whose checksum is wrong it takes the log for ended, as after a write that a crash cut short,
//! and every commit behind it is gone without a word.
//!
//! The format is that of <https://sqlite.org/fileformat2.html#the_write_ahead_log>.

use std::collections::BTreeMap;

use super::store::PAGE_BYTES;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const FRAME: usize = FRAME_HEADER + PAGE_BYTES as usize;

/// With this magic number, checksums read words as little-endian; with the next one, as big-endian.
/// SQLite writes its machine's own.
const MAGIC: u32 = 0x377f_0682 + cfg!(target_endian = "big") as u32;
const VERSION: u32 = 3_007_000;

type Pair = (u32, u32);

/// A page as a frame of the log holds it: its number, from 1, and its bytes.
pub(super) type Page<'a> = (u32, &'a [u8]);

/// A log, as far as it was committed.
#[derive(Debug, Default)]
pub(super) struct Log<'a> {
    /// What SQLite reads of it.
    pub(super) sound: Vec<Page<'a>>,
    /// What follows damage, and what is damaged: SQLite would take no notice of it.
    pub(super) beyond: Vec<Page<'a>>,
}

impl<'a> Log<'a> {
    /// Reads a log file's bytes. Where some of them could not be read, what follows the last commit is no
    /// write that a crash cut short.
    pub(super) fn read(log: &'a [u8], is_whole: bool) -> Self {
        let Some((header, frames)) = log.split_at_checked(HEADER) else {
            return Self::default();
        };
        let frames: Vec<&[u8]> = frames.chunks_exact(FRAME).collect();
        let (sound, damaged_to) = match is_sound(header) {
            true => match extent(header, &frames) {
                (sound, 0) if !is_whole => (sound, end(&frames, pair(header, 16))),
                extent => extent,
            },
            // SQLite would pass over all of it.
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

    pub(super) fn is_damaged(&self) -> bool {
        !self.beyond.is_empty()
    }
}

/// Those of most frames: without the header, nothing else tells which round is the last.
fn most_common_salts(frames: &[&[u8]]) -> Pair {
    let mut counts = BTreeMap::<Pair, usize>::new();
    for frame in frames {
        *counts.entry(pair(frame, 8)).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map_or((0, 0), |(salts, _)| salts)
}

/// Where the frames end that belong to this round of the log. Older frames lie behind them, from before
/// SQLite began at the front again; their salts differ.
fn end(frames: &[&[u8]], salts: Pair) -> usize {
    let last = frames.iter().rposition(|frame| pair(frame, 8) == salts);
    last.map_or(0, |last| last + 1)
}

/// How many frames SQLite reads, up to the last commit, and how many there are beyond damage; the
/// latter is 0 where there is none.
fn extent(header: &[u8], frames: &[&[u8]]) -> (usize, usize) {
    let salts = pair(header, 16);
    let end = end(frames, salts);
    let is_commit = |frame: &[u8]| word(frame, 4) != 0;
    let (mut committed, mut sum) = (0, pair(header, 24));
    for (at, frame) in frames.iter().enumerate() {
        let belongs = pair(frame, 8) == salts;
        let whole = checksum_of_frame(sum, frame);
        match (belongs, whole == pair(frame, 16)) {
            (true, true) => sum = whole,
            // Its checksum does not cover the salts, and no older frame fits behind this sum.
            (false, true) => return (committed, end.max(at + 1)),
            // A write that a crash cut short has nothing behind it, and is no commit.
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

/// Covers the page's number, the size that marks a commit, and the page; not the salts.
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

/// The log's own numbers are big-endian on every machine.
fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
    u32::from_be_bytes(word.copied().unwrap_or_default())
}

fn pair(bytes: &[u8], at: usize) -> Pair {
    (word(bytes, at), word(bytes, at + 4))
}
