//! A name that can be led to other brokers.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

/// Leads each new connection to wherever it is told: what a name in DNS is to a cluster that moves.
pub(crate) struct Forwarder {
    address: String,
    target: Arc<Mutex<String>>,
    runtime: Option<Runtime>,
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        // Tests drop it inside a runtime of their own, where one may not wait for another.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Forwarder {
    /// To the first of these `host:port`s.
    pub(crate) fn start(brokers: &str) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be built");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("it is bound").to_string();
        let target = Arc::new(Mutex::new(first(brokers)));
        let to = Arc::clone(&target);
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
            while let Ok((mut client, _)) = listener.accept().await {
                let broker = to.lock().expect("no panic").clone();
                tokio::spawn(async move {
                    // Either side may go at any time; then both are gone.
                    if let Ok(mut broker) = TcpStream::connect(broker).await {
                        copy_bidirectional(&mut client, &mut broker).await.ok();
                    }
                });
            }
        });
        Self {
            address,
            target,
            runtime: Some(runtime),
        }
    }

    pub(crate) fn address(&self) -> String {
        self.address.clone()
    }

    pub(crate) fn lead_to(&self, brokers: &str) {
        *self.target.lock().expect("no panic") = first(brokers);
    }
}

fn first(brokers: &str) -> String {
    brokers.split(',').next().expect("one at least").to_owned()
}
