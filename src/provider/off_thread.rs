//! Blocking work, kept off the threads that run the tasks.

use super::ProviderError;
use crate::domain::ErrorClass;

/// Runs `work` on a blocking thread. It runs to its end even when the caller stops waiting, so a create that is given up
/// half-way still leaves a complete record behind.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ProviderError> + Send + 'static,
) -> Result<T, ProviderError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(fault) => Err(ProviderError::new(ErrorClass::Internal, format!("the provider's own thread: {fault}"))),
    }
}
