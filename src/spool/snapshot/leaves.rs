//! Finds the rows of a damaged file without the pages that lead to them.

use bytes::Bytes;
use rusqlite::types::ValueRef;

use super::pages::{Pages, View};
use super::tree::{Node, Trees, values};
use crate::spool::format::Format;
use crate::spool::row::Stored;

/// Where a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) number: u64,
    view: View,
    page: u32,
    cell: u16,
}

/// The rows that can be read, and what is known of the others.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// In the order of their numbers; each number once.
    pub(super) places: Vec<Place>,
    /// The numbers of rows that cannot be read, in order.
    pub(super) lost: Vec<u64>,
    /// Whether these are all: the index lists the numbers of all rows, and could be read.
    pub(super) lost_is_complete: bool,
}

/// Looks for rows of this format on every page that is in use.
pub(super) fn find(pages: &Pages, format: Format) -> Rows {
    let (mut places, mut listed) = (Vec::new(), Vec::new());
    // If the WAL is damaged, an index that looks intact may be outdated.
    let mut is_complete = pages.views().len() == 1;
    for view in pages.views().iter().copied() {
        let index = Trees::new(pages, view).index(index_root(format), |entry| {
            listed.extend(number_of(entry, format));
        });
        is_complete &= index.is_ok();
        let unused = pages.unused(view);
        let in_use = pages
            .numbers(view)
            .into_iter()
            .filter(|page| !unused.contains(page));
        let mut unlisted = Vec::new();
        for page in in_use.filter(|page| *page > 1) {
            let Some(node) = node(pages, view, page) else {
                continue;
            };
            for at in 0..node.cells() {
                if node.is_index() && index.is_err() {
                    listed.extend(node.entry(at).and_then(|entry| number_of(entry, format)));
                } else if node.is_table_leaf() {
                    match read_cell(pages, view, &node, at, format) {
                        Some((number, Some(_))) => places.push(Place {
                            number,
                            view,
                            page,
                            cell: at as u16,
                        }),
                        Some((number, None)) => unlisted.push(number),
                        None => {}
                    }
                }
            }
        }
        // A number without an intact row may be misread. The index is better, if there is one.
        if index.is_err() {
            listed.extend(unlisted);
        }
    }
    places.sort_unstable();
    places.dedup_by_key(|place| place.number);
    listed.sort_unstable();
    listed.dedup();
    listed.retain(|number| {
        places
            .binary_search_by_key(number, |place| place.number)
            .is_err()
    });
    Rows {
        places,
        lost: listed,
        lost_is_complete: is_complete,
    }
}

impl Place {
    /// Reads the row; `None` if it is not there any more.
    pub(super) fn read(&self, pages: &Pages, format: Format) -> Option<Stored> {
        let node = node(pages, self.view, self.page)?;
        let (number, stored) = read_cell(pages, self.view, &node, self.cell.into(), format)?;
        stored.filter(|_| number == self.number)
    }
}

fn node(pages: &Pages, view: View, page: u32) -> Option<Node> {
    let bytes: Bytes = pages.page(view, page).ok()?;
    Node::new(bytes)
}

/// The number of a row of the table of records, and the rest if that is intact. Rows of the other
/// table have less columns.
fn read_cell(
    pages: &Pages,
    view: View,
    node: &Node,
    at: usize,
    format: Format,
) -> Option<(u64, Option<Stored>)> {
    const COLUMNS_MIN: usize = 11;
    let (number, content) = node.row(at)?;
    let number = number as u64;
    let Ok(row) = Trees::new(pages, view).whole(content) else {
        return Some((number, None));
    };
    let columns = values(&row)?;
    if columns.len() < COLUMNS_MIN {
        return None;
    }
    let stored = format.decode(number, |at| columns.get(at).copied());
    Some((number, stored.ok()))
}

/// Where the index begins that lists the numbers of all rows.
pub(super) fn index_root(format: Format) -> u32 {
    match format {
        Format::One => 3,
        Format::Two => 4,
    }
}

/// The number in an entry of that index: its last column.
pub(super) fn number_of(entry: &[u8], format: Format) -> Option<u64> {
    let columns = values(entry)?;
    let expected = match format {
        Format::One => 3,
        Format::Two => 2,
    };
    match columns.last() {
        Some(ValueRef::Integer(number)) if columns.len() == expected => Some(*number as u64),
        _ => None,
    }
}
