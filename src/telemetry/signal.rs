//! stub
#![allow(missing_docs)]
use std::time::Duration;
use crate::domain::*;
use crate::registration::RegistrationError;
#[derive(Debug)]
pub struct PoolSignals;
impl PoolSignals {
    #[must_use]
    pub fn new(_: &Pool, _: &str, _: WorkerType) -> Self { Self }
    pub fn registration_failed(&self, _: &Worker, _: &RegistrationFault) {}
    pub fn provider_call(&self, _: &str, _: &str, _: Duration) {}
    pub fn registration_attempt(&self, _: &Result<(), RegistrationError>) {}
    pub fn registration_took(&self, _: Duration) {}
}
