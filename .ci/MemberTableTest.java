// Runs examples/streams/MemberTable.java on the events of .ci/consuming, and on the examples of the
// schemas. Arguments: the file of the events (each behind its expected members and a tab), and the
// files of the examples.

import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.streams.TestInputTopic;
import org.apache.kafka.streams.TestOutputTopic;
import org.apache.kafka.streams.TopologyTestDriver;
import org.apache.kafka.streams.test.TestRecord;

class MemberTableTest {
    static final ObjectMapper JSON = new ObjectMapper();
    static final Map<String, String> TYPES = Map.of(
        "group_create", MemberTable.CREATED, "group_join", MemberTable.JOINED,
        "group_exit", MemberTable.LEFT, "group_destroy", MemberTable.DESTROYED);

    static TestInputTopic<byte[], byte[]> input;
    static TestOutputTopic<String, String> output;

    static void send(String type, byte[] value) {
        var headers = new RecordHeaders();
        if (type != null) headers.add("ce_type", type.getBytes());
        input.pipeInput(new TestRecord<>("g".getBytes(), value, headers));
    }

    static void check(boolean isSo, String otherwise) {
        if (!isSo) throw new AssertionError(otherwise);
    }

    public static void main(String[] arguments) throws Exception {
        System.setProperty("org.slf4j.simpleLogger.defaultLogLevel", "error");
        var settings = new Properties();
        settings.put("application.id", "test");
        settings.put("bootstrap.servers", "nowhere:1");
        settings.put("state.dir", arguments[0] + ".state");
        var passed = 0;
        try (var driver = new TopologyTestDriver(MemberTable.topology(), settings)) {
            var bytes = new ByteArraySerializer();
            var text = new StringDeserializer();
            input = driver.createInputTopic("zim.group", bytes, bytes);
            output = driver.createOutputTopic("zim.members", text, text);
            for (var line : Files.readAllLines(Path.of(arguments[0]))) {
                var step = line.split("\t", 2);
                var name = JSON.readTree(step[1]).get("event").textValue();
                send(TYPES.get(name), step[1].getBytes());
                var found = output.readRecord();
                var members = List.of(JSON.readValue(found.value(), String[].class));
                check(found.key().equals("1/g"), line + ": key " + found.key());
                check(String.join(" ", members).equals(step[0]), line + ": members " + members);
                check(found.headers().toArray().length == 0, line + ": " + found.headers());
                passed++;
            }
            // None of these may end the program, and none changes a list.
            send(null, "{}".getBytes());
            send("com.zegocloud.zim.group.joined.v2", "{}".getBytes());
            for (var value : List.of("", "{", "7", "[]", "{}", "null",
                "{\"appid\":\"1\",\"group_id\":\"g\",\"timestamp\":\"7\"}",
                "{\"appid\":\"1\",\"group_id\":\"g\",\"timestamp\":999,\"new_user_ids\":[null]}")) {
                send(MemberTable.JOINED, value.getBytes());
            }
            send(MemberTable.JOINED, null);
            check(output.isEmpty(), "a record that cannot be read has an effect");
            for (var file : List.of(arguments).subList(1, arguments.length)) {
                for (var example : JSON.readTree(Path.of(file).toFile())) {
                    var type = TYPES.get(example.path("event").asText());
                    send(type, JSON.writeValueAsBytes(example));
                    var key = output.readRecord().key();
                    var group = example.get("group_id").textValue();
                    group = example.get("appid").textValue() + "/" + group;
                    check(key.equals(group), file + ": key " + key);
                    passed++;
                }
            }
        }
        System.out.println(passed);
    }
}
