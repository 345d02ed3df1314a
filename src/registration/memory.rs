//! registration/memory
