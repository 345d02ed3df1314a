//! The fleet page: three files, and what their script asks for. Read-only.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::StreamExt as _;
use futures_util::stream;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::fleet::Fleet;
use super::guard::{Guard, Refused, shielded};
use crate::bus::batch::BatchError;
use crate::bus::view::{Record, Seen, View};
use crate::domain::{Pool, State as WorkerState, WorkerId, WorkerKey};
use crate::text::cut;

const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Reads of the view at once: each may walk along a part of it.
const READS: usize = 4;
/// Workers on a page of the list.
const PAGE: usize = 50;
/// Records that one request walks past in search of a page.
const WALKED: usize = 20_000;

/// See the module.
pub struct Page {
    guard: Guard,
    fleet: Fleet,
    view: View,
    reads: Semaphore,
}

impl Page {
    /// The page of a replica.
    #[must_use]
    pub fn new(guard: Guard, fleet: Fleet, view: View) -> Self {
        Self { guard, fleet, view, reads: Semaphore::new(READS) }
    }
}

type Shared = State<Arc<Page>>;

pub(super) fn routes(page: Arc<Page>) -> Router {
    Router::new()
        .route(
            "/",
            get(async |State(page): Shared, headers: HeaderMap| {
                file(&page, &headers, "text/html; charset=utf-8", HTML)
            }),
        )
        .route(
            "/page.css",
            get(async |State(page): Shared, headers: HeaderMap| {
                file(&page, &headers, "text/css; charset=utf-8", STYLE)
            }),
        )
        .route(
            "/page.js",
            get(async |State(page): Shared, headers: HeaderMap| {
                file(&page, &headers, "text/javascript; charset=utf-8", SCRIPT)
            }),
        )
        .route("/page/live", get(live))
        .route("/page/workers", get(workers))
        .route("/page/worker", get(worker))
        .with_state(page)
}

fn file(page: &Page, headers: &HeaderMap, kind: &'static str, text: &'static str) -> Response {
    let answer = || ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text).into_response();
    shielded(page.guard.admit(headers).map(|()| answer()))
}

/// Server-sent events: first all that there is, then what changes.
async fn live(State(page): Shared, headers: HeaderMap) -> Response {
    let reader = page.guard.admit_with_token(&headers).and_then(|()| page.fleet.read().ok_or_else(crowded));
    shielded(reader.map(|reader| {
        let frames = stream::unfold(reader, |mut reader| async move {
            let frame = reader.next().await?;
            Some((Ok::<_, Infallible>(frame.as_bytes().to_vec()), reader))
        });
        ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(frames)).into_response()
    }))
}

/// A page of the workers of a pool, in a state, or of all of them, those that changed longest ago first.
async fn workers(State(page): Shared, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let asked = async {
        page.guard.admit_with_token(&headers)?;
        let query = query.unwrap_or_default();
        let pool = value(&query, "pool").map(Pool::new).transpose().map_err(|error| bad(&error))?;
        let wanted = match value(&query, "state").as_deref() {
            None => Wanted::Any,
            Some("live") => Wanted::Live,
            Some(name) => match WorkerState::from_token(name) {
                Some(state) => Wanted::In(state),
                None => return Err(bad(&format_args!("state: found {:?}, expected live or a state", cut(name, 40)))),
            },
        };
        let after = value(&query, "after").unwrap_or_default();
        let after = if after.is_empty() { 0 } else { after.parse().map_err(|_| bad(&"after: expected a number"))? };
        let _read = page.reads.try_acquire().map_err(|_| busy())?;
        let body = list(&page.view, pool.as_ref(), wanted, after).await.map_err(|error| away(&error))?;
        Ok::<_, Refused>(answer(&body))
    };
    shielded(asked.await)
}

/// Which workers are listed.
#[derive(Clone, Copy)]
enum Wanted {
    Any,
    Live,
    In(WorkerState),
}

impl Wanted {
    fn takes(self, state: WorkerState) -> bool {
        match self {
            Self::Any => true,
            Self::Live => !state.is_final(),
            Self::In(wanted) => state == wanted,
        }
    }
}

async fn list(view: &View, pool: Option<&Pool>, wanted: Wanted, after: u64) -> Result<Value, BatchError> {
    let mut records = view.records(pool, after);
    let (mut found, mut walked, mut next) = (Vec::new(), 0, None);
    while let Some(seen) = records.next().await {
        let Seen { sequence, time, record } = seen?;
        walked += 1;
        if let Record::Worker(worker) = record
            && wanted.takes(worker.state)
        {
            found.push(json!({ "seq": sequence, "at": time.as_millisecond(), "worker": worker }));
        }
        if found.len() == PAGE || walked == WALKED {
            next = Some(sequence);
            break;
        }
    }
    Ok(json!({ "workers": found, "next": next }))
}

/// Every kept event of one worker, the oldest first; none of one that is not on record.
async fn worker(State(page): Shared, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let asked = async {
        page.guard.admit_with_token(&headers)?;
        let query = query.unwrap_or_default();
        let pool = Pool::new(value(&query, "pool").unwrap_or_default()).map_err(|error| bad(&error))?;
        let id = WorkerId::new(value(&query, "id").unwrap_or_default()).map_err(|error| bad(&error))?;
        let _read = page.reads.try_acquire().map_err(|_| busy())?;
        let history = page.view.history(&WorkerKey::new(pool, id)).await.map_err(|error| away(&error))?;
        let shown = |Seen { sequence, time, record }| match record {
            Record::Worker(worker) => Some(json!({ "seq": sequence, "at": time.as_millisecond(), "worker": worker })),
            Record::Pool(_) | Record::Unreadable(..) => None,
        };
        let events: Vec<_> = history.into_iter().filter_map(shown).collect();
        Ok::<_, Refused>(answer(&json!({ "events": events })))
    };
    shielded(asked.await)
}

/// A value of a query; `None` too where it is empty.
fn value(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let found = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next_back()?;
    let decoded = percent_decode_str(found).decode_utf8_lossy().into_owned();
    (!decoded.is_empty()).then_some(decoded)
}

fn answer(body: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn bad(error: &dyn std::fmt::Display) -> Refused {
    (StatusCode::BAD_REQUEST, format!("{error}\n"))
}

fn crowded() -> Refused {
    (StatusCode::SERVICE_UNAVAILABLE, "too many read this page already\n".to_owned())
}

fn busy() -> Refused {
    (StatusCode::SERVICE_UNAVAILABLE, "too many read at once: again in a moment\n".to_owned())
}

fn away(error: &BatchError) -> Refused {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"))
}
