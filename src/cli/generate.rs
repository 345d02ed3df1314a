//! `enlist schema`, `completions` and `man`: what is known when the program is built, printed.

use std::io::{self, Write as _, stdout};

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::output::printed;
use super::{Cli, Exit};

/// Every file of `schemas/`: its name without `.json`, and its text.
const SCHEMAS: [(&str, &str); 24] = [
    ("asyncapi", include_str!("../../schemas/asyncapi.yaml")),
    ("command-provision", include_str!("../../schemas/command-provision.json")),
    ("command-terminate", include_str!("../../schemas/command-terminate.json")),
    ("command-pool", include_str!("../../schemas/command-pool.json")),
    ("command-sweep", include_str!("../../schemas/command-sweep.json")),
    ("event", include_str!("../../schemas/event.json")),
    ("pool-event", include_str!("../../schemas/pool-event.json")),
    ("dead-letter-headers", include_str!("../../schemas/dead-letter-headers.json")),
    ("register-request", include_str!("../../schemas/register-request.json")),
    ("register-reply", include_str!("../../schemas/register-reply.json")),
    ("unregister-request", include_str!("../../schemas/unregister-request.json")),
    ("unregister-reply", include_str!("../../schemas/unregister-reply.json")),
    ("list-request", include_str!("../../schemas/list-request.json")),
    ("list-reply", include_str!("../../schemas/list-reply.json")),
    ("service-get-request", include_str!("../../schemas/service-get-request.json")),
    ("service-list-request", include_str!("../../schemas/service-list-request.json")),
    ("service-list-reply", include_str!("../../schemas/service-list-reply.json")),
    ("service-drain-reply", include_str!("../../schemas/service-drain-reply.json")),
    ("provider-create-request", include_str!("../../schemas/provider-create-request.json")),
    ("provider-create-reply", include_str!("../../schemas/provider-create-reply.json")),
    ("provider-delete-request", include_str!("../../schemas/provider-delete-request.json")),
    ("provider-delete-reply", include_str!("../../schemas/provider-delete-reply.json")),
    ("provider-list-request", include_str!("../../schemas/provider-list-request.json")),
    ("provider-list-reply", include_str!("../../schemas/provider-list-reply.json")),
];

/// Arguments of `schema`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  enlist schema                              the names
  enlist schema command-provision            a JSON Schema (2020-12)
  enlist schema asyncapi > asyncapi.yaml     all messages, and their subjects")]
pub(super) struct SchemaArgs {
    /// The message [default: the names of all]
    name: Option<String>,
}

/// Arguments of `completions`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  source <(enlist completions bash)
  enlist completions zsh > ~/.zfunc/_enlist
  enlist completions fish > ~/.config/fish/completions/enlist.fish")]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  enlist man | man -l -
  enlist man provision | man -l -
  enlist man dead replay | man -l -")]
pub(super) struct ManArgs {
    /// The verb, and what comes behind it [default: the page of enlist itself]
    verb: Vec<String>,
}

pub(super) fn schema(args: &SchemaArgs) -> Exit {
    let Some(name) = &args.name else {
        return printed(say(&SCHEMAS.map(|(name, _)| name).join("\n"), true));
    };
    let known = name.trim_end_matches(".json").trim_end_matches(".yaml");
    if let Some((_, text)) = SCHEMAS.iter().find(|(name, _)| *name == known) {
        return printed(say(text, false));
    }
    let all = SCHEMAS.map(|(name, _)| name).join(", ");
    eprintln!("enlist: there is no schema {:?}; expected one of {all}", crate::text::cut(name, 60));
    Exit::Usage
}

pub(super) fn completions(args: &CompletionsArgs) -> Exit {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "enlist", &mut text);
    printed(say(&String::from_utf8_lossy(&text), false))
}

pub(super) fn man(args: &ManArgs) -> Exit {
    let mut command = Cli::command();
    command.build();
    let mut name = "enlist".to_owned();
    for verb in &args.verb {
        let Some(found) = command.find_subcommand(verb) else {
            let above = name.replace('-', " ");
            eprintln!("enlist: there is no verb {:?}; `{above} --help` lists them", crate::text::cut(verb, 60));
            return Exit::Usage;
        };
        // The page is named as `man` looks for it, and as the page above names it: enlist-dead-replay.
        name = format!("{name}-{verb}");
        command = found.clone().display_name(name.clone());
    }
    let mut text = Vec::new();
    let rendered = clap_mangen::Man::new(command).render(&mut text);
    printed(rendered.map_err(Into::into).and_then(|()| say(&String::from_utf8_lossy(&text), false)))
}

fn say(text: &str, line: bool) -> anyhow::Result<bool> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    if line {
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok::<_, io::Error>(true).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_schema_of_the_folder_is_embedded() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "json" || e == "yaml"))
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        let mut names = SCHEMAS.map(|(name, _)| name.to_owned()).to_vec();
        files.sort();
        names.sort();
        assert_eq!(names, files);
    }

    #[test]
    fn every_shell_and_every_verb_can_be_written_down() {
        for shell in Shell::value_variants() {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "enlist", &mut text);
            assert!(String::from_utf8(text).unwrap().contains("provision"), "{shell}");
        }
        for verb in Cli::command().get_subcommands() {
            let name = verb.get_name().to_owned();
            assert_eq!(man(&ManArgs { verb: vec![name.clone()] }), Exit::Done);
            for below in verb.get_subcommands() {
                assert_eq!(man(&ManArgs { verb: vec![name.clone(), below.get_name().to_owned()] }), Exit::Done);
            }
        }
    }
}
