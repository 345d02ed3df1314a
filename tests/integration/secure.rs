//! Ways to the broker: TLS, mutual TLS, and every kind of identity, also one that is replaced while a replica runs.

mod jwt;

pub(crate) use jwt::Authority;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use nkeys::{KeyPair, KeyPairType};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::broker::Broker;
use crate::world::{Child, says};

/// A folder with the settings of a replica, and with what the server is told.
struct Site {
    dir: TempDir,
}

impl Site {
    fn new() -> Self {
        let dir = TempDir::with_prefix("enlist-secure-").unwrap();
        let site = Self { dir };
        site.write("enlist.toml", "[http]\nlisten = \"127.0.0.1:0\"\n[pools.load]\nprovider = \"null\"\n");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// As one who rotates would: the new file takes the place of the old one in one step.
    fn write(&self, name: &str, text: &str) {
        let new = self.path(&format!("{name}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }

    async fn broker(&self, configuration: &str) -> Broker {
        self.write("nats.conf", configuration);
        Broker::process_with(&["-c", &self.text("nats.conf"), "-P", &self.text("pid")]).await
    }

    /// Another configuration for the server that runs.
    fn reload(&self, broker: &Broker, configuration: &str) {
        // The harness has given it its name, which must stay the same.
        let port = broker.url().rsplit(':').next().unwrap();
        let name = format!("server_name: test-{}-{port}\n", std::process::id());
        self.write("nats.conf", &(name + configuration));
        let pid: i32 = std::fs::read_to_string(self.path("pid")).unwrap().trim().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::HUP).unwrap();
    }

    fn replica(&self, url: &str, env: &[(&str, &str)]) -> Child {
        Child::spawn(&self.path("enlist.toml"), Self::env(url, env))
    }

    fn env(url: &str, env: &[(&str, &str)]) -> BTreeMap<String, String> {
        let all = env.iter().copied().chain([("NATS_URL", url)]);
        all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// A replica comes up and goes down in good order.
    async fn serves(&self, url: &str, env: &[(&str, &str)]) {
        let mut replica = self.replica(url, env);
        replica.line("taking commands").await;
        replica.terminate();
        assert_eq!(replica.exit().await.0, Some(0));
    }

    /// A replica does not come up; what it says.
    async fn is_refused(&self, url: &str, env: &[(&str, &str)]) -> String {
        let (code, said) = self.replica(url, env).exit().await;
        assert_eq!(code, Some(69), "{said}");
        assert!(said.contains("cannot connect to NATS at"), "{said}");
        said
    }

    /// A command goes through, sent by a verb with this identity.
    async fn provisions(&self, url: &str, env: &[(&str, &str)], worker: &str) {
        let args = ["provision", "load", "--id", worker, "--wait"];
        let (code, said) = says(&self.path("enlist.toml"), Self::env(url, env), &args).await;
        // Nobody answers registrations here: the worker is there all the same.
        assert_eq!(code, Some(0), "{said}");
    }
}

/// A certificate authority, and what it has signed for server and client.
fn certificates(site: &Site) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    site.write("ca.pem", &ca.self_signed(&ca_key).unwrap().pem());
    let issuer = Issuer::from_params(&ca, &ca_key);
    for (name, whose) in [("server", "127.0.0.1"), ("client", "enlist.example")] {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![whose.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        site.write(&format!("{name}.pem"), &certificate.pem());
        site.write(&format!("{name}.key"), &key.serialize_pem());
    }
}

fn tls(site: &Site, verify: bool) -> String {
    let [cert, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|name| site.text(name));
    format!("tls {{ cert_file: \"{cert}\", key_file: \"{key}\", ca_file: \"{ca}\", verify: {verify} }}")
}

#[tokio::test]
async fn tls_needs_the_authority_that_signed_the_server() {
    let site = Site::new();
    certificates(&site);
    let broker = site.broker(&tls(&site, false)).await;
    let url = broker.url().replace("nats://", "tls://");
    site.serves(&url, &[("NATS_CA", &site.text("ca.pem"))]).await;
    site.is_refused(&url, &[]).await;
    let missing = [("NATS_CA", "/no/such/ca.pem")];
    let (code, said) = site.replica(&url, &missing).exit().await;
    assert!(code == Some(69) && said.contains("cannot use /no/such/ca.pem (nats.tls_ca)"), "{said}");
}

#[tokio::test]
async fn mutual_tls_needs_a_certificate_of_the_client_too() {
    let site = Site::new();
    certificates(&site);
    let broker = site.broker(&tls(&site, true)).await;
    let url = broker.url().replace("nats://", "tls://");
    let [ca, cert, key] = ["ca.pem", "client.pem", "client.key"].map(|name| site.text(name));
    site.serves(&url, &[("NATS_CA", &ca), ("NATS_CERT", &cert), ("NATS_KEY", &key)]).await;
    site.is_refused(&url, &[("NATS_CA", &ca)]).await;
}

fn with_password(password: &str) -> String {
    format!("authorization {{ users: [{{ user: enlist, password: \"{password}\" }}] }}")
}

#[tokio::test]
async fn a_password_file_is_read_again_when_the_password_has_changed() {
    let site = Site::new();
    site.write("password", "first\n");
    let broker = site.broker(&with_password("first")).await;
    let identity = [("NATS_USER", "enlist"), ("NATS_PASSWORD_FILE", &*site.text("password"))];
    let mut replica = site.replica(broker.url(), &identity);
    replica.line("taking commands").await;
    site.provisions(broker.url(), &identity, "w-1").await;

    site.write("password", "second\n");
    site.reload(&broker, &with_password("second"));
    came_back(&mut replica, 1).await;
    site.provisions(broker.url(), &identity, "w-2").await;
    site.is_refused(broker.url(), &[("NATS_USER", "enlist"), ("NATS_PASSWORD", "first")]).await;
}

/// The server has turned the replica out, and has let it in again.
async fn came_back(replica: &mut Child, time: usize) {
    replica.lines_with("\"event\":\"disconnected\"", time).await;
    // The first is that of its start.
    replica.lines_with("\"event\":\"connected\"", time + 1).await;
}

fn user() -> KeyPair {
    KeyPair::new_from_raw(KeyPairType::User, rand::random()).unwrap()
}

#[tokio::test]
async fn an_nkey_file_is_read_again_when_the_key_has_changed() {
    let site = Site::new();
    let [first, second] = [user(), user()];
    let with = |key: &KeyPair| format!("authorization {{ users: [{{ nkey: {} }}] }}", key.public_key());
    site.write("key", &first.seed().unwrap());
    let broker = site.broker(&with(&first)).await;
    let identity = [("NATS_NKEY", &*site.text("key"))];
    let mut replica = site.replica(broker.url(), &identity);
    replica.line("taking commands").await;

    site.write("key", &second.seed().unwrap());
    site.reload(&broker, &with(&second));
    came_back(&mut replica, 1).await;
    site.provisions(broker.url(), &identity, "w-1").await;
    site.write("old", &first.seed().unwrap());
    site.is_refused(broker.url(), &[("NATS_NKEY", &site.text("old"))]).await;
}

#[tokio::test]
async fn creds_are_read_again_when_those_in_use_have_expired() {
    let site = Site::new();
    let authority = Authority::new();
    let broker = site.broker(&authority.configuration()).await;
    // The server turns out who holds them when their time is over.
    let life = Duration::from_secs(20);
    site.write("creds", &authority.creds(Some(life)));
    // Over long before: in the very second in which a life ends the server may still let one in.
    site.write("old", &authority.creds(Some(Duration::from_secs(1))));
    let identity = [("NATS_CREDS", &*site.text("creds"))];
    let mut replica = site.replica(broker.url(), &identity);
    replica.line("taking commands").await;

    site.write("creds", &authority.creds(None));
    came_back(&mut replica, 1).await;
    site.provisions(broker.url(), &identity, "w-1").await;
    site.is_refused(broker.url(), &[("NATS_CREDS", &site.text("old"))]).await;
}

#[tokio::test]
async fn a_token_and_a_password_in_place_are_used() {
    let site = Site::new();
    let broker = site.broker("authorization { token: \"s3cret\" }").await;
    site.serves(broker.url(), &[("NATS_TOKEN", "s3cret")]).await;
    site.is_refused(broker.url(), &[("NATS_TOKEN", "wrong")]).await;
    drop(broker);
    let broker = site.broker(&with_password("s3cret")).await;
    site.serves(broker.url(), &[("NATS_USER", "enlist"), ("NATS_PASSWORD", "s3cret")]).await;
}

#[tokio::test]
async fn a_file_that_holds_no_identity_is_named_and_not_shown() {
    let site = Site::new();
    let broker = Broker::shared().await;
    site.write("bad", "SUANOTASEED-hunter2");
    for name in ["NATS_CREDS", "NATS_NKEY"] {
        let (code, said) = site.replica(broker.url(), &[(name, &site.text("bad"))]).exit().await;
        assert_eq!(code, Some(69), "{said}");
        assert!(said.contains(&format!("cannot use {}", site.text("bad"))) && !said.contains("hunter2"), "{said}");
    }
}
