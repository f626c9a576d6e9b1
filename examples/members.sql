-- The tables of the consumers in this folder, and their rules: README.md describes both. A consumer
-- executes this file when it starts. It inserts each record into the view `events` or `skipped`.

PRAGMA busy_timeout = 30000;
-- With WAL, others can read the file meanwhile.
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;

BEGIN IMMEDIATE;

CREATE TABLE IF NOT EXISTS instance (id TEXT NOT NULL, runs INTEGER NOT NULL);
INSERT INTO instance SELECT hex(randomblob(8)), 0 WHERE NOT EXISTS (SELECT 1 FROM instance);
UPDATE instance SET runs = runs + 1;
-- Where to continue each partition, and its newest received_at.
CREATE TABLE IF NOT EXISTS partitions (
    name TEXT PRIMARY KEY, next_offset INTEGER NOT NULL, clock INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS seen (
    event_id TEXT PRIMARY KEY, partition TEXT NOT NULL, seen_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS seen_by_age ON seen (partition, seen_at);
-- The last destroy, and the last create with a known list of members; -1 if there was none.
CREATE TABLE IF NOT EXISTS groups (
    appid TEXT, group_id TEXT, destroyed_at INTEGER NOT NULL, listed_at INTEGER NOT NULL,
    PRIMARY KEY (appid, group_id)) WITHOUT ROWID;
-- A user who has left keeps a row, so that an older join that arrives later changes nothing.
CREATE TABLE IF NOT EXISTS members (
    appid TEXT, group_id TEXT, user_id TEXT, is_member INTEGER NOT NULL,
    changed_at INTEGER NOT NULL, PRIMARY KEY (appid, group_id, user_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counts (name TEXT PRIMARY KEY, count INTEGER NOT NULL);
-- The groups with an event in this transaction. Emptied before the commit.
CREATE TABLE IF NOT EXISTS changed (
    appid TEXT, group_id TEXT, PRIMARY KEY (appid, group_id)) WITHOUT ROWID;

-- Views and triggers have no data. They are made anew, so that a change of this file has an effect.
DROP VIEW IF EXISTS report;
CREATE VIEW report AS
SELECT printf(
    'app %s group %s: %d %s', appid, group_id,
    (SELECT count(*) FROM members
     WHERE appid = groups.appid AND group_id = groups.group_id AND is_member),
    -- Without the list of its creation, a group may have members that no record has named.
    iif(listed_at > destroyed_at, 'members', 'known members')) AS line
FROM changed JOIN groups USING (appid, group_id);

DROP VIEW IF EXISTS skipped;
CREATE VIEW skipped AS SELECT '' AS partition, 0 AS at_offset, '' AS reason;
CREATE TRIGGER skip INSTEAD OF INSERT ON skipped BEGIN
    INSERT INTO partitions VALUES (NEW.partition, NEW.at_offset + 1, 0)
    ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset;
    INSERT INTO counts VALUES ('skipped: ' || NEW.reason, 1)
    ON CONFLICT DO UPDATE SET count = count + 1;
END;

-- `users` is a JSON list, or null if they are unknown.
DROP VIEW IF EXISTS events;
CREATE VIEW events AS
SELECT '' AS partition, 0 AS at_offset, '' AS type, '' AS event_id, '' AS appid, '' AS group_id,
    '[]' AS users, 0 AS timestamp, 0 AS received_at;
-- Each statement is a search of an index, however many ids and groups there are.
CREATE TRIGGER apply INSTEAD OF INSERT ON events BEGIN
    -- A time in the future must not stop the clock until then.
    INSERT INTO partitions VALUES (
        NEW.partition, NEW.at_offset + 1, min(NEW.received_at, strftime('%s', 'now') * 1000))
    ON CONFLICT DO UPDATE
    SET next_offset = excluded.next_offset, clock = max(clock, excluded.clock);

    -- Ids are remembered over 60 minutes.
    DELETE FROM seen WHERE partition = NEW.partition
    AND seen_at < (SELECT clock FROM partitions WHERE name = NEW.partition) - 60 * 60000;
    INSERT INTO counts
    SELECT iif(EXISTS (SELECT 1 FROM seen WHERE event_id = NEW.event_id), 'duplicates', 'events'), 1
    WHERE true
    ON CONFLICT DO UPDATE SET count = count + 1;
    -- RAISE(IGNORE) ends the trigger. What it has written before stays.
    SELECT RAISE(IGNORE) FROM seen WHERE event_id = NEW.event_id;
    INSERT INTO seen
    SELECT NEW.event_id, name, clock FROM partitions WHERE name = NEW.partition;

    INSERT INTO changed VALUES (NEW.appid, NEW.group_id) ON CONFLICT DO NOTHING;
    INSERT INTO groups VALUES (NEW.appid, NEW.group_id, -1, -1) ON CONFLICT DO NOTHING;
    UPDATE groups SET destroyed_at = max(destroyed_at, NEW.timestamp)
    WHERE appid = NEW.appid AND group_id = NEW.group_id
    AND NEW.type = 'com.zegocloud.zim.group.destroyed.v1';
    DELETE FROM members
    WHERE appid = NEW.appid AND group_id = NEW.group_id AND changed_at <= NEW.timestamp
    AND NEW.type = 'com.zegocloud.zim.group.destroyed.v1';

    -- An event that is not newer than the last destroy belongs to the group that ended.
    SELECT RAISE(IGNORE) FROM groups
    WHERE appid = NEW.appid AND group_id = NEW.group_id
    AND (destroyed_at >= NEW.timestamp OR NEW.type = 'com.zegocloud.zim.group.destroyed.v1');
    UPDATE groups SET listed_at = max(listed_at, NEW.timestamp)
    WHERE appid = NEW.appid AND group_id = NEW.group_id AND NEW.users IS NOT NULL
    AND NEW.type = 'com.zegocloud.zim.group.created.v1';
    -- The newest timestamp wins, and of equal ones the record that is later in Kafka.
    INSERT INTO members
    SELECT NEW.appid, NEW.group_id, value,
        NEW.type <> 'com.zegocloud.zim.group.left.v1', NEW.timestamp
    FROM json_each(NEW.users)
    WHERE true
    ON CONFLICT DO UPDATE
    SET is_member = excluded.is_member, changed_at = excluded.changed_at
    WHERE excluded.changed_at >= changed_at;
END;

COMMIT;
