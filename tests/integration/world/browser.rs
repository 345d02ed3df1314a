//! A real browser without a window: chromium, driven by chromedriver over the `WebDriver` protocol.
//!
//! The protocol is JSON over HTTP, and a handful of its calls is all that a test needs.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncBufReadExt as _;
use tokio::process::{Child, Command};
use tokio::time::{Instant, interval, timeout};

const PATIENCE: Duration = Duration::from_secs(60);

/// See the module. Closed with the value that holds it.
pub(crate) struct Browser {
    address: SocketAddr,
    session: String,
    _driver: Child,
}

impl Browser {
    /// A fresh browser; `None`, and a loud word, where there is none on this machine.
    pub(crate) async fn start() -> Option<Self> {
        let driver = Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).kill_on_drop(true).spawn();
        let mut driver = match driver {
            Ok(driver) => driver,
            Err(error) => {
                assert!(std::env::var_os("ENLIST_TEST_BROWSER").is_none(), "chromedriver: {error}");
                crate::broker::say(
                    "SKIPPED: the fleet page is not tried in a browser, as there is no chromedriver on PATH",
                );
                return None;
            }
        };
        let mut lines = tokio::io::BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = loop {
            let line =
                timeout(PATIENCE, lines.next_line()).await.expect("chromedriver's port").unwrap().expect("a line");
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').parse().unwrap();
            }
        };
        // Read to its end: a pipe that nobody reads would stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let mut browser =
            Self { address: SocketAddr::from(([127, 0, 0, 1], port)), session: String::new(), _driver: driver };
        let args =
            ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900"];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"args": args},
        }}});
        let session = browser.call("POST", "/session", wanted).await;
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        Some(browser)
    }

    /// Loads a page, and waits until it is loaded.
    pub(crate) async fn open(&self, url: &str) {
        self.call("POST", &format!("{}/url", self.session), json!({ "url": url })).await;
    }

    /// What a script returns.
    pub(crate) async fn script(&self, script: &str) -> Value {
        self.call("POST", &format!("{}/execute/sync", self.session), json!({ "script": script, "args": [] })).await
    }

    /// Waits until an expression holds; at last says what the page shows instead.
    pub(crate) async fn until(&self, expression: &str) {
        let (deadline, mut tick) = (Instant::now() + PATIENCE, interval(Duration::from_millis(50)));
        while self.script(&format!("return Boolean({expression})")).await != json!(true) {
            if Instant::now() > deadline {
                let shown = self.script("return document.body.innerText").await;
                panic!("waited for {expression} in vain; the page shows\n{}", shown.as_str().unwrap_or_default());
            }
            tick.tick().await;
        }
    }

    /// What the browser has complained about since the last call: warnings and errors of its console.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.call("POST", &format!("{}/se/log", self.session), json!({ "type": "browser" })).await;
        let entries = log.as_array().cloned().unwrap_or_default();
        let bad = entries.iter().filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING");
        bad.map(|entry| entry["message"].to_string()).collect()
    }

    async fn call(&self, method: &'static str, path: &str, body: Value) -> Value {
        let (address, path) = (self.address, path.to_owned());
        let called = tokio::task::spawn_blocking(move || call(address, method, &path, &body.to_string()));
        let answer = called.await.unwrap().unwrap_or_else(|error| panic!("chromedriver: {error}"));
        let mut answer: Value = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("chromedriver: {answer}"));
        let value = answer["value"].take();
        assert!(value["error"].is_null(), "chromedriver: {value}");
        value
    }
}

impl Drop for Browser {
    /// chromedriver that is killed would leave its chromium behind.
    fn drop(&mut self) {
        let _ = call(self.address, "DELETE", &self.session, "");
    }
}

/// One request; the driver is on this machine, and answers.
fn call(address: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )?;
    // It keeps the connection, whatever it is asked for: the body ends where its length says.
    let mut stream = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    while stream.read_line(&mut line)? > 2 {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
        line.clear();
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    String::from_utf8(body).map_err(std::io::Error::other)
}
