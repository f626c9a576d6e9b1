import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.ElectionNotNeededException;

/**
 * Makes another broker the leader of every partition of a topic: the replicas stay, the next one becomes the preferred
 * leader, and is elected. Neither is what librdkafka's Rust client can do.
 */
public class Leaders {
    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 2) {
            throw new IllegalArgumentException("usage: BOOTSTRAP TOPIC");
        }
        var settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        var topic = arguments[1];
        try (var admin = Admin.create(settings)) {
            var wanted = new HashMap<TopicPartition, List<Integer>>();
            for (var partition : describe(admin, topic).partitions()) {
                var replicas = new ArrayList<>(partition.replicas().stream().map(Node::id).toList());
                // From the leader there is now, whether preferred or not, to the one after it.
                Collections.rotate(replicas, -1 - replicas.indexOf(partition.leader().id()));
                wanted.put(new TopicPartition(topic, partition.partition()), replicas);
            }
            var reassignments = new HashMap<TopicPartition, Optional<NewPartitionReassignment>>();
            wanted.forEach((at, replicas) -> reassignments.put(at, Optional.of(new NewPartitionReassignment(replicas))));
            admin.alterPartitionReassignments(reassignments).all().get();
            elect(admin, wanted.keySet());
        }
    }

    private static TopicDescription describe(Admin admin, String topic) throws Exception {
        return admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
    }

    private static void elect(Admin admin, Set<TopicPartition> partitions) throws Exception {
        for (Map.Entry<TopicPartition, Optional<Throwable>> result :
                admin.electLeaders(ElectionType.PREFERRED, partitions).partitions().get().entrySet()) {
            var error = result.getValue();
            // Elected already, by the controller itself.
            if (error.isPresent() && !(error.get() instanceof ElectionNotNeededException)) {
                throw new Exception(result.getKey().toString(), error.get());
            }
        }
    }
}
