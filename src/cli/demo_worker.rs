//! `enlist demo-worker`: a worker that does nothing until it is told to end; for images that have no `sleep`.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Says that it is there, and ends well at TERM or INT.
pub(super) async fn run() -> io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    println!("demo worker {} is up and ends at TERM", std::process::id());
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}
