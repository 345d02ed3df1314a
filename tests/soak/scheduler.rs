//! A scheduler for several pools that is well, slow, silent or away, and forgets when it is told to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Client, Message};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::book::Book;
use crate::checker::{Asked, Kind};
use crate::home::{Home, Pages};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// Does what it is asked at once, and says so later.
    Slow(Duration),
    /// Does what it is asked, and never says so.
    Silent,
    /// Nobody listens.
    Away,
}

/// Answers on `<prefix>.scheduler.…` until it is dropped.
pub(crate) struct Scheduler {
    books: Books,
    mood: watch::Sender<Mood>,
    task: JoinHandle<()>,
}

type Books = Arc<Mutex<BTreeMap<String, (Book, Home, Pages)>>>;

impl Scheduler {
    pub(crate) fn start(client: Client, prefix: &str, homes: impl IntoIterator<Item = (String, Home)>) -> Self {
        let pools = homes.into_iter().map(|(pool, home)| (pool, (Book::default(), home, Pages::default()))).collect();
        let books: Books = Arc::new(Mutex::new(pools));
        let mood = watch::Sender::new(Mood::Well);
        let task = tokio::spawn(serve(client, format!("{prefix}.scheduler.*"), books.clone(), mood.subscribe()));
        Self { books, mood, task }
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// Loses one worker of those that it has, whichever.
    pub(crate) fn forget_one(&self, pool: &str, pick: usize) -> bool {
        let mut books = self.books.lock().expect("no panic under this lock");
        let (book, ..) = books.get_mut(pool).expect("a pool");
        let listed = book.listed();
        let worker = listed.get(pick % listed.len().max(1));
        worker.map(|worker| book.forget(worker)).is_some()
    }

    pub(crate) fn journal(&self, pool: &str) -> Vec<Asked> {
        let books = self.books.lock().expect("no panic under this lock");
        books[pool].0.follow().borrow().clone()
    }

    pub(crate) fn listed(&self, pool: &str) -> Vec<String> {
        self.books.lock().expect("no panic under this lock")[pool].0.listed()
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(client: Client, subject: String, books: Books, mut mood: watch::Receiver<Mood>) {
    loop {
        if mood.wait_for(|mood| *mood != Mood::Away).await.is_err() {
            return;
        }
        let Ok(mut requests) = client.subscribe(subject.clone()).await else { return };
        loop {
            tokio::select! {
                biased;
                away = gone(&mut mood) => match away {
                    Ok(()) => break,
                    Err(_) => return,
                },
                request = requests.next() => {
                    let Some(request) = request else { return };
                    let now = *mood.borrow();
                    hear(&client, &books, &request, now).await;
                }
            }
        }
    }
}

async fn gone(mood: &mut watch::Receiver<Mood>) -> Result<(), watch::error::RecvError> {
    mood.wait_for(|mood| *mood == Mood::Away).await.map(drop)
}

async fn hear(client: &Client, books: &Books, request: &Message, mood: Mood) {
    let Some(inbox) = request.reply.clone() else { return };
    let body: Value = serde_json::from_slice(&request.payload).expect("a request in JSON");
    let reply = {
        let mut books = books.lock().expect("no panic under this lock");
        let pool = body["pool"].as_str().expect("enlist always names the pool");
        let (book, home, pages) = books.get_mut(pool).expect("one of the pools");
        let status = |status: &'static str| json!({ "status": status });
        match request.subject.rsplit('.').next() {
            Some("register") => book.answer(Kind::Register, &body, home.number_of_steps(pages)).map(status),
            Some("unregister") => book.answer(Kind::Unregister, &body, home.number_of_steps(pages)).map(status),
            _ => Some(book.list(pool)),
        }
    };
    let Some(reply) = reply.map(|reply| reply.to_string()) else { return };
    match mood {
        Mood::Silent => {}
        Mood::Slow(by) => {
            let client = client.clone();
            tokio::spawn(async move {
                sleep(by).await;
                let _ = client.publish(inbox, reply.into()).await;
            });
        }
        // Whoever was asked just before it went still answers.
        Mood::Well | Mood::Away => drop(client.publish(inbox, reply.into()).await),
    }
}
