//! The book in a file that only grows, one JSON line a change, shared by replicas under the file's lock.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::book::{Book, Entry, Planned};
use crate::domain::{ErrorClass, Prefix};
use crate::provider::ProviderError;

/// A file of changes and how far this replica has read it. It is never rewritten: it belongs to a load test, and whoever
/// starts the next one removes it.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    file: Option<File>,
    read_to: u64,
    book: Book,
}

#[derive(Serialize, Deserialize)]
struct Line {
    fleet: Prefix,
    #[serde(flatten)]
    entry: Entry,
}

impl Ledger {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None, read_to: 0, book: Book::default() }
    }

    /// Reads what others wrote, plans, and writes what was planned, all under the lock.
    pub(super) fn change<T>(
        &mut self,
        fleet: &Prefix,
        plan: impl FnOnce(&Prefix, &Book) -> Planned<T>,
    ) -> Result<T, ProviderError> {
        let file = match self.file.take() {
            Some(file) => file,
            None => self.open().map_err(|fault| self.unavailable(&fault))?,
        };
        file.lock().map_err(|fault| self.unavailable(&fault))?;
        let answer = self.change_locked(&file, fleet, plan);
        file.unlock().map_err(|fault| self.unavailable(&fault))?;
        self.file = Some(file);
        answer
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path)
    }

    fn change_locked<T>(
        &mut self,
        mut file: &File,
        fleet: &Prefix,
        plan: impl FnOnce(&Prefix, &Book) -> Planned<T>,
    ) -> Result<T, ProviderError> {
        self.catch_up(file)?;
        let (answer, entry) = plan(fleet, &self.book)?;
        if let Some(entry) = entry {
            let line = Line { fleet: fleet.clone(), entry };
            let mut bytes = serde_json::to_vec(&line).map_err(|fault| self.unreadable(&fault.to_string()))?;
            bytes.push(b'\n');
            file.write_all(&bytes).map_err(|fault| self.unavailable(&fault))?;
            // Applied only once it is written: a full disk leaves book and file agreeing.
            self.read_to += bytes.len() as u64;
            self.book.apply(line.fleet, line.entry);
        }
        Ok(answer)
    }

    fn catch_up(&mut self, mut file: &File) -> Result<(), ProviderError> {
        let length = file.metadata().map_err(|fault| self.unavailable(&fault))?.len();
        if length == self.read_to {
            return Ok(());
        }
        if length < self.read_to {
            // Someone emptied it under us: what it says now is what there is.
            (self.read_to, self.book) = (0, Book::default());
        }
        file.seek(SeekFrom::Start(self.read_to)).map_err(|fault| self.unavailable(&fault))?;
        // Line by line: a replica that starts reads all of a million workers.
        let (mut news, mut line) = (BufReader::new(file), Vec::new());
        loop {
            line.clear();
            let length = news.read_until(b'\n', &mut line).map_err(|fault| self.unavailable(&fault))?;
            if length == 0 {
                return Ok(());
            }
            if !line.ends_with(b"\n") {
                // We hold the lock, so nobody is still writing this line: its replica was killed in the middle of it, and its
                // caller never heard that it was made.
                return file.set_len(self.read_to).map_err(|fault| self.unavailable(&fault));
            }
            let Line { fleet, entry } =
                serde_json::from_slice(&line).map_err(|fault| self.unreadable(&fault.to_string()))?;
            self.book.apply(fleet, entry);
            self.read_to += length as u64;
        }
    }

    fn unavailable(&self, fault: &io::Error) -> ProviderError {
        ProviderError::new(ErrorClass::Unavailable, format!("state file {}: {fault}", self.path.display()))
    }

    fn unreadable(&self, fault: &str) -> ProviderError {
        let text = format!("state file {} after byte {}: {fault}", self.path.display(), self.read_to);
        ProviderError::new(ErrorClass::Internal, text)
    }
}
