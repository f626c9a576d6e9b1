// Prints the members of each group by its joins. With kafka-clients and jackson-databind on the
// class path:
//   java -cp '…' Consumer.java localhost:9092

import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.*;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.StringDeserializer;

public class Consumer {
    // A duplicate usually arrives within minutes.
    static final Duration REMEMBERED = Duration.ofMinutes(10);

    public static void main(String[] arguments) throws Exception {
        var settings = Map.<String, Object>of(
            "bootstrap.servers", arguments.length > 0 ? arguments[0] : "localhost:9092",
            "group.id", "members-java",
            "auto.offset.reset", "earliest",
            "enable.auto.commit", "false");
        var json = new ObjectMapper();
        var seen = new HashMap<String, Instant>();
        var members = new HashMap<String, Set<String>>();
        try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of("zim.group-joined"));
            while (true) {
                for (var message : consumer.poll(Duration.ofSeconds(1))) {
                    var id = new String(message.headers().lastHeader("ce_id").value(), StandardCharsets.UTF_8);
                    var now = Instant.now();
                    seen.values().removeIf(when -> when.plus(REMEMBERED).isBefore(now));
                    if (seen.putIfAbsent(id, now) != null) continue;
                    var event = json.readTree(message.value());
                    var group = event.get("group_id").asText();
                    // A set: a repeated join adds nobody.
                    var users = members.computeIfAbsent(group, any -> new HashSet<>());
                    event.get("new_user_ids").forEach(user -> users.add(user.asText()));
                    System.out.println(group + " has " + users.size() + " members");
                }
                consumer.commitAsync();
            }
        }
    }
}
