//! SQLite's connections to a spool file: how they are opened, and what is the same for all.

use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::Error;
use super::format::Format;
use super::{OpenStage, gap, row};

/// SQLite's access to the system with which only this process can use the file. Its connections
/// share the index of the WAL in memory. The default shares it with other processes in a mapped
/// file, `spool.db-shm`, which cannot grow on a full disk and ends the process if the disk cannot
/// read it.
pub(super) const VFS: &str = "unix-excl";

/// SQLite's page size.
pub(super) const PAGE_BYTES: u64 = 4096;

/// The number in `sequence`; `None` if it has been altered.
pub(super) fn last(connection: &Connection) -> rusqlite::Result<Option<u64>> {
    let mut statement = connection.prepare_cached("SELECT last, crc FROM sequence")?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let (Ok(last), Ok(crc)) = (row.get::<_, i64>(0), row.get::<_, u32>(1)) else {
        return Ok(None);
    };
    let last = last as u64;
    Ok((row::checksum_of_last(last) == crc).then_some(last))
}

/// Writes the number in `sequence`.
pub(super) fn write_last(connection: &Connection, last: u64) -> rusqlite::Result<()> {
    let mut statement = connection
        .prepare_cached("INSERT OR REPLACE INTO sequence (rowid, last, crc) VALUES (1, ?1, ?2)")?;
    statement.execute((last as i64, row::checksum_of_last(last)))?;
    Ok(())
}

/// Opens a file, and creates it if it is missing, with the settings that make commits durable.
pub(super) fn connect(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let mut connection = Connection::open_with_flags_and_vfs(path, flags, VFS)?;
    let journal: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // SQLite's own checkpoint would restart the WAL at its beginning and overwrite what is there. A
    // crash in between leaves old and new frames side by side, which looks like damage.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // For the same reason: pages that do not fit into the cache would be written to the WAL early,
    // and again when they change once more.
    connection.pragma_update(None, "cache_spill", false)?;
    configure(&mut connection)?;
    let synchronous = pragma(&connection, "synchronous")?;
    if (journal.as_str(), synchronous) != ("wal", 2) {
        let found = format!("journal {journal}, synchronous {synchronous}");
        return Err(Error::Failed(
            "SQLite cannot sync each commit on this disk",
            found.into(),
        ));
    }
    Ok(connection)
}

/// Opens a file in a folder that takes no writes, and writes nothing. `wal` is its WAL, of which
/// the contents are read too.
pub(super) fn connect_read_only(path: &Path, wal: &Path) -> Result<Connection, Error> {
    // SQLite takes its locks with writes and shares the index of the WAL in a file. Without locks
    // and with exclusive use it needs neither: the index is in memory, one for each connection.
    const VFS_WITHOUT_LOCKS: &str = "unix-none";
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let mut connection = if wal.exists() {
        let connection = Connection::open_with_flags_and_vfs(path, flags, VFS_WITHOUT_LOCKS)?;
        let mode = "EXCLUSIVE";
        connection.pragma_update_and_check(None, "locking_mode", mode, |_| Ok(()))?;
        connection
    } else {
        // SQLite would create the WAL. For a file that nobody changes it does without one.
        let path = percent_encode(path.as_os_str().as_bytes(), NON_ALPHANUMERIC);
        let uri = format!("file:{path}?immutable=1");
        let flags = flags | OpenFlags::SQLITE_OPEN_URI;
        Connection::open_with_flags_and_vfs(uri, flags, VFS_WITHOUT_LOCKS)?
    };
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    configure(&mut connection)?;
    Ok(connection)
}

/// Creates the tables of a format in an empty file.
pub(super) fn create_tables(connection: &mut Connection, format: Format) -> rusqlite::Result<()> {
    let new = connection.transaction()?;
    new.execute_batch(format.schema())?;
    if format == Format::CURRENT {
        write_last(&new, 0)?;
    }
    new.pragma_update(None, "user_version", format.user_version())?;
    new.commit()
}

/// Lets SQLite check the structure of the file.
pub(super) fn check_integrity(connection: &Connection) -> Result<(), Error> {
    let verdict: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    match verdict.as_str() {
        "ok" => Ok(()),
        _ => Err(Error::Damaged(verdict.replace('\n', " ").into())),
    }
}

/// Reads a file once in large pieces, so that it is in the system's cache as far as it fits. SQLite
/// reads page by page, which is many times slower on a disk.
pub(super) fn read_ahead(path: &Path, report: &dyn Fn(OpenStage)) {
    const PIECE_BYTES: usize = 1024 * 1024;
    let Ok(mut file) = File::open(path) else {
        return;
    };
    let mut piece = vec![0; PIECE_BYTES];
    let mut loaded = 0;
    loop {
        match file.read(&mut piece) {
            // SQLite will meet and report a read error too.
            Ok(0) | Err(_) => return,
            Ok(read) => loaded += read as u64,
        }
        report(OpenStage::Loading(loaded));
    }
}

/// The settings that both connections need.
pub(super) fn configure(connection: &mut Connection) -> rusqlite::Result<()> {
    gap::wait_for_locks(connection)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "temp_store", "MEMORY")
}

/// A setting or figure that is a number.
pub(super) fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}
