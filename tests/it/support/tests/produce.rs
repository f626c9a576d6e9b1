//! What the proxy promises of single produce requests.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::types::RDKafkaRespErr as E;

use super::proxy::Scene;
use super::{SOON, publish};
use crate::support::proxy::Fault;

const REFUSED: E = E::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;

/// A client that tries each record once.
fn once(scene: &Scene) -> ClientConfig {
    let mut client = scene.client(SOON);
    client.set("message.send.max.retries", "0");
    client
}

#[test]
fn a_refused_request_is_answered_with_the_error_and_never_reaches_the_broker() {
    let Some(scene) = Scene::new() else { return };
    let refused = scene.proxy().inject(Fault::Refuse(REFUSED).next(1));
    let error = publish(&once(&scene), &scene.topic, "refused").expect_err("it is refused");
    assert_eq!(error.rdkafka_error_code(), Some(Code::NotEnoughReplicas));
    assert_eq!((refused.injected(), refused.left()), (1, 0));
    publish(&once(&scene), &scene.topic, "taken").expect("only one was to be refused");
    assert_eq!(scene.keys(), ["taken"]);
}

#[test]
fn a_request_refused_after_the_append_is_in_the_topic() {
    let Some(scene) = Scene::new() else { return };
    let fault = Fault::RefuseAfterAppend(E::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR);
    let refused = scene.proxy().inject(fault.next(1));
    let error = publish(&once(&scene), &scene.topic, "taken").expect_err("so it is answered");
    assert_eq!(error.rdkafka_error_code(), Some(Code::KafkaStorageError));
    assert_eq!(refused.injected(), 1);
    assert_eq!(scene.keys(), ["taken"]);
}

#[test]
fn a_fault_of_one_partition_is_none_of_another() {
    let Some(scene) = Scene::new() else { return };
    let other = scene.cluster.unique_topic("support-proxy");
    scene.cluster.create_topic(&other, 1, &[]);
    let proxy = scene.proxy();
    let of_other = proxy.inject(Fault::Refuse(REFUSED).next(1).of(&other, Some(0)));
    let of_none = proxy.inject(Fault::Refuse(REFUSED).next(1).of(&other, Some(1)));
    publish(&once(&scene), &scene.topic, "taken").expect("it is of another topic");
    publish(&once(&scene), &other, "refused").expect_err("it is refused");
    assert_eq!((of_other.injected(), of_none.injected()), (1, 0));
    assert_eq!(scene.keys(), ["taken"]);
}

#[test]
fn a_late_response_holds_up_its_own_connection_only() {
    const DELAY: Duration = Duration::from_secs(1);
    let Some(scene) = Scene::new() else { return };
    let producer = || -> BaseProducer { once(&scene).create().expect("the settings are sound") };
    let send = |by: &BaseProducer, key: &str| {
        let record = BaseRecord::to(&scene.topic).key(key).payload("value");
        by.send(record).expect("the queue has room");
    };
    let (late, other) = (producer(), producer());
    for (by, key) in [(&late, "1"), (&other, "2")] {
        send(by, key);
        by.flush(SOON).expect("it passes");
    }
    let injection = scene.proxy().inject(Fault::Delay.next(1).after(DELAY));
    let began = Instant::now();
    send(&late, "3");
    while injection.injected() == 0 {
        assert!(began.elapsed() < SOON, "it does not reach the broker");
        late.poll(Duration::from_millis(1));
    }
    send(&other, "4");
    other.flush(SOON).expect("it passes");
    assert!(began.elapsed() < DELAY, "{:?}", began.elapsed());
    late.flush(SOON).expect("it passes");
    assert!(began.elapsed() >= DELAY, "{:?}", began.elapsed());
    assert_eq!(scene.keys(), ["1", "2", "3", "4"]);
}

/// The danger that the service guards against.
#[test]
fn behind_a_refused_request_a_broker_takes_only_what_a_new_producer_sends() {
    let Some(scene) = Scene::new() else { return };
    let mut client = scene.client(SOON);
    client
        .set("enable.idempotence", "true")
        .set("batch.num.messages", "1");
    let producer: BaseProducer = client.create().expect("the settings are sound");
    let send = |keys: [&str; 3]| {
        for key in keys {
            let record = BaseRecord::to(&scene.topic).key(key).payload("value");
            producer.send(record).expect("the queue has room");
        }
        producer.flush(SOON).expect("it passes");
    };
    let late = Duration::from_millis(300);
    let fault = Fault::Refuse(REFUSED).first_of_each_producer().after(late);
    let is_new = scene.proxy().inject(fault.clone());
    send(["1", "2", "3"]);
    assert_eq!((is_new.injected(), is_new.overtaken()), (1, 2));
    // librdkafka concludes that the first has arrived too.
    assert_eq!(scene.keys(), ["2", "3"]);
    is_new.end();

    let is_known = scene.proxy().inject(fault);
    send(["4", "5", "6"]);
    assert_eq!((is_known.injected(), is_known.overtaken()), (1, 0));
    assert_eq!(scene.keys(), ["2", "3", "4", "5", "6"]);
}
