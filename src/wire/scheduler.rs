//! Requests to the scheduler and its replies.
