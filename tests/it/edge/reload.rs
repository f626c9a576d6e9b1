//! Secrets and certificate that change while callbacks come in.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use rustls::version::TLS13;
use serde_json::json;
use zim2kafka::callback::sign;

use crate::support::app::{PATIENCE, callback};
use crate::support::process::Service;
use crate::support::tls::{Authority, shown, write};
use crate::support::wire::{Wire, post};

pub(super) const SUCCESSFUL: &str = "zim2kafka_config_last_reload_successful";
pub(super) const NOT_AFTER: &str = "zim2kafka_tls_certificate_not_after_timestamp_seconds";

/// A callback of this application, signed with this secret.
fn body(appid: &str, secret: &str) -> Vec<u8> {
    let nonce = rand::random::<u64>().to_string();
    let signature = sign(secret, "1757577600123", &nonce).to_hex();
    json!({
        "appid": appid, "nonce": nonce, "timestamp": "1757577600123", "signature": signature,
        "event": "group_join", "group_id": "g", "join_type": "Apply", "new_user_ids": ["u"],
    })
    .to_string()
    .into_bytes()
}

pub(super) async fn status(service: &Service, appid: &str, secret: &str) -> u16 {
    post(service.callbacks, body(appid, secret))
        .await
        .status
        .as_u16()
}

/// Polls until it is so.
pub(super) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_are_added_rotated_and_removed_and_no_callback_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("secrets");
    write(&file, "1=one\n2=two\n");
    let variables = [
        ("ZIM2KAFKA_CALLBACK_SECRETS", ""),
        (
            "ZIM2KAFKA_CALLBACK_SECRETS_FILE",
            file.to_str().expect("text"),
        ),
        ("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off"),
    ];
    let service = Service::embedded(&["--drain-delay=0s"], &variables);
    service.ready();
    let (done, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let honest = async {
        // The application whose secret stays is never refused, whatever happens to the others.
        while !done.load(Ordering::Relaxed) {
            assert_eq!(status(&service, "1", "one").await, 200);
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    let changes = async {
        let becomes = async |appid: &str, secret: &str, wanted: u16| {
            until(
                &format!("{appid}={secret} is answered {wanted}"),
                async || status(&service, appid, secret).await == wanted,
            )
            .await;
        };
        assert_eq!(status(&service, "3", "three").await, 401);
        write(&file, "1=one\n2=two\n3=three\n");
        becomes("3", "three", 200).await;
        // Rotation: both live, then the old one goes.
        write(&file, "1=one\n2=two\n2=new\n3=three\n");
        becomes("2", "new", 200).await;
        assert_eq!(status(&service, "2", "two").await, 200);
        write(&file, "1=one\n2=new\n3=three\n");
        becomes("2", "two", 401).await;
        assert_eq!(status(&service, "2", "new").await, 200);
        write(&file, "1=one\n2=new\n");
        becomes("3", "three", 401).await;

        // What cannot be taken changes nothing.
        for broken in ["", "1=one\ngeheim\n", "# nothing\n"] {
            write(&file, broken);
            until("it is judged", async || service.metric(SUCCESSFUL) == 0.0).await;
            assert_eq!(status(&service, "2", "new").await, 200);
            write(&file, "1=one\n2=new\n");
            until("it is taken", async || service.metric(SUCCESSFUL) == 1.0).await;
        }
        std::fs::remove_file(&file).expect("it was written");
        until("it is missed", async || service.metric(SUCCESSFUL) == 0.0).await;
        assert_eq!(status(&service, "2", "new").await, 200);
        // SIGHUP does not wait for a second look.
        write(&file, "1=one\n4=four\n");
        service.process.signal("HUP");
        becomes("4", "four", 200).await;
        until("it is well", async || service.metric(SUCCESSFUL) == 1.0).await;
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(honest, changes);
    assert!(answered.load(Ordering::Relaxed) > 20, "there was load");
    service.process.signal("TERM");
    let ended = service.process.end();
    assert_eq!(ended.code, Some(0));
    assert!(
        ended
            .stderr
            .contains("reloaded ZIM2KAFKA_CALLBACK_SECRETS_FILE"),
        "{ended:?}"
    );
    assert!(
        ended
            .stderr
            .contains("line 2 is not of the form appid=secret"),
        "{ended:?}"
    );
    for secret in ["geheim", "two", "three", "four"] {
        assert!(!ended.stderr.contains(secret), "{secret}: {ended:?}");
    }
    // Once for each mistake, not once a look.
    assert_eq!(
        ended.stderr.matches("the previous contents stay").count(),
        4,
        "{ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_without_files_to_reload_is_logged_and_harmless() {
    let mut service = Service::embedded(&[], &[]);
    service.ready();
    service.process.signal("HUP");
    service
        .process
        .logs("SIGHUP: neither secrets nor a certificate");
    assert!(service.admin("/readyz").starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_replaced_under_load_and_a_broken_one_is_not_taken() {
    let authority = Authority::new();
    authority.write(2090);
    let files = authority.variables();
    let mut variables: Vec<_> = files
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    variables.push(("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off"));
    let service = Service::embedded(&["--drain-delay=0s"], &variables);
    service.ready();
    let connect = async || {
        let stream = authority.connect(service.callbacks, &[&TLS13]).await;
        stream.expect("a handshake")
    };
    let first = connect().await;
    let old = shown(&first);
    let mut first = Wire::over(first);
    let year = |year: u64| (year - 1970) as f64 * 31_556_952.0;
    let ends_in = async |wanted: u64| {
        until(&format!("it ends in {wanted}"), async || {
            (service.metric(NOT_AFTER) - year(wanted + 1)).abs() < 7.0 * 86_400.0
        })
        .await;
    };
    ends_in(2090).await;

    let (done, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let honest = async {
        while !done.load(Ordering::Relaxed) {
            let mut wire = Wire::over(connect().await);
            assert_eq!(wire.post(callback(json!({}))).await.status.as_u16(), 200);
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    let changes = async {
        authority.write(2091);
        ends_in(2091).await;
        let new = shown(&connect().await);
        assert_ne!(new, old);
        // The new certificate with the old key, as between two writes of a tool that is slow.
        let (cert, key) = authority.issue(2092);
        write(&authority.cert(), &cert);
        until("it is judged", async || service.metric(SUCCESSFUL) == 0.0).await;
        assert_eq!(shown(&connect().await), new, "the old one stays in use");
        write(&authority.key(), &key);
        ends_in(2092).await;
        until("it is well", async || service.metric(SUCCESSFUL) == 1.0).await;
        authority.write(2093);
        service.process.signal("HUP");
        ends_in(2093).await;
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(honest, changes);
    assert!(answered.load(Ordering::Relaxed) > 20, "there was load");
    // Who connected before is not disturbed.
    assert_eq!(first.post(callback(json!({}))).await.status.as_u16(), 200);
    authority.write(2001);
    service.process.signal("HUP");
    ends_in(2001).await;
    service.process.signal("TERM");
    let ended = service.process.end();
    assert_eq!(ended.code, Some(0));
    assert!(ended.stderr.contains("has expired"), "{ended:?}");
    assert!(
        ended.stderr.contains("the previous contents stay"),
        "{ended:?}"
    );
}
