//! Makes the test image from a program of our own, so that no registry is needed.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use bollard::Docker;
use bollard::query_parameters::{CreateImageOptionsBuilder, RemoveImageOptionsBuilder};
use futures_util::TryStreamExt;
use sha2::{Digest, Sha256};

/// The image's name. Its programs are `/bin/worker` and `/bin/sleep`.
pub(crate) const IMAGE: &str = "enlist-test-worker:1";

const SOURCE: &str = include_str!("worker.rs");
const SOURCE_LABEL: &str = "enlist.test.source";

/// The engine of this machine, with the test image on it; `None`, and a word on stderr, where no engine answers.
pub(crate) async fn engine() -> Option<Docker> {
    static READY: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();

    let docker = Docker::connect_with_host(&host()).ok();
    let docker = match docker {
        Some(docker) if docker.ping().await.is_ok() => docker,
        _ => {
            // Past the capture of the test runner, which would hide it: the tests pass.
            let _ = writeln!(std::io::stderr(), "no Docker engine: skipped");
            return None;
        }
    };
    READY.get_or_init(|| make(&docker)).await;
    Some(docker)
}

/// Where the engine listens.
pub(crate) fn host() -> String {
    std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned())
}

/// Makes the image, unless the engine has it from the same source already.
async fn make(docker: &Docker) {
    let source = data_encoding::HEXLOWER.encode(&Sha256::digest(SOURCE));
    let old = docker.inspect_image(IMAGE).await.ok();
    let made_from = old.as_ref().and_then(|image| image.config.as_ref()?.labels.as_ref()?.get(SOURCE_LABEL));
    if made_from == Some(&source) {
        return;
    }

    let program = compile();
    let mut archive = Vec::new();
    for path in ["bin/worker", "bin/sleep"] {
        entry(&mut archive, path, &program);
    }
    archive.extend([0; 1024]);
    let (repo, tag) = IMAGE.split_once(':').unwrap();
    let changes = vec![format!("LABEL {SOURCE_LABEL}={source}"), r#"CMD ["/bin/worker", "sleep"]"#.to_owned()];
    let mut options = CreateImageOptionsBuilder::new().from_src("-").repo(repo).tag(tag).build();
    options.changes = changes;
    let body = bollard::body_full(archive.into());
    docker.create_image(Some(options), Some(body), None).try_collect::<Vec<_>>().await.unwrap();
    if let Some(id) = old.and_then(|image| image.id) {
        // It may still be in use by another run: left behind then, it only takes a little room.
        let _ = docker.remove_image(&id, Some(RemoveImageOptionsBuilder::new().build()), None).await;
    }
}

/// The worker as one static file.
fn compile() -> Vec<u8> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (source, program) = (dir.join("worker.rs"), dir.join("worker"));
    std::fs::write(&source, SOURCE).unwrap();
    let status = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args([
            "--edition",
            "2024",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "opt-level=s",
            "-C",
            "strip=symbols",
            "-o",
        ])
        .args([&program, &source])
        .status()
        .unwrap();
    assert!(status.success(), "the test worker does not compile");
    std::fs::read(program).unwrap()
}

/// One executable file in the ustar format.
fn entry(archive: &mut Vec<u8>, path: &str, content: &[u8]) {
    let mut header = [0; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, path);
    put(100, "0000755\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", content.len()));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive.extend(header);
    archive.extend(content);
    archive.resize(archive.len().next_multiple_of(512), 0);
}
