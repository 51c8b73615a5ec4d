//! Between the words of the node and the messages of `proto/`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use fanwire_node::authorizer::{Grant, Identity, Overrides};
use fanwire_node::hooks::{Approval, Renewal, Welcome};
use fanwire_wire::{Channel, Payload, PayloadKind};

use crate::proto;

/// The most bytes of `meta`: it is kept as long as the connection.
const MAX_META: usize = 16 * 1024;

/// Data in a question: as it is, or in base64.
pub(crate) struct Data {
    pub(crate) data: Bytes,
    pub(crate) b64data: String,
}

impl Data {
    /// `raw`: any bytes may stand in the field for data. Else only JSON may, and with `base64` not even that.
    pub(crate) fn new(payload: Option<Payload>, raw: bool, base64: bool) -> Self {
        let (mut data, mut b64data) = (Bytes::new(), String::new());
        match payload {
            None => {}
            Some(payload) if raw || !base64 && payload.kind() == PayloadKind::Json => data = payload.bytes().clone(),
            Some(payload) => b64data = BASE64_STANDARD.encode(payload.bytes()),
        }
        Self { data, b64data }
    }
}

pub(crate) fn welcome(result: Option<proto::ConnectResult>, keeps_meta: bool) -> Result<Welcome, String> {
    let result = result.ok_or("no result")?;
    let listed = result.channels.into_iter().map(|name| (name, proto::SubscribeOptions::default()));
    // Those with terms last: they count where both name a channel.
    let named: BTreeMap<_, _> = listed.chain(result.subs).collect();
    let mut subscriptions = Vec::with_capacity(named.len());
    for (name, options) in named {
        let channel = Channel::new(&name).map_err(|error| format!("channel {name:?}: {error}"))?;
        let proto::SubscribeOptions { expire_at, info, b64info, data, b64data, r#override } = options;
        subscriptions.push((channel, terms(expire_at, (info, b64info), (data, b64data), r#override)?));
    }
    let meta = Some(result.meta).filter(|meta| keeps_meta && !meta.is_empty());
    if meta.as_ref().is_some_and(|meta| meta.len() > MAX_META || !is_json(meta)) {
        return Err(format!("meta: must be JSON of at most {MAX_META} bytes"));
    }
    Ok(Welcome {
        identity: Identity {
            user: result.user.into(),
            expire_at: time(result.expire_at)?,
            info: json("info", result.info, &result.b64info)?,
            subscriptions,
            ..Identity::default()
        },
        data: either("data", result.data, &result.b64data)?,
        meta,
    })
}

pub(crate) fn renewal(result: Option<proto::RefreshResult>) -> Result<Renewal, String> {
    match result {
        Some(result) if !result.expired => {
            Ok(Renewal::Until { expire_at: time(result.expire_at)?, info: json("info", result.info, &result.b64info)? })
        }
        // As the backends expect that know this protocol: without a result it is over.
        _ => Ok(Renewal::Expired),
    }
}

pub(crate) fn sub_renewal(result: Option<proto::SubRefreshResult>) -> Result<Renewal, String> {
    renewal(result.map(|proto::SubRefreshResult { expired, expire_at, info, b64info }| proto::RefreshResult {
        expired,
        expire_at,
        info,
        b64info,
    }))
}

pub(crate) fn grant(result: Option<proto::SubscribeResult>) -> Result<Grant, String> {
    let result = result.ok_or("no result")?;
    let proto::SubscribeResult { expire_at, info, b64info, data, b64data, r#override } = result;
    terms(expire_at, (info, b64info), (data, b64data), r#override)
}

pub(crate) fn approval(result: Option<proto::PublishResult>) -> Result<Approval, String> {
    let proto::PublishResult { data, b64data, skip_history, tags, idempotency_key } = result.ok_or("no result")?;
    Ok(Approval {
        payload: either("data", data, &b64data)?.map(Payload::detect),
        skip_history,
        tags: tags.into_iter().collect(),
        idempotency_key: (!idempotency_key.is_empty()).then(|| idempotency_key.into()),
    })
}

pub(crate) fn answer(result: Option<proto::RpcResult>) -> Result<Option<Payload>, String> {
    let proto::RpcResult { data, b64data } = result.ok_or("no result")?;
    Ok(either("data", data, &b64data)?.map(Payload::detect))
}

fn terms(
    expire_at: i64,
    (info, b64info): (Bytes, String),
    (data, b64data): (Bytes, String),
    overrides: Option<proto::Override>,
) -> Result<Grant, String> {
    let overrides = overrides.unwrap_or_default();
    let value = |flag: Option<proto::BoolValue>| flag.map(|flag| flag.value);
    Ok(Grant {
        expire_at: time(expire_at)?,
        info: json("info", info, &b64info)?,
        data: either("data", data, &b64data)?,
        overrides: Overrides {
            presence: value(overrides.presence),
            join_leave: value(overrides.join_leave),
            force_join_leave: value(overrides.force_push_join_leave),
            recovery: value(overrides.force_recovery),
            positioning: value(overrides.force_positioning),
        },
    })
}

/// A Unix time; 0 for none.
fn time(seconds: i64) -> Result<Option<u64>, String> {
    match u64::try_from(seconds) {
        Ok(0) => Ok(None),
        Ok(seconds) => Ok(Some(seconds)),
        Err(_) => Err("expire_at: before 1970".to_owned()),
    }
}

/// The one of two fields that is there; the one in base64 first.
fn either(name: &str, plain: Bytes, base64: &str) -> Result<Option<Bytes>, String> {
    if !base64.is_empty() {
        return BASE64_STANDARD.decode(base64).map(|bytes| Some(bytes.into())).map_err(|e| format!("b64{name}: {e}"));
    }
    Ok((!plain.is_empty()).then_some(plain))
}

/// The same for what clients of every encoding see.
fn json(name: &str, plain: Bytes, base64: &str) -> Result<Option<Bytes>, String> {
    let found = either(name, plain, base64)?;
    match &found {
        Some(bytes) if !is_json(bytes) => Err(format!("{name}: not JSON")),
        _ => Ok(found),
    }
}

fn is_json(bytes: &Bytes) -> bool {
    Payload::detect(bytes.clone()).kind() == PayloadKind::Json
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: serde::de::DeserializeOwned>(json: &str) -> T {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_welcome_has_everything() {
        let result = r#"{"user":"56","expire_at":1900000000,"info":{"name":"Ann"},"data":[1],"channels":["a","b"],"meta":{"m":1},
            "subs":{"b":{"data":{"x":1},"override":{"presence":{"value":false},"join_leave":null}}},"caps":[{}],"unknown":1}"#;
        let welcome = welcome(Some(read(result)), true).unwrap();
        assert_eq!((&*welcome.identity.user, welcome.identity.expire_at), ("56", Some(1_900_000_000)));
        assert_eq!(welcome.identity.info.unwrap(), r#"{"name":"Ann"}"#);
        assert_eq!((welcome.data.unwrap(), welcome.meta.unwrap()), (Bytes::from("[1]"), Bytes::from(r#"{"m":1}"#)));
        let [(a, plain), (b, terms)] = &welcome.identity.subscriptions[..] else { panic!("two channels") };
        assert_eq!((a.as_str(), plain), ("a", &Grant::default()));
        assert_eq!((b.as_str(), terms.overrides.presence, terms.overrides.join_leave), ("b", Some(false), None));
    }

    #[test]
    fn nothing_means_nothing() {
        // Some backends write an empty object as an empty list, and a value that is not there as null.
        let welcome = welcome(Some(read("[]")), true).unwrap();
        assert_eq!(welcome, Welcome::default());
        assert_eq!(grant(Some(read(r#"{"info":null,"data":null,"expire_at":null}"#))), Ok(Grant::default()));
        assert_eq!(answer(Some(read("{}"))), Ok(None));
        assert_eq!(renewal(None), Ok(Renewal::Expired));
        assert_eq!(renewal(Some(read("{}"))), Ok(Renewal::Until { expire_at: None, info: None }));
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        assert!(
            welcome(None, true).is_err() && grant(None).is_err() && approval(None).is_err() && answer(None).is_err()
        );
        assert!(welcome(Some(read(r#"{"channels":["not a channel"]}"#)), true).is_err());
        assert!(welcome(Some(read(r#"{"expire_at":-1}"#)), true).is_err());
        assert!(grant(Some(read(r#"{"b64info":"AAEC"}"#))).unwrap_err().contains("info"));
        assert!(answer(Some(read(r#"{"b64data":"?"}"#))).unwrap_err().contains("b64data"));
        let large = format!(r#"{{"meta":"{}"}}"#, "x".repeat(MAX_META));
        assert!(welcome(Some(read(&large)), true).is_err());
        assert_eq!(welcome(Some(read(&large)), false).unwrap().meta, None);
    }

    #[test]
    fn data_goes_where_it_can_stand() {
        let fields = |payload: Payload, raw, base64| {
            let Data { data, b64data } = Data::new(Some(payload), raw, base64);
            (data, b64data)
        };
        let json = || Payload::json("[1]".into());
        let binary = || Payload::binary(Bytes::from_static(&[0, 1]));
        assert_eq!(fields(json(), false, false), ("[1]".into(), String::new()));
        assert_eq!(fields(json(), false, true), (Bytes::new(), "WzFd".to_owned()));
        assert_eq!(fields(binary(), false, false), (Bytes::new(), "AAE=".to_owned()));
        assert_eq!(fields(binary(), true, false), (Bytes::from_static(&[0, 1]), String::new()));
        // Text that is not JSON has no place in a JSON field either.
        assert_eq!(fields(Payload::text("hi".into()), false, false).1, "aGk=");
    }
}
