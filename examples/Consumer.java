// Keeps the member list of each group in a SQLite file, from the group events of zim2kafka.
//
//   mvn -f pom.xml dependency:copy-dependencies -DoutputDirectory=libs
//   java -cp 'libs/*:.' Consumer.java localhost:9092 zim.group members.db
//   sqlite3 members.db "SELECT user_id FROM members WHERE group_id = 'grp-7f3a' AND is_member"
//
// README.md beside this file has the rules that all consumers of this folder follow.

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.sql.*;
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

public class Consumer {
    // The types that this program reads, with the field of their users. A breaking change of an
    // event gets a new type, which is skipped and counted until this program is changed.
    static final Map<String, String> USERS = Map.of(
        "com.zegocloud.zim.group.created.v1", "user_ids",
        "com.zegocloud.zim.group.joined.v1", "new_user_ids",
        "com.zegocloud.zim.group.left.v1", "exit_user_ids",
        "com.zegocloud.zim.group.destroyed.v1", "user_ids");

    // A record that is skipped, with the reason.
    @SuppressWarnings("serial")
    static class Unreadable extends Exception {
        Unreadable(String reason) {
            super(reason);
        }
    }

    static final ObjectMapper JSON =
        new ObjectMapper().enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS);

    // Returns the columns of the view `events`, from the type on.
    static List<Object> read(ConsumerRecord<byte[], byte[]> record) throws Unreadable {
        if (record.value() == null) throw new Unreadable("no value");
        var header = record.headers().lastHeader("ce_type");
        var isNamed = header != null && header.value() != null;
        var type = isNamed ? new String(header.value(), StandardCharsets.UTF_8) : "";
        if (!USERS.containsKey(type)) throw new Unreadable("unknown type");
        JsonNode event;
        try {
            var decoder = StandardCharsets.UTF_8.newDecoder();
            event = JSON.readTree(decoder.decode(ByteBuffer.wrap(record.value())).toString());
        } catch (CharacterCodingException | JsonProcessingException error) {
            throw new Unreadable("not JSON");
        }
        if (event.isMissingNode()) throw new Unreadable("not JSON");
        if (!event.isObject()) throw new Unreadable("not an object");

        var users = event.path(USERS.get(type));
        var mayBeUnknown = USERS.get(type).equals("user_ids");
        var isUnknown = users.isMissingNode() || users.isNull();
        if (!users.isArray() && !(isUnknown && mayBeUnknown)) throw new Unreadable("invalid field");
        for (var user : users) text(user);
        return Arrays.asList(
            type, text(event.get("event_id")), text(event.get("appid")),
            text(event.get("group_id")), isUnknown ? null : users.toString(),
            time(event.get("timestamp")), time(event.get("received_at")));
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

    final Connection store;

    Consumer(String path) throws SQLException, IOException {
        store = DriverManager.getConnection("jdbc:sqlite:" + path + "?transaction_mode=IMMEDIATE");
        try (
            var rules = Consumer.class.getResourceAsStream("/members.sql");
            var statement = store.createStatement()
        ) {
            statement.executeUpdate(new String(rules.readAllBytes(), StandardCharsets.UTF_8));
        }
    }

    // Lists, ids, counts and offsets change together or, after a crash, not at all.
    void apply(ConsumerRecords<byte[], byte[]> records) throws SQLException {
        if (records.isEmpty()) return;
        store.setAutoCommit(false);
        try (
            var insert = store.prepareStatement(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)");
            var skip = store.prepareStatement("INSERT INTO skipped VALUES (?, ?, ?)");
            var clear = store.prepareStatement("DELETE FROM changed")
        ) {
            for (var record : records) {
                var partition = record.topic() + "/" + record.partition();
                try {
                    execute(insert, partition, record.offset(), read(record));
                } catch (Unreadable reason) {
                    System.err.printf(
                        "%s@%d skipped: %s%n", partition, record.offset(), reason.getMessage());
                    execute(skip, partition, record.offset(), List.of(reason.getMessage()));
                }
            }
            var changed = query("SELECT coalesce(group_concat(line, char(10)), '') FROM report");
            clear.executeUpdate();
            store.commit();
            store.setAutoCommit(true);
            ((String) changed).lines().forEach(System.out::println);
        }
    }

    static void execute(PreparedStatement statement, String partition, long offset, List<?> rest)
            throws SQLException {
        statement.setString(1, partition);
        statement.setLong(2, offset);
        for (var at = 0; at < rest.size(); at++) statement.setObject(at + 3, rest.get(at));
        statement.executeUpdate();
    }

    // The first column of the first row, or null.
    Object query(String sql, Object... values) throws SQLException {
        try (var statement = store.prepareStatement(sql)) {
            for (var at = 0; at < values.length; at++) statement.setObject(at + 1, values[at]);
            var rows = statement.executeQuery();
            return rows.next() ? rows.getObject(1) : null;
        }
    }

    void run(String brokers, String topic, String group) throws SQLException {
        var settings = Map.<String, Object>of(
            "bootstrap.servers", brokers,
            "group.id", group,
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
                apply(consumer.poll(Duration.ofSeconds(1)));
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

    public static void main(String[] arguments) throws SQLException, IOException {
        // Of the Kafka client, warnings are enough.
        System.setProperty("org.slf4j.simpleLogger.defaultLogLevel", "warn");
        String[] given = {"localhost:9092", "zim.group", "members.db", "members-java"};
        System.arraycopy(arguments, 0, given, 0, arguments.length);
        new Consumer(given[2]).run(given[0], given[1], given[3]);
    }
}
