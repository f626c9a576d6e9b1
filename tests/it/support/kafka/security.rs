//! The listener with TLS and passwords: who may come in, and how.

use std::path::PathBuf;

use super::distribution::said_by;
use super::machine::Machine;

const STORE_PASSWORD: &str = "of-the-test-keystore";

/// The listener with SCRAM over TLS, for one user who may do everything that no ACL denies.
pub(crate) struct SaslSsl {
    /// Its bootstrap servers.
    pub(crate) brokers: String,
    /// The certificate to trust.
    pub(crate) ca_pem: PathBuf,
}

impl SaslSsl {
    /// Who logs in.
    pub(crate) const USERNAME: &str = "zim2kafka";
    /// With what.
    pub(crate) const PASSWORD: &str = "of-the-test-user";
    /// How.
    pub(crate) const MECHANISMS: [&str; 2] = ["SCRAM-SHA-256", "SCRAM-SHA-512"];

    /// The librdkafka properties that a client needs besides its bootstrap servers.
    pub(crate) fn properties(&self, mechanism: &str) -> [(&'static str, String); 5] {
        [
            ("security.protocol", "SASL_SSL".to_owned()),
            ("sasl.mechanism", mechanism.to_owned()),
            ("sasl.username", SaslSsl::USERNAME.to_owned()),
            ("sasl.password", SaslSsl::PASSWORD.to_owned()),
            ("ssl.ca.location", self.ca_pem.display().to_string()),
        ]
    }
}

/// The users, as `kafka-storage format --add-scram` wants them.
pub(crate) fn users() -> [String; 2] {
    let (name, password) = (SaslSsl::USERNAME, SaslSsl::PASSWORD);
    SaslSsl::MECHANISMS.map(|mechanism| format!("{mechanism}=[name={name},password={password}]"))
}

/// Makes the key that the brokers of a cluster share, and its certificate. It is self-signed, so it
/// is also the one to trust.
pub(crate) fn make_certificate(machine: &Machine) -> Result<(), String> {
    let keytool = || {
        let mut keytool = machine.keytool();
        keytool.args(["-storepass", STORE_PASSWORD, "-alias", "broker"]);
        keytool.arg("-keystore").arg(store(machine));
        keytool
    };
    let key = [
        "-genkeypair",
        "-storetype",
        "PKCS12",
        "-keyalg",
        "EC",
        "-groupname",
        "secp256r1",
    ];
    let names = [
        "-dname",
        "CN=test broker",
        "-ext",
        "SAN=IP:127.0.0.1,DNS:localhost",
    ];
    said_by(keytool().args(key).args(names).args(["-validity", "2"]))?;
    let mut export = keytool();
    export
        .args(["-exportcert", "-rfc", "-file"])
        .arg(certificate(machine));
    said_by(&mut export).map(drop)
}

/// The certificate as PEM.
pub(crate) fn certificate(machine: &Machine) -> PathBuf {
    machine.folder().join("ca.pem")
}

/// The brokers' settings for their key.
pub(crate) fn keystore(machine: &Machine) -> String {
    let store = store(machine);
    format!(
        "ssl.keystore.location={}\nssl.keystore.password={STORE_PASSWORD}",
        store.display()
    )
}

fn store(machine: &Machine) -> PathBuf {
    machine.folder().join("broker.p12")
}
