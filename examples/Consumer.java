// Keeps the member list of each group in a SQLite file, from the group events of zim2kafka.
//
//   mvn -f pom.xml dependency:copy-dependencies -DoutputDirectory=libs
//   java -cp 'libs/*' Consumer.java localhost:9092 zim.group members.db
//   sqlite3 members.db "SELECT user_id FROM members WHERE group_id = 'grp-7f3a' AND is_member"
//
// README.md beside this file has the rules that consumer.py, consumer.rs and Consumer.java follow.

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.sql.*;
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

public class Consumer {
    // How long an event_id is remembered, measured by the records' received_at.
    static final long DEDUP_MINUTES = 60;

    // The types that this program reads, with the field of their users. A breaking change of an
    // event gets a new type, which is skipped and counted until this program is changed.
    enum Type {
        CREATED("com.zegocloud.zim.group.created.v1", "user_ids"),
        JOINED("com.zegocloud.zim.group.joined.v1", "new_user_ids"),
        LEFT("com.zegocloud.zim.group.left.v1", "exit_user_ids"),
        DESTROYED("com.zegocloud.zim.group.destroyed.v1", "user_ids");

        final String name;
        final String users;

        Type(String name, String users) {
            this.name = name;
            this.users = users;
        }
    }

    static final List<String> SCHEMA = List.of(
        "CREATE TABLE IF NOT EXISTS instance (id TEXT NOT NULL)",
        "INSERT INTO instance SELECT hex(randomblob(8)) WHERE NOT EXISTS (SELECT 1 FROM instance)",
        // Where to continue each partition, and its newest received_at.
        """
        CREATE TABLE IF NOT EXISTS partitions (
            name TEXT PRIMARY KEY, next_offset INTEGER NOT NULL, clock INTEGER NOT NULL)""",
        """
        CREATE TABLE IF NOT EXISTS seen (
            event_id TEXT PRIMARY KEY, partition TEXT NOT NULL, seen_at INTEGER NOT NULL)
            WITHOUT ROWID""",
        "CREATE INDEX IF NOT EXISTS seen_by_age ON seen (partition, seen_at)",
        // The last destroy, and the last create with a known list of members; -1 if there was none.
        """
        CREATE TABLE IF NOT EXISTS groups (
            appid TEXT, group_id TEXT, destroyed_at INTEGER NOT NULL, listed_at INTEGER NOT NULL,
            PRIMARY KEY (appid, group_id)) WITHOUT ROWID""",
        // A user who has left keeps a row, so that an older join that arrives later changes
        // nothing.
        """
        CREATE TABLE IF NOT EXISTS members (
            appid TEXT, group_id TEXT, user_id TEXT, is_member INTEGER NOT NULL,
            changed_at INTEGER NOT NULL, PRIMARY KEY (appid, group_id, user_id)) WITHOUT ROWID""",
        "CREATE TABLE IF NOT EXISTS counts (name TEXT PRIMARY KEY, count INTEGER NOT NULL)");

    record Group(String appid, String id) {}

    // The users are null if they are unknown.
    record Event(
        Type type, String id, Group group, long timestamp, long receivedAt, List<String> users) {}

    // A record that is skipped, with the reason.
    @SuppressWarnings("serial")
    static class Unreadable extends Exception {
        Unreadable(String reason) {
            super(reason);
        }
    }

    static final ObjectMapper JSON =
        new ObjectMapper().enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS);

    static Event read(ConsumerRecord<byte[], byte[]> record) throws Unreadable {
        if (record.value() == null) throw new Unreadable("no value");
        var type = type(record);
        JsonNode event;
        try {
            var decoder = StandardCharsets.UTF_8.newDecoder();
            event = JSON.readTree(decoder.decode(ByteBuffer.wrap(record.value())).toString());
        } catch (CharacterCodingException | JsonProcessingException error) {
            throw new Unreadable("not JSON");
        }
        if (event.isMissingNode()) throw new Unreadable("not JSON");
        if (!event.isObject()) throw new Unreadable("not an object");
        var group = new Group(text(event.get("appid")), text(event.get("group_id")));
        return new Event(
            type, text(event.get("event_id")), group,
            time(event.get("timestamp")), time(event.get("received_at")),
            users(type, event.get(type.users)));
    }

    static Type type(ConsumerRecord<byte[], byte[]> record) throws Unreadable {
        var header = record.headers().lastHeader("ce_type");
        if (header != null && header.value() != null) {
            var name = new String(header.value(), StandardCharsets.UTF_8);
            for (var type : Type.values()) if (type.name.equals(name)) return type;
        }
        throw new Unreadable("unknown type");
    }

    static List<String> users(Type type, JsonNode list) throws Unreadable {
        if (list != null && list.isArray()) {
            var users = new ArrayList<String>();
            for (var user : list) users.add(text(user));
            return users;
        }
        var isUnknown = list == null || list.isNull();
        if (isUnknown && (type == Type.CREATED || type == Type.DESTROYED)) return null;
        throw new Unreadable("invalid field");
    }

    static String text(JsonNode value) throws Unreadable {
        var text = value == null ? null : value.textValue();
        // Lone surrogates are no text for SQLite.
        var encoder = StandardCharsets.UTF_8.newEncoder();
        if (text == null || text.isEmpty() || !encoder.canEncode(text)) {
            throw new Unreadable("invalid field");
        }
        return text;
    }

    static long time(JsonNode value) throws Unreadable {
        var isInteger = value != null && value.isIntegralNumber() && value.canConvertToLong();
        var time = isInteger ? value.longValue() : -1;
        if (time < 0 || time >= 10_000_000_000_000L) throw new Unreadable("invalid field");
        return time;
    }

    final Connection connection;
    final Map<String, PreparedStatement> statements = new HashMap<>();

    Consumer(String path) throws SQLException {
        var pragmas = new Properties();
        // With WAL, others can read the file meanwhile.
        pragmas.put("journal_mode", "WAL");
        pragmas.put("synchronous", "NORMAL");
        pragmas.put("busy_timeout", "30000");
        connection = DriverManager.getConnection("jdbc:sqlite:" + path, pragmas);
        connection.setAutoCommit(false);
        for (var statement : SCHEMA) execute(statement);
        connection.commit();
    }

    // Applies a record to the store. Returns the group that it may have changed, or null.
    Group apply(ConsumerRecord<byte[], byte[]> record) throws SQLException {
        var partition = record.topic() + "/" + record.partition();
        Event event;
        try {
            event = read(record);
        } catch (Unreadable unreadable) {
            advance(partition, record.offset(), 0);
            var total = count("skipped: " + unreadable.getMessage());
            System.err.printf(
                "%s@%d skipped: %s (%d so far)%n",
                partition, record.offset(), unreadable.getMessage(), total);
            return null;
        }

        // A time in the future must not stop the clock until then.
        advance(partition, record.offset(), Math.min(event.receivedAt, System.currentTimeMillis()));
        if (isDuplicate(partition, event.id)) {
            count("duplicates");
            return null;
        }
        count("events");

        var group = event.group;
        if (event.type == Type.DESTROYED) {
            noteGroup(group, event.timestamp, -1);
            execute(
                "DELETE FROM members WHERE appid = ? AND group_id = ? AND changed_at <= ?",
                group.appid, group.id, event.timestamp);
        } else if (event.timestamp > destroyedAt(group)) {
            var users = event.users == null ? List.<String>of() : event.users;
            if (event.type == Type.CREATED && event.users != null) {
                noteGroup(group, -1, event.timestamp);
            }
            // The newest timestamp wins, and of equal ones the record that is later in Kafka.
            for (var user : users) {
                execute(
                    """
                    INSERT INTO members VALUES (?, ?, ?, ?, ?)
                    ON CONFLICT DO UPDATE
                    SET is_member = excluded.is_member, changed_at = excluded.changed_at
                    WHERE excluded.changed_at >= changed_at""",
                    group.appid, group.id, user, event.type != Type.LEFT, event.timestamp);
            }
        }
        return group;
    }

    void advance(String partition, long offset, long receivedAt) throws SQLException {
        execute(
            """
            INSERT INTO partitions VALUES (?, ?, ?)
            ON CONFLICT DO UPDATE
            SET next_offset = excluded.next_offset, clock = max(clock, excluded.clock)""",
            partition, offset + 1, receivedAt);
    }

    // Remembers the id. Each statement is one search of an index, however many ids there are.
    boolean isDuplicate(String partition, String eventId) throws SQLException {
        var clock = (Number) query("SELECT clock FROM partitions WHERE name = ?", partition);
        execute(
            "DELETE FROM seen WHERE partition = ? AND seen_at < ?",
            partition, clock.longValue() - Duration.ofMinutes(DEDUP_MINUTES).toMillis());
        var added = execute(
            "INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", eventId, partition, clock);
        return added == 0;
    }

    long destroyedAt(Group group) throws SQLException {
        var time = (Number) query(
            "SELECT destroyed_at FROM groups WHERE appid = ? AND group_id = ?",
            group.appid, group.id);
        return time == null ? -1 : time.longValue();
    }

    void noteGroup(Group group, long destroyedAt, long listedAt) throws SQLException {
        execute(
            """
            INSERT INTO groups VALUES (?, ?, ?, ?)
            ON CONFLICT DO UPDATE
            SET destroyed_at = max(destroyed_at, excluded.destroyed_at),
                listed_at = max(listed_at, excluded.listed_at)""",
            group.appid, group.id, destroyedAt, listedAt);
    }

    Object count(String name) throws SQLException {
        execute(
            "INSERT INTO counts VALUES (?, 1) ON CONFLICT DO UPDATE SET count = count + 1", name);
        return query("SELECT count FROM counts WHERE name = ?", name);
    }

    String describe(Group group) throws SQLException {
        var members = query(
            "SELECT count(*) FROM members WHERE appid = ? AND group_id = ? AND is_member",
            group.appid, group.id);
        var isComplete = query(
            "SELECT 1 FROM groups WHERE appid = ? AND group_id = ? AND listed_at > destroyed_at",
            group.appid, group.id) != null;
        // Without the list of its creation, a group may have members that no record has named.
        return "app %s group %s: %s %s".formatted(
            group.appid, group.id, members, isComplete ? "members" : "known members");
    }

    int execute(String sql, Object... values) throws SQLException {
        var statement = prepare(sql, values);
        return statement.execute() ? 0 : statement.getUpdateCount();
    }

    // The first column of the first row, or null.
    Object query(String sql, Object... values) throws SQLException {
        try (var rows = prepare(sql, values).executeQuery()) {
            return rows.next() ? rows.getObject(1) : null;
        }
    }

    PreparedStatement prepare(String sql, Object... values) throws SQLException {
        var statement = statements.get(sql);
        if (statement == null) statements.put(sql, statement = connection.prepareStatement(sql));
        for (var at = 0; at < values.length; at++) statement.setObject(at + 1, values[at]);
        return statement;
    }

    void run(String brokers, String topic) throws SQLException {
        var settings = Map.<String, Object>of(
            "bootstrap.servers", brokers,
            "group.id", "members-java",
            // The store's own name: after a restart, this instance gets its partitions back at
            // once, and a second process with the same store ends the first.
            "group.instance.id", query("SELECT id FROM instance"),
            // Records that are published again later (header `redriven: true`) are published in
            // transactions.
            "isolation.level", "read_committed",
            "auto.offset.reset", "earliest");
        var bytes = new ByteArrayDeserializer();
        try (var consumer = new KafkaConsumer<>(settings, bytes, bytes)) {
            consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                // Only the store's offsets belong to the store's lists. Those of the consumer group
                // are for tools that show the lag.
                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                    for (var partition : partitions) {
                        var offset = nextOffset(partition);
                        if (offset == null) consumer.seekToBeginning(List.of(partition));
                        else consumer.seek(partition, offset.longValue());
                    }
                    System.err.printf("reads %d partitions of %s%n", partitions.size(), topic);
                }

                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                    // Each batch is in the store before the next poll, which is what calls this.
                }
            });
            while (true) {
                var changed = new LinkedHashSet<Group>();
                for (var record : consumer.poll(Duration.ofSeconds(1))) changed.add(apply(record));
                changed.remove(null);
                // Lists, ids, counts and offsets change together or, after a crash, not at all.
                connection.commit();
                for (var group : changed) System.out.println(describe(group));
            }
        }
    }

    Number nextOffset(TopicPartition partition) {
        var name = partition.topic() + "/" + partition.partition();
        try {
            return (Number) query("SELECT next_offset FROM partitions WHERE name = ?", name);
        } catch (SQLException error) {
            throw new IllegalStateException(error);
        }
    }

    public static void main(String[] arguments) throws SQLException {
        // Of the Kafka client, warnings are enough.
        System.setProperty("org.slf4j.simpleLogger.defaultLogLevel", "warn");
        var brokers = arguments.length > 0 ? arguments[0] : "localhost:9092";
        var topic = arguments.length > 1 ? arguments[1] : "zim.group";
        var store = new Consumer(arguments.length > 2 ? arguments[2] : "members.db");
        store.run(brokers, topic);
    }
}
