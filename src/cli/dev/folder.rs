//! The folder of one run of `enlist dev`, and what earlier runs have left that were killed.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::{Pool, Prefix};
use crate::provider::WorkerProvider as _;
use crate::provider::process::ProcessProvider;

/// Workers of a run that is over have nobody to say goodbye to.
const GRACE: Duration = Duration::from_secs(1);

/// `<state_dir>/dev/<name>`, locked for as long as the run lives; goes with this value.
pub(super) struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    pub(super) fn make(state_dir: &Path) -> io::Result<Self> {
        loop {
            let path = state_dir.join("dev").join(&uuid::Uuid::new_v4().simple().to_string()[..8]);
            DirBuilder::new().mode(0o700).recursive(true).create(&path)?;
            // Another run that starts at the same moment may take it for left behind before it is locked.
            if let Some(folder) = Self::lock(path)? {
                return Ok(folder);
            }
        }
    }

    /// `None` where it is somebody's, or gone.
    fn lock(path: PathBuf) -> io::Result<Option<Self>> {
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match lock.try_lock() {
            Ok(()) if path.exists() => Ok(Some(Self { path, _lock: lock })),
            Ok(()) | Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The state folder of this run's workers.
    pub(super) fn workers(&self) -> PathBuf {
        self.path.join("workers")
    }

    /// Ends the workers that are still in this folder; says how many there were.
    pub(super) async fn end_workers(&self) -> usize {
        let mut ended = 0;
        for prefix in names(&self.workers(), |name| Prefix::new(name).ok()) {
            let provider = ProcessProvider::new(&prefix, self.workers());
            for pool in names(&self.workers().join(prefix.as_str()), |name| Pool::new(name).ok()) {
                for worker in provider.list_workers(&pool).await.unwrap_or_default() {
                    ended += usize::from(provider.terminate_worker(&worker.key, None, GRACE).await.is_ok());
                }
            }
        }
        ended
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
        // The folders above it go where nothing else is in them: `remove_dir` takes no other.
        for above in self.path.ancestors().skip(1).take(2) {
            let _ = fs::remove_dir(above);
        }
    }
}

/// Ends what runs have left whose process is gone: their brokers have ended by themselves, their workers have not. Says
/// how many workers that were.
pub(super) async fn clean_up(state_dir: &Path) -> usize {
    let mut ended = 0;
    let runs = state_dir.join("dev");
    for path in names(&runs, |name| Some(runs.join(name))) {
        if let Ok(Some(left)) = RunFolder::lock(path) {
            ended += left.end_workers().await;
        }
    }
    ended
}

fn names<T>(folder: &Path, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| read(entry.ok()?.file_name().to_str()?)).collect()
}
