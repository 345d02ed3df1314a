//! Settings as a pure function of file, context, environment and flags.

mod layers;
mod mistakes;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::*;

/// The example of the documentation, in full.
const EXAMPLE: &str = include_str!("example.toml");

/// A file that is enough to start with.
const SMALL: &str = "[pools.load]\nprovider = \"null\"\n";

/// A world to read settings in: builds up a source and loads it.
#[derive(Default)]
struct World {
    file: Option<ConfigFile>,
    env: BTreeMap<String, String>,
    flags: Flags,
    files: BTreeMap<&'static str, &'static str>,
}

impl World {
    fn new(text: &str) -> Self {
        Self { file: Some(ConfigFile { name: "enlist.toml".to_owned(), text: text.to_owned() }), ..Self::default() }
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    fn readable(mut self, path: &'static str, text: &'static str) -> Self {
        self.files.insert(path, text);
        self
    }

    fn load(self) -> Result<Loaded, Vec<Mistake>> {
        let Self { file, env, flags, files } = self;
        let read = |path: &Path| {
            let text = path.to_str().and_then(|path| files.get(path));
            text.map(|text| (*text).to_owned()).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        };
        load(&Source { file, env, flags, read: &read })
    }

    fn mistakes(self) -> String {
        ConfigError::Mistakes(self.load().expect_err("there are mistakes")).to_string()
    }
}

fn pool(loaded: &Loaded, name: &str) -> PoolConfig {
    loaded.config.pools[&Pool::new(name).unwrap()].clone()
}
