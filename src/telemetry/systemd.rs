//! What a service manager is told: ready, stopping, alive. Without one, nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

/// The process has begun to serve.
pub fn notify_ready() {
    notify(NotifyState::Ready);
}

/// The process drains and will end.
pub fn notify_stopping() {
    notify(NotifyState::Stopping);
}

/// Tells the service manager twice in each of its watchdog periods that the runtime turns, if it asked for that.
/// Runs for ever, so it is to be spawned; returns at once where nobody asked.
pub async fn keep_watchdog() {
    let mut micros = 0;
    if !sd_notify::watchdog_enabled(false, &mut micros) {
        return;
    }
    let mut ticks = tokio::time::interval((Duration::from_micros(micros) / 2).max(Duration::from_millis(1)));
    loop {
        ticks.tick().await;
        notify(NotifyState::Watchdog);
    }
}

/// The environment is left as it is: changing it is not safe once there are threads.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(false, &[state]) {
        warn!(%error, "the service manager cannot be told");
    }
}
