//! The http listener: `/livez`, `/readyz` and `/metrics`, which need no broker to answer, and the fleet page.

pub mod fleet;
pub mod guard;
mod page;
mod patient;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::telemetry::{Condition, Health, PrometheusHandle};
use patient::Patient;

pub use page::Page;

/// How long open requests may take once the listener closes: a reader that has stopped reading must not hold up a drain.
const LINGER: Duration = Duration::from_secs(2);

/// What the pages are made from.
#[derive(Clone)]
pub struct HttpState {
    /// For `/readyz`.
    pub health: Arc<Health>,
    /// For `/metrics`; without a recorder the page is empty.
    pub metrics: Option<PrometheusHandle>,
    /// The fleet page; without it `/` names the others.
    pub page: Option<Arc<Page>>,
}

/// Serves until `shutdown`, then finishes open requests, for two seconds at most.
pub async fn serve(listener: TcpListener, state: HttpState, shutdown: CancellationToken) -> io::Result<()> {
    let closing = shutdown.clone().cancelled_owned();
    let server = axum::serve(Patient::new(listener), router(state)).with_graceful_shutdown(closing);
    let too_long = async {
        shutdown.cancelled().await;
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        ended = server.into_future() => ended,
        () = too_long => Ok(()),
    }
}

/// The pages.
pub fn router(state: HttpState) -> Router {
    let page = match &state.page {
        Some(page) => page::routes(Arc::clone(page)),
        None => Router::new().route("/", get(root)),
    };
    let probes = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(state);
    probes.merge(page)
}

async fn root() -> &'static str {
    concat!("enlist ", env!("CARGO_PKG_VERSION"), ": see /livez, /readyz and /metrics\n")
}

/// That it answers says all of it: the runtime turns.
async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(state): State<HttpState>) -> Response {
    let ready = state.health.ready();
    let condition = |Condition { name, holds, needed }: Condition| json!({"name": name, "ok": holds, "needed": needed});
    let conditions: Vec<_> = state.health.conditions().into_iter().map(condition).collect();
    let body = json!({"ready": ready, "conditions": conditions}).to_string();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn metrics(State(state): State<HttpState>) -> Response {
    let text = state.metrics.map(|handle| handle.render()).unwrap_or_default();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
