//! What a person who waits is told while the connection is down: one line, and one when it is up again.

use std::convert::Infallible;

use crate::bus::connection::Connection;

/// Tells of it for as long as somebody waits. What is mended at the first try is not worth a line.
pub(super) async fn tell_away(connection: &Connection, say: impl Fn(&str)) -> Infallible {
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
            std::future::pending::<()>().await;
        }
    }
}
