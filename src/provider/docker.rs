//! provider/docker
