//! The state folder: one folder a worker, which is also the lock of its key, with the record, the log and the exit status.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::proc::{self, Born};
use crate::domain::{ErrorClass, Pool, Prefix, WorkerId, WorkerKey};
use crate::provider::ProviderError;
use crate::provider::recorded::Recorded;

/// `<state_dir>/<prefix>`; below it `<pool>/<worker_id>/` with the files `instance`, `log` and `exit`.
#[derive(Debug)]
pub(super) struct Home {
    root: PathBuf,
}

/// What the file `instance` says: first line the intent, written before the spawn; second line the process, written after.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) intent: Recorded,
    /// `None` where the replica was killed between the two lines: the process may run all the same.
    pub(super) born: Option<Born>,
}

/// How a worker's process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Which instance.
    pub instance_id: String,
    /// Its exit code, where it ended by itself.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// When.
    pub at: Timestamp,
}

/// A worker's folder, locked; the lock ends with this value.
#[derive(Debug)]
pub(super) struct Slot {
    path: PathBuf,
    _lock: File,
}

impl Home {
    pub(super) fn new(prefix: &Prefix, state_dir: &Path) -> Self {
        Self { root: state_dir.join(prefix.as_str()) }
    }

    fn folder(&self, key: &WorkerKey) -> PathBuf {
        self.root.join(key.pool.as_str()).join(key.worker_id.as_str())
    }

    /// Locks a worker's folder, making it first.
    pub(super) fn make(&self, key: &WorkerKey) -> Result<Slot, ProviderError> {
        let path = self.folder(key);
        loop {
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(fault) if fault.kind() == io::ErrorKind::AlreadyExists => {}
                Err(fault) if fault.kind() == io::ErrorKind::NotFound => {
                    let made = DirBuilder::new().mode(0o700).recursive(true).create(&path);
                    made.map_err(|fault| trouble(&path, &fault))?;
                }
                Err(fault) => return Err(trouble(&path, &fault)),
            }
            if let Some(slot) = lock(&path).map_err(|fault| trouble(&path, &fault))? {
                return Ok(slot);
            }
        }
    }

    /// Locks a worker's folder, if there is one.
    pub(super) fn open(&self, key: &WorkerKey) -> Result<Option<Slot>, ProviderError> {
        let path = self.folder(key);
        loop {
            match lock(&path) {
                Ok(Some(slot)) => return Ok(Some(slot)),
                Ok(None) if path.exists() => {}
                Ok(None) => return Ok(None),
                Err(fault) => return Err(trouble(&path, &fault)),
            }
        }
    }

    /// The record of a worker as it is at this moment, without its lock.
    pub(super) fn glance(&self, key: &WorkerKey) -> Result<Option<Record>, ProviderError> {
        read_record(&self.folder(key))
    }

    /// How a worker's last process ended, if that was seen.
    pub(super) fn exit(&self, key: &WorkerKey) -> Result<Option<Exit>, ProviderError> {
        let path = self.folder(key).join("exit");
        let Some(bytes) = read(&path)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|fault| unreadable(&path, &fault))
    }

    /// Every worker of a pool that has a folder.
    pub(super) fn keys(&self, pool: &Pool) -> Result<Vec<WorkerKey>, ProviderError> {
        let path = self.root.join(pool.as_str());
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(fault) => return Err(trouble(&path, &fault)),
        };
        let mut keys = Vec::new();
        for entry in entries {
            let name = entry.map_err(|fault| trouble(&path, &fault))?.file_name();
            // What is not named like a worker was not made by us.
            if let Some(worker_id) = name.to_str().and_then(|name| WorkerId::new(name).ok()) {
                keys.push(WorkerKey::new(pool.clone(), worker_id));
            }
        }
        Ok(keys)
    }
}

impl Slot {
    pub(super) fn record(&self) -> Result<Option<Record>, ProviderError> {
        read_record(&self.path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// There is a record, and its first line is not whole.
    pub(super) fn is_torn(&self) -> Result<bool, ProviderError> {
        Ok(read(&self.path.join("instance"))?.is_some_and(|bytes| !bytes.contains(&b'\n')))
    }

    /// A process that writes to the worker's log: what it has said, or a descendant of what has.
    pub(super) fn writer(&self) -> io::Result<Option<i32>> {
        proc::writer(&self.path.join("log"))
    }

    /// The worker's log, which outlives its single instances.
    pub(super) fn log(&self) -> Result<File, ProviderError> {
        let path = self.path.join("log");
        let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        log.map_err(|fault| trouble(&path, &fault))
    }

    /// Writes the first line, and hands out the file for the second.
    pub(super) fn write_intent(&self, intent: &Recorded) -> Result<RecordFile, ProviderError> {
        let path = self.path.join("instance");
        match fs::remove_file(self.path.join("exit")) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => return Err(trouble(&path, &fault)),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = file.map_err(|fault| trouble(&path, &fault))?;
        write_line(&file, &path, intent)?;
        Ok(RecordFile { path, file })
    }

    /// The file of a record whose second line is missing, cut back to its first.
    pub(super) fn reopen(&self) -> Result<RecordFile, ProviderError> {
        let path = self.path.join("instance");
        let cut = || -> io::Result<File> {
            let bytes = fs::read(&path)?;
            let first = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            let file = OpenOptions::new().append(true).open(&path)?;
            file.set_len(first as u64)?;
            Ok(file)
        };
        let file = cut().map_err(|fault| trouble(&path, &fault))?;
        Ok(RecordFile { path, file })
    }

    pub(super) fn write_exit(&self, exit: &Exit) -> Result<(), ProviderError> {
        let path = self.path.join("exit");
        let draft = self.path.join("exit.new");
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft);
        write_line(&file.map_err(|fault| trouble(&draft, &fault))?, &draft, exit)?;
        fs::rename(&draft, &path).map_err(|fault| trouble(&path, &fault))
    }

    /// Removes the folder with all that is in it, and with it the lock.
    pub(super) fn remove(self) -> Result<(), ProviderError> {
        // Newest knowledge last: a crash half-way leaves a record that still names the process, or nothing at all.
        for name in ["exit", "exit.new", "log", "instance"] {
            match fs::remove_file(self.path.join(name)) {
                Err(fault) if fault.kind() != io::ErrorKind::NotFound => return Err(trouble(&self.path, &fault)),
                _ => {}
            }
        }
        fs::remove_dir(&self.path).map_err(|fault| trouble(&self.path, &fault))
    }
}

/// An `instance` file with its first line written.
#[derive(Debug)]
pub(super) struct RecordFile {
    path: PathBuf,
    file: File,
}

impl RecordFile {
    pub(super) fn write_born(&self, born: &Born) -> Result<(), ProviderError> {
        write_line(&self.file, &self.path, born)
    }
}

/// Locks a folder; `None` where it was removed meanwhile: a lock on a folder that nobody can find guards nothing.
///
/// The lock is an flock, so it also goes over to a child between fork and exec: whoever gets it after the holder was killed
/// finds every process that the holder started, with its own environment, never one that is still a copy of the holder.
fn lock(path: &Path) -> io::Result<Option<Slot>> {
    let gone = |fault: io::Error| if fault.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(fault) };
    let folder = match File::open(path) {
        Ok(folder) => folder,
        Err(fault) => return gone(fault),
    };
    folder.lock()?;
    let held = folder.metadata()?;
    match fs::metadata(path) {
        Ok(there) if (there.dev(), there.ino()) == (held.dev(), held.ino()) => {
            Ok(Some(Slot { path: path.to_owned(), _lock: folder }))
        }
        Ok(_) => Ok(None),
        Err(fault) => gone(fault),
    }
}

fn read_record(folder: &Path) -> Result<Option<Record>, ProviderError> {
    let path = folder.join("instance");
    let Some(bytes) = read(&path)? else { return Ok(None) };
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    // The process is started only after the whole first line is there, so with half a line there is no process.
    let Some(first) = lines.next() else { return Ok(None) };
    let intent = serde_json::from_slice(first).map_err(|fault| unreadable(&path, &fault))?;
    let born = lines.next().map(serde_json::from_slice).transpose().map_err(|fault| unreadable(&path, &fault))?;
    Ok(Some(Record { intent, born }))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, ProviderError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(fault) => Err(trouble(path, &fault)),
    }
}

/// One write for the whole line: a kill leaves all of it or none.
fn write_line(mut file: &File, path: &Path, value: &impl Serialize) -> Result<(), ProviderError> {
    let mut line = serde_json::to_vec(value).map_err(|fault| unreadable(path, &fault))?;
    line.push(b'\n');
    file.write_all(&line).map_err(|fault| trouble(path, &fault))
}

fn unreadable(path: &Path, fault: &serde_json::Error) -> ProviderError {
    ProviderError::new(ErrorClass::Internal, format!("{}: {fault}", path.display()))
}

/// A fault of the file system: full or out of handles is a lack of room, anything else is a state folder that is away.
pub(super) fn trouble(path: &Path, fault: &io::Error) -> ProviderError {
    let class = super::launch::lack(fault).unwrap_or(ErrorClass::Unavailable);
    ProviderError::new(class, format!("{}: {fault}", path.display()))
}
