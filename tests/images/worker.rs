//! The program of the test image, with nothing but the standard library: one static file is the whole image.
//!
//! Called as `sleep` it sleeps for ever, so that `["sleep", "infinity"]` works without any other image.

use std::time::Duration;

fn main() {
    let mut args = std::env::args();
    let called = args.next().unwrap_or_default();
    let verb = if called.ends_with("sleep") { Some("sleep".to_owned()) } else { args.next() };
    match verb.as_deref() {
        Some("sleep") => loop {
            std::thread::sleep(Duration::from_secs(3600));
        },
        Some("exit") => {
            let code = args.next().and_then(|code| code.parse().ok()).unwrap_or(0);
            std::process::exit(code);
        }
        Some("env") => {
            for (name, value) in std::env::vars() {
                println!("{name}={value}");
            }
        }
        other => {
            eprintln!("unknown verb {other:?}");
            std::process::exit(64);
        }
    }
}
