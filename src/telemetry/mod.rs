//! What the process tells about itself: log, metrics, health, and its service manager.

mod health;
mod labels;
mod log;
mod metrics;
#[cfg(feature = "otlp")]
mod otlp;
#[cfg(not(feature = "otlp"))]
#[path = "otlp_off.rs"]
mod otlp;
mod signal;
mod spans;
mod sweep;
mod systemd;

pub use health::{Condition, Health};
pub use labels::{AttemptOutcome, Operation, OrphanAction, Outcome, ProviderOutcome, SweepAct};
pub use log::{Exporting, LogFormat, QUIET_LOG, USUAL_LOG, init_logging};
pub use metrics::{PrometheusHandle, install_metrics, register_all};
#[cfg(feature = "heap-metric")]
pub use signal::heap_allocated;
pub use signal::{InFlight, PoolSignals, nats_connected, tasks_alive};
pub use spans::{command_span, in_provider_span, in_scheduler_span};
pub use sweep::{SweepLine, SweepSignals};
pub use systemd::{keep_watchdog, notify_ready, notify_stopping};
