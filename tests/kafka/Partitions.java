import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.PrintStream;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.common.utils.Utils;

/**
 * Prints where Kafka's own Java producer puts a record of each key: what Kafka Streams and Flink count on when they join
 * our topic with another by group_id. The output is tests/fixtures/partitions.json.
 */
public class Partitions {
    private static final int[] COUNTS = {1, 2, 3, 12, 100};

    public static void main(String[] arguments) throws Exception {
        var out = new PrintStream(System.out, true, "UTF-8");
        var json = new ObjectMapper();
        var rows = new ArrayList<String>();
        for (var key : keys()) {
            var bytes = new StringSerializer().serialize(null, key);
            var partitions = new ArrayList<Integer>();
            for (var count : COUNTS) {
                partitions.add(BuiltInPartitioner.partitionForKey(bytes, count));
            }
            var row = new LinkedHashMap<String, Object>();
            row.put("key", key);
            row.put("bytes", bytes.length);
            row.put("murmur2", Utils.murmur2(bytes));
            row.put("partitions", partitions);
            rows.add("    " + json.writeValueAsString(row));
        }
        // One key a line, so that a change shows as the lines that changed.
        out.println("{");
        out.println("  \"partition_counts\": " + json.writeValueAsString(COUNTS) + ",");
        out.println("  \"keys\": [");
        out.println(String.join(",\n", rows));
        out.println("  ]");
        out.println("}");
    }

    private static Set<String> keys() {
        var keys = new LinkedHashSet<String>();
        // murmur2 takes four bytes at a time and the rest by a switch that falls through: every remainder, several times.
        for (var length = 0; length <= 17; length++) {
            keys.add("abcdefghijklmnopq".substring(0, length));
        }
        // The bytes it adds up are signed in Java and unsigned in C: every remainder with bytes above 0x7f, too.
        keys.addAll(List.of(
                "é", "ß", "ñ", "日", "本", "ü1", "12é", "123é", "éa", "éé", "日1", "日本", "日本1", "日本é",
                "日本語", "日本語グループ", "группа", "مجموعة", "קבוצה", "กลุ่ม", "समूह", "🎉", "🎉1", "🎉é", "🎉日", "👩‍👩‍👧‍👦", "z̄"));
        // What URLs, forms, JSON and shells give a meaning to.
        keys.addAll(List.of(
                "a+b%25&=~#<>", "a b", "a+b", "a%20b", "%", "%zz", "#group", "@group", "a/b", "a\\b", "\"quoted\"", "'",
                "{\"a\":1}", "[]", "null", "0", "-1", "1e3", " ", "\t", "\n", "\u0000", "a\u0000b"));
        // What the sender's IDs look like.
        keys.addAll(List.of(
                "group_id", "test_group_1", "#3Q2AA3DL4", "_grp_12345", "e3b0c44298fc1c149afbf4c8996fb924",
                "27ae41e4649b934ca495991b7852b855", "123e4567-e89b-12d3-a456-426614174000"));
        keys.addAll(List.of("g".repeat(64), "0123456789".repeat(10), "é".repeat(127) + "x", "日".repeat(341) + "!"));
        for (var number = 1; number <= 24; number++) {
            keys.add("group-" + number);
        }
        return keys;
    }
}
