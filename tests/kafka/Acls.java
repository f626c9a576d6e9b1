import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;

/**
 * Denies a user an operation on a topic, or on all groups (group:PREFIX) or transactional ids
 * (transactional_id:PREFIX) whose names begin like that, or takes that back: ACLs are what
 * librdkafka's Rust client cannot set.
 */
public class Acls {
    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 5) {
            throw new IllegalArgumentException("usage: (deny | allow-again) BOOTSTRAP USER RESOURCE OPERATION");
        }
        var action = arguments[0];
        var parts = arguments[3].split(":", 2);
        var resource = parts.length == 1
                ? new ResourcePattern(ResourceType.TOPIC, parts[0], PatternType.LITERAL)
                : new ResourcePattern(ResourceType.fromString(parts[0]), parts[1], PatternType.PREFIXED);
        var user = "User:" + arguments[2];
        // A resource with any ACL is closed to all whom none allows: the other operations are to go on.
        var acls = List.of(
                new AclBinding(resource, new AccessControlEntry(
                        user, "*", AclOperation.valueOf(arguments[4]), AclPermissionType.DENY)),
                new AclBinding(resource, new AccessControlEntry(
                        user, "*", AclOperation.ALL, AclPermissionType.ALLOW)));

        var settings = new Properties();
        settings.put("bootstrap.servers", arguments[1]);
        try (var admin = Admin.create(settings)) {
            switch (action) {
                case "deny" -> admin.createAcls(acls).all().get();
                case "allow-again" -> admin.deleteAcls(acls.stream().map(AclBinding::toFilter).toList()).all().get();
                default -> throw new IllegalArgumentException(action);
            }
        }
    }
}
