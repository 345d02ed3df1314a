//! Spans reach a collector: a real export, over HTTP, of a replica in a process of its own.

use std::sync::{Arc, Mutex};

use async_nats::HeaderMap;
use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use enlist::domain::Verb;
use futures_util::StreamExt as _;

use crate::world::{Command as _, LOAD, World, provision};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// Takes what is exported and keeps it as it came.
struct Collector {
    url: String,
    bodies: Arc<Mutex<Vec<Bytes>>>,
}

impl Collector {
    async fn start() -> Self {
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&bodies);
        let take = move |body: Bytes| {
            keep.lock().unwrap().push(body);
            async {}
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, Router::new().route("/v1/traces", post(take))).into_future());
        Self { url, bodies }
    }

    /// Whether a field of protobuf's wire format came, in any export: its tag, its length, its bytes.
    fn has(&self, tag: u8, bytes: &[u8]) -> bool {
        let field = [&[tag, u8::try_from(bytes.len()).unwrap()], bytes].concat();
        self.bodies.lock().unwrap().iter().any(|body| body.windows(field.len()).any(|window| window == field))
    }

    // Fields of a span in opentelemetry.proto.trace.v1.
    fn has_trace(&self, id: &str) -> bool {
        self.has(0x0a, &hex(id))
    }

    fn has_span(&self, id: &str) -> bool {
        self.has(0x12, &hex(id))
    }

    fn has_child_of(&self, id: &str) -> bool {
        self.has(0x22, &hex(id))
    }

    fn has_name(&self, name: &str) -> bool {
        self.has(0x2a, name.as_bytes())
    }

    /// The attribute `service.name` of the resource: a key and its value.
    fn has_service(&self, name: &str) -> bool {
        let length = u8::try_from(name.len()).unwrap();
        let field = [b"\x0a\x0cservice.name\x12".as_slice(), &[length + 2, 0x0a, length], name.as_bytes()].concat();
        self.bodies.lock().unwrap().iter().any(|body| body.windows(field.len()).any(|window| window == field))
    }
}

fn hex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
}

#[tokio::test]
async fn the_spans_of_a_command_are_exported_as_part_of_its_trace() {
    let (collector, world) = (Collector::start().await, World::new(LOAD).await);
    let mut registers = world.client.subscribe(format!("sched.{}.register", world.prefix)).await.unwrap();
    let child = world.child_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)]).await;
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", format!("00-{TRACE}-{SPAN}-01").as_str());
    world.send_with(headers, "load", Verb::Provision, provision("c-1", "w-1").body()).await;
    let registered = world.reaches("w-1", "registered").await;
    let request = registers.next().await.unwrap().headers.unwrap();
    let asked = request.get("traceparent").unwrap().as_str().to_owned();
    assert_eq!(registered.json["traceparent"], asked.as_str(), "all that comes of a command comes by way of its span");
    child.terminate();
    let (code, said) = child.exit().await;
    assert_eq!(code, Some(0), "{said}");

    let [_, trace, span, flags] = asked.split('-').collect::<Vec<_>>().try_into().unwrap();
    assert_eq!((trace, flags), (TRACE, "01"));
    assert_ne!(span, SPAN);
    assert!(
        collector.has_trace(TRACE) && collector.has_span(span) && collector.has_child_of(SPAN),
        "the command's span"
    );
    assert!(collector.has_child_of(span), "and those below it");
    assert!(["command", "provider", "scheduler"].iter().all(|name| collector.has_name(name)));
    assert!(collector.has_service("enlist"), "the service's name");
}

#[tokio::test]
async fn a_name_that_the_operator_gives_is_the_service_s_and_a_command_without_a_trace_gets_none() {
    let (collector, world) = (Collector::start().await, World::new(LOAD).await);
    let endpoint = format!("{}/v1/traces", collector.url);
    let export = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint.as_str()), ("OTEL_SERVICE_NAME", "depot")];
    let child = world.child_with(&export).await;
    world.send("load", &provision("c-1", "w-1")).await;
    let registered = world.reaches("w-1", "registered").await;
    assert!(registered.json.get("traceparent").is_none() && registered.headers.get("traceparent").is_none());
    child.terminate();
    assert_eq!(child.exit().await.0, Some(0));
    assert!(collector.has_name("command") && collector.has_service("depot") && !collector.has_service("enlist"));
}

#[tokio::test]
async fn a_collector_that_is_away_is_in_nobody_s_way() {
    let world = World::new(LOAD).await;
    let child = world.child_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")]).await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.reaches("w-1", "registered").await;
    child.terminate();
    let (code, said) = child.exit().await;
    assert!(code == Some(0) && said.contains("\"stopped\""), "{said}");
}

#[tokio::test]
async fn a_protocol_that_is_not_spoken_is_a_mistake_in_the_settings() {
    let world = World::new(LOAD).await;
    let export = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
    let (code, said) = world.spawn_in(&export).exit().await;
    assert_eq!(code, Some(78), "{said}");
    assert!(
        said.contains("env OTEL_EXPORTER_OTLP_PROTOCOL: span export: found \"grpc\", expected http/protobuf"),
        "{said}"
    );
}
