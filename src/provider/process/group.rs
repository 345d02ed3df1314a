//! Ends a whole process group: asks, waits on handles, then kills, and is done only when nothing of it is left.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, pidfd_send_signal, test_kill_process_group};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::proc::{self, Born};
use crate::domain::ErrorClass;
use crate::provider::ProviderError;
use crate::provider::off_thread::off_thread;

/// How often, a second apart, a group is killed before the caller is told that it does not end.
const KILLS: u32 = 10;

/// The processes of one instance. A descendant that moves to a group of its own is no longer part of it.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) instance_id: String,
    pub(super) leader: Born,
    pub(super) boot: String,
}

impl Group {
    /// Asks it to end, waits up to `grace`, and kills what is left. `reaped` turns true when this replica, being the
    /// parent, has taken the leader's exit status.
    pub(super) async fn end(
        self: Arc<Self>,
        grace: Duration,
        reaped: Option<watch::Receiver<bool>>,
    ) -> Result<(), ProviderError> {
        self.clone().send(Signal::TERM).await?;
        let mut until = Instant::now() + grace;
        for _ in 0..KILLS {
            if self.clone().ended(until, reaped.clone()).await? {
                return Ok(());
            }
            // Once a second and not once: a member that was not seen in the first round gets the next one.
            self.clone().send(Signal::KILL).await?;
            until = Instant::now() + Duration::from_secs(1);
        }
        if self.clone().ended(until, reaped).await? {
            return Ok(());
        }
        Err(ProviderError::new(
            ErrorClass::Timeout,
            format!("process group {} has been killed and does not end", self.leader.pid),
        ))
    }

    /// Sends a signal to every member.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        if self.leader.stat(&self.boot)?.is_some() {
            // As long as the leader is there, if only as a zombie, nobody else can have this group's number.
            let Some(group) = Pid::from_raw(self.leader.pid) else { return Ok(()) };
            return match kill_process_group(group, signal) {
                Ok(()) | Err(Errno::SRCH) => Ok(()),
                Err(fault) => Err(fault.into()),
            };
        }
        for member in self.members()? {
            match pidfd_send_signal(&member, signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(fault) => return Err(fault.into()),
            }
        }
        Ok(())
    }

    /// Handles on what still runs: the leader alone as long as it does, then the members that it left behind.
    fn rest(&self) -> io::Result<Vec<OwnedFd>> {
        if self.leader.is_live(&self.boot)?
            && let Some(leader) = proc::handle(self.leader.pid, self.leader.start)?
        {
            return Ok(vec![leader]);
        }
        self.members()
    }

    fn members(&self) -> io::Result<Vec<OwnedFd>> {
        let Some(group) = Pid::from_raw(self.leader.pid) else { return Ok(Vec::new()) };
        if self.leader.boot != self.boot || test_kill_process_group(group) == Err(Errno::SRCH) {
            return Ok(Vec::new());
        }
        // The leader's zombie keeps the number; without it the group may be another's, and only the name in a member's
        // environment proves that it is ours.
        let ours = self.leader.stat(&self.boot)?.is_some();
        let mut members = Vec::new();
        for (pid, stat) in proc::running()? {
            if stat.group == self.leader.pid
                && (ours || proc::bears(pid, stat, &self.instance_id))
                && let Some(member) = proc::handle(pid, stat.start)?
            {
                members.push(member);
            }
        }
        Ok(members)
    }

    async fn send(self: Arc<Self>, signal: Signal) -> Result<(), ProviderError> {
        off_thread(move || self.signal(signal).map_err(|fault| trouble(&fault))).await
    }

    /// Whether all of it has ended by `until`.
    async fn ended(
        self: Arc<Self>,
        until: Instant,
        reaped: Option<watch::Receiver<bool>>,
    ) -> Result<bool, ProviderError> {
        let all = async {
            loop {
                let this = self.clone();
                let rest = off_thread(move || this.rest().map_err(|fault| trouble(&fault))).await?;
                if rest.is_empty() {
                    return Ok(());
                }
                try_join_all(rest.into_iter().map(end_of)).await.map_err(|fault| trouble(&fault))?;
                if let Some(mut reaped) = reaped.clone() {
                    // Our own zombie would make the group look alive and cost a walk through /proc.
                    let _ = reaped.wait_for(|reaped| *reaped).await;
                }
            }
        };
        match timeout_at(until, all).await {
            Ok(result) => result.map(|()| true),
            Err(_) => Ok(false),
        }
    }
}

/// A pidfd turns readable when its process has ended.
// The deprecation is about types that may close or swap their descriptor while it is registered. An `OwnedFd` cannot, and
// the constructors that tokio offers instead are unsafe, which this crate forbids.
#[allow(deprecated)]
async fn end_of(process: OwnedFd) -> io::Result<()> {
    AsyncFd::with_interest(process, Interest::READABLE)?.readable().await.map(|_| ())
}

fn trouble(fault: &io::Error) -> ProviderError {
    let class = super::launch::lack(fault).unwrap_or(match fault.kind() {
        io::ErrorKind::PermissionDenied => ErrorClass::Unauthorized,
        _ => ErrorClass::Unavailable,
    });
    ProviderError::new(class, format!("ending a process group: {fault}"))
}
