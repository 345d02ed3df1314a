//! The fleet page: what a browser shows, who may see it, and who is turned away.

use std::net::SocketAddr;

use enlist::domain::Labels;
use enlist::replica::Replica;
use enlist::wire::command::{ProvisionCommand, SpecOverrides};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{Answer, Browser, LOAD, World, nameless, provision, terminate};

const TOKEN: &str = "a-token-of-this-test";
const HOSTILE: &str = "<img src=x onerror=alert(1)>";

fn url(replica: &Replica) -> String {
    format!("http://{}/", replica.address())
}

/// A provision whose label would be markup, if it were taken for any.
fn hostile(command_id: &str, worker_id: &str) -> ProvisionCommand {
    let labels =
        Labels::from([("evil".to_owned(), HOSTILE.to_owned()), ("rtl".to_owned(), "\u{202e}gnp.exe".to_owned())]);
    let spec = SpecOverrides { labels: Some(labels), ..SpecOverrides::default() };
    ProvisionCommand { spec, ..provision(command_id, worker_id) }
}

#[tokio::test]
async fn a_browser_shows_what_happens_without_loading_again() {
    let Some(browser) = Browser::start().await else { return };
    let world =
        World::new(&format!("{LOAD}allow = [\"labels\"]\nmax_workers = 9\n[pools.other]\nprovider = \"null\"\n")).await;
    let replica = world.replica().await;
    browser.open(&url(&replica)).await;
    browser.until("document.getElementById('status').textContent === 'live'").await;
    browser.until("document.querySelectorAll('.pool').length === 2").await;
    browser.script("window.loadedOnce = true").await;

    world.send("load", &hostile("c-1", "w-1")).await;
    browser.until("document.getElementById('events').innerText.includes('load/w-1')").await;
    browser.until("document.getElementById('events').innerText.includes('with the scheduler')").await;
    let pool = "document.querySelector('[data-pool=load]').innerText";
    browser.until(&format!("{pool}.includes('1 registered') && {pool}.includes('at most 9')")).await;
    browser.until("document.getElementById('workers').innerText.includes('load/w-1')").await;

    world.scheduler.on_register(&[], Answer::Reject);
    world.send("load", &provision("c-2", "w-2")).await;
    let failing = "document.getElementById('failing').innerText";
    browser.until(&format!("{failing}.includes('load/w-2') && {failing}.includes('not tried again')")).await;
    let fault = world.reaches("w-2", "registration_failed").await.worker.registration.error.unwrap();
    assert!(!fault.code.is_empty() && !fault.message.is_empty());
    browser.until(&format!("{failing}.includes('{}: {}')", fault.code, fault.message)).await;

    let refused = SpecOverrides { image: Some("busybox".into()), ..SpecOverrides::default() };
    world.send("load", &ProvisionCommand { spec: refused, ..nameless("c-3") }).await;
    let dead = "document.getElementById('dead').innerText";
    browser.until(&format!("{dead}.includes('c-3') && {dead}.includes('not_allowed: spec.image')")).await;

    browser
        .script("[...document.querySelectorAll('#workers button')].find((b) => b.innerText === 'load/w-1').click()")
        .await;
    browser.until("document.querySelectorAll('#timeline li').length === 3").await;
    let labels =
        browser.script("return [...document.querySelectorAll('#worker .label')].map((one) => one.textContent)").await;
    assert_eq!(labels, serde_json::json!([format!("evil={HOSTILE}"), "rtl=\\u{202e}gnp.exe"]));
    world.send("load", &terminate("c-4", "w-1")).await;
    browser.until("document.querySelectorAll('#timeline li').length === 5").await;
    browser.until("document.getElementById('timeline').innerText.includes('terminated')").await;
    browser.until("!document.getElementById('failing').innerText.includes('w-1')").await;

    assert_eq!(browser.script("return document.querySelectorAll('img, iframe, body script').length").await, 0);
    assert_eq!(browser.script("return window.loadedOnce").await, true);
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_browser_is_asked_for_the_token_and_shows_the_fleet_for_it() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::new(&format!("[http]\ntoken = \"{TOKEN}\"\n{LOAD}")).await;
    let replica = world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.reaches("w-1", "registered").await;
    browser.open(&format!("{}#worker/load/w-1", url(&replica))).await;
    let enter = |token: &str| {
        format!(
            "document.getElementById('gate-token').value = '{token}'; \
             document.getElementById('gate-form').requestSubmit()"
        )
    };
    browser.until("document.getElementById('gate').open").await;
    assert_eq!(browser.script("return document.querySelectorAll('.pool').length").await, 0);
    browser.script(&enter("another-token-than-that")).await;
    browser.until("document.getElementById('gate-wrong').textContent === 'This is not the token.'").await;
    browser.script(&enter("a-token-with-an-\u{fc}\u{2603}")).await;
    browser.until("document.getElementById('gate-wrong').textContent.includes('cannot be sent')").await;
    browser.script(&enter(TOKEN)).await;
    browser.until("document.querySelectorAll('#timeline li').length === 3").await;
    browser.until("document.getElementById('status').textContent === 'live'").await;
    browser.until("document.querySelectorAll('.pool').length === 1").await;

    // The answer to the first question comes after that to the second.
    browser
        .script(
            "const real = window.fetch; \
             window.fetch = (path, ...rest) => (String(path).includes('state=failed') \
               ? new Promise((resolve) => { \
                   window.answer = () => resolve({ ok: true, json: async () => ({ next: null, workers: [] }) }); \
                 }) \
               : real(path, ...rest)); \
             const filter = document.getElementById('filter-state'); \
             for (const state of ['failed', 'registered']) { \
               filter.value = state; filter.dispatchEvent(new Event('change')); \
             }",
        )
        .await;
    let listed = "document.getElementById('workers').innerText.includes('load/w-1')";
    browser.until(&format!("document.getElementById('workers-note').textContent === '' && {listed}")).await;
    browser.script("window.answer()").await;
    assert_eq!(browser.script(&format!("return {listed}")).await, true);
    let refused = browser.complaints().await;
    assert!(!refused.is_empty() && refused.iter().all(|one| one.contains("401")), "{refused:?}");
}

/// The head of an answer, and what there is of its body.
async fn get(at: SocketAddr, path: &str, headers: &str) -> (u16, String) {
    let (mut stream, head) = begin(at, path, headers).await;
    let mut body = Vec::new();
    stream.read_to_end(&mut body).await.unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head + &String::from_utf8(body).unwrap())
}

/// An answer up to the end of its head.
async fn begin(at: SocketAddr, path: &str, headers: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let host = if headers.contains("Host:") { String::new() } else { format!("Host: {at}\r\n") };
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    (stream, String::from_utf8(head).unwrap())
}

#[tokio::test]
async fn every_part_of_the_page_is_shielded_and_answers_to_local_names_alone() {
    let world = World::new(LOAD).await;
    let replica = world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.reaches("w-1", "registered").await;
    let at = replica.address();
    for path in ["/", "/page.css", "/page.js", "/page/workers", "/page/worker?pool=load&id=w-1"] {
        let (status, text) = get(at, path, "").await;
        assert_eq!(status, 200, "{text}");
        for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "nosniff", "no-referrer"] {
            assert!(text.contains(part), "{path} lacks {part}: {text}");
        }
        let (status, _) = get(at, path, "Host: rebound.example\r\n").await;
        assert_eq!(status, 421, "{path}");
    }
    assert!(get(at, "/", "").await.1.ends_with("</html>\n"));
    let (_, history) = get(at, "/page/worker?pool=load&id=w-1", "").await;
    assert_eq!(history.matches("\"seq\"").count(), 3, "{history}");
    for bad in
        ["/page/workers?pool=A%20B", "/page/workers?state=gone", "/page/workers?after=x", "/page/worker?pool=load"]
    {
        assert_eq!(get(at, bad, "").await.0, 400, "{bad}");
    }
    for open in ["/livez", "/metrics"] {
        assert_eq!(get(at, open, "Host: prometheus.example\r\n").await.0, 200, "{open}");
    }
}

#[tokio::test]
async fn a_token_guards_what_the_page_shows_and_not_the_probes() {
    let world = World::new(&format!("[http]\ntoken = \"{TOKEN}\"\n{LOAD}")).await;
    let replica = world.replica().await;
    let at = replica.address();
    for path in ["/page/live", "/page/workers", "/page/worker?pool=load&id=w-1"] {
        assert_eq!(get(at, path, "").await.0, 401, "{path}");
        assert_eq!(get(at, path, "Authorization: Bearer another-token-than-that\r\n").await.0, 401, "{path}");
        let (_, head) = begin(at, path, &format!("Authorization: Bearer {TOKEN}\r\n")).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    }
    for path in ["/", "/page.js", "/livez", "/metrics"] {
        assert_eq!(get(at, path, "").await.0, 200, "{path}");
    }
}

#[tokio::test]
async fn one_reader_too_many_is_turned_away_until_another_goes() {
    let world = World::new(LOAD).await;
    let replica = world.replica().await;
    let mut readers = Vec::new();
    for _ in 0..32 {
        let (stream, head) = begin(replica.address(), "/page/live", "").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        readers.push(stream);
    }
    assert_eq!(get(replica.address(), "/page/live", "").await.0, 503);
    drop(readers.pop());
    world
        .until("a place to be free", async || {
            begin(replica.address(), "/page/live", "").await.1.starts_with("HTTP/1.1 200").then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_listener_for_everybody_without_a_token_says_so() {
    let world = World::new(LOAD).await;
    let mut child = world.child_with(&[("ENLIST_HTTP_LISTEN", "0.0.0.0:0")]).await;
    child.line("anybody who reaches this address sees the fleet page").await;
    let at = SocketAddr::from(([127, 0, 0, 1], child.address().port()));
    let (mut live, _) = begin(at, "/page/live", "Host: enlist.example\r\n").await;
    let mut told = String::new();
    while !told.contains("event: fleet\n") {
        let mut some = [0; 4096];
        let read = live.read(&mut some).await.unwrap();
        assert!(read > 0, "{told}");
        told.push_str(&String::from_utf8_lossy(&some[..read]));
    }
    assert!(told.contains("\"open\":true"), "{told}");
}
