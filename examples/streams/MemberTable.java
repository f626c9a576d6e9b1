// A table of the members of each group with Kafka Streams: reads zim.group, and writes the list of
// a group to zim.members with each of its events. The key of a list is appid/group_id.
//
//   mvn dependency:copy-dependencies -DoutputDirectory=libs
//   java -cp 'libs/*' MemberTable.java localhost:9092
//
// The newest timestamp of a user decides, so repeated and late events do no harm. ../README.md has
// the rules.

import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

public class MemberTable extends ContextualProcessor<byte[], byte[], String, List<String>> {
    static final String CREATED = "com.zegocloud.zim.group.created.v1";
    static final String JOINED = "com.zegocloud.zim.group.joined.v1";
    static final String LEFT = "com.zegocloud.zim.group.left.v1";
    static final String DESTROYED = "com.zegocloud.zim.group.destroyed.v1";
    static final Map<String, String> USERS = Map.of(
        CREATED, "user_ids", JOINED, "new_user_ids", LEFT, "exit_user_ids", DESTROYED, "user_ids");

    // The users are null if they are unknown: nobody is added or removed.
    record Event(String type, String group, List<String> users, long timestamp) {}

    record Change(boolean isMember, long at) {}

    // A user who has left keeps an entry, so that an older join that arrives later changes nothing.
    record Group(long destroyedAt, TreeMap<String, Change> changes) {
        Group apply(Event event) {
            var changed = new TreeMap<>(changes);
            if (event.type.equals(DESTROYED)) {
                changed.values().removeIf(change -> change.at <= event.timestamp);
                return new Group(Math.max(destroyedAt, event.timestamp), changed);
            }
            // An event that is not newer than the last destroy belongs to the group that ended.
            if (event.timestamp <= destroyedAt || event.users == null) return this;
            var change = new Change(!event.type.equals(LEFT), event.timestamp);
            // The newest timestamp wins, and of equal ones the record that is later in Kafka.
            for (var user : event.users) {
                changed.merge(user, change, (old, latest) -> latest.at >= old.at ? latest : old);
            }
            return new Group(destroyedAt, changed);
        }

        List<String> members() {
            return changes.entrySet().stream()
                .filter(user -> user.getValue().isMember).map(Map.Entry::getKey).toList();
        }
    }

    static final ObjectMapper JSON = new ObjectMapper();

    @Override
    public void process(Record<byte[], byte[]> record) {
        Event event;
        try {
            event = read(record);
        } catch (IOException | IllegalArgumentException error) {
            context().recordMetadata().ifPresent(at -> System.err.printf(
                "%s/%d@%d skipped: %s%n", at.topic(), at.partition(), at.offset(), error));
            return;
        }
        KeyValueStore<String, Group> groups = context().getStateStore("groups");
        var group = groups.get(event.group);
        if (group == null) group = new Group(-1, new TreeMap<>());
        group = group.apply(event);
        groups.put(event.group, group);
        context().forward(
            record.withKey(event.group).withValue(group.members())
                .withHeaders(new RecordHeaders()));
    }

    static Event read(Record<byte[], byte[]> record) throws IOException {
        var header = record.headers().lastHeader("ce_type");
        var type = header == null ? "" : new String(header.value(), StandardCharsets.UTF_8);
        if (!USERS.containsKey(type)) throw new IllegalArgumentException("unknown type " + type);
        if (record.value() == null) throw new IllegalArgumentException("no value");
        var value = JSON.readTree(record.value());
        var time = value.required("timestamp");
        List<String> users =
            JSON.convertValue(value.get(USERS.get(type)), new TypeReference<>() {});
        var app = value.required("appid");
        var group = value.required("group_id");
        var isValid = time.isIntegralNumber() && app.isTextual() && group.isTextual();
        if (!isValid || users != null && users.contains(null)) {
            throw new IllegalArgumentException("invalid field");
        }
        return new Event(type, app.asText() + "/" + group.asText(), users, time.longValue());
    }

    static <T> Serde<T> json(TypeReference<T> type) {
        return Serdes.serdeFrom(
            (topic, value) -> {
                try {
                    return value == null ? null : JSON.writeValueAsBytes(value);
                } catch (IOException error) {
                    throw new UncheckedIOException(error);
                }
            },
            (topic, bytes) -> {
                try {
                    return bytes == null ? null : JSON.readValue(bytes, type);
                } catch (IOException error) {
                    throw new UncheckedIOException(error);
                }
            });
    }

    static Topology topology() {
        var builder = new StreamsBuilder();
        builder.addStateStore(Stores.keyValueStoreBuilder(
            Stores.persistentKeyValueStore("groups"), Serdes.String(),
            json(new TypeReference<Group>() {})));
        builder.stream("zim.group", Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
            .process(MemberTable::new, "groups")
            .to("zim.members", Produced.with(Serdes.String(), json(new TypeReference<>() {})));
        return builder.build();
    }

    public static void main(String[] arguments) {
        var settings = new Properties();
        settings.put("application.id", "member-table");
        settings.put("bootstrap.servers", arguments.length > 0 ? arguments[0] : "localhost:9092");
        // Lists, state and offsets change together. Also reads only what is committed, as
        // `redriven` records need.
        settings.put("processing.guarantee", "exactly_once_v2");
        settings.put("auto.offset.reset", "earliest");
        var streams = new KafkaStreams(topology(), settings);
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }
}
