//! provider/null
