//! What turns a verb: its threads, and the signal that ends it.

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

/// Waits for SIGTERM or SIGINT. Listens from the call on: a signal before the first poll would end the process without a word.
pub(super) fn told_to_stop() -> impl Future<Output = ()> {
    let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async {
        let (Ok(mut terminate), Ok(mut interrupt)) = (terminate, interrupt) else {
            tracing::error!("signals cannot be listened for: stopping");
            return;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// One thread turns everything: beside a broker on the same cores it is faster than two, and what blocks has threads of
/// its own.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    runtime(Builder::new_current_thread).block_on(future)
}

/// One takes in what comes while the other looks at it: for a verb that reads much.
pub(super) fn two_threads() -> Builder {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1);
    builder
}

pub(super) fn runtime(threads: fn() -> Builder) -> Runtime {
    let runtime = threads().enable_all().build();
    #[allow(clippy::expect_used, reason = "without a runtime there is nothing left to do, nor a way to tell it better")]
    runtime.expect("the operating system gives a runtime")
}
