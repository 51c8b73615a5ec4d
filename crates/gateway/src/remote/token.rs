//! `fanwire token`: makes tokens, and says what one is good for.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use fanwire_auth::{Reason, TokenError, Verifier, mint};
use fanwire_node::Action;
use fanwire_wire::Pattern;
use serde_json::{Map, Value, json};

use super::channel::clean;
use super::{Error, finish, read, run};
use crate::config::{Config, Mistakes, causes};

/// What is done with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a connection token, or with --channel a subscription token, signed with HS256
    Mint(Mint),
    /// Say what a token grants, or why it is refused
    Inspect(Inspect),
}

/// Arguments of `fanwire token mint`.
#[derive(Args, Debug)]
pub(crate) struct Mint {
    /// The user; empty for an anonymous one
    #[arg(long, default_value = "")]
    user: String,
    /// Make a token for the subscription to this channel
    #[arg(long)]
    channel: Option<String>,
    /// A channel the server subscribes the client to; may be given several times
    #[arg(long = "server-channel", value_name = "CHANNEL", conflicts_with = "channel")]
    server_channels: Vec<String>,
    /// What the client may do where: subscribe, publish, presence, history, and a channel or a pattern with *, like
    /// subscribe,history=chat:*; may be given several times
    #[arg(long = "allow", value_name = "ACTIONS=PATTERN", value_parser = capability, conflicts_with = "channel")]
    capabilities: Vec<Value>,
    /// How long it is good for
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    expires: Duration,
    /// What other clients see beside the user, as JSON
    #[arg(long, value_name = "JSON")]
    info: Option<String>,
    #[command(flatten)]
    key: Key,
    /// Print it as JSON, with its claims
    #[arg(long)]
    json: bool,
}

/// Arguments of `fanwire token inspect`.
#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// The token; without it, standard input
    token: Option<String>,
    #[command(flatten)]
    key: Key,
    /// Print what is found as JSON
    #[arg(long)]
    json: bool,
}

/// The key that signs or checks.
#[derive(Args, Debug)]
pub(crate) struct Key {
    /// The gateway's configuration, and its environment: all of its [token] counts
    #[arg(long, value_name = "FILE", conflicts_with = "secret_file")]
    config: Option<PathBuf>,
    /// A file with the HMAC secret
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

/// The largest token read from standard input, in bytes.
const MAX_INPUT: u64 = 64 * 1024;

/// Makes or inspects a token. `load` reads the gateway's configuration.
pub(crate) fn token(args: &Token, load: impl Fn(Option<&Path>) -> Result<Config, Mistakes>) -> ExitCode {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    match args {
        Token::Mint(args) => finish(args.mint(now, load)),
        Token::Inspect(args) => match args.inspect(now, load) {
            Ok((text, verdict)) => match (finish(Ok(text)), verdict) {
                (_, Verdict::Refused) => ExitCode::from(super::REFUSED),
                (_, Verdict::Unknown) => ExitCode::from(super::UNREACHABLE),
                (printed, _) => printed,
            },
            Err(error) => finish(Err(error)),
        },
    }
}

/// What came of an inspection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    Refused,
    /// There was no key to check it with.
    Unchecked,
    /// A key set that may have its key could not be read.
    Unknown,
}

impl Mint {
    fn mint(&self, now: u64, load: impl Fn(Option<&Path>) -> Result<Config, Mistakes>) -> Result<String, Error> {
        let config =
            self.key.load(load)?.ok_or_else(|| Error::Usage("no key: --config or --secret-file".to_owned()))?;
        let secret = secret(&config)?;
        let mut claims = Map::new();
        claims.insert("sub".to_owned(), self.user.as_str().into());
        claims.insert("iat".to_owned(), now.into());
        claims.insert("exp".to_owned(), now.saturating_add(self.expires.as_secs()).into());
        let texts = [("channel", &self.channel), ("aud", &config.audience), ("iss", &config.issuer)];
        for (name, value) in texts.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            claims.insert(name.to_owned(), value.as_str().into());
        }
        if !self.server_channels.is_empty() {
            claims.insert("channels".to_owned(), json!(self.server_channels));
        }
        if !self.capabilities.is_empty() {
            claims.insert("caps".to_owned(), json!(self.capabilities));
        }
        if let Some(info) = &self.info {
            let info = serde_json::from_str(info).map_err(|error| Error::Usage(format!("--info: {error}")))?;
            claims.insert("info".to_owned(), info);
        }
        let token = mint::hs256(&claims, &secret).map_err(|error| Error::Usage(causes(&error)))?;
        Ok(if self.json { format!("{}\n", json!({ "token": token, "claims": claims })) } else { format!("{token}\n") })
    }
}

impl Inspect {
    fn inspect(
        &self,
        now: u64,
        load: impl Fn(Option<&Path>) -> Result<Config, Mistakes>,
    ) -> Result<(String, Verdict), Error> {
        let token = match &self.token {
            Some(token) => token.clone(),
            None => {
                let mut token = String::new();
                let read = std::io::stdin().lock().take(MAX_INPUT).read_to_string(&mut token);
                read.map_err(|source| Error::Local { what: "cannot read standard input".to_owned(), source })?;
                token
            }
        };
        let token = token.trim();
        let mut parts = token.split('.').map(|part| {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).ok()?;
            serde_json::from_slice::<Value>(&bytes).ok()
        });
        let (header, claims) = (parts.next().flatten(), parts.next().flatten());
        let (verdict, words) = match self.key.load(load)? {
            None => (Verdict::Unchecked, "not checked: no key was given (--config or --secret-file)".to_owned()),
            Some(config) => judge(token, &config, claims.as_ref(), now)?,
        };
        let text = if self.json {
            let good = match verdict {
                Verdict::Good => Some(true),
                Verdict::Refused => Some(false),
                Verdict::Unchecked | Verdict::Unknown => None,
            };
            format!("{}\n", json!({ "header": header, "claims": claims, "good": good, "verdict": words }))
        } else {
            let mut text = String::new();
            for (name, part) in [("header", &header), ("claims", &claims)] {
                let part = part.as_ref().map_or("cannot be read".to_owned(), |part| clean(&part.to_string()));
                text.push_str(&format!("{name}   {part}\n"));
            }
            for (claim, words) in [("iat", "issued"), ("nbf", "good from"), ("exp", "expires"), ("expire_at", "ends")] {
                let time = claims.as_ref().and_then(|claims| claims.get(claim)?.as_u64());
                if let Some(time) = time {
                    text.push_str(&format!("{words:<9}{}\n", when(time, now)));
                }
            }
            text + &format!("verdict  {words}\n")
        };
        Ok((text, verdict))
    }
}

/// Says what the gateway would make of a token.
fn judge(
    token: &str,
    config: &fanwire_auth::Config,
    claims: Option<&Value>,
    now: u64,
) -> Result<(Verdict, String), Error> {
    let verifier = Verifier::new(config).map_err(|error| Error::Usage(causes(&error)))?;
    let mut judged = judge_with(&verifier, token, claims, now);
    if judged == Err(TokenError::Invalid(Reason::UnknownKey)) && !config.jwks.is_empty() {
        let complete = run(async {
            verifier.start();
            Ok(verifier.refresh().await)
        })?;
        judged = judge_with(&verifier, token, claims, now);
        if !complete && judged == Err(TokenError::Invalid(Reason::UnknownKey)) {
            let urls: Vec<_> = config.jwks.iter().map(|set| &*set.url).collect();
            return Ok((Verdict::Unknown, format!("not known: not all key sets can be read ({})", urls.join(", "))));
        }
    }
    Ok(match judged {
        Ok(words) => (Verdict::Good, format!("good: {words}")),
        Err(error) => (Verdict::Refused, format!("refused: {error}")),
    })
}

/// Says what a token grants, by the keys that are known.
fn judge_with(verifier: &Verifier, token: &str, claims: Option<&Value>, now: u64) -> Result<String, TokenError> {
    let user = |user: &str| if user.is_empty() { "an anonymous user".to_owned() } else { format!("user {user:?}") };
    let is_subscription = claims.is_some_and(|claims| claims.get("channel").is_some());
    if is_subscription {
        let granted = verifier.subscription(token, now);
        return granted.map(|granted| format!("{} may subscribe to {:?}", user(&granted.user), granted.channel));
    }
    verifier.connection(token, now).map(|granted| format!("{} may connect", user(&granted.user)))
}

impl Key {
    /// What tokens are checked with; `None` if nothing was given.
    fn load(
        &self,
        load: impl Fn(Option<&Path>) -> Result<Config, Mistakes>,
    ) -> Result<Option<fanwire_auth::Config>, Error> {
        if let Some(file) = &self.config {
            let config = load(Some(file)).map_err(|mistakes| Error::Usage(mistakes.to_string()))?;
            return Ok(Some(config.token));
        }
        Ok(self.secret_file.as_ref().map(|file| fanwire_auth::Config {
            hmac_secret_file: Some(file.clone()),
            // Whether it is good enough is for the gateway to say.
            allow_weak_secret: true,
            ..fanwire_auth::Config::default()
        }))
    }
}

/// The HMAC secret of a configuration.
fn secret(config: &fanwire_auth::Config) -> Result<Vec<u8>, Error> {
    if let Some(secret) = &config.hmac_secret {
        return Ok(secret.expose().as_bytes().to_vec());
    }
    let file = config.hmac_secret_file.as_ref();
    let file =
        file.ok_or_else(|| Error::Usage("token.hmac_secret: not configured, and only HS256 is made".to_owned()))?;
    let mut secret = read(file)?;
    while secret.last().is_some_and(|byte| matches!(byte, b'\r' | b'\n')) {
        secret.pop();
    }
    if secret.is_empty() { Err(Error::Usage(format!("{}: is empty", file.display()))) } else { Ok(secret) }
}

/// Reads `ACTIONS=PATTERN`, as an entry of the claim `caps`.
fn capability(text: &str) -> Result<Value, String> {
    let (actions, pattern) =
        text.split_once('=').ok_or("expected ACTIONS=PATTERN, for example subscribe,history=chat:*")?;
    let actions: Vec<_> = actions.split(',').collect();
    let known = Action::ALL.map(Action::name);
    if let Some(unknown) = actions.iter().find(|action| !known.contains(action)) {
        return Err(format!("{unknown:?} is none of {}", known.join(", ")));
    }
    Pattern::new(pattern).map_err(|error| error.to_string())?;
    Ok(json!({ "channels": [pattern], "allow": actions }))
}

/// A time for people: absolute, and how far from now.
fn when(time: u64, now: u64) -> String {
    let absolute = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time));
    let latest = 253_402_300_799; // the end of the year 9999
    let absolute = absolute.filter(|_| time <= latest);
    let absolute = absolute.map_or(time.to_string(), |time| humantime::format_rfc3339_seconds(time).to_string());
    let distance = humantime::format_duration(Duration::from_secs(time.abs_diff(now)));
    if time > now { format!("{absolute} (in {distance})") } else { format!("{absolute} ({distance} ago)") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mistakes;

    const NOW: u64 = 1_800_000_000;

    fn key(secret: &str) -> (Key, PathBuf) {
        let file = std::env::temp_dir().join(format!("fanwire-token-{}-{:x}", std::process::id(), fastrand::u64(..)));
        std::fs::write(&file, secret).unwrap();
        (Key { config: None, secret_file: Some(file.clone()) }, file)
    }

    fn nothing(_: Option<&Path>) -> Result<Config, Mistakes> {
        unreachable!("no configuration is named")
    }

    fn minted(secret: &str, channel: Option<&str>) -> String {
        let (key, file) = key(secret);
        let mint = Mint {
            user: "ann".to_owned(),
            channel: channel.map(str::to_owned),
            server_channels: Vec::new(),
            expires: Duration::from_secs(3600),
            capabilities: if channel.is_some() {
                Vec::new()
            } else {
                vec![capability("subscribe,history=chat:*").unwrap()]
            },
            info: Some(r#"{"name":"Ann"}"#.to_owned()),
            key,
            json: false,
        };
        let token = mint.mint(NOW, nothing).unwrap();
        std::fs::remove_file(file).unwrap();
        token
    }

    fn inspected(token: &str, secret: &str, now: u64) -> (String, Verdict) {
        let (key, file) = key(secret);
        let inspect = Inspect { token: Some(token.to_owned()), key, json: false };
        let found = inspect.inspect(now, nothing).unwrap();
        std::fs::remove_file(file).unwrap();
        found
    }

    #[test]
    fn what_is_made_is_good() {
        let (text, verdict) = inspected(&minted("a secret\n", None), "a secret", NOW);
        assert_eq!(verdict, Verdict::Good, "{text}");
        assert!(
            text.contains("good: user \"ann\" may connect") && text.contains("expires  2027-01-15T09:00:00Z (in 1h)")
        );
        let (text, _) = inspected(&minted("a secret", Some("chat:1")), "a secret", NOW);
        assert!(text.contains("good: user \"ann\" may subscribe to \"chat:1\""), "{text}");
    }

    #[test]
    fn capabilities_are_checked_before_they_are_signed() {
        let expected = json!({ "channels": ["chat:*"], "allow": ["subscribe", "publish"] });
        assert_eq!(capability("subscribe,publish=chat:*"), Ok(expected));
        for wrong in ["chat:*", "=chat:*", "subscribe,dance=chat:*", "subscribe=", "subscribe=a b"] {
            assert!(capability(wrong).is_err(), "{wrong}");
        }
        let token = minted("a secret", None);
        let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["caps"], json!([{ "channels": ["chat:*"], "allow": ["subscribe", "history"] }]));
    }

    #[test]
    fn a_refusal_is_explained() {
        let token = minted("a secret", None);
        for (token, secret, now, why) in [
            (&*token, "another", NOW, "its signature is wrong"),
            (&*token, "a secret", NOW + 4000, "the token has expired"),
            ("rubbish", "a secret", NOW, "not three parts"),
        ] {
            let (text, verdict) = inspected(token, secret, now);
            assert_eq!(verdict, Verdict::Refused);
            assert!(text.contains(why), "{text}");
        }
    }

    #[test]
    fn without_a_key_nothing_is_promised() {
        let inspect =
            Inspect { token: Some(minted("a secret", None)), key: Key { config: None, secret_file: None }, json: true };
        let (text, verdict) = inspect.inspect(NOW, nothing).unwrap();
        assert_eq!(verdict, Verdict::Unchecked);
        let found: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&found["good"], &found["claims"]["sub"]), (&Value::Null, &json!("ann")));
    }
}
