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

/** Denies a user an operation on a topic, or takes that back: ACLs are what librdkafka's Rust client cannot set. */
public class Acls {
    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 5) {
            throw new IllegalArgumentException("usage: (deny | allow-again) BOOTSTRAP USER TOPIC OPERATION");
        }
        var action = arguments[0];
        var topic = new ResourcePattern(ResourceType.TOPIC, arguments[3], PatternType.LITERAL);
        var denied = new AccessControlEntry(
                "User:" + arguments[2], "*", AclOperation.valueOf(arguments[4]), AclPermissionType.DENY);
        var acl = new AclBinding(topic, denied);

        var settings = new Properties();
        settings.put("bootstrap.servers", arguments[1]);
        try (var admin = Admin.create(settings)) {
            switch (action) {
                case "deny" -> admin.createAcls(List.of(acl)).all().get();
                case "allow-again" -> admin.deleteAcls(List.of(acl.toFilter())).all().get();
                default -> throw new IllegalArgumentException(action);
            }
        }
    }
}
