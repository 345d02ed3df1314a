//! Secrets go nowhere but where they belong, and foreign text does no harm in a log: at the finest level, in both formats.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use enlist::wire::command::{ProvisionCommand, SpecOverrides};
use futures_util::StreamExt as _;
use nkeys::{KeyPair, KeyPairType};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::broker::Broker;
use crate::secure::Authority;
use crate::world::{PATIENCE, World, page, provision, terminate};

/// In every secret, and in nothing else.
const CANARY: &str = "cAnArY";

/// A replica that says all that it can, in a format.
struct Loud {
    process: tokio::process::Child,
    lines: mpsc::UnboundedReceiver<String>,
    said: Vec<String>,
}

impl Loud {
    fn start(settings: &Path, env: BTreeMap<String, String>, format: &str) -> Self {
        let mut process = tokio::process::Command::new(env!("CARGO_BIN_EXE_enlist"))
            .args(["--log-format", format, "--config"])
            .arg(settings)
            .arg("run")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("ENLIST_LOG", "trace")
            .env("ENLIST_HTTP_LISTEN", "127.0.0.1:0")
            .envs(env)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(process.stderr.take().unwrap()).lines();
        let (tell, lines) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                let _ = tell.send(line);
            }
        });
        Self { process, lines, said: Vec::new() }
    }

    /// Waits for a line of its log that contains `part`.
    async fn line(&mut self, part: &str) -> String {
        loop {
            let line = timeout(PATIENCE, self.lines.recv()).await.ok().flatten();
            let line = line.unwrap_or_else(|| panic!("waited for {part:?} in vain:\n{}", self.tail()));
            self.said.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }

    fn tail(&self) -> String {
        self.said[self.said.len().saturating_sub(40)..].join("\n")
    }

    /// All that it has said, once it is gone.
    async fn end(mut self) -> Vec<String> {
        let _ = self.process.start_kill();
        let _ = self.process.wait().await;
        while let Some(line) = self.lines.recv().await {
            self.said.push(line);
        }
        self.said
    }
}

fn has_none(what: &str, text: &str) {
    let at = text.find(CANARY).map(|at| &text[at.saturating_sub(200)..(at + 40).min(text.len())]);
    assert_eq!(at, None, "a secret in {what}");
}

/// The settings with an identity, at the finest level, in both formats: the log of a start and of a refusal.
async fn starts(broker_flags: &[&str], env: &[(&str, String)], secrets: &[String]) {
    let broker = Broker::process_with(broker_flags).await;
    let dir = TempDir::new().unwrap();
    let settings = dir.path().join("enlist.toml");
    std::fs::write(&settings, "[pools.load]\nprovider = \"null\"\n").unwrap();
    let mut all: BTreeMap<String, String> =
        env.iter().map(|(name, value)| ((*name).to_owned(), value.replace("{url}", &broker.url()[7..]))).collect();
    all.entry("NATS_URL".to_owned()).or_insert_with(|| broker.url().to_owned());
    for format in ["json", "text"] {
        let mut replica = Loud::start(&settings, all.clone(), format);
        replica.line("taking commands").await;
        let said = replica.end().await.join("\n");
        for secret in secrets {
            assert!(!said.contains(secret.as_str()), "a secret in the log of {env:?}");
        }
    }
    // The same where nobody lets it in.
    drop(broker);
    let strict = Broker::process_with(&["--user", "somebody", "--pass", "else"]).await;
    all.insert("NATS_URL".to_owned(), strict.url().to_owned());
    for (name, value) in env.iter().filter(|(name, _)| *name == "NATS_URL") {
        all.insert((*name).to_owned(), value.replace("{url}", &strict.url()[7..]));
    }
    let mut replica = Loud::start(&settings, all, "json");
    replica.line("cannot connect").await;
    let said = replica.end().await.join("\n");
    for secret in secrets {
        assert!(!said.contains(secret.as_str()), "a secret in the log of a refusal of {env:?}");
    }
}

#[tokio::test]
async fn no_password_or_token_is_in_the_log() {
    let secret = format!("{CANARY}-0a1b2c");
    let user = ["--user", "enlist", "--pass", &secret];
    let secrets = [secret.clone()];
    starts(&user, &[("NATS_USER", "enlist".into()), ("NATS_PASSWORD", secret.clone())], &secrets).await;
    starts(&user, &[("NATS_URL", format!("nats://enlist:{secret}@{{url}}"))], &secrets).await;
    let token = ["--auth", &secret];
    starts(&token, &[("NATS_TOKEN", secret.clone())], &secrets).await;
    starts(&token, &[("NATS_URL", format!("nats://{secret}@{{url}}"))], &secrets).await;
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, &secret).unwrap();
    let file = file.to_str().unwrap().to_owned();
    starts(&user, &[("NATS_USER", "enlist".into()), ("NATS_PASSWORD_FILE", file)], &secrets).await;
}

#[tokio::test]
async fn no_seed_is_in_the_log() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let pair = KeyPair::new_from_raw(KeyPairType::User, rand::random()).unwrap();
    std::fs::write(path("key"), pair.seed().unwrap()).unwrap();
    let conf = format!("authorization {{ users: [{{ nkey: {} }}] }}", pair.public_key());
    std::fs::write(path("nkey.conf"), conf).unwrap();
    starts(&["-c", &path("nkey.conf")], &[("NATS_NKEY", path("key"))], &[pair.seed().unwrap()]).await;

    let authority = Authority::new();
    std::fs::write(path("jwt.conf"), authority.configuration()).unwrap();
    let creds = authority.creds(None);
    std::fs::write(path("creds"), &creds).unwrap();
    let secrets: Vec<String> =
        creds.lines().filter(|line| !line.starts_with('-') && !line.is_empty()).map(ToOwned::to_owned).collect();
    assert_eq!(secrets.len(), 2);
    starts(&["-c", &path("jwt.conf")], &[("NATS_CREDS", path("creds"))], &secrets).await;
}

/// Pools whose workers get a secret each, from the settings and from commands.
const POOLS: &str = r#"
[sweep]
interval = "12h"
[pools.work]
provider = "process"
command = ["sleep", "infinity"]
env = { FROM_SETTINGS = "cAnArY-settings" }
allow = ["env", "command", "labels"]
registration = { enabled = false }
[pools.far]
provider = "nats"
name = "nowhere"
subject_prefix = "nobody"
command = ["run", "cAnArY-argument"]
env = { FROM_SETTINGS = "cAnArY-settings" }
"#;

fn with_secrets(command_id: &str, command: Option<Vec<String>>) -> ProvisionCommand {
    let env = BTreeMap::from([("TOKEN".to_owned(), format!("{CANARY}-env"))]);
    let spec = SpecOverrides { env: Some(env), command, ..SpecOverrides::default() };
    ProvisionCommand { spec, ..provision(command_id, &format!("w-{command_id}")) }
}

#[tokio::test]
async fn no_worker_s_secret_is_anywhere_but_in_the_worker() {
    let world = World::new(POOLS).await;
    let settings = world.path("settings.toml");
    std::fs::write(&settings, POOLS).unwrap();
    let mut replica = Loud::start(&settings, world.env(), "json");
    let line: Value = serde_json::from_str(&replica.line("taking commands").await).unwrap();
    let address = line["http"].as_str().unwrap().parse().unwrap();
    world.send("work", &with_secrets("ok", None)).await;
    world.reaches("w-ok", "provisioned").await;
    // It cannot be started: the provider's error tells of the command.
    let missing = vec!["no-such-program".to_owned(), format!("--token={CANARY}-argument")];
    world.send("work", &with_secrets("bad", Some(missing))).await;
    world.reaches("w-bad", "failed").await;
    world.send("far", &provision("far", "w-far")).await;
    for body in [
        r#"{"command_id":"c-1","spec":{"env":{"A":{"x":"cAnArY"}}}}"#,
        r#"{"command_id":"c-2","spec":{"env":{"A":"cAnArY","A":"cAnArY"}}}"#,
        r#"{"command_id":"c-3","spec":{"env":["cAnArY"]}}"#,
        r#"{"command_id":"c-4","spec":{"env":{"LD_PRELOAD":"cAnArY"}}}"#,
        r#"{"command_id":"c-5","spec":{"command":"run --token cAnArY"}}"#,
        r#"{"command_id":"c-6","spec":{"env":{"A":"cAnArY"#,
        r#"{"command_id":"c-7","spec":{"image":"i","env":{"A":"cAnArY"}}}"#,
        r#"{"command_id":"c-8","password":"cAnArY"}"#,
    ] {
        world.send_raw("work", enlist::domain::Verb::Provision, body).await;
    }
    world.until("eight dead letters", async || (world.dead().await.len() == 8).then_some(())).await;
    let unavailable = async || world.history("w-far").await.pop()?.worker.error.map(drop);
    world.until("a word of a provider that is not there", unavailable).await;

    for dead in world.dead().await {
        has_none("a dead letter's detail", dead.detail());
    }
    for event in world.log().await {
        has_none("an event", &event.json.to_string());
        has_none("an event's headers", &format!("{:?}", event.headers));
    }
    for path in ["/metrics", "/readyz", "/"] {
        has_none(path, &page(address, path).await.unwrap().1);
    }
    let shown = world.enlist_with(&settings, &["check-config"]).await;
    has_none("check-config", &shown.1.replace("[\"run\", \"cAnArY-argument\"]", ""));
    let worker = world.instances("work").await.pop().unwrap();
    has_none("an instance's record", &format!("{worker:?}"));
    // Its process would outlive the test.
    world.send("work", &terminate("end", "w-ok")).await;
    world.reaches("w-ok", "terminated").await;
    has_none("the log", &replica.end().await.join("\n"));
}

/// What a terminal would take for an order, a new line, a line without an end, and a name that reads backwards.
fn nasty(what: &str) -> String {
    format!(
        "{what}\u{1b}[2J\u{1b}]0;x\u{7}\r\n{{\"level\":\"ERROR\",\"forged\":true}}\n\u{202e}{}",
        "long ".repeat(4000)
    )
}

#[tokio::test]
async fn foreign_text_is_escaped_and_cut_in_both_formats() {
    for format in ["json", "text"] {
        let file = format!(
            "[sweep]\ninterval = \"12h\"\n[pools.load]\nprovider = \"null\"\n\
             [pools.far]\nprovider = \"nats\"\nname = \"nasty\"\nsubject_prefix = \"{format}\"\n"
        );
        let world = World::new(&file).await;
        world.scheduler.leave().await;
        let answers = BTreeMap::from([
            (world.env()["ENLIST_SCHEDULER_REGISTER"].clone(), "register"),
            (format!("{format}.nasty.create"), "create"),
        ]);
        for (subject, which) in answers {
            let (client, mut requests) = (world.client.clone(), world.client.subscribe(subject).await.unwrap());
            let body = match which {
                "register" => serde_json::json!({"status": "rejected", "code": nasty("code"), "message": nasty("why")}),
                _ => serde_json::json!({"status":"failed","error":{"class":"invalid_spec","message":nasty("how")}}),
            };
            tokio::spawn(async move {
                while let Some(message) = requests.next().await {
                    client.publish(message.reply.unwrap(), body.to_string().into()).await.unwrap();
                }
            });
        }
        world.client.flush().await.unwrap();
        let settings = world.path("settings.toml");
        std::fs::write(&settings, &file).unwrap();
        let mut replica = Loud::start(&settings, world.env(), format);
        replica.line("taking commands").await;
        for (n, body) in [
            serde_json::json!({"command_id": "c-1", "worker_id": nasty("w")}),
            serde_json::json!({"command_id": nasty("c")}),
            serde_json::json!({"command_id": "c-3", nasty("field"): 1}),
            serde_json::json!({"command_id": "c-4", "spec": {"labels": {nasty("label"): nasty("value")}}}),
            serde_json::json!({"command_id": "c-5", "correlation_id": nasty("id")}),
        ]
        .into_iter()
        .enumerate()
        {
            world.send_raw("load", enlist::domain::Verb::Provision, body.to_string()).await;
            world.until("a dead letter", async || (world.dead().await.len() == n + 1).then_some(())).await;
        }
        world.send("load", &provision("ok", "w-1")).await;
        world.reaches("w-1", "registration_failed").await;
        world.send("far", &provision("far", "w-2")).await;
        world.reaches("w-2", "failed").await;
        let said = replica.end().await;
        for line in &said {
            assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{format}: {line:?}");
            assert!(line.len() < 8000, "{format}: {} bytes in {}", line.len(), &line[..200]);
            if format == "json" {
                let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
                assert_eq!(line.get("forged"), None, "{line}");
            } else {
                assert!(line.starts_with("20"), "each line is a line of the log's: {line:?}");
            }
        }
        let told = |part: &str| said.iter().any(|line| line.contains(part));
        assert!(told("command refused") && told("registration failed") && told("code\\\\u{1b}") || told("code\\u{1b}"));
        for dead in world.dead().await {
            assert!(dead.detail().chars().count() <= 501 && !dead.detail().contains(char::is_control));
        }
    }
}
