//! Reading the configuration from file and environment.

use std::fmt;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::Config;

/// Everything that is wrong with a configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mistakes(pub Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} mistake{} in the configuration:", self.0.len(), if self.0.len() == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  - {mistake}"))
    }
}

impl std::error::Error for Mistakes {}

/// Lays a file and the environment over `defaults`. `env` are the variables to look at, by name and value.
///
/// # Errors
///
/// All that is wrong, not only the first.
pub(crate) fn load(
    defaults: Config,
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Config, Mistakes> {
    let mut mistakes = Vec::new();
    let mut table = Table::new();
    if let Some(path) = file {
        let text = std::fs::read_to_string(path);
        let parsed = text
            .map_err(|error| error.to_string())
            .and_then(|text| text.parse::<Table>().map_err(|error| place(&text, &error)));
        match parsed {
            Ok(parsed) => table = parsed,
            Err(error) => return Err(Mistakes(vec![format!("{}: {error}", path.display())])),
        }
    }
    for (name, value) in env {
        if let Some(key) = name.strip_prefix(ENV_PREFIX) {
            set(&mut table, key, &value).unwrap_or_else(|mistake| mistakes.push(format!("{name}: {mistake}")));
        }
    }
    let config = read(defaults, table, &mut mistakes);
    mistakes.extend(config.mistakes());
    if mistakes.is_empty() { Ok(config) } else { Err(Mistakes(mistakes)) }
}

/// Says where a file is no TOML, without quoting it: the line may hold a secret.
fn place(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: {}", error.message())
}

const ENV_PREFIX: &str = "FANWIRE__";

/// Sets `SECTION__KEY` to a value: TOML if it reads as such, else a string. `SECTION` alone is a whole list of sections.
fn set(table: &mut Table, key: &str, text: &str) -> Result<(), String> {
    let key = key.to_lowercase();
    let value = format!("v = {text}").parse::<Table>().ok().and_then(|mut parsed| parsed.remove("v"));
    let Some((section, key)) = key.split_once("__") else {
        let Some(Value::Array(list)) = value else {
            return Err("expected FANWIRE__SECTION__KEY, or a list of sections: [{ key = value }]".to_owned());
        };
        table.insert(key, Value::Array(list));
        return Ok(());
    };
    let section_table = table.entry(section).or_insert_with(|| Table::new().into());
    let Value::Table(section_table) = section_table else {
        return Err(format!("{section} is a list; set it as a whole: FANWIRE__{}=[…]", section.to_uppercase()));
    };
    section_table.insert(key.to_owned(), value.unwrap_or_else(|| text.into()));
    Ok(())
}

fn read(defaults: Config, mut table: Table, mistakes: &mut Vec<String>) -> Config {
    let config = Config {
        listen: section(defaults.listen, table.remove("listen"), "listen", mistakes),
        control: section(defaults.control, table.remove("control"), "control", mistakes),
        proxy: section(defaults.proxy, table.remove("proxy"), "proxy", mistakes),
        tls: section(defaults.tls, table.remove("tls"), "tls", mistakes),
        node: section(defaults.node, table.remove("node"), "node", mistakes),
        broker: section(defaults.broker, table.remove("broker"), "broker", mistakes),
        client: section(defaults.client, table.remove("client"), "client", mistakes),
        admission: section(defaults.admission, table.remove("admission"), "admission", mistakes),
        shedding: section(defaults.shedding, table.remove("shedding"), "shedding", mistakes),
        drain: section(defaults.drain, table.remove("drain"), "drain", mistakes),
        token: token(defaults.token, table.remove("token"), mistakes),
        log: section(defaults.log, table.remove("log"), "log", mistakes),
        trace: section(defaults.trace, table.remove("trace"), "trace", mistakes),
        api_key: list(defaults.api_key, table.remove("api_key"), "api_key", mistakes),
        namespace: list(defaults.namespace, table.remove("namespace"), "namespace", mistakes),
        hook: list(defaults.hook, table.remove("hook"), "hook", mistakes),
    };
    mistakes.extend(table.keys().map(|key| format!("{key}: unknown section")));
    config
}

/// Reads one section over its defaults, key by key, so that every mistake in it is found.
fn section<T: DeserializeOwned + serde::Serialize>(
    defaults: T,
    value: Option<Value>,
    name: &str,
    mistakes: &mut Vec<String>,
) -> T {
    let Some(value) = value else { return defaults };
    let Value::Table(given) = value else {
        mistakes.push(format!("{name}: expected a section [{name}]"));
        return defaults;
    };
    if !check_keys::<T>(&given, name, mistakes) {
        return defaults;
    }
    let Ok(mut merged) = Table::try_from(&defaults) else { return defaults };
    merged.extend(given);
    T::deserialize(Value::Table(merged)).unwrap_or_else(|error| {
        mistakes.push(format!("{name}: {}", error.message()));
        defaults
    })
}

/// The same for secrets, which are never serialized: what is given stands alone.
fn token(defaults: fanwire_auth::Config, value: Option<Value>, mistakes: &mut Vec<String>) -> fanwire_auth::Config {
    match value {
        None => defaults,
        Some(Value::Table(given)) => item(given, "token", mistakes).unwrap_or(defaults),
        Some(_) => {
            mistakes.push("token: expected a section [token]".to_owned());
            defaults
        }
    }
}

/// Reads a list of sections.
fn list<T: DeserializeOwned>(defaults: Vec<T>, value: Option<Value>, name: &str, mistakes: &mut Vec<String>) -> Vec<T> {
    let items = match value {
        None => return defaults,
        Some(Value::Array(items)) => items,
        Some(_) => {
            mistakes.push(format!("{name}: expected sections [[{name}]]"));
            return defaults;
        }
    };
    let mut read = Vec::with_capacity(items.len());
    for (index, value) in items.into_iter().enumerate() {
        let name = format!("{name}[{index}]");
        match value {
            Value::Table(given) => read.extend(item(given, &name, mistakes)),
            _ => mistakes.push(format!("{name}: expected a section")),
        }
    }
    read
}

fn item<T: DeserializeOwned>(given: Table, name: &str, mistakes: &mut Vec<String>) -> Option<T> {
    let fine = check_keys::<T>(&given, name, mistakes);
    let read = T::deserialize(Value::Table(given));
    match read {
        Ok(read) => Some(read),
        Err(error) => {
            if fine {
                mistakes.push(format!("{name}: {}", error.message()));
            }
            None
        }
    }
}

/// Tries every key by itself. A key that is missing is for the whole to complain about.
fn check_keys<T: DeserializeOwned>(given: &Table, name: &str, mistakes: &mut Vec<String>) -> bool {
    let before = mistakes.len();
    for (key, value) in given {
        let alone = Table::from_iter([(key.clone(), value.clone())]);
        if let Err(error) = T::deserialize(Value::Table(alone)) {
            let message = error.message();
            if !message.starts_with("missing field") {
                mistakes.push(format!("{name}.{key}: {message}"));
            }
        }
    }
    mistakes.len() == before
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Listen};

    fn load_text(text: &str, env: &[(&str, &str)]) -> Result<Config, Mistakes> {
        let mut mistakes = Vec::new();
        let mut table: Table = text.parse().unwrap();
        for (name, value) in env {
            set(&mut table, name.strip_prefix(ENV_PREFIX).unwrap(), value).unwrap();
        }
        let config = read(Config::default(), table, &mut mistakes);
        mistakes.extend(config.mistakes());
        if mistakes.is_empty() { Ok(config) } else { Err(Mistakes(mistakes)) }
    }

    #[test]
    fn the_reference_file_is_the_defaults() {
        let text = include_str!("../../../../deploy/fanwire.toml");
        let config = load_text(text, &[]).unwrap();
        assert_eq!(config.listen, Listen::default());
        assert_eq!(config.tls, Config::default().tls);
        assert_eq!(config.proxy, Config::default().proxy);
        assert_eq!(config.node, Config::default().node);
        assert_eq!(config.broker, Config::default().broker);
        assert_eq!(config.client, Config::default().client);
        assert_eq!(config.admission, Config::default().admission);
        assert_eq!(config.shedding, Config::default().shedding);
        assert_eq!(config.drain, Config::default().drain);
        assert_eq!(config.log, Config::default().log);
        assert!(config.namespace.is_empty() && config.api_key.is_empty() && config.hook.is_empty());
        let file: Table = text.parse().unwrap();
        let defaults = Table::try_from(Config::default()).unwrap();
        for (section, keys) in defaults {
            for (key, _) in keys.as_table().unwrap() {
                assert!(file[&section].get(key).is_some(), "{section}.{key} is missing in deploy/fanwire.toml");
            }
        }
    }

    #[test]
    fn environment_beats_file_beats_defaults() {
        let config = load_text(
            "[listen]\npublic = \"127.0.0.1:1\"\nops = \"127.0.0.1:2\"",
            &[("FANWIRE__LISTEN__PUBLIC", "127.0.0.1:3"), ("FANWIRE__CLIENT__ANONYMOUS", "true")],
        )
        .unwrap();
        assert_eq!(config.listen.public.port(), 3);
        assert_eq!(config.listen.ops.port(), 2);
        assert_eq!(config.listen.control, Listen::default().control);
        assert!(config.client.anonymous);
    }

    #[test]
    fn a_file_that_is_no_toml_is_not_quoted() {
        for (text, told) in [("a = 1\n]", "line 2, column 1: "), ("[a]\nä = \"secret", "line 2, column 1: ")] {
            let error = text.parse::<Table>().unwrap_err();
            let place = place(text, &error);
            assert!(place.starts_with(told) && !place.contains("secret"), "{place}");
        }
    }

    #[test]
    fn the_environment_sets_lists_as_a_whole() {
        let file = "[[namespace]]\nname = \"a\"\n[[namespace]]\nname = \"b\"";
        let secret = "[{ name = \"backend\", secret = \"0123456789abcdef\", scopes = [\"publish\"] }]";
        let env = [("FANWIRE__NAMESPACE", "[{ name = \"c\" }]"), ("FANWIRE__API_KEY", secret)];
        let config = load_text(file, &env).unwrap();
        assert_eq!(config.namespace.iter().map(|namespace| &*namespace.name).collect::<Vec<_>>(), ["c"]);
        assert_eq!(config.api_key[0].scopes, Some(vec![fanwire_control::Scope::Publish]));
        for (key, value) in [("NAMESPACE", "c"), ("NAMESPACE", "{ name = \"c\" }"), ("NAMESPACE__NAME", "c")] {
            let mut table: Table = file.parse().unwrap();
            assert!(set(&mut table, key, value).unwrap_err().contains("list"), "{key} {value}");
        }
        let wrong = load_text("", &[("FANWIRE__LISTEN", "[1]"), ("FANWIRE__NAMESPACE", "[1]")]).unwrap_err();
        assert_eq!(wrong.0.len(), 2, "{wrong}");
    }

    #[test]
    fn all_mistakes_are_told() {
        let Mistakes(mistakes) = load_text(
            "[listen]\npublic = \"nowhere\"\nadmin = 1\n[client]\nping_interval = \"soon\"\n[what]\n\
             [[namespace]]\nname = \"a\"\nsubscribe = \"everybody\"\n[[namespace]]\nname = \"b\"\nrecovery = true\n\
             publish_hook = \"nowhere\"\n[[hook]]\nname = \"c\"\nurl = \"ftp://x\"\n",
            &[],
        )
        .unwrap_err();
        let told = mistakes.join("\n");
        for expected in [
            "listen.public",
            "listen.admin",
            "client.ping_interval",
            "what: unknown",
            "[0].subscribe",
            "\"b\"",
            "\"nowhere\"",
            "hook \"c\": url",
        ] {
            assert!(told.contains(expected), "{expected} not in:\n{told}");
        }
    }

    #[test]
    fn certificates_are_read() {
        let Mistakes(mistakes) = load_text(
            "[tls]\npublic = { cert_file = \"/nowhere/tls.crt\", key_file = \"/nowhere/tls.key\" }\n\
             control = { cert_file = \"Cargo.toml\", key_file = \"Cargo.toml\" }\nops = 1\n",
            &[],
        )
        .unwrap_err();
        let told = mistakes.join("\n");
        assert!(told.contains("tls.ops"), "{told}");
        let text = "[tls]\npublic = { cert_file = \"/nowhere/tls.crt\", key_file = \"/nowhere/tls.key\" }\n\
                    control = { cert_file = \"Cargo.toml\", key_file = \"Cargo.toml\" }\n";
        let told = load_text(text, &[]).unwrap_err().0.join("\n");
        assert!(told.contains("tls.public: cannot read /nowhere/tls.crt: No such file"), "{told}");
        assert!(told.contains("tls.control: Cargo.toml: no certificates in PEM"), "{told}");
        let half = load_text("[tls]\npublic = { cert_file = \"tls.crt\" }", &[]).unwrap_err();
        assert!(half.to_string().contains("key_file"), "{half}");
    }

    #[test]
    fn a_control_plane_open_to_the_world_needs_a_key() {
        let outside = load_text("[listen]\ncontrol = \"0.0.0.0:8010\"", &[]).unwrap_err();
        assert!(outside.to_string().contains("api_key"), "{outside}");
        let shared = load_text("[listen]\npublic = \"127.0.0.1:1\"\ncontrol = \"127.0.0.1:1\"", &[]).unwrap_err();
        assert!(shared.to_string().contains("public listener"), "{shared}");
    }
}
