//! stub
pub mod signal;
