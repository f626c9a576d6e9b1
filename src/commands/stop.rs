//! The signals that ask a command to stop or to reload.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Counts signals: SIGTERM and SIGINT ask to stop, SIGHUP asks to reload.
#[derive(Clone)]
pub struct Stop {
    stops: watch::Receiver<u32>,
    hangups: watch::Receiver<u32>,
}

impl Stop {
    /// Begins to listen.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn listen() -> Self {
        let (stopped, stops) = watch::channel(0);
        let (hung_up, hangups) = watch::channel(0);
        let mut terminate = signal(SignalKind::terminate()).expect("unix has signals");
        let mut interrupt = signal(SignalKind::interrupt()).expect("unix has signals");
        let mut hangup = signal(SignalKind::hangup()).expect("unix has signals");
        tokio::spawn(async move {
            loop {
                let count = tokio::select! {
                    _ = terminate.recv() => &stopped,
                    _ = interrupt.recv() => &stopped,
                    // By default it would end the process.
                    _ = hangup.recv() => &hung_up,
                };
                count.send_modify(|count| *count += 1);
            }
        });
        Self { stops, hangups }
    }

    /// Changes with every SIGHUP.
    pub fn hangups(&self) -> watch::Receiver<u32> {
        self.hangups.clone()
    }

    /// Completes with the first signal to stop: shut down in order.
    pub async fn first(&self) {
        self.reached(1).await;
    }

    /// Completes with the second: stop at once.
    pub async fn second(&self) {
        self.reached(2).await;
    }

    async fn reached(&self, wanted: u32) {
        let mut signals = self.stops.clone();
        // The counting task lives as long as the runtime.
        if signals.wait_for(|count| *count >= wanted).await.is_err() {
            std::future::pending().await
        }
    }
}
