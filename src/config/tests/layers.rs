//! What lies over what, what the defaults are, and that no secret shows.

use std::time::Duration;

use super::*;

#[test]
fn the_example_says_what_the_defaults_say() {
    let example = World::new(EXAMPLE).load().unwrap();
    let small = World::new("[pools.load]\nprovider = \"null\"\n").load().unwrap();
    let mut shown = example.config.clone();
    shown.pools = small.config.pools.clone();
    assert_eq!(format!("{shown:?}"), format!("{:?}", small.config));
    assert_eq!(format!("{:?}", pool(&example, "load")), format!("{:?}", pool(&small, "load")));
    assert_eq!((small.config.limits.concurrency, pool(&small, "load").concurrency), (1024, 256));
    assert_eq!(small.config.scheduler.try_timeout, Duration::from_secs(5));
}

#[test]
fn the_settings_of_the_readme_can_be_read_and_are_the_defaults() {
    let text = include_str!("../../../README.md").split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let told = match World::new(text).load() {
        Ok(loaded) => loaded.config,
        Err(mistakes) => panic!("{}", ConfigError::Mistakes(mistakes)),
    };
    let small = World::new(SMALL).load().unwrap().config;
    assert_eq!(format!("{:?}", Config { pools: small.pools.clone(), ..told }), format!("{small:?}"));
    // What is commented out has to be right as well.
    let all = text.lines().map(|line| line.strip_prefix("# ").filter(|line| line.contains(" = ")).unwrap_or(line));
    let one_identity =
        all.filter(|line| !line.starts_with("creds ") && !line.starts_with("nkey ") && !line.starts_with("token "));
    let text = one_identity.collect::<Vec<_>>().join("\n");
    if let Err(mistakes) = World::new(&text).load() {
        panic!("{}", ConfigError::Mistakes(mistakes));
    }
}

#[test]
fn a_pool_is_read_with_all_it_says() {
    let loaded = World::new(EXAMPLE).load().unwrap();
    let demo = pool(&loaded, "demo");
    assert_eq!(demo.template.command, ["sleep", "infinity"]);
    assert_eq!((demo.max_workers, demo.template.labels["zone"].as_str()), (Some(100), "a"));
    assert!(demo.allow.contains(&Override::Env) && demo.allow.contains(&Override::Labels) && demo.allow.len() == 2);
    let ProviderConfig::Static { hosts } = pool(&loaded, "edge").provider else { panic!("edge is static") };
    assert_eq!((hosts[0].id.as_str(), hosts[0].capabilities.memory_mb), ("edge-1", Some(32768)));
    assert_eq!(pool(&loaded, "web").template.image.as_deref(), Some("busybox:1"));
}

#[test]
fn environment_lies_over_the_file_and_flags_over_both() {
    let file = format!("prefix = \"file\"\n{SMALL}[nats]\nurl = \"nats://file\"\n");
    let loaded = World::new(&file).load().unwrap();
    assert_eq!((loaded.config.prefix.as_str(), loaded.config.nats.url.as_str()), ("file", "nats://file"));
    assert_eq!(loaded.origins.get("prefix").unwrap().origin.to_string(), "enlist.toml:1");

    let world = World::new(&file).env("ENLIST_PREFIX", "env").env("NATS_URL", "nats://env");
    let flags = Flags { prefix: Some("flag".to_owned()), ..Flags::default() };
    let loaded = World { flags, ..world }.load().unwrap();
    assert_eq!((loaded.config.prefix.as_str(), loaded.config.nats.url.as_str()), ("flag", "nats://env"));
    assert_eq!(loaded.origins.get("prefix").unwrap().origin, Origin::Flag("--prefix"));
    assert_eq!(loaded.origins.get("nats.url").unwrap().origin, Origin::Env("NATS_URL"));
    assert_eq!(loaded.origins.get("replicas").unwrap().origin, Origin::Default);
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let loaded = World::new(SMALL).env("ENLIST_PREFIX", "").env("NATS_CONTEXT", "").load().unwrap();
    assert_eq!(loaded.config.prefix.as_str(), "enlist");
}

#[test]
fn a_pool_that_says_otherwise_keeps_its_word_over_registration_and_its_environment() {
    let text = "[registration]\nmax_retries = 7\n[pools.a]\nprovider = \"null\"\n\
                [pools.b]\nprovider = \"null\"\nregistration = { enabled = true, timeout = \"1m\" }\n";
    let loaded = World::new(text).env("REGISTRATION_ENABLED", "false").load().unwrap();
    let (a, b) = (pool(&loaded, "a").registration, pool(&loaded, "b").registration);
    assert_eq!((a.enabled, a.max_retries, a.timeout), (false, 7, Duration::from_secs(30)));
    assert_eq!((b.enabled, b.max_retries, b.timeout), (true, 7, Duration::from_secs(60)));
    let origin = |name| loaded.origins.get(name).unwrap().origin.to_string();
    assert_eq!(origin("pools.a.registration.enabled"), "env REGISTRATION_ENABLED");
    assert_eq!(origin("pools.b.registration.timeout"), "enlist.toml:7");
    assert_eq!(origin("pools.b.registration.max_retries"), "enlist.toml:2");
}

#[test]
fn a_context_lies_between_file_and_environment() {
    let context = r#"{"description": "x", "url": "nats://ctx:4222", "token": "t0ken", "creds": "", "user": "",
        "cert": "~/c.pem", "key": "~/k.pem", "jetstream_domain": "hub", "inbox_prefix": "_INBOX.me", "color_scheme": 1}"#;
    let path = "/xdg/nats/context/prod.json";
    let world = || {
        let file = format!("{SMALL}[nats]\nurl = \"nats://file\"\ncreds = \"file.creds\"\ntls_ca = \"ca.pem\"\n");
        World::new(&file).env("HOME", "/home/me").env("XDG_CONFIG_HOME", "/xdg").readable(path, context)
    };
    let by_flag = || Flags { context: Some("prod".to_owned()), ..Flags::default() };
    let loaded = World { flags: by_flag(), ..world() }.load().unwrap();
    let nats = &loaded.config.nats;
    assert_eq!((nats.url.as_str(), nats.domain.as_deref()), ("nats://ctx:4222", Some("hub")));
    assert_eq!(nats.tls_cert.as_deref(), Some(Path::new("/home/me/c.pem")));
    assert_eq!(nats.tls_ca.as_deref(), Some(Path::new("ca.pem")), "what the context leaves open stays");
    assert_eq!(nats.token.as_ref().map(Secret::expose), Some("t0ken"));
    assert_eq!(nats.creds, None, "the context's identity takes the place of the file's");
    assert_eq!(loaded.origins.get("nats.url").unwrap().origin.to_string(), "context prod");

    let loaded = world().env("NATS_CONTEXT", "prod").env("NATS_URL", "nats://env").load().unwrap();
    assert_eq!((loaded.config.nats.url.as_str(), loaded.config.nats.domain.as_deref()), ("nats://env", Some("hub")));
}

#[test]
fn a_context_that_reaches_nats_in_a_way_of_its_own_is_not_passed_over() {
    let world = |context| {
        let world = World::new(SMALL).env("HOME", "/home/me").env("NATS_CONTEXT", "a");
        world.readable("/home/me/.config/nats/context/a.json", context)
    };
    for (field, context) in [
        ("nsc", r#"{"url": "nats://ctx:4222", "nsc": "nsc://s3cret/a/u"}"#),
        ("user_jwt", r#"{"url": "nats://ctx:4222", "user_jwt": "s3cret"}"#),
        ("socks_proxy", r#"{"url": "nats://ctx:4222", "socks_proxy": "socks5://s3cret"}"#),
        ("jetstream_api_prefix", r#"{"url": "nats://ctx:4222", "jetstream_api_prefix": "s3cret.API"}"#),
        ("tls_first", r#"{"url": "nats://ctx:4222", "tls_first": true}"#),
    ] {
        let mistakes = world(context).mistakes();
        assert!(mistakes.contains(&format!("a.json: {field}: enlist cannot")), "{mistakes}");
        assert!(!mistakes.contains("s3cret"), "{mistakes}");
    }
    let empty = r#"{"url": "nats://ctx:4222", "nsc": "", "user_jwt": "", "socks_proxy": null, "tls_first": false}"#;
    assert_eq!(world(empty).load().unwrap().config.nats.url, "nats://ctx:4222");
}

#[test]
fn the_selected_context_counts_only_where_it_is_asked_for() {
    let world = || {
        let world = World::new(SMALL).env("HOME", "/home/me");
        let world = world.readable("/home/me/.config/nats/context.txt", "prod\n");
        world.readable("/home/me/.config/nats/context/prod.json", r#"{"url": "nats://ctx:4222"}"#)
    };
    let url = |world: World| world.load().unwrap().config.nats.url;
    assert_eq!(url(world()), "nats://127.0.0.1:4222");
    assert_eq!(url(world().env("NATS_CONTEXT", "-")), "nats://ctx:4222");
    let by_flag = Flags { context: Some("-".to_owned()), ..Flags::default() };
    assert_eq!(url(World { flags: by_flag, ..world() }), "nats://ctx:4222");
    let none = World::new(SMALL).env("HOME", "/home/me").env("NATS_CONTEXT", "-").mistakes();
    assert!(none.contains("no context is selected: /home/me/.config/nats/context.txt"), "{none}");
}

#[test]
fn a_stronger_place_changes_the_identity_as_a_whole() {
    let file = format!("{SMALL}[nats]\nuser = \"me\"\npassword = \"hunter2\"\n");
    let nats = World::new(&file).env("NATS_TOKEN", "t0ken").load().unwrap().config.nats;
    assert!(nats.user.is_none() && nats.password.is_none() && nats.token.is_some());
    let nats = World::new(&file).env("NATS_PASSWORD_FILE", "/run/secrets/p").load().unwrap().config.nats;
    assert!(nats.user.is_some() && nats.password.is_none() && nats.password_file.is_some());
}

#[test]
fn no_secret_shows_in_what_is_printed_or_in_debug() {
    let text = "[nats]\nurl = \"nats://me:hunter2@host\"\npassword = \"hunter2\"\nuser = \"me\"\n\
                [pools.a]\nprovider = \"null\"\nenv = { TOKEN = \"hunter2\" }\n";
    let loaded = World::new(text).load().unwrap();
    let shown = format!("{}{:?}{loaded:?}", loaded.origins, loaded.config);
    assert!(!shown.contains("hunter2"), "{shown}");
    let line = |name: &str| {
        let printed = loaded.origins.to_string();
        let line = printed.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap().to_owned();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("nats.url"), "nats.url nats://me:***@host enlist.toml:2");
    assert_eq!(line("nats.password"), "nats.password [hidden] enlist.toml:3");
    assert_eq!(line("pools.a.env"), "pools.a.env { TOKEN = [hidden] } enlist.toml:7");
}

#[test]
fn no_secret_shows_in_a_mistake_however_long_or_misplaced() {
    let long = format!("nats://me:{}@host:x", "hunter2".repeat(30));
    for file in [
        format!("[nats]\nurl = \"{long}\"\n"),
        format!("[nats]\nurl = [\"{long}\"]\n"),
        format!("nats = \"{long}\"\n"),
        "[nats]\nurl = \"nats://me:hunter2\"\n".to_owned(),
        "[nats]\npassword = [\"hunter2\"]\n".to_owned(),
        "[nats]\npasswort = \"hunter2\"\n".to_owned(),
        "[pools.a]\nprovider = \"null\"\nenv = [\"A=hunter2\"]\n".to_owned(),
    ] {
        let told = World::new(&file).mistakes();
        assert!(!told.contains("hunter2"), "{told}");
    }
}
