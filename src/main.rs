//! The binary: chooses the one TLS provider, then does what the command line says.

use std::process::ExitCode;

/// A command makes some two hundred small allocations, half of them in the client: a fifth of its time with the system's
/// allocator.
#[cfg(not(feature = "heap-metric"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before anything connects: with two providers in the tree rustls cannot choose by itself. An error says that one
    // is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    enlist::cli::main()
}
