//! Reads the b-trees of a SQLite file, page by page, as
//! <https://sqlite.org/fileformat2.html#b_tree_pages> describes them.
//!
//! It checks more than SQLite does, because the file may be damaged or may change while it is read:
//! numbers must ascend, and no page may be met too often. Whether a row is right is decided by its
//! checksum, so a disagreement with SQLite would be noticed.

use std::borrow::Cow;
use std::cell::Cell;
use std::ops::ControlFlow;

use bytes::Bytes;
use rusqlite::types::ValueRef;

use super::pages::{Broken, Pages, View};
use crate::spool::connection::PAGE_BYTES;

const PAGE: usize = PAGE_BYTES as usize;

const INDEX_INTERIOR: u8 = 0x02;
const TABLE_INTERIOR: u8 = 0x05;
const INDEX_LEAF: u8 = 0x0a;
const TABLE_LEAF: u8 = 0x0d;

/// The most bytes of a row in a leaf of a table. Of a longer one, the rest is in a chain of pages.
const LOCAL_MAX: usize = PAGE - 35;
const LOCAL_MIN: usize = (PAGE - 12) * 32 / 255 - 23;

/// The same for an index. No entry of ours is as long.
const INDEX_LOCAL_MAX: usize = (PAGE - 12) * 64 / 255 - 23;

/// Bytes of a row that are too many: a record has 900,000 at most, and a body too.
const ROW_BYTES_MAX: usize = 4 * 1024 * 1024;

/// SQLite's trees are less deep.
const DEPTH_MAX: usize = 20;

/// The most columns of our tables, and some.
const COLUMNS_MAX: usize = 32;

/// The numbers below a page are above the first one, and not above the second.
type Bounds = (Option<i64>, Option<i64>);

/// Takes a row, by its number and its bytes.
type TakeRow<'t> = dyn FnMut(i64, &[u8]) -> Result<ControlFlow<()>, Broken> + 't;

/// Reads the trees of one view.
pub(super) struct Trees<'a> {
    pages: &'a Pages,
    view: View,
    /// How many pages may still be met.
    left: Cell<usize>,
}

/// One page of a tree.
pub(super) struct Node {
    bytes: Bytes,
    kind: u8,
    cells: usize,
}

impl<'a> Trees<'a> {
    pub(super) fn new(pages: &'a Pages, view: View) -> Self {
        Self {
            pages,
            view,
            left: Cell::new(2 * pages.count_max()),
        }
    }

    /// Takes the rows of a table from this number on, in order, until `take` breaks.
    ///
    /// # Errors
    ///
    /// [`Broken`] at the first page that is not as it must be.
    pub(super) fn table(
        &self,
        root: u32,
        from: i64,
        mut take: impl FnMut(i64, &[u8]) -> Result<ControlFlow<()>, Broken>,
    ) -> Result<ControlFlow<()>, Broken> {
        self.subtable(root, 0, from, (None, None), &mut take)
    }

    /// The part of a table below this page.
    fn subtable(
        &self,
        page: u32,
        depth: usize,
        from: i64,
        (mut low, high): Bounds,
        take: &mut TakeRow<'_>,
    ) -> Result<ControlFlow<()>, Broken> {
        let node = self.node(page, depth)?;
        let is_within = |number: i64, low: Option<i64>| {
            low.is_none_or(|low| number > low) && high.is_none_or(|high| number <= high)
        };
        match node.kind {
            TABLE_LEAF => {
                for at in 0..node.cells {
                    let row = node.row(at).filter(|(number, _)| is_within(*number, low));
                    let (number, cell) = row.ok_or_else(|| broken(page))?;
                    low = Some(number);
                    if number < from {
                        continue;
                    }
                    if take(number, &self.whole(cell)?)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            TABLE_INTERIOR => {
                for at in 0..=node.cells {
                    let (child, last) = node.child(at).ok_or_else(|| broken(page))?;
                    if last.is_some_and(|last| !is_within(last, low)) {
                        return Err(broken(page));
                    }
                    let last = last.or(high);
                    let bounds = (low, last);
                    low = last;
                    if last.is_some_and(|last| last < from) {
                        continue;
                    }
                    if self
                        .subtable(child, depth + 1, from, bounds, take)?
                        .is_break()
                    {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            _ => return Err(broken(page)),
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Takes the entries of an index.
    ///
    /// # Errors
    ///
    /// As [`Trees::table`].
    pub(super) fn index(&self, root: u32, mut take: impl FnMut(&[u8])) -> Result<(), Broken> {
        self.subindex(root, 0, &mut take)
    }

    fn subindex(&self, page: u32, depth: usize, take: &mut dyn FnMut(&[u8])) -> Result<(), Broken> {
        let node = self.node(page, depth)?;
        if ![INDEX_LEAF, INDEX_INTERIOR].contains(&node.kind) {
            return Err(broken(page));
        }
        for at in 0..node.cells {
            if node.kind == INDEX_INTERIOR {
                let (child, _) = node.child(at).ok_or_else(|| broken(page))?;
                self.subindex(child, depth + 1, take)?;
            }
            take(node.entry(at).ok_or_else(|| broken(page))?);
        }
        match node.kind {
            INDEX_INTERIOR => {
                let (child, _) = node.child(node.cells).ok_or_else(|| broken(page))?;
                self.subindex(child, depth + 1, take)
            }
            _ => Ok(()),
        }
    }

    /// Reads a page of a tree. Only its root can be empty.
    fn node(&self, page: u32, depth: usize) -> Result<Node, Broken> {
        let Some(left) = self.left.get().checked_sub(1).filter(|_| depth < DEPTH_MAX) else {
            return Err(Broken("the pages of a table lead in a circle".into()));
        };
        self.left.set(left);
        let node = Node::new(self.pages.page(self.view, page)?).ok_or_else(|| broken(page))?;
        match node.cells == 0 && depth > 0 {
            true => Err(broken(page)),
            false => Ok(node),
        }
    }

    /// The bytes of a row, with those on other pages.
    pub(super) fn whole<'c>(&self, cell: Content<'c>) -> Result<Cow<'c, [u8]>, Broken> {
        let Some(mut next) = cell.next else {
            return Ok(cell.local.into());
        };
        let mut bytes = cell.local.to_vec();
        while bytes.len() < cell.length {
            let page = self.pages.page(self.view, next)?;
            let (following, content) = page.split_first_chunk().ok_or_else(|| broken(next))?;
            let wanted = (cell.length - bytes.len()).min(content.len());
            bytes.extend(content.get(..wanted).unwrap_or_default());
            next = u32::from_be_bytes(*following);
        }
        Ok(bytes.into())
    }
}

fn broken(page: u32) -> Broken {
    Broken(format!("page {page} has been altered").into())
}

/// The bytes of a row that are in its leaf, and where the others begin.
#[derive(Clone, Copy)]
pub(super) struct Content<'a> {
    local: &'a [u8],
    length: usize,
    next: Option<u32>,
}

impl Node {
    /// `None` if it is not a page of a tree.
    pub(super) fn new(bytes: Bytes) -> Option<Self> {
        let kind = *bytes.first()?;
        let cells = usize::from(u16::from_be_bytes(*bytes.get(3..)?.first_chunk()?));
        let node = Self { bytes, kind, cells };
        let is_tree = [INDEX_INTERIOR, TABLE_INTERIOR, INDEX_LEAF, TABLE_LEAF].contains(&kind);
        (is_tree && node.pointers() + 2 * cells <= node.bytes.len()).then_some(node)
    }

    pub(super) fn is_table_leaf(&self) -> bool {
        self.kind == TABLE_LEAF
    }

    pub(super) fn is_index(&self) -> bool {
        [INDEX_INTERIOR, INDEX_LEAF].contains(&self.kind)
    }

    pub(super) fn cells(&self) -> usize {
        self.cells
    }

    /// Where the places of the cells are listed.
    fn pointers(&self) -> usize {
        match self.kind {
            INDEX_INTERIOR | TABLE_INTERIOR => 12,
            _ => 8,
        }
    }

    /// From the beginning of a cell to the end of the page.
    fn cell(&self, at: usize) -> Option<&[u8]> {
        let pointer = self.bytes.get(self.pointers() + 2 * at..)?.first_chunk()?;
        let place = usize::from(u16::from_be_bytes(*pointer));
        let is_behind_list = place >= self.pointers() + 2 * self.cells;
        self.bytes.get(place..).filter(|_| is_behind_list)
    }

    /// The page of a child, and the last number in it; without that for the last child.
    fn child(&self, at: usize) -> Option<(u32, Option<i64>)> {
        if at == self.cells {
            let page = self.bytes.get(8..)?.first_chunk()?;
            return Some((u32::from_be_bytes(*page), None));
        }
        let (page, rest) = self.cell(at)?.split_first_chunk()?;
        let last = match self.kind {
            TABLE_INTERIOR => Some(varint(rest)?.0),
            _ => None,
        };
        Some((u32::from_be_bytes(*page), last))
    }

    /// The number of a row in a leaf of a table, and its bytes.
    pub(super) fn row(&self, at: usize) -> Option<(i64, Content<'_>)> {
        let (length, rest) = varint(self.cell(at)?)?;
        let (number, rest) = varint(rest)?;
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= ROW_BYTES_MAX)?;
        if length <= LOCAL_MAX {
            let local = rest.get(..length)?;
            return Some((
                number,
                Content {
                    local,
                    length,
                    next: None,
                },
            ));
        }
        let some = LOCAL_MIN + (length - LOCAL_MIN) % (PAGE - 4);
        let local = if some <= LOCAL_MAX { some } else { LOCAL_MIN };
        let (local, rest) = rest.split_at_checked(local)?;
        let next = Some(u32::from_be_bytes(*rest.first_chunk()?));
        Some((
            number,
            Content {
                local,
                length,
                next,
            },
        ))
    }

    /// An entry of an index.
    pub(super) fn entry(&self, at: usize) -> Option<&[u8]> {
        let mut cell = self.cell(at)?;
        if self.kind == INDEX_INTERIOR {
            cell = cell.get(4..)?;
        }
        let (length, rest) = varint(cell)?;
        let length = usize::try_from(length).ok()?;
        rest.get(..length).filter(|_| length <= INDEX_LOCAL_MAX)
    }
}

/// The values of a row or of an entry. <https://sqlite.org/fileformat2.html#record_format>
pub(super) fn values(row: &[u8]) -> Option<Vec<ValueRef<'_>>> {
    let (length, rest) = varint(row)?;
    let header = usize::try_from(length)
        .ok()?
        .checked_sub(row.len() - rest.len())?;
    let (mut header, mut content) = rest.split_at_checked(header)?;
    let mut values = Vec::new();
    while !header.is_empty() {
        let (kind, rest) = varint(header)?;
        header = rest;
        let length = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 | 7 => 8,
            12.. => usize::try_from((kind - 12) / 2).ok()?,
            _ => return None,
        };
        let (value, rest) = content.split_at_checked(length)?;
        content = rest;
        values.push(match kind {
            0 => ValueRef::Null,
            8 => ValueRef::Integer(0),
            9 => ValueRef::Integer(1),
            1..=6 => ValueRef::Integer(integer(value)),
            7 => ValueRef::Real(f64::from_bits(integer(value) as u64)),
            kind if kind % 2 == 0 => ValueRef::Blob(value),
            _ => ValueRef::Text(value),
        });
        if values.len() > COLUMNS_MAX {
            return None;
        }
    }
    // Longer ones are altered for SQLite too.
    content.is_empty().then_some(values)
}

/// A signed integer of 1 to 8 bytes.
fn integer(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|first| *first >= 0x80);
    let begin = if negative { -1 } else { 0 };
    bytes
        .iter()
        .fold(begin, |number, byte| number << 8 | i64::from(*byte))
}

/// A number of 1 to 9 bytes, and what follows it.
fn varint(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let mut number: u64 = 0;
    for (at, byte) in bytes.iter().enumerate().take(9) {
        if at == 8 {
            number = number << 8 | u64::from(*byte);
        } else {
            number = number << 7 | u64::from(byte & 0x7f);
        }
        if at == 8 || *byte < 0x80 {
            return Some((number as i64, bytes.get(at + 1..)?));
        }
    }
    None
}
