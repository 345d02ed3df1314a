//! Where a pool's instances live, read without the providers' own code: the null provider's file, or processes that keep a
//! book of their own and are counted in /proc. What the test itself does to instances, behind everybody's back, stands in
//! the same book.

// One harness for several test binaries; not each uses all of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::checker::Step;

/// A worker that says when it begins and when it is told to end. It ends with the test, too: nobody writes into the pipe,
/// which closes with the test binary.
const WORKER: &str = r#"trap 'echo "gone $ENLIST_WORKER_ID $ENLIST_INSTANCE" >>"$BOOK"; exit 0' TERM
echo "made $ENLIST_WORKER_ID $ENLIST_INSTANCE" >>"$BOOK"
cat "$LIFE" & wait $!"#;

/// The hosts of a static pool: first those that nobody names.
pub(crate) const HOSTS: [&str; 6] = ["h-1", "h-2", "h-3", "h-4", "two", "quiet"];

/// Which provider makes a pool's workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provider {
    Null,
    Process,
    Static,
}

impl Provider {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Process => "process",
            Self::Static => "static",
        }
    }
}

/// A pool's instances. Clones are the same home.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    provider: Provider,
    folder: PathBuf,
    _life: Arc<File>,
}

/// How far a book has been read by one who only counts.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    read_to: u64,
    steps: usize,
}

impl Home {
    pub(crate) fn new(provider: Provider, folder: &Path) -> Self {
        let pipe = folder.join("life");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
        let life = OpenOptions::new().read(true).write(true).open(&pipe).expect("the pipe");
        Self { provider, folder: folder.to_owned(), _life: Arc::new(life) }
    }

    fn book(&self) -> PathBuf {
        self.folder.join("book")
    }

    /// How many steps were made, read on from where `Pages` stands.
    pub(crate) fn number_of_steps(&self, pages: &mut Pages) -> usize {
        let Ok(mut book) = File::open(self.book()) else { return 0 };
        let mut news = Vec::new();
        book.seek(SeekFrom::Start(pages.read_to)).and_then(|_| book.read_to_end(&mut news)).expect("the book");
        let whole = news.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        pages.read_to += whole as u64;
        pages.steps += news[..whole].split_inclusive(|byte| *byte == b'\n').count();
        pages.steps
    }

    /// Where the process provider keeps its own.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// The pool's settings.
    pub(crate) fn settings(&self) -> String {
        let (book, life) = (self.book(), self.folder.join("life"));
        let (book, life) = (book.display(), life.display());
        match self.provider {
            Provider::Null => format!("provider = \"null\"\nstate_file = \"{book}\"\n"),
            Provider::Process => format!(
                "provider = \"process\"\ncommand = [\"sh\", \"-c\", '''{WORKER}''']\nenv = {{ BOOK = \"{book}\", LIFE = \"{life}\" }}\n"
            ),
            Provider::Static => {
                let host = |id: &&str| format!("{{ id = \"{id}\", endpoint = \"{id}.example:22\" }}");
                let hosts: Vec<String> = HOSTS.iter().map(host).collect();
                format!("provider = \"static\"\nhosts = [{}]\n", hosts.join(", "))
            }
        }
    }

    /// What was made and removed, in order.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let text = fs::read_to_string(self.book()).unwrap_or_default();
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.map(|line| step(self.provider, line)).collect()
    }

    /// Worker and instance id of all that live now.
    pub(crate) fn alive(&self) -> Vec<(String, String)> {
        match self.provider {
            Provider::Null => {
                let mut alive = Vec::new();
                for step in self.steps() {
                    match step {
                        Step::Made { worker, instance } => alive.push((worker, instance)),
                        Step::Gone { worker } | Step::Vanished { worker, .. } => {
                            alive.retain(|(other, _)| *other != worker);
                        }
                    }
                }
                alive
            }
            Provider::Process => self.processes().into_values().collect(),
            Provider::Static => Vec::new(),
        }
    }

    /// The id of a worker's instance.
    pub(crate) fn instance(&self, worker: &str) -> String {
        let found = self.alive().into_iter().find(|(other, _)| other == worker);
        found.map(|(_, instance)| instance).expect("a live instance")
    }

    /// Has an instance tell that its worker was claimed a century ago, so that its claim may have been purged since.
    pub(crate) fn backdate(&self, pool: &str, prefix: &str, worker: &str) {
        let path = match self.provider {
            Provider::Null => self.book(),
            Provider::Process => self.state().join(prefix).join(pool).join(worker).join("instance"),
            Provider::Static => panic!("a host tells nothing"),
        };
        let name = format!("\"worker_id\":\"{worker}\"");
        let older = |line: &str| if line.contains(&name) { line.replace("@20", "@19") } else { line.to_owned() };
        let text = fs::read_to_string(&path).expect("what the provider has written");
        // As long as it was: who has read so far goes on from there.
        fs::write(&path, text.split_inclusive('\n').map(older).collect::<String>()).expect("it can be written");
    }

    /// Ends a worker's instance as a fault of its host would: nobody is told.
    pub(crate) fn vanish(&self, pool: &str, prefix: &str, worker: &str) {
        let instance = self.instance(worker);
        let line = match self.provider {
            Provider::Null => {
                let gone = json!({ "pool": pool, "worker_id": worker });
                json!({ "fleet": prefix, "gone": gone, "vanished": instance }).to_string()
            }
            Provider::Process => {
                let leads = self.processes().into_iter().find(|(_, (other, _))| other == worker);
                let (pid, _) = leads.expect("its process");
                kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL).expect("it can be killed");
                while self.processes().contains_key(&pid) {}
                format!("vanished {worker} {instance}")
            }
            Provider::Static => panic!("a host does not vanish"),
        };
        let mut book = OpenOptions::new().append(true).open(self.book()).expect("the book");
        // The null provider reads and writes it under this lock.
        book.lock().expect("the book's lock");
        book.write_all(format!("{line}\n").as_bytes()).expect("a line");
    }

    /// The same for one of those that live, whichever; none where it has just gone by itself.
    pub(crate) fn vanish_one(&self, pool: &str, prefix: &str, pick: usize) -> Option<String> {
        let mut book = OpenOptions::new().append(true).create(true).open(self.book()).expect("the book");
        // Nobody removes an instance of the null provider while this is held.
        book.lock().expect("the book's lock");
        let alive = self.alive();
        let (worker, instance) = alive.get(pick % alive.len().max(1))?;
        let line = match self.provider {
            Provider::Null => {
                let gone = json!({ "pool": pool, "worker_id": worker });
                json!({ "fleet": prefix, "gone": gone, "vanished": instance }).to_string()
            }
            Provider::Process => {
                let (pid, _) = self.processes().into_iter().find(|(_, (other, _))| other == worker)?;
                kill_process(Pid::from_raw(pid)?, Signal::KILL).ok()?;
                format!("vanished {worker} {instance}")
            }
            Provider::Static => return None,
        };
        book.write_all(format!("{line}\n").as_bytes()).expect("a line");
        Some(worker.clone())
    }

    /// Processes that have to do with this home and are not the leaders of those that live.
    pub(crate) fn left_over(&self) -> Vec<String> {
        let leaders = self.processes();
        let others = self.all_processes().into_iter().filter(|process| !leaders.contains_key(&process.session));
        others.map(|Process { pid, session, .. }| format!("process {pid} of session {session}")).collect()
    }

    /// Session leaders that write into this home's book, by pid.
    fn processes(&self) -> BTreeMap<i32, (String, String)> {
        let leaders = self.all_processes().into_iter().filter(|process| process.session == process.pid);
        leaders.map(|Process { pid, worker, instance, .. }| (pid, (worker, instance))).collect()
    }

    /// All that live with this home's book in their environment.
    fn all_processes(&self) -> Vec<Process> {
        let book = format!("BOOK={}", self.book().display());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let (Ok(environ), Ok(stat)) =
                (fs::read(entry.path().join("environ")), fs::read_to_string(entry.path().join("stat")))
            else {
                continue;
            };
            let environ: Vec<_> = environ.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
            // state, parent, group, session: after the name, which may hold anything.
            let fields: Vec<&str> =
                stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
            let session = fields.get(3).and_then(|session| session.parse().ok()).unwrap_or_default();
            let lives = fields.first().is_some_and(|state| !matches!(*state, "Z" | "X" | "x"));
            if !lives || !environ.iter().any(|variable| *variable == book) {
                continue;
            }
            let value =
                |name: &str| environ.iter().find_map(|v| v.strip_prefix(name).map(str::to_owned)).unwrap_or_default();
            found.push(Process {
                pid,
                session,
                worker: value("ENLIST_WORKER_ID="),
                instance: value("ENLIST_INSTANCE="),
            });
        }
        found
    }
}

struct Process {
    pid: i32,
    session: i32,
    worker: String,
    instance: String,
}

fn step(provider: Provider, line: &str) -> Step {
    if provider == Provider::Process {
        let words: Vec<&str> = line.split_whitespace().collect();
        return match words[..] {
            ["made", worker, instance] => Step::Made { worker: worker.into(), instance: instance.into() },
            ["gone", worker, _] => Step::Gone { worker: worker.into() },
            ["vanished", worker, instance] => Step::Vanished { worker: worker.into(), instance: instance.into() },
            _ => panic!("a line of the book is {line:?}"),
        };
    }
    let line: Value = serde_json::from_str(line).expect("a line of the null provider's file");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    match (line.get("made"), line.get("gone")) {
        (Some(made), None) => Step::Made { worker: text(&made["worker_id"]), instance: text(&made["instance_id"]) },
        (None, Some(gone)) if line["vanished"].is_null() => Step::Gone { worker: text(&gone["worker_id"]) },
        (None, Some(gone)) => Step::Vanished { worker: text(&gone["worker_id"]), instance: text(&line["vanished"]) },
        _ => panic!("a line of the null provider's file is {line}"),
    }
}
