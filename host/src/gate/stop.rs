//! The wish that a run ends, on its way from a signal handler to every waiting call.

use std::sync::Arc;
use tokio::sync::watch;

/// Asks a run to stop. Dropping it does not.
#[derive(Clone, Debug)]
pub struct StopHandle {
    sender: Arc<watch::Sender<bool>>,
}

/// Hears of it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StopSignal {
    receiver: watch::Receiver<bool>,
    // Keeps the channel open when the handle is gone, so that waiting never ends by accident.
    _sender: Arc<watch::Sender<bool>>,
}

impl StopSignal {
    /// A handle and its signal.
    pub fn pair() -> (StopHandle, StopSignal) {
        let (sender, receiver) = watch::channel(false);
        let sender = Arc::new(sender);
        let handle = StopHandle {
            sender: Arc::clone(&sender),
        };
        let signal = StopSignal {
            receiver,
            _sender: sender,
        };
        (handle, signal)
    }

    /// A signal that never comes.
    pub fn never() -> StopSignal {
        StopSignal::pair().1
    }

    /// Whether the run was asked to stop.
    pub fn is_stopping(&self) -> bool {
        *self.receiver.borrow()
    }

    /// Returns when the run is asked to stop, at once if it already was.
    pub async fn stopped(&self) {
        let mut receiver = self.receiver.clone();
        // The sender lives in `self`, so the only way out is the value.
        let _ = receiver.wait_for(|stop| *stop).await;
    }
}

impl StopHandle {
    /// Asks the run to stop.
    pub fn stop(&self) {
        self.sender.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stop_wakes_everyone_and_stays() {
        let (handle, signal) = StopSignal::pair();
        let waiting = tokio::spawn({
            let signal = signal.clone();
            async move { signal.stopped().await }
        });
        assert!(!signal.is_stopping());
        handle.stop();
        waiting.await.unwrap();
        drop(handle);
        assert!(signal.is_stopping());
        signal.stopped().await;
    }
}
