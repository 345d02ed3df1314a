//! `enlist dev` as a newcomer runs it: it shows all of it, and nothing of it stays.

// All of it is a test, its helpers too.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A folder that somebody starts `enlist dev` in, and nothing else.
struct Newcomer {
    folder: TempDir,
}

impl Newcomer {
    fn new() -> Self {
        Self { folder: TempDir::with_prefix("enlist-newcomer-").unwrap() }
    }

    fn enlist(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_enlist"));
        command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
        for name in ["NATS_URL", "NATS_CONTEXT", "ENLIST_CONFIG", "ENLIST_PREFIX", "ENLIST_STATE_DIR", "ENLIST_LOG"] {
            command.env_remove(name);
        }
        let wheel = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/nats-server");
        if std::env::var_os("NATS_SERVER").is_none() && wheel.is_file() {
            command.env("NATS_SERVER", wheel);
        }
        command
    }

    fn says(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = self.enlist(args).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    }

    /// Processes that were started here: workers and brokers keep the folder that they were started in.
    fn running(&self) -> Vec<String> {
        let here = self.folder.path().canonicalize().unwrap();
        let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
        let ours = processes.filter(|path| fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd == here));
        ours.map(|path| fs::read_to_string(path.join("cmdline")).unwrap_or_default().replace('\0', " ")).collect()
    }

    fn left(&self) -> usize {
        fs::read_dir(self.folder.path()).unwrap().count()
    }
}

/// A run that stays up, told to end with the test.
struct Running {
    child: Child,
    /// All that it has said up to where it stays up.
    said: String,
}

impl Running {
    fn start(newcomer: &Newcomer) -> Self {
        let mut child = newcomer.enlist(&["dev"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
            said += &(line.clone() + "\n");
            if line.contains("Ctrl-C") {
                return Self { child, said };
            }
        }
        let _ = child.wait();
        panic!("it has ended early:\n{said}");
    }

    fn url(&self) -> String {
        let from = self.said.find("nats://").unwrap();
        self.said[from..].split([' ', ',']).next().unwrap().to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

#[test]
fn dev_once_ends_with_exit_code_0_and_leaves_nothing() {
    let newcomer = Newcomer::new();
    let (code, said) = newcomer.says(&["dev", "--once"]);
    assert_eq!(code, Some(0), "{said}");
    for expected in ["registered", "with the scheduler after", "dead letter", "not_allowed", "terminated", "zone=b"] {
        assert!(said.contains(expected), "`{expected}` is missing:\n{said}");
    }
    assert!(!said.contains('\x1b'), "colours where there is no terminal:\n{said}");
    assert_eq!(newcomer.running(), [""; 0]);
    assert_eq!(newcomer.left(), 0);
}

#[test]
fn the_line_that_dev_prints_sends_the_next_command() {
    let newcomer = Newcomer::new();
    let dev = Running::start(&newcomer);
    let line = dev.said.lines().find(|line| line.contains(" provision demo --wait")).unwrap();
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    let (code, said) = newcomer.says(&words);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("registered"), "{said}");

    let url = dev.url();
    let (code, said) = newcomer.says(&["provision", "nowhere", "--nats-url", &url]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no pool nowhere is served under prefix enlist"), "{said}");

    let (code, said) = newcomer.says(&["provision", "demo", "--id", "demo-1", "--wait", "--nats-url", &url]);
    assert_eq!(code, Some(1), "the id is another command's:\n{said}");
    assert!(said.contains("conflict"), "{said}");

    let (code, said) = newcomer.says(&["terminate", "demo", "demo-1", "--wait", "--nats-url", &url]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = newcomer.says(&["terminate", "demo", "demo-1", "--wait", "--nats-url", &url]);
    assert_eq!(code, Some(0), "an outcome that is there already is one:\n{said}");

    drop(dev);
    assert_eq!(newcomer.running(), [""; 0]);
    assert_eq!(newcomer.left(), 0);
}

#[test]
fn what_a_killed_dev_leaves_is_ended_by_the_next() {
    let newcomer = Newcomer::new();
    let mut dev = Running::start(&newcomer);
    let mut broker = TcpStream::connect(dev.url().trim_start_matches("nats://")).unwrap();
    dev.child.kill().unwrap();
    // The broker ends by itself, and its connections with it.
    let _ = broker.read_to_end(&mut Vec::new());
    drop(dev);
    let (code, said) = newcomer.says(&["dev", "--once"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("ended 3 workers of a run that was killed"), "{said}");
    assert_eq!(newcomer.running(), [""; 0]);
    assert_eq!(newcomer.left(), 0);
}
