//! journal/nats
