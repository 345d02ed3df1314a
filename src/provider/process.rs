//! provider/process
