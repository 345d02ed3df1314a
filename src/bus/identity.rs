//! Who we are to the broker: by a file that is read at each connect, by the settings, or by the URL.

use std::path::PathBuf;
use std::sync::Arc;

use async_nats::{Auth, AuthError, ConnectOptions, ServerAddr};

use super::connection::ConnectError;
use crate::config::NatsConfig;

/// Files are read again at each connect, so that a rotation needs no restart; they are read once here as well, so that a
/// missing file stops the start with its own name.
pub(super) fn authenticated(config: &NatsConfig) -> Result<ConnectOptions, ConnectError> {
    let from_file = |path: &PathBuf, setting: &'static str, source: Source| match source.read(b"nonce") {
        Ok(_) => Ok(source),
        Err(error) => {
            let (path, cause) = (path.display().to_string(), error.to_string());
            Err(ConnectError::Credentials { path, setting, cause })
        }
    };
    let source = if let Some(path) = &config.creds {
        from_file(path, "nats.creds", Source::Creds(path.clone()))?
    } else if let Some(path) = &config.nkey {
        from_file(path, "nats.nkey", Source::Nkey(path.clone()))?
    } else if let Some(user) = &config.user {
        if let Some(path) = &config.password_file {
            from_file(path, "nats.password_file", Source::PasswordFile(user.clone(), path.clone()))?
        } else {
            let password = config.password.as_ref().map_or("", |secret| secret.expose());
            return Ok(ConnectOptions::with_user_and_password(user.clone(), password.to_owned()));
        }
    } else if let Some(token) = &config.token {
        return Ok(ConnectOptions::with_token(token.expose().to_owned()));
    } else {
        return Ok(match in_url(&config.url) {
            Some((user, Some(password))) => ConnectOptions::with_user_and_password(user, password),
            Some((token, None)) => ConnectOptions::with_token(token),
            None => ConnectOptions::new(),
        });
    };
    let source = Arc::new(source);
    Ok(ConnectOptions::with_auth_callback(move |nonce| {
        let source = Arc::clone(&source);
        async move { source.read(&nonce).map_err(AuthError::new) }
    }))
}

/// User and password, or a token alone, of the first URL that carries them: the client passes over what stands in a URL.
fn in_url(urls: &str) -> Option<(String, Option<String>)> {
    urls.split(',').find_map(|url| {
        let server: ServerAddr = url.trim().parse().ok()?;
        Some((decoded(server.username()?), server.password().map(decoded)))
    })
}

/// Text of a URL without its percent signs.
fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

enum Source {
    Creds(PathBuf),
    Nkey(PathBuf),
    PasswordFile(String, PathBuf),
}

impl Source {
    fn read(&self, nonce: &[u8]) -> Result<Auth, std::io::Error> {
        let mut auth = Auth::new();
        let sign = |seed: &str| {
            let pair =
                nkeys::KeyPair::from_seed(seed).map_err(|_| std::io::Error::other("it holds no valid nkey seed"))?;
            let signature = pair.sign(nonce).map_err(|_| std::io::Error::other("its nkey seed cannot sign"))?;
            Ok::<_, std::io::Error>((pair.public_key(), signature))
        };
        match self {
            Self::Creds(path) => {
                let text = std::fs::read_to_string(path)?;
                let jwt = section(&text, "NATS USER JWT")
                    .ok_or_else(|| std::io::Error::other("it has no section NATS USER JWT"))?;
                let seed = section(&text, "USER NKEY SEED")
                    .ok_or_else(|| std::io::Error::other("it has no section USER NKEY SEED"))?;
                auth.signature = Some(sign(seed)?.1);
                auth.jwt = Some(jwt.to_owned());
            }
            Self::Nkey(path) => {
                let text = std::fs::read_to_string(path)?;
                let seed = text.lines().map(str::trim).find(|line| line.starts_with('S')).unwrap_or_default();
                let (public, signature) = sign(seed)?;
                auth.nkey = Some(public);
                auth.signature = Some(signature);
            }
            Self::PasswordFile(user, path) => {
                auth.username = Some(user.clone());
                auth.password = Some(std::fs::read_to_string(path)?.trim_end_matches(['\r', '\n']).to_owned());
            }
        }
        Ok(auth)
    }
}

/// The line between `-----BEGIN <name>-----` and its end.
fn section<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().map(str::trim);
    lines.by_ref().find(|line| line.starts_with('-') && line.contains("BEGIN") && line.contains(name))?;
    lines.find(|line| !line.is_empty()).filter(|line| !line.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_a_url_are_used() {
        let pair = |user: &str, password: &str| Some((user.to_owned(), Some(password.to_owned())));
        assert_eq!(in_url("nats://a:4222, tls://bob:p%40ss%2@b:4222"), pair("bob", "p@ss%2"));
        assert_eq!(in_url("nats://s3cret@a"), Some(("s3cret".to_owned(), None)));
        assert_eq!(in_url("nats://a:4222"), None);
    }

    #[test]
    fn a_creds_file_is_read_by_its_sections() {
        let text = "-----BEGIN NATS USER JWT-----\neyJ0\n------END NATS USER JWT------\n\n\
                    -----BEGIN USER NKEY SEED-----\nSUAX\n------END USER NKEY SEED------\n";
        assert_eq!(section(text, "NATS USER JWT"), Some("eyJ0"));
        assert_eq!(section(text, "USER NKEY SEED"), Some("SUAX"));
        assert_eq!(section("nothing", "USER NKEY SEED"), None);
    }
}
