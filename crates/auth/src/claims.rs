//! The claims of a token: each read as the type it must have, or the token is refused by that claim's name.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use fanwire_node::{Action, Capability};
use fanwire_wire::Pattern;
use serde::Deserialize;
use serde_json::{Number, value::RawValue};

use crate::{Grant, Overrides, Reason};

/// A JSON object whose values are not interpreted yet: a token's header, its claims, the terms of a subscription in them.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct Object<'a>(#[serde(borrow)] BTreeMap<String, &'a RawValue>);

impl<'a> Object<'a> {
    pub(crate) fn parse(json: &'a [u8]) -> Result<Self, Reason> {
        serde_json::from_slice(json).map_err(|_| Reason::Malformed)
    }

    /// Whether the member is there, whatever its value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The member as a `T`. `null` is a wrong type: a claim that restricts must not vanish.
    pub(crate) fn get<T: Deserialize<'a>>(&self, name: &'static str) -> Result<Option<T>, Reason> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        serde_json::from_str(value.get()).map(Some).map_err(|_| Reason::Claim(name))
    }

    /// The member as a `T`, where `null` is the same as its absence: for claims that only add something.
    pub(crate) fn get_or_null<T: Deserialize<'a>>(&self, name: &'static str) -> Result<Option<T>, Reason> {
        Ok(self.get::<Option<T>>(name)?.flatten())
    }

    /// A time in seconds of Unix time; fractions are cut off.
    pub(crate) fn time(&self, name: &'static str) -> Result<Option<u64>, Reason> {
        let Some(number) = self.get::<Number>(name)? else { return Ok(None) };
        let fraction = || number.as_f64().filter(|seconds| *seconds >= 0.0).map(|seconds| seconds as u64);
        let time = number.as_u64().or_else(fraction).filter(|time| *time <= LATEST_TIME);
        time.map(Some).ok_or(Reason::Claim(name))
    }

    /// A text that is not empty; an empty one and `null` are the same as none.
    pub(crate) fn text(&self, name: &'static str) -> Result<Option<String>, Reason> {
        Ok(self.get_or_null::<String>(name)?.filter(|text| !text.is_empty()))
    }

    /// JSON as the token has it, on one line.
    pub(crate) fn json(&self, name: &'static str) -> Result<Option<Bytes>, Reason> {
        Ok(self.get_or_null::<&RawValue>(name)?.map(on_one_line))
    }

    /// A value that comes as JSON, or as any bytes in base64, which then count.
    pub(crate) fn payload(&self, json: &'static str, base64: &'static str) -> Result<Option<Bytes>, Reason> {
        let Some(text) = self.text(base64)? else { return self.json(json) };
        let bytes = BASE64_STANDARD.decode(text).map_err(|_| Reason::Claim(base64))?;
        Ok(Some(bytes.into()))
    }

    /// The terms of the subscription this object is about.
    pub(crate) fn grant(&self) -> Result<Grant, Reason> {
        let overrides = match self.get_or_null::<Object<'a>>("override")? {
            Some(overrides) => Overrides {
                presence: overrides.switch("presence")?,
                join_leave: overrides.switch("join_leave")?,
                force_join_leave: overrides.switch("force_push_join_leave")?,
                recovery: overrides.switch("force_recovery")?,
                positioning: overrides.switch("force_positioning")?,
            },
            None => Overrides::default(),
        };
        Ok(Grant { info: self.payload("info", "b64info")?, data: self.payload("data", "b64data")?, overrides })
    }

    /// A boolean wrapped as `{"value": …}`. Backends leave false out, so `{}` means false and differs from nothing.
    fn switch(&self, name: &'static str) -> Result<Option<bool>, Reason> {
        let Some(switch) = self.get_or_null::<Object<'a>>(name)? else { return Ok(None) };
        let value = switch.get("value").map_err(|_| Reason::Claim(name))?;
        Ok(Some(value.unwrap_or_default()))
    }

    /// The claim `subs`: channels with their terms.
    pub(crate) fn subscriptions(&self) -> Result<BTreeMap<String, Grant>, Reason> {
        let subs = self.get_or_null::<BTreeMap<String, Object<'a>>>("subs")?.unwrap_or_default();
        subs.into_iter().map(|(channel, terms)| Ok((channel, terms.grant()?))).collect()
    }

    /// The claim `caps`: what may be done in which channels.
    pub(crate) fn capabilities(&self) -> Result<Vec<Capability>, Reason> {
        let caps = self.get_or_null::<Vec<Object<'a>>>("caps")?.unwrap_or_default();
        let capabilities = caps.iter().map(Object::capability).collect::<Result<Vec<_>, _>>()?;
        let patterns: usize = capabilities.iter().map(|capability| capability.channels.len()).sum();
        if patterns > MAX_PATTERNS {
            return Err(Reason::Claim("caps"));
        }
        Ok(capabilities)
    }

    fn capability(&self) -> Result<Capability, Reason> {
        let wrong = || Reason::Claim("caps");
        // A member that is not known may narrow what is granted.
        if self.0.keys().any(|name| !["channels", "allow", "exp"].contains(&&**name)) {
            return Err(wrong());
        }
        let list = |name| self.get::<Vec<String>>(name).ok().flatten().ok_or_else(wrong);
        let pattern = |text: &String| Pattern::new(text).map_err(|_| wrong());
        let action = |name: &String| Action::ALL.into_iter().find(|action| action.name() == name).ok_or_else(wrong);
        Ok(Capability {
            channels: list("channels")?.iter().map(pattern).collect::<Result<_, _>>()?,
            actions: list("allow")?.iter().map(action).collect::<Result<_, _>>()?,
            expire_at: self.time("exp").map_err(|_| wrong())?,
        })
    }
}

/// The claim `aud`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    pub(crate) fn includes(&self, expected: &str) -> bool {
        match self {
            Self::One(audience) => audience == expected,
            Self::Several(audiences) => audiences.iter().any(|audience| audience == expected),
        }
    }
}

/// Removes line breaks, which in valid JSON stand between tokens only: clients may be sent one JSON message per line.
fn on_one_line(json: &RawValue) -> Bytes {
    json.get().bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect()
}

/// The most patterns in one token: each is looked at whenever the client does something that its namespace does not permit.
const MAX_PATTERNS: usize = 100;

/// The end of the year 9999. What is later is a mistake, most often milliseconds, and would never expire.
const LATEST_TIME: u64 = 253_402_300_799;
