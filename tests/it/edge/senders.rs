//! Who may send, where an operator says so.

use hyper::StatusCode;
use serde_json::json;

use crate::support::answers::{assert_outcomes, assert_problem};
use crate::support::app::{App, Settings, callback};
use crate::support::wire::{Wire, head};

fn networks(allowed: &str, trusted_proxies: &str) -> impl FnOnce(Settings) -> Settings {
    let allowed = Some(allowed.parse().expect("networks"));
    let trusted_proxies = match trusted_proxies {
        "" => Default::default(),
        proxies => proxies.parse().expect("networks"),
    };
    move |mut settings| {
        settings.0.callbacks.senders.allowed = allowed;
        settings.0.callbacks.senders.trusted_proxies = trusted_proxies;
        settings
    }
}

#[tokio::test]
async fn a_network_that_is_not_allowed_gets_403_for_every_request() {
    let app = App::embedded(networks("203.0.113.0/24", ""));
    let ours = [("x-forwarded-for", "203.0.113.1")];
    for answer in [
        app.post(callback(json!({}))).await,
        app.post("no callback").await,
        // Nobody is believed who is no trusted proxy.
        app.post_with(&ours, callback(json!({}))).await,
    ] {
        assert_problem(&answer, 403, "Forbidden");
    }
    // Neither does it learn which path it is, nor is its body waited for.
    let mut wire = Wire::to(&app).await;
    wire.say("GET /nothing HTTP/1.1\r\nHost: here\r\n\r\n")
        .await;
    assert_problem(&wire.hear().await, 403, "Forbidden");
    let mut wire = Wire::to(&app).await;
    wire.say(head("Content-Length: 1000")).await;
    let answer = wire.hear().await;
    assert_problem(&answer, 403, "Forbidden");
    assert_eq!(answer.header("connection"), "close");
    assert_outcomes(&app, &[("forbidden", 5.0)]).await;
    // The admin port is another matter.
    assert_eq!(app.admin("/livez").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_network_that_is_allowed_may_send() {
    let app = App::embedded(networks("203.0.113.0/24,127.0.0.1", ""));
    assert_eq!(app.post(callback(json!({}))).await.status, StatusCode::OK);
    assert_outcomes(&app, &[("published", 1.0)]).await;
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_sender_is_the_forwarded_address() {
    let app = App::embedded(networks("203.0.113.0/24", "127.0.0.0/8,10.0.0.0/8"));
    for (forwarded_for, status) in [
        (vec!["203.0.113.7"], 200),
        (vec!["203.0.113.7, 10.1.2.3"], 200),
        (vec!["198.51.100.1, 203.0.113.7", "10.1.2.3"], 200),
        // What stands left of the first that is not trusted, it has written itself.
        (vec!["203.0.113.7, 198.51.100.1"], 403),
        (vec!["203.0.113.7", "198.51.100.1, 10.1.2.3"], 403),
        (vec!["203.0.113.7, nonsense"], 403),
        (vec![], 403),
    ] {
        let fields: Vec<_> = (forwarded_for.iter())
            .map(|field| ("x-forwarded-for", *field))
            .collect();
        let answer = app.post_with(&fields, callback(json!({}))).await;
        assert_eq!(answer.status.as_u16(), status, "{forwarded_for:?}");
    }
    assert_outcomes(&app, &[("forbidden", 4.0), ("published", 3.0)]).await;
}
