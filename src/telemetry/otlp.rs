//! Spans to an OpenTelemetry collector, OTLP over HTTP, as the standard `OTEL_*` variables say.

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Status, TraceContextExt as _, TracerProvider as _};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::{Layer, Registry};

use crate::config::SpanExport;
use crate::domain::TraceContext;

/// Sends what has been collected, in batches, from a thread of its own.
pub(super) struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Sends what is left. A collector that is away costs the time-out of one export.
    pub(super) fn shutdown(self) {
        if let Err(error) = self.0.shutdown() {
            let error = crate::text::cut(&error.to_string(), 200);
            tracing::warn!(error, "not every span could be exported");
        }
    }
}

/// Begins to export; or says what is in the way.
pub(super) fn start(export: SpanExport) -> Result<(impl Layer<Registry> + Send + Sync, Exporter), String> {
    // For https endpoints. Installed already, where NATS was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).build();
    let exporter = exporter.map_err(|error| format!("spans are not exported: {error}"))?;
    // The builder reads `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`; a name given here would win over them.
    let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let mut resource = Resource::builder().with_attribute(version);
    if !export.named {
        resource = resource.with_service_name(env!("CARGO_PKG_NAME"));
    }
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
    let tracer = provider.tracer(env!("CARGO_PKG_NAME"));
    // Spans alone: log lines stay in the log. Ours alone: the exporter's own would beget others without end.
    let ours = filter_fn(|about| about.is_span() && about.target().starts_with(env!("CARGO_PKG_NAME")));
    let layer = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(ours);
    Ok((layer, Exporter(provider)))
}

/// Makes a span part of a command's trace. What comes after the span is part of it through the span.
pub(super) fn join(span: &Span, trace: &TraceContext) -> TraceContext {
    let propagator = TraceContextPropagator::new();
    if span.set_parent(propagator.extract(&Headers(trace))).is_err() {
        // Nothing is exported, or this span is filtered out.
        return trace.clone();
    }
    let context = span.context();
    let own = context.span().span_context().clone();
    if !own.is_valid() {
        return trace.clone();
    }
    let parent = format!("00-{}-{}-{:02x}", own.trace_id(), own.span_id(), own.trace_flags().to_u8());
    TraceContext::read(&parent, Some(&own.trace_state().header())).unwrap_or_else(|| trace.clone())
}

/// Marks a span as one of something that failed, in a word.
pub(super) fn failed(span: &Span, class: &str) {
    span.set_status(Status::error(class.to_owned()));
}

/// A trace context as the propagator reads it.
struct Headers<'a>(&'a TraceContext);

impl opentelemetry::propagation::Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let Self(trace) = self;
        match key {
            "traceparent" => Some(trace.traceparent()),
            "tracestate" => trace.tracestate(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}
