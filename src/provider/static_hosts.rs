//! provider/static_hosts
