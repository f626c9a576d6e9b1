//! Reads the store of a consumer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Row};

/// The members of each group, by application and group ID. Groups without members are left out.
pub(crate) type Members = BTreeMap<(String, String), BTreeSet<String>>;

/// A store, opened as another program would, while the consumer may be running.
pub(crate) struct Ledger(Option<Connection>);

impl Ledger {
    pub(crate) fn open(store: &Path) -> Ledger {
        // Not created here: the consumer does that.
        let store = Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_WRITE).ok();
        if let Some(store) = &store {
            let waits = store.busy_timeout(Duration::from_secs(30));
            waits.expect("a timeout can be set");
        }
        Ledger(store)
    }

    /// The next offset of each partition that was read.
    pub(crate) fn positions(&self) -> BTreeMap<String, i64> {
        self.rows("SELECT name, next_offset FROM partitions", |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
    }

    pub(crate) fn members(&self) -> Members {
        let mut members = Members::new();
        let all: Vec<(String, String, String)> = self.rows(
            "SELECT appid, group_id, user_id FROM members WHERE is_member",
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        );
        for (appid, group, user) in all {
            members.entry((appid, group)).or_default().insert(user);
        }
        members
    }

    pub(crate) fn counts(&self) -> BTreeMap<String, i64> {
        self.rows("SELECT name, count FROM counts", |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
    }

    /// The ids that are remembered.
    pub(crate) fn seen(&self) -> BTreeSet<String> {
        self.rows("SELECT event_id FROM seen", |row| row.get(0))
    }

    /// The newest time of its only partition.
    pub(crate) fn clock(&self) -> i64 {
        let clocks: Vec<i64> = self.rows("SELECT clock FROM partitions", |row| row.get(0));
        clocks[0]
    }

    /// How SQLite would execute this statement.
    pub(crate) fn plan(&self, sql: &str) -> Vec<String> {
        self.rows(&format!("EXPLAIN QUERY PLAN {sql}"), |row| {
            row.get("detail")
        })
    }

    /// None before the consumer has made its tables.
    fn rows<T, C: FromIterator<T>>(
        &self,
        sql: &str,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> C {
        let store = self.0.as_ref();
        let has_tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'counts'";
        let ready = store.filter(|store| {
            let tables = store.query_row(has_tables, [], |row| row.get::<_, i64>(0));
            tables.expect("the store can be read") > 0
        });
        let Some(store) = ready else {
            return C::from_iter([]);
        };
        let mut statement = store.prepare(sql).expect("the tables are as documented");
        let rows = statement.query_map([], read).expect("it can be read");
        rows.map(|row| row.expect("it can be read")).collect()
    }
}
