//! Merges file, environment and flags into a [`Config`], and refuses what it does not know.
//!
//! Order, later wins: built-in defaults, the TOML file, `WHISKRAFT_…` variables, `--set` and flags. A key of the file
//! `scheduler.data-dir` is `WHISKRAFT_SCHEDULER_DATA_DIR` in the environment and `--set scheduler.data-dir=…`.

use std::path::{Path, PathBuf};

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::Serialize;

use super::Config;
use super::check::{self, RelationError};
use super::keys::{self, Key, Shape};

/// Read when `--config` is not given and the file exists.
const DEFAULT_PATH: &str = "/etc/whiskraft.toml";
/// Start of every environment variable that is a setting.
const ENVIRONMENT_PREFIX: &str = "WHISKRAFT_";

/// Why no configuration could be made from what was given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration file {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("configuration file {path} is not valid TOML:\n{message}")]
    Syntax { path: PathBuf, message: String },
    /// A key that no setting has.
    #[error("unknown key {key:?} in {origin}{}", suggest(.nearest.as_deref()))]
    UnknownKey {
        key: String,
        origin: String,
        nearest: Option<String>,
    },
    /// `--set` without `=`.
    #[error("--set {text:?} must be KEY=VALUE, for example --set raft.heartbeat=100ms")]
    Set { text: String },
    /// A value that the setting cannot have.
    #[error("setting {key:?} in {origin}: {message}")]
    Value {
        key: String,
        origin: String,
        message: String,
    },
    /// Two settings that contradict each other.
    #[error(transparent)]
    Relation(#[from] RelationError),
}

fn suggest(nearest: Option<&str>) -> String {
    nearest
        .map(|key| format!("; did you mean {key:?}?"))
        .unwrap_or_default()
}

/// Where settings come from.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// The file, if there is one.
    pub(crate) file: Option<PathBuf>,
    /// The environment of the process.
    pub(crate) environment: Vec<(String, String)>,
    /// `--set KEY=VALUE`, in order.
    pub(crate) set: Vec<String>,
    /// Flags that have a key.
    pub(crate) flags: Overrides,
}

/// Settings that flags of a command give.
#[derive(Debug, Default)]
pub(crate) struct Overrides(Vec<(&'static str, Value)>);

impl Overrides {
    /// Overrides `key` if the flag was given.
    pub(crate) fn set<T: Serialize>(&mut self, key: &'static str, value: Option<T>) {
        let value = value.map(|value| Value::serialize(value).expect("flags are plain text and numbers"));
        self.0.extend(value.map(|value| (key, value)));
    }
}

/// One source of settings, by the name that messages call it.
struct Named {
    origin: String,
    dict: Dict,
}

impl Provider for Named {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

/// The file that is read when none is named.
pub(crate) fn default_file() -> Option<PathBuf> {
    Some(PathBuf::from(DEFAULT_PATH)).filter(|path| path.exists())
}

/// Merges all sources and checks the result.
///
/// # Errors
/// If a source cannot be read, names a key that does not exist, or a value is out of its range.
pub(crate) fn load(sources: Sources) -> Result<Config, ConfigError> {
    let keys = keys::keys_of::<Config>();
    let mut figment = Figment::new();
    if let Some(path) = sources.file {
        figment = figment.merge(read_file(&path, &keys)?);
    }
    for (name, text) in &sources.environment {
        if let Some(key) = environment_key(name, &keys) {
            figment = figment.merge(single(&key.name, parse(key.shape, text), name.clone()));
        }
    }
    for text in &sources.set {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| ConfigError::Set { text: text.clone() })?;
        let known = keys.iter().find(|known| known.name == key.trim());
        let key = known.ok_or_else(|| unknown(key.trim(), "--set", &keys))?;
        figment = figment.merge(single(
            &key.name,
            parse(key.shape, value),
            format!("--set {}", key.name),
        ));
    }
    for (key, value) in sources.flags.0 {
        figment = figment.merge(single(key, value, "the command line".to_owned()));
    }
    let config: Config = figment.extract().map_err(|error| value_error(&error))?;
    check::relations(&config)?;
    Ok(config)
}

fn read_file(path: &Path, keys: &[Key]) -> Result<Named, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        message: error.to_string(),
    })?;
    let origin = path.display().to_string();
    refuse_unknown(&table, "", keys, &origin)?;
    let dict = Toml::string(&text)
        .data()
        .map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            message: error.to_string(),
        })?
        .remove(&Profile::Default)
        .unwrap_or_default();
    Ok(Named { origin, dict })
}

/// A key is known if it is a leaf, lies below a leaf (a free-form table), or is a section with known keys only.
fn refuse_unknown(table: &toml::Table, prefix: &str, keys: &[Key], origin: &str) -> Result<(), ConfigError> {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        let section = format!("{key}.");
        if keys.iter().any(|known| known.name == key) {
            continue;
        }
        match value {
            toml::Value::Table(inner) if keys.iter().any(|known| known.name.starts_with(&section)) => {
                refuse_unknown(inner, &key, keys, origin)?;
            }
            _ => return Err(unknown(&key, origin, keys)),
        }
    }
    Ok(())
}

fn unknown(key: &str, origin: &str, keys: &[Key]) -> ConfigError {
    let names = keys.iter().map(|key| key.name.as_str());
    let sections = names
        .clone()
        .filter_map(|name| name.rsplit_once('.'))
        .map(|(section, _)| section);
    let nearest = keys::nearest(key, names.chain(sections)).map(str::to_owned);
    ConfigError::UnknownKey {
        key: key.to_owned(),
        origin: origin.to_owned(),
        nearest,
    }
}

/// The setting that a variable names. Others are left alone: orchestrators inject variables of the same prefix
/// (a Kubernetes service called `whiskraft` gives `WHISKRAFT_SERVICE_HOST`).
fn environment_key<'k>(name: &str, keys: &'k [Key]) -> Option<&'k Key> {
    let wanted = name.strip_prefix(ENVIRONMENT_PREFIX)?;
    keys.iter()
        .find(|key| key.name.to_ascii_uppercase().replace(['.', '-'], "_") == wanted)
}

/// Text of the environment or of `--set`: a TOML value if it is one of the shape the setting wants, else plain text.
fn parse(shape: Shape, text: &str) -> Value {
    let parsed = toml::from_str::<toml::Table>(&format!("value = {text}"));
    let value = parsed
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"));
    match (shape, value) {
        (Shape::Text, Some(toml::Value::String(text))) => Value::from(text),
        (Shape::List, Some(value @ toml::Value::Array(_))) | (Shape::Value, Some(value)) => {
            Value::serialize(value).unwrap_or_else(|_| Value::from(text))
        }
        (Shape::List, _) => text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .into(),
        (Shape::Text | Shape::Value, _) => Value::from(text),
    }
}

fn single(key: &str, value: Value, origin: String) -> Named {
    let nested = figment::util::nest(key, value).into_dict().unwrap_or_default();
    Named { origin, dict: nested }
}

fn value_error(error: &figment::Error) -> ConfigError {
    ConfigError::Value {
        key: error.path.join("."),
        origin: error
            .metadata
            .as_ref()
            .map_or_else(|| "the defaults".to_owned(), |m| m.name.to_string()),
        message: error.kind.to_string(),
    }
}

#[cfg(test)]
#[path = "load_test.rs"]
mod tests;
