//! What /proc says: a process is known by pid, start time and boot together, never by its pid alone.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

/// How often, a millisecond apart, an environment is looked at that is not there yet.
const EXEC_LOOKS: u32 = 50;

/// One process, once and for all: another one that gets its pid later has another start time, and a reboot another boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Born {
    /// Its pid, which is also the number of its session and its process group.
    pub(super) pid: i32,
    /// Clock ticks from boot to its start; 0 for a leader that was gone before anybody could write its start time down.
    pub(super) start: u64,
    /// The boot that it was started under.
    pub(super) boot: String,
}

/// The fields of `/proc/<pid>/stat` that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    state: u8,
    pub(super) group: i32,
    pub(super) start: u64,
}

impl Stat {
    /// It has ended; a zombie only waits for its parent to hear of it, which for an adopter may be never.
    pub(super) fn is_over(self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    fn parse(text: &str) -> Option<Self> {
        // The name of the program stands in brackets and may itself hold brackets and blanks.
        let (_, fields) = text.rsplit_once(") ")?;
        let mut fields = fields.split(' ');
        Some(Self {
            state: *fields.next()?.as_bytes().first()?,
            group: fields.nth(1)?.parse().ok()?,
            start: fields.nth(16)?.parse().ok()?,
        })
    }
}

impl Born {
    /// The process that has this pid now.
    pub(super) fn now(pid: i32, boot: &str) -> io::Result<Self> {
        let stat = stat(pid)?.ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is not there")))?;
        Ok(Self { pid, start: stat.start, boot: boot.to_owned() })
    }

    /// This very process, running or zombie; `None` once it is gone, whoever has its pid since.
    pub(super) fn stat(&self, boot: &str) -> io::Result<Option<Stat>> {
        if self.boot != boot {
            return Ok(None);
        }
        Ok(stat(self.pid)?.filter(|stat| stat.start == self.start))
    }

    /// Whether it runs.
    pub(super) fn is_live(&self, boot: &str) -> io::Result<bool> {
        Ok(self.stat(boot)?.is_some_and(|stat| !stat.is_over()))
    }
}

/// The id of this boot of the machine.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The process that has this pid, if one has.
pub(super) fn stat(pid: i32) -> io::Result<Option<Stat>> {
    match fs::read(format!("/proc/{pid}/stat")) {
        Ok(bytes) => match Stat::parse(&String::from_utf8_lossy(&bytes)) {
            Some(stat) => Ok(Some(stat)),
            None => Err(io::Error::other(format!("/proc/{pid}/stat is not of the known form"))),
        },
        Err(fault) if is_gone(&fault) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// A handle on the process that has this pid and start time; its pid may be given away before or after, the handle not.
pub(super) fn handle(pid: i32, start: u64) -> io::Result<Option<OwnedFd>> {
    let Some(raw) = Pid::from_raw(pid) else { return Ok(None) };
    let fd = match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => return Ok(None),
        Err(fault) => return Err(fault.into()),
    };
    // Looked at after opening: what had the pid before that may have been another.
    Ok(stat(pid)?.filter(|stat| stat.start == start && !stat.is_over()).map(|_| fd))
}

/// Every process that has not ended.
pub(super) fn running() -> io::Result<Vec<(i32, Stat)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(stat) = stat(pid)?
            && !stat.is_over()
        {
            found.push((pid, stat));
        }
    }
    Ok(found)
}

/// Whether a process was started with `ENLIST_INSTANCE=<instance_id>`, itself or through an ancestor.
///
/// The lock that a create holds goes over to its child and is let go by the exec, a moment before the kernel shows the new
/// environment. A replica that was killed there leaves a child whose environment reads empty: it is looked at again,
/// because taking it for a stranger would start a second instance beside it.
pub(super) fn bears(pid: i32, stat: Stat, instance_id: &str) -> bool {
    let wanted = format!("ENLIST_INSTANCE={instance_id}");
    for _ in 0..EXEC_LOOKS {
        match fs::read(format!("/proc/{pid}/environ")) {
            Ok(bytes) if bytes.is_empty() => {
                let may_be_in_exec = stat.group == pid && fs::read_link(format!("/proc/{pid}/exe")).is_ok();
                if !may_be_in_exec {
                    return false;
                }
                #[allow(clippy::disallowed_methods, reason = "on a thread of its own, off the runtime")]
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(bytes) => return bytes.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes()),
            // Another user's, or gone.
            Err(_) => return false,
        }
    }
    false
}

/// The process of an instance whose pid was never written down: the replica was killed between spawn and record.
pub(super) fn search(instance_id: &str, boot: &str) -> io::Result<Option<Born>> {
    let bearers: Vec<_> = running()?.into_iter().filter(|(pid, stat)| bears(*pid, *stat, instance_id)).collect();
    // Descendants that opened groups of their own bear the name too; the oldest leader is the one that was spawned.
    let leader = bearers.iter().filter(|(pid, stat)| stat.group == *pid).min_by_key(|(_, stat)| stat.start);
    Ok(match (leader, bearers.first()) {
        (Some((pid, stat)), _) => Some(Born { pid: *pid, start: stat.start, boot: boot.to_owned() }),
        // The leader has ended and left others behind in its group.
        (None, Some((_, stat))) => Some(Born { pid: stat.group, start: 0, boot: boot.to_owned() }),
        (None, None) => None,
    })
}

/// A process whose output goes to this file.
pub(super) fn writer(log: &Path) -> io::Result<Option<i32>> {
    let log = match fs::metadata(log) {
        Ok(log) => log,
        Err(fault) if is_gone(&fault) => return Ok(None),
        Err(fault) => return Err(fault),
    };
    let is_log = |there: fs::Metadata| (there.dev(), there.ino()) == (log.dev(), log.ino());
    let writes = |pid: i32| [1, 2].iter().any(|fd| fs::metadata(format!("/proc/{pid}/fd/{fd}")).is_ok_and(is_log));
    Ok(running()?.into_iter().map(|(pid, _)| pid).find(|pid| writes(*pid)))
}

fn is_gone(fault: &io::Error) -> bool {
    fault.kind() == io::ErrorKind::NotFound || fault.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let text = "77 (a) b) Z) S 1 70 60 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9";
        assert_eq!(Stat::parse(text), Some(Stat { state: b'S', group: 70, start: 4242 }));
    }

    #[test]
    fn a_process_with_the_same_pid_and_another_start_or_boot_is_another_process() {
        let me = i32::try_from(std::process::id()).unwrap();
        let born = Born::now(me, "this boot").unwrap();
        assert!(born.is_live("this boot").unwrap());
        assert!(!born.is_live("next boot").unwrap());
        assert!(!Born { start: born.start + 1, ..born }.is_live("this boot").unwrap());
    }
}
