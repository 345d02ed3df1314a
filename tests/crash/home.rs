//! Where a pool's instances live, read without the providers' own code: the null provider's file, or processes that keep a
//! book of their own and are counted in /proc.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::checker::Step;

/// A worker that says when it begins and when it is told to end. It ends with the test, too: nobody writes into the pipe,
/// which closes with the test binary.
const WORKER: &str = r#"trap 'echo "gone $ENLIST_WORKER_ID $ENLIST_INSTANCE" >>"$BOOK"; exit 0' TERM
echo "made $ENLIST_WORKER_ID $ENLIST_INSTANCE" >>"$BOOK"
cat "$LIFE" & wait $!"#;

/// Which provider makes a pool's workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provider {
    Null,
    Process,
}

/// A pool's instances. Clones are the same home.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    provider: Provider,
    folder: PathBuf,
    _life: Arc<File>,
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

    /// The pool's settings.
    pub(crate) fn settings(&self) -> String {
        let (book, life) = (self.book(), self.folder.join("life"));
        let (book, life) = (book.display(), life.display());
        match self.provider {
            Provider::Null => format!("provider = \"null\"\nstate_file = \"{book}\"\n"),
            Provider::Process => format!(
                "provider = \"process\"\ncommand = [\"sh\", \"-c\", '''{WORKER}''']\nenv = {{ BOOK = \"{book}\", LIFE = \"{life}\" }}\n"
            ),
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
                        Step::Gone { worker } => alive.retain(|(other, _)| *other != worker),
                    }
                }
                alive
            }
            Provider::Process => self.processes(),
        }
    }

    /// Session leaders that write into this home's book.
    fn processes(&self) -> Vec<(String, String)> {
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
            let leads = fields.get(3).is_some_and(|session| session.parse() == Ok(pid));
            let lives = fields.first().is_some_and(|state| !matches!(*state, "Z" | "X" | "x"));
            if !leads || !lives || !environ.iter().any(|variable| *variable == book) {
                continue;
            }
            let value =
                |name: &str| environ.iter().find_map(|v| v.strip_prefix(name).map(str::to_owned)).unwrap_or_default();
            found.push((value("ENLIST_WORKER_ID="), value("ENLIST_INSTANCE=")));
        }
        found
    }
}

fn step(provider: Provider, line: &str) -> Step {
    if provider == Provider::Process {
        let words: Vec<&str> = line.split_whitespace().collect();
        return match words[..] {
            ["made", worker, instance] => Step::Made { worker: worker.into(), instance: instance.into() },
            ["gone", worker, _] => Step::Gone { worker: worker.into() },
            _ => panic!("a line of the book is {line:?}"),
        };
    }
    let line: Value = serde_json::from_str(line).expect("a line of the null provider's file");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    match (line.get("made"), line.get("gone")) {
        (Some(made), None) => Step::Made { worker: text(&made["worker_id"]), instance: text(&made["instance_id"]) },
        (None, Some(gone)) => Step::Gone { worker: text(&gone["worker_id"]) },
        _ => panic!("a line of the null provider's file is {line}"),
    }
}
