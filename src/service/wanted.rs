//! Whether what a pool's size asked for is still wanted when its turn comes: it may have waited through another size.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::WorkerManagementService;
use super::sweep::{Count, Records};
use crate::domain::{CommandId, Pool, State, WorkerKey, asked_by_size};
use crate::journal::{Journal, ReadError};
use crate::provider::WorkerProvider;
use crate::registration::WorkerRegistrationPort;

/// A pool is counted for this no more often.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// A pool's size, and the workers that count towards it, as they were a moment ago.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    at: Instant,
    size: Option<(usize, usize)>,
}

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> WorkerManagementService<P, R, J> {
    /// Whether a command that a pool's size asked for may be dropped: it has not begun, and the size, which may be another
    /// one by now, asks for it no more. Where that cannot be told, it goes on: the next sweep counts again.
    pub async fn is_withdrawn(&self, key: &WorkerKey, command: &CommandId) -> bool {
        let makes = asked_by_size(command);
        let begun = match self.journal.head(key).await {
            Ok(None) => false,
            Ok(Some(head)) if makes => head.worker.command_id == *command,
            Ok(Some(head)) => head.worker.state == State::Terminating || head.worker.state.is_final(),
            Err(_) => true,
        };
        if begun {
            return false;
        }
        let unwanted = |counted: Option<(usize, usize)>| {
            counted.is_some_and(|(size, counted)| if makes { counted >= size } else { counted <= size })
        };
        let arrived = Instant::now();
        // What was counted a moment ago is good enough to go on, and not to drop anything: the order may be newer.
        let recent = arrived.checked_sub(COUNT_EVERY).unwrap_or(arrived);
        match self.counted(&key.pool, recent).await {
            Ok(counted) if unwanted(counted) => self.counted(&key.pool, arrived).await.is_ok_and(unwanted),
            Ok(_) | Err(_) => false,
        }
    }

    /// The pool's size and how many count towards it, counted after `since`. Who asks at the same time shares one count.
    async fn counted(&self, pool: &Pool, since: Instant) -> Result<Option<(usize, usize)>, ReadError> {
        let memory = self.of(pool, |pool| Arc::clone(&pool.counted));
        let mut counted = memory.lock().await;
        if let Some(Counted { size, .. }) = counted.filter(|known| known.at >= since) {
            return Ok(size);
        }
        let at = Instant::now();
        let Records { workers, size, .. } = self.records(pool, |_, known| known.is_live().then(Vec::new)).await?;
        let size = size.map(|entry| (entry.record.size as usize, Count::of(&workers).counted));
        *counted = Some(Counted { at, size });
        Ok(size)
    }
}
