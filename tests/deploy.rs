//! What `deploy/` brings is held against the tools that will read it, and against the crate itself.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use enlist::bus::subjects::Subjects;
use enlist::config::{Config, ConfigFile, Flags, Source};
use enlist::domain::{Lane, Pool, Prefix};
use serde_json::Value;
use tempfile::TempDir;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The documents of a YAML file.
fn documents(path: &str) -> Vec<Value> {
    use serde::Deserialize as _;
    let text = read(path);
    let documents = serde_norway::Deserializer::from_str(&text).map(Value::deserialize);
    documents.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn document(path: &str) -> Value {
    documents(path).pop().unwrap()
}

/// Whether something that a test needs is there. Where all of it has to be, its absence fails the test.
fn has(what: &str, there: bool, from: &str) -> bool {
    if !there {
        assert!(std::env::var_os("CI").is_none(), "{what} is missing: {from}");
        // Past libtest's capture: what was not tested must be seen.
        let note = format!("SKIPPED: {what} is not here ({from}), and what it checks is not checked\n");
        std::io::stderr().write_all(note.as_bytes()).unwrap();
    }
    there
}

fn on_path(program: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|folder| folder.join(program).is_file())
}

/// Whether a program is content, and what it has said.
fn run(program: &str, args: &[&str], folder: &Path) -> (bool, String) {
    let output = Command::new(program).args(args).current_dir(folder).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said.into_owned())
}

/// A folder with the Prometheus files, one of them changed.
fn changed(name: &str, from: &str, to: &str) -> TempDir {
    let folder = TempDir::with_prefix("enlist-deploy-").unwrap();
    for file in ["rules.yml", "rules_test.yml"] {
        let text = read(&format!("deploy/prometheus/{file}"));
        assert!(file != name || text.contains(from), "{name} has no {from:?}");
        let text = if file == name { text.replacen(from, to, 1) } else { text };
        fs::write(folder.path().join(file), text).unwrap();
    }
    folder
}

#[test]
fn promtool_is_content_with_the_rules_and_each_alert_fires_where_it_should() {
    if !has("promtool", on_path("promtool"), "Debian's package prometheus") {
        return;
    }
    let folder = root().join("deploy/prometheus");
    for args in
        [["check", "rules", "rules.yml"], ["check", "config", "prometheus.yml"], ["test", "rules", "rules_test.yml"]]
    {
        let (content, said) = run("promtool", &args, &folder);
        assert!(content, "promtool {}:\n{said}", args.join(" "));
    }
    // It does look.
    let wrong = changed("rules.yml", "rate(enlist_commands_total[5m])", "rate(enlist_commands_total)");
    assert!(!run("promtool", &["check", "rules", "rules.yml"], wrong.path()).0);
    let lax = changed("rules.yml", "ratio15m > 0.1", "ratio15m > 0.9");
    assert!(!run("promtool", &["test", "rules", "rules_test.yml"], lax.path()).0);
}

#[test]
fn promtool_can_read_what_the_dashboard_asks_for() {
    if !has("promtool", on_path("promtool"), "Debian's package prometheus") {
        return;
    }
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/dashboards/enlist.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let check = |exprs: Vec<String>| {
        let rules: Vec<Value> = exprs
            .iter()
            .enumerate()
            .map(|(n, expr)| serde_json::json!({"record": format!("r:{n}"), "expr": expr}))
            .collect();
        let folder = TempDir::with_prefix("enlist-deploy-").unwrap();
        let groups = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
        fs::write(folder.path().join("rules.yml"), groups.to_string()).unwrap();
        run("promtool", &["check", "rules", "rules.yml"], folder.path())
    };
    let expr = |target: &Value| target["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
    let (content, said) = check(targets.map(expr).collect());
    assert!(content, "{said}");
    assert!(!check(vec!["sum(rate(a[5m])".to_owned()]).0);
}

#[test]
fn each_alert_has_a_case_in_which_it_fires_and_a_runbook() {
    let rules = document("deploy/prometheus/rules.yml");
    let cases = document("deploy/prometheus/rules_test.yml");
    let fires = |alert: &str| {
        let tests = cases["tests"].as_array().unwrap().iter();
        let mut checks = tests.flat_map(|test| test["alert_rule_test"].as_array().unwrap());
        checks.any(|check| check["alertname"] == alert && !check["exp_alerts"].as_array().unwrap().is_empty())
    };
    let page = read("deploy/README.md");
    let runbooks: BTreeSet<String> =
        page.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_ascii_lowercase).collect();
    let groups = rules["groups"].as_array().unwrap().iter();
    let alerts: Vec<&Value> = groups
        .flat_map(|group| group["rules"].as_array().unwrap())
        .filter(|rule| rule.get("alert").is_some())
        .collect();
    assert!(!alerts.is_empty());
    for rule in &alerts {
        let alert = rule["alert"].as_str().unwrap();
        assert!(fires(alert), "rules_test.yml has no case in which {alert} fires");
        let runbook = rule["annotations"]["runbook"].as_str().unwrap();
        assert_eq!(runbook, format!("deploy/README.md#{}", alert.to_ascii_lowercase()));
        assert!(runbooks.contains(&alert.to_ascii_lowercase()), "deploy/README.md has no heading ### {alert}");
        assert!(["info", "warning", "critical"].contains(&rule["labels"]["severity"].as_str().unwrap()), "{alert}");
    }
    let known: BTreeSet<String> =
        alerts.iter().map(|rule| rule["alert"].as_str().unwrap().to_ascii_lowercase()).collect();
    let stale: Vec<_> = runbooks.iter().filter(|name| name.starts_with("enlist") && !known.contains(*name)).collect();
    assert!(stale.is_empty(), "runbooks of no alert: {stale:?}");
}

#[test]
fn systemd_is_content_with_the_unit() {
    if !has("systemd-analyze", on_path("systemd-analyze"), "Debian's package systemd") {
        return;
    }
    let unit = read("deploy/systemd/enlist.service");
    let path = "/usr/local/bin/enlist";
    assert!(unit.contains(path));
    // The program has to be there: ours is.
    let unit = unit.replace(path, env!("CARGO_BIN_EXE_enlist"));
    let verify = |text: &str| {
        let folder = TempDir::with_prefix("enlist-deploy-").unwrap();
        fs::write(folder.path().join("enlist.service"), text).unwrap();
        let (content, said) = run("systemd-analyze", &["verify", "--man=no", "./enlist.service"], folder.path());
        // A setting that it does not know it passes over, with a word about it.
        let about: Vec<&str> = said.lines().filter(|line| line.contains("enlist.service")).collect();
        (content && about.is_empty(), said)
    };
    let (content, said) = verify(&unit);
    assert!(content, "{said}");
    for (from, to) in [("WatchdogSec=30", "WatchdogSec=often"), ("ProtectSystem=", "ProtectSytem=")] {
        assert!(unit.contains(from) && !verify(&unit.replace(from, to)).0, "{to} was not noticed");
    }
}

/// Every object of `deploy/kubernetes`, with the file that it is in.
fn objects() -> Vec<(String, Value)> {
    let files = ["config.yaml", "enlist.yaml", "optional/keda.yaml", "optional/servicemonitor.yaml"];
    let files = files.map(|file| format!("deploy/kubernetes/{file}"));
    let here: BTreeSet<PathBuf> = ["deploy/kubernetes", "deploy/kubernetes/optional"]
        .iter()
        .flat_map(|folder| fs::read_dir(root().join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    assert_eq!(here, files.iter().map(|file| root().join(file)).collect(), "a file that no test looks at");
    files.iter().flat_map(|file| documents(file).into_iter().map(move |object| (file.clone(), object))).collect()
}

fn object(kind: &str) -> Value {
    let found = objects().into_iter().find(|(_, object)| object["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind} in deploy/kubernetes")).1
}

#[test]
fn kubernetes_knows_every_field_of_the_manifests() {
    let schema = root().join(".venv/kubernetes.json");
    if !has(".venv/kubernetes.json", schema.is_file(), "make kubernetes-schema") {
        return;
    }
    let all: Value = serde_json::from_str(&fs::read_to_string(schema).unwrap()).unwrap();
    let validator = |version: &str, kind: &str| {
        let group = match version.split_once('/') {
            None => format!("core.{version}"),
            Some((group, version)) => format!("{}.{version}", group.split('.').next().unwrap()),
        };
        let mut schema = all.clone();
        schema["$ref"] = format!("#/$defs/io.k8s.api.{group}.{kind}").into();
        jsonschema::validator_for(&schema).unwrap()
    };
    let (mut checked, mut others) = (Vec::new(), Vec::new());
    for (file, object) in objects() {
        let (version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
        if version.ends_with(".com/v1") || version.starts_with("keda.sh/") {
            others.push(kind.to_owned());
            continue;
        }
        let mistakes: Vec<String> = validator(version, kind)
            .iter_errors(&object)
            .map(|mistake| format!("{file}: {kind}: {}: {mistake}", mistake.instance_path()))
            .collect();
        assert!(mistakes.is_empty(), "{mistakes:#?}");
        checked.push(kind.to_owned());
    }
    assert_eq!(checked, ["ConfigMap", "Secret", "Deployment", "PodDisruptionBudget", "Service"]);
    assert_eq!(others, ["ScaledObject", "ServiceMonitor"], "held by the next test");
    let mut wrong = object("Deployment");
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = Value::Null;
    assert!(!validator("apps/v1", "Deployment").is_valid(&wrong), "a name that is mistyped is noticed");
}

#[test]
fn the_manifests_agree_with_one_another_and_with_the_crate() {
    let (deployment, service, budget) = (object("Deployment"), object("Service"), object("PodDisruptionBudget"));
    let (monitor, scaled, map, secret) =
        (object("ServiceMonitor"), object("ScaledObject"), object("ConfigMap"), object("Secret"));
    let pod = &deployment["spec"]["template"];
    let labels = &pod["metadata"]["labels"];
    assert_eq!(&deployment["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(&budget["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(&service["spec"]["selector"], labels);
    assert_eq!(monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"]);
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], service["spec"]["ports"][0]["name"]);
    assert_eq!(monitor["spec"]["endpoints"][0]["path"], "/metrics");
    let container = &pod["spec"]["containers"][0];
    assert_eq!(service["spec"]["ports"][0]["targetPort"], container["ports"][0]["name"]);
    assert_eq!(deployment["spec"]["replicas"], 3);

    let dockerfile = read("Dockerfile");
    assert!(dockerfile.contains(&format!("0.0.0.0:{}", container["ports"][0]["containerPort"])));
    assert!(dockerfile.contains(&format!("USER {0}:{0}", pod["spec"]["securityContext"]["runAsUser"])));
    let mounts: Vec<&str> = container["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| mount["mountPath"].as_str().unwrap())
        .collect();
    assert!(dockerfile.contains(&format!("WORKDIR {}\n", mounts[0])), "where enlist.toml is looked for");
    assert!(dockerfile.contains(&format!("ENLIST_STATE_DIR={}\n", mounts[2])));
    let volumes = &pod["spec"]["volumes"];
    assert_eq!(volumes[0]["configMap"]["name"], map["metadata"]["name"]);
    assert_eq!(volumes[1]["secret"]["secretName"], secret["metadata"]["name"]);
    for (probe, page) in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        assert_eq!(container[probe]["httpGet"]["path"], page);
        assert_eq!(container[probe]["httpGet"]["port"], container["ports"][0]["name"]);
    }

    let config = settings(map["data"]["enlist.toml"].as_str().unwrap());
    let secrets: BTreeSet<_> =
        secret["stringData"].as_object().unwrap().keys().map(|key| Path::new(mounts[1]).join(key)).collect();
    let token = config.http.token_file.clone().expect("the page is not for everybody");
    let creds = Path::new(mounts[1]).join("nats.creds");
    assert!(read("deploy/kubernetes/config.yaml").contains(&format!("creds = \"{}\"", creds.display())));
    assert_eq!(secrets, BTreeSet::from([token, creds]));
    let drain = pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(drain > config.limits.drain.as_secs());

    assert_eq!(scaled["spec"]["scaleTargetRef"]["name"], deployment["metadata"]["name"]);
    let trigger = &scaled["spec"]["triggers"][0];
    assert_eq!(trigger["type"], "nats-jetstream");
    let subjects = Subjects::new(&Prefix::new("enlist").unwrap());
    let pool: &Pool = config.pools.keys().next().unwrap();
    assert_eq!(trigger["metadata"]["stream"], subjects.command_stream(pool));
    assert_eq!(trigger["metadata"]["consumer"], Lane::Provision.as_str());
    let known =
        ["natsServerMonitoringEndpoint", "account", "stream", "consumer", "lagThreshold", "activationLagThreshold"];
    for (field, value) in trigger["metadata"].as_object().unwrap() {
        assert!(known.contains(&field.as_str()) && value.is_string(), "{field} of the scaler: {value}");
    }
}

/// Settings as the loader reads them.
fn settings(text: &str) -> Config {
    let file = Some(ConfigFile { name: "enlist.toml".to_owned(), text: text.to_owned() });
    let read = |_: &Path| Ok(String::from("a file"));
    let source = Source { file, env: std::collections::BTreeMap::new(), flags: Flags::default(), read: &read };
    enlist::config::load(&source).unwrap_or_else(|mistakes| panic!("{mistakes:?}")).config
}

#[test]
fn what_compose_mounts_is_there_and_watching_is_asked_for() {
    let compose = document("docker-compose.yml");
    let services = compose["services"].as_object().unwrap();
    let mut mounted = BTreeSet::new();
    for (name, service) in services {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let mut parts = volume.as_str().unwrap().split(':');
            let (from, to) = (parts.next().unwrap(), parts.next().unwrap());
            if let Some(path) = from.strip_prefix("./") {
                assert!(root().join(path).exists(), "{name} mounts {path}, which is not there");
                mounted.insert((path.to_owned(), to.to_owned()));
            }
        }
        let watches = ["prometheus", "grafana"].contains(&name.as_str());
        assert_eq!(service["profiles"] == serde_json::json!(["observability"]), watches, "{name}");
    }
    let to = |path: &str| mounted.iter().find(|(from, _)| from == path).map(|(_, to)| to.clone());
    assert_eq!(to("deploy/prometheus").as_deref(), Some("/etc/prometheus"));
    assert_eq!(to("deploy/grafana/provisioning").as_deref(), Some("/etc/grafana/provisioning"));
    let provider = document("deploy/grafana/provisioning/dashboards/enlist.yml");
    let dashboards = provider["providers"][0]["options"]["path"].as_str().unwrap();
    assert_eq!(to("deploy/grafana/dashboards").as_deref(), Some(dashboards));
    let source = document("deploy/grafana/provisioning/datasources/prometheus.yml");
    assert_eq!(source["datasources"][0]["url"], "http://prometheus:9090");
    let scraped = document("deploy/prometheus/prometheus.yml");
    assert_eq!(scraped["scrape_configs"][0]["static_configs"][0]["targets"][0], "enlist:8088");
}

#[test]
fn the_dashboard_is_whole() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/dashboards/enlist.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each has an id of its own");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        assert!(!title.is_empty() && panel["description"].is_string(), "{title}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24 && at("h") > 0, "{title}");
        let targets = panel["targets"].as_array().unwrap();
        let refs: BTreeSet<&str> = targets.iter().map(|target| target["refId"].as_str().unwrap()).collect();
        assert!(!targets.is_empty() && refs.len() == targets.len(), "{title}");
    }
}
