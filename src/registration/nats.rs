//! registration/nats
