//! `enlist auth init`: a nats-server configuration in which each role of a fleet may do its own work and no other.

mod roles;
mod server;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _, stdout};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use nkeys::{KeyPair, KeyPairType};

use super::{Exit, ended};
use crate::config::Config;
use roles::Role;

/// Whose secret is in a file, and nobody else's.
const SECRET: u32 = 0o600;
/// What holds no secret.
const OPEN: u32 = 0o644;
/// The folder that holds the secrets.
const FOLDER: u32 = 0o700;

/// Arguments of `auth`.
#[derive(Args)]
pub(super) struct AuthArgs {
    #[command(subcommand)]
    verb: AuthVerb,
}

#[derive(Subcommand)]
enum AuthVerb {
    /// Write a nats-server configuration and an nkey for each role: replica, publisher of each pool, subscriber, scheduler,
    /// operator, and each external provider
    Init(InitArgs),
}

/// Arguments of `auth init`.
#[derive(Args)]
struct InitArgs {
    /// Folder to make, with those above it that are missing; one that has something in it is left alone
    #[arg(long, value_name = "PATH", default_value = "enlist-auth")]
    dir: PathBuf,
    /// Where the server is to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4222")]
    listen: std::net::SocketAddr,
}

pub(super) fn run(config: &Config, args: &AuthArgs) -> Exit {
    let AuthVerb::Init(args) = &args.verb;
    ended(init(config, args).map(|()| true))
}

fn init(config: &Config, args: &InitArgs) -> anyhow::Result<()> {
    let InitArgs { dir, listen } = args;
    let dir = std::path::absolute(dir).with_context(|| format!("{} is no path", dir.display()))?;
    let roles = roles::all(config);
    let keys = roles.iter().map(|role| Ok((role, key()?))).collect::<anyhow::Result<Vec<_>>>()?;
    let mut files = vec![("nats-server.conf".to_owned(), server::text(config, &dir, *listen, &keys), OPEN)];
    for (role, key) in &keys {
        let seed = key.seed().map_err(|error| anyhow::anyhow!("no seed: {error}"))?;
        files.push((format!("{}.nk", role.name), format!("{seed}\n"), SECRET));
    }
    write(&dir, &files)?;
    tell(&dir, &roles);
    Ok(())
}

/// A user's key, of the operating system's chance.
fn key() -> anyhow::Result<KeyPair> {
    KeyPair::new_from_raw(KeyPairType::User, rand::random()).map_err(|error| anyhow::anyhow!("no key: {error}"))
}

/// All of the folder or nothing of it: it is filled under another name, and then given its own, which the system refuses
/// where something is there.
fn write(dir: &Path, files: &[(String, String, u32)]) -> anyhow::Result<()> {
    let name = dir.file_name().context("--dir has no name of its own")?.to_string_lossy();
    let new = dir.with_file_name(format!(".{name}.new-{}", std::process::id()));
    // They hold no secret, and stay if the rest comes to nothing.
    let above = dir.parent().unwrap_or(dir);
    fs::create_dir_all(above).with_context(|| format!("cannot make {}", above.display()))?;
    let filled = fill(&new, files).with_context(|| format!("cannot write {}", new.display()));
    let done = filled.and_then(|()| match fs::rename(&new, dir) {
        Ok(()) => Ok(()),
        Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory) => {
            bail!("{} is there already, and nothing is overwritten: name another --dir", dir.display())
        }
        Err(error) => Err(error).with_context(|| format!("cannot make {}", dir.display())),
    });
    if done.is_err() {
        let _ = fs::remove_dir_all(&new);
    }
    done
}

fn fill(dir: &Path, files: &[(String, String, u32)]) -> io::Result<()> {
    DirBuilder::new().mode(FOLDER).create(dir)?;
    for (name, text, mode) in files {
        let mut file = File::options().write(true).create_new(true).mode(*mode).open(dir.join(name))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
    }
    Ok(())
}

/// What there is now, and how each role uses it. A reader that has gone away is no failure.
fn tell(dir: &Path, roles: &[Role]) {
    let width = roles.iter().map(|role| role.name.len()).max().unwrap_or(0);
    let mut out = stdout();
    let at = dir.display();
    let server = format!("{at}/nats-server.conf");
    let _ = writeln!(out, "{server}, for: nats-server -c {}\n", in_a_shell(&server));
    let _ = writeln!(out, "each role has its key in {at}/<role>.nk, and inboxes of its own:");
    for Role { name, about, .. } in roles {
        let _ = writeln!(out, "  {name:width$}  {about}");
    }
    let replica = &roles[0];
    let _ =
        writeln!(out, "\na replica's settings; any other role's are alike, also as NATS_NKEY and NATS_INBOX_PREFIX:");
    let nkey = toml::Value::String(format!("{at}/{}.nk", replica.name));
    let _ = writeln!(out, "  [nats]\n  nkey = {nkey}\n  inbox_prefix = \"{}\"", replica.inbox());
}

/// A word as a shell reads it back: quoted where it holds more than plain signs.
fn in_a_shell(word: &str) -> String {
    let plain = |sign: char| sign.is_ascii_alphanumeric() || "/._-+,:@%".contains(sign);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn secrets_are_for_their_owner_and_nothing_is_overwritten() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("not/there/yet/auth");
        let files = [("a.nk".to_owned(), "seed".to_owned(), SECRET)];
        write(&dir, &files).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join("a.nk"))), (0o700, 0o600));

        let other = [("a.nk".to_owned(), "another".to_owned(), SECRET)];
        let error = write(&dir, &other).unwrap_err().to_string();
        assert!(error.contains("nothing is overwritten"), "{error}");
        assert_eq!(fs::read_to_string(dir.join("a.nk")).unwrap(), "seed");
        assert_eq!(fs::read_dir(dir.parent().unwrap()).unwrap().count(), 1, "nothing half-written is left");
    }

    #[test]
    fn a_path_of_any_signs_comes_back_from_a_shell_as_it_was() {
        assert_eq!(in_a_shell("/srv/enlist-auth/nats-server.conf"), "/srv/enlist-auth/nats-server.conf");
        for path in ["/srv/my fleet", "it's", "$HOME/`id`", "a;b", "~x", "*", "\u{e9}\"\\"] {
            let line = format!("printf %s {}", in_a_shell(path));
            let read = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
            assert_eq!(String::from_utf8(read.stdout).unwrap(), path);
        }
    }
}
