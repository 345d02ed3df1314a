//! What a person who waits is told of the connection: one line while it is down, one when it is up again, and what the server
//! does not permit, each thing once.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::pending;

use crate::bus::connection::Connection;
use crate::text::cut;

/// What is not permitted of one command is not permitted of a thousand.
const MOST: usize = 5;

/// Tells of it for as long as somebody waits.
pub(super) async fn tell_away(connection: &Connection, say: impl Fn(&str)) -> Infallible {
    tokio::join!(trouble(connection, &say), complaints(connection, &say)).0
}

/// What is mended at the first try is not worth a line.
async fn trouble(connection: &Connection, say: impl Fn(&str)) -> Infallible {
    let mut trouble = connection.trouble.clone();
    let mut told: Option<String> = None;
    loop {
        let now = trouble.borrow_and_update().clone();
        match &now {
            Some(why) if now != told => {
                say(&format!("enlist: the connection is down and is being made anew; still waiting: {why}"));
            }
            None if told.is_some() => say("enlist: the connection is up again"),
            Some(_) | None => {}
        }
        told = now;
        if trouble.changed().await.is_err() {
            // Closed for good, which the one who waits hears as well.
            return pending().await;
        }
    }
}

/// Without the right to hear or to read, an outcome may never be known.
async fn complaints(connection: &Connection, say: impl Fn(&str)) {
    let mut complained = connection.complained.clone();
    let mut told = BTreeSet::new();
    loop {
        complained.mark_unchanged();
        for complaint in connection.unexpected() {
            if told.len() < MOST && told.insert(complaint.clone()) {
                say(&format!("enlist: the broker complains: {}", cut(&complaint, 300)));
            }
        }
        if complained.changed().await.is_err() {
            return;
        }
    }
}
