//! When the scheduler is asked again: the only place that knows the `backoff` crate.

use std::time::Duration;

/// How a worker is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationConfig {
    /// Whether the scheduler is told at all.
    pub enabled: bool,
    /// Tries after the first.
    pub max_retries: u32,
    /// All tries together.
    pub timeout: Duration,
}

impl Default for RegistrationConfig {
    fn default() -> Self {
        Self { enabled: true, max_retries: 3, timeout: Duration::from_secs(30) }
    }
}

/// How a registration ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Requests sent that count as tries.
    pub attempts: u32,
    /// Why the scheduler has not accepted it; `None` where it has.
    pub fault: Option<crate::domain::RegistrationFault>,
}
