//! Room for what is said: who follows a feed waits for its reader here, and not in a write that no signal ends.

use std::fmt::Display;
use std::io::{Write as _, stderr, stdout};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::sync::oneshot;

/// A pipe that has room takes so many bytes at once (`PIPE_BUF`).
const AT_ONCE: usize = 4096;
const NOT_AT_ALL: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Waits until standard output takes a line of no more than 4096 bytes without a wait.
pub(super) async fn room() {
    while !is_there(&stdout(), Some(&NOT_AT_ALL)) {
        let (tell, told) = oneshot::channel();
        // A thread of no runtime, whose end would wait for it.
        std::thread::spawn(move || tell.send(is_there(&stdout(), None)));
        let _ = told.await;
    }
}

/// Writes a line as its reader takes it. Whoever stops waiting has cut no line that a pipe takes at once.
pub(super) async fn write(line: &[u8]) -> std::io::Result<()> {
    for part in line.chunks(AT_ONCE) {
        room().await;
        stdout().write_all(part)?;
    }
    stdout().flush()
}

/// A line on standard error, unless that would have to wait for its reader: it may be the same pipe.
pub(super) fn aside(line: impl Display) {
    if is_there(&stderr(), Some(&NOT_AT_ALL)) {
        eprintln!("{line}");
    }
}

/// Whether a write would not wait, by then. One that would fail does not wait either.
fn is_there(out: &impl AsFd, within: Option<&Timespec>) -> bool {
    let mut polled = [PollFd::new(out, PollFlags::OUT)];
    // A signal that comes meanwhile is nobody's failure: whoever asks in a loop asks again.
    !matches!(poll(&mut polled, within), Ok(0) | Err(Errno::INTR))
}
