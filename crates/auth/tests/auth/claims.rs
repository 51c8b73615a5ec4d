//! What the claims say, and what they must not say.

use fanwire_auth::{Config, ConnectionToken, Grant, LEEWAY, Overrides, Reason, SubscriptionToken, TokenError};
use fanwire_node::{Action, Capability};
use fanwire_wire::Pattern;

use crate::support::*;

fn connection(claims: &str) -> Result<ConnectionToken, TokenError> {
    verifier(&hmac()).connection(&token(claims), NOW)
}

fn subscription(claims: &str) -> Result<SubscriptionToken, TokenError> {
    verifier(&hmac()).subscription(&token(claims), NOW)
}

#[test]
fn a_connection_token_in_full() {
    let verified = connection(
        r##"{
            "sub": "42", "exp": 1800000600, "iat": 1800000000, "nbf": 1800000000, "jti": "1", "aud": "a", "iss": "i",
            "info": {"name": "Ada",
                     "text": "a\nb"},
            "channels": ["news", "#42"],
            "subs": {
                "chat:1": {"info": [1.50], "b64data": "AAEC", "override": {"presence": {"value": true}}},
                "chat:2": {}
            },
            "caps": [{"channels": ["chat:*", "$vip:*"], "allow": ["subscribe", "publish"]},
                     {"channels": ["*"], "allow": ["presence", "history"], "exp": 1800000100.5}],
            "meta": {"ip": "x"}, "unknown": [null]
        }"##,
    );
    let subscriptions = [
        (
            "chat:1".to_owned(),
            Grant {
                info: Some("[1.50]".into()),
                data: Some(vec![0, 1, 2].into()),
                overrides: Overrides { presence: Some(true), ..Overrides::default() },
            },
        ),
        ("chat:2".to_owned(), Grant::default()),
    ];
    let expected = ConnectionToken {
        user: "42".into(),
        expire_at: Some(1_800_000_600),
        issued_at: Some(1_800_000_000),
        info: Some(r#"{"name": "Ada",                     "text": "a\nb"}"#.into()),
        channels: vec!["news".into(), "#42".into()],
        subscriptions: subscriptions.into(),
        capabilities: vec![
            Capability {
                channels: vec![Pattern::new("chat:*").unwrap(), Pattern::new("$vip:*").unwrap()],
                actions: vec![Action::Subscribe, Action::Publish],
                expire_at: None,
            },
            Capability {
                channels: vec![Pattern::new("*").unwrap()],
                actions: vec![Action::Presence, Action::History],
                expire_at: Some(1_800_000_100),
            },
        ],
        meta: Some(r#"{"ip": "x"}"#.into()),
    };
    assert_eq!(verified, Ok(expected));
}

#[test]
fn a_subscription_token_in_full() {
    let verified = subscription(
        r#"{"sub":"42","channel":"chat:1","iat":1800000000,"exp":1800000600,"expire_at":1800000300,"info":null,"b64info":"e30=","data":7,
            "override":{"presence":{"value":true},"join_leave":{"value":false},"force_push_join_leave":{},
            "force_recovery":{"value":true},"force_positioning":null,"else":1}}"#,
    );
    let expected = SubscriptionToken {
        user: "42".into(),
        channel: "chat:1".into(),
        expire_at: Some(1_800_000_300),
        issued_at: Some(1_800_000_000),
        grant: Grant {
            info: Some("{}".into()),
            data: Some("7".into()),
            overrides: Overrides {
                presence: Some(true),
                join_leave: Some(false),
                force_join_leave: Some(false),
                recovery: Some(true),
                positioning: None,
            },
        },
    };
    assert_eq!(verified, Ok(expected));
}

#[test]
fn what_is_absent_or_adds_nothing() {
    let anonymous = ConnectionToken::default();
    for claims in [
        "{}",
        r#"{"sub":""}"#,
        r#"{"info":null,"b64info":null,"channels":null,"subs":null,"caps":null,"meta":null,"channel":null}"#,
        r#"{"b64info":"","channels":[],"subs":{},"channel":""}"#,
        r#"{"sub":"7","sub":""}"#,
    ] {
        assert_eq!(connection(claims), Ok(anonymous.clone()), "{claims}");
    }
    let plain = SubscriptionToken { user: "42".into(), channel: "X".into(), ..SubscriptionToken::default() };
    for claims in [
        r#"{"sub":"42","channel":"X"}"#,
        r#"{"sub":"42","channel":"X","client":"","data":null,"b64data":null,"override":null}"#,
        r#"{"sub":"42","channel":"X","override":{}}"#,
    ] {
        assert_eq!(subscription(claims), Ok(plain.clone()), "{claims}");
    }
}

/// Binary information counts before JSON, and any JSON is passed on as it is written.
#[test]
fn info_of_every_kind() {
    let cases: [(&str, Option<&[u8]>); 8] = [
        (r#"{"info":{}}"#, Some(b"{}")),
        (r#"{"info":"text"}"#, Some(br#""text""#)),
        (r#"{"info":false}"#, Some(b"false")),
        (r#"{"info":12345678901234567890.10}"#, Some(b"12345678901234567890.10")),
        ("{\"info\":[1,\r\n2]}", Some(b"[1,2]")),
        (r#"{"info":null}"#, None),
        (r#"{"b64info":"//79"}"#, Some(&[0xff, 0xfe, 0xfd])),
        (r#"{"info":1,"b64info":"e30="}"#, Some(b"{}")),
    ];
    for (claims, info) in cases {
        assert_eq!(connection(claims).expect(claims).info.as_deref(), info, "{claims}");
    }
}

/// A claim of a wrong type is an error and never taken for absent.
#[test]
fn wrong_types_are_refused() {
    let both = [
        (r#"{"channel":"X","sub":42}"#, "sub"),
        (r#"{"channel":"X","sub":null}"#, "sub"),
        (r#"{"channel":"X","sub":["42"]}"#, "sub"),
        (r#"{"channel":"X","sub":{"id":"42"}}"#, "sub"),
        (r#"{"channel":"X","exp":"1800000600"}"#, "exp"),
        (r#"{"channel":"X","exp":null}"#, "exp"),
        (r#"{"channel":"X","exp":true}"#, "exp"),
        (r#"{"channel":"X","exp":[1800000600]}"#, "exp"),
        (r#"{"channel":"X","exp":-1}"#, "exp"),
        (r#"{"channel":"X","exp":-0.5}"#, "exp"),
        (r#"{"channel":"X","exp":1800000600000}"#, "exp"),
        (r#"{"channel":"X","exp":1e300}"#, "exp"),
        (r#"{"channel":"X","exp":18446744073709551616}"#, "exp"),
        (r#"{"channel":"X","expire_at":"0"}"#, "expire_at"),
        (r#"{"channel":"X","expire_at":null}"#, "expire_at"),
        (r#"{"channel":"X","expire_at":-1}"#, "expire_at"),
        (r#"{"channel":"X","nbf":"1"}"#, "nbf"),
        (r#"{"channel":"X","nbf":null}"#, "nbf"),
        (r#"{"channel":"X","iat":"1"}"#, "iat"),
        (r#"{"channel":"X","iat":{}}"#, "iat"),
        (r#"{"channel":"X","aud":7}"#, "aud"),
        (r#"{"channel":"X","aud":null}"#, "aud"),
        (r#"{"channel":"X","aud":["a",7]}"#, "aud"),
        (r#"{"channel":"X","iss":["i"]}"#, "iss"),
        (r#"{"channel":"X","iss":null}"#, "iss"),
        (r#"{"channel":"X","b64info":7}"#, "b64info"),
        (r#"{"channel":"X","b64info":"e30"}"#, "b64info"),
        (r#"{"channel":"X","b64info":"not base64!"}"#, "b64info"),
        (r#"{"channel":"X","b64info":"__79"}"#, "b64info"),
    ];
    for (claims, name) in both {
        assert_eq!(subscription(claims), Err(invalid(Reason::Claim(name))), "{claims}");
        let claims = claims.replace(r#""channel":"X","#, "");
        assert_eq!(connection(&claims), Err(invalid(Reason::Claim(name))), "{claims}");
    }

    for (claims, name) in [
        (r#"{"channels":"news"}"#, "channels"),
        (r#"{"channels":["news",7]}"#, "channels"),
        (r#"{"channels":[null]}"#, "channels"),
        (r#"{"channels":{"news":{}}}"#, "channels"),
        (r#"{"subs":["news"]}"#, "subs"),
        (r#"{"subs":{"news":null}}"#, "subs"),
        (r#"{"subs":{"news":[]}}"#, "subs"),
        (r#"{"subs":{"news":{"b64data":"?"}}}"#, "b64data"),
        (r#"{"subs":{"news":{"override":true}}}"#, "override"),
        (r#"{"caps":{}}"#, "caps"),
        (r#"{"caps":["chat:*"]}"#, "caps"),
        (r#"{"caps":[null]}"#, "caps"),
        (r#"{"caps":[{}]}"#, "caps"),
        (r#"{"caps":[{"channels":["a"]}]}"#, "caps"),
        (r#"{"caps":[{"allow":["publish"]}]}"#, "caps"),
        (r#"{"caps":[{"channels":"a","allow":["publish"]}]}"#, "caps"),
        (r#"{"caps":[{"channels":["a"],"allow":"publish"}]}"#, "caps"),
        (r#"{"caps":[{"channels":["a"],"allow":["administer"]}]}"#, "caps"),
        (r#"{"caps":[{"channels":["a"],"allow":["Publish"]}]}"#, "caps"),
        (r#"{"caps":[{"channels":["a b"],"allow":["publish"]}]}"#, "caps"),
        (r#"{"caps":[{"channels":[""],"allow":["publish"]}]}"#, "caps"),
        (r#"{"caps":[{"channels":["a"],"allow":["publish"],"exp":null}]}"#, "caps"),
        (r#"{"caps":[{"channels":["a"],"allow":["publish"],"exp":"1"}]}"#, "caps"),
        (r#"{"caps":[{"channels":["a"],"allow":["publish"],"only_on":"Mondays"}]}"#, "caps"),
        (r#"{"channel":7}"#, "channel"),
    ] {
        assert_eq!(connection(claims), Err(invalid(Reason::Claim(name))), "{claims}");
    }

    for (claims, name) in [
        (r#"{"sub":"42"}"#, "channel"),
        (r#"{"channel":""}"#, "channel"),
        (r#"{"channel":null}"#, "channel"),
        (r#"{"channel":["X"]}"#, "channel"),
        (r#"{"channel":"X","client":"another"}"#, "client"),
        (r#"{"channel":"X","client":7}"#, "client"),
        (r#"{"channel":"X","b64data":"?"}"#, "b64data"),
        (r#"{"channel":"X","override":[{}]}"#, "override"),
        (r#"{"channel":"X","override":{"presence":true}}"#, "presence"),
        (r#"{"channel":"X","override":{"presence":[true]}}"#, "presence"),
        (r#"{"channel":"X","override":{"force_recovery":{"value":"true"}}}"#, "force_recovery"),
        (r#"{"channel":"X","override":{"join_leave":{"value":null}}}"#, "join_leave"),
    ] {
        assert_eq!(subscription(claims), Err(invalid(Reason::Claim(name))), "{claims}");
    }
}

#[test]
fn patterns_are_bounded() {
    let caps = |patterns: usize| {
        let channels = vec![r#""a*""#; patterns].join(",");
        connection(&format!(r#"{{"caps":[{{"channels":["b"],"allow":[]}},{{"channels":[{channels}],"allow":[]}}]}}"#))
    };
    assert_eq!(caps(99).expect("a hundred are fine").capabilities.len(), 2);
    assert_eq!(caps(100), Err(invalid(Reason::Claim("caps"))));
}

/// A permission for one channel, perhaps without a user, is not an identity.
#[test]
fn subscription_tokens_open_no_connection() {
    assert_eq!(connection(r#"{"sub":"42","channel":"X"}"#), Err(invalid(Reason::SubscriptionToken)));
    assert_eq!(connection(r#"{"channel":"X"}"#), Err(invalid(Reason::SubscriptionToken)));
}

/// `now` is 1800000000 and the leeway half a minute.
#[test]
fn times_are_honoured() {
    let expired = || Err(TokenError::Expired);
    let cases = [
        ("", Ok(None)),
        (r#""exp":1800000600"#, Ok(Some(1_800_000_600))),
        (r#""exp":1800000600.9"#, Ok(Some(1_800_000_600))),
        (r#""exp":1.8000006e9"#, Ok(Some(1_800_000_600))),
        (r#""exp":253402300799"#, Ok(Some(253_402_300_799))),
        // Within the leeway the effect ends at once, and not in the past.
        (r#""exp":1800000000"#, Ok(Some(1_800_000_001))),
        (r#""exp":1799999971"#, Ok(Some(1_800_000_001))),
        (r#""exp":1799999970"#, expired()),
        (r#""exp":1"#, expired()),
        (r#""exp":0"#, expired()),
        (r#""exp":-0"#, expired()),
        // `expire_at` replaces the effect's end, never that of the token.
        (r#""exp":1800000600,"expire_at":1800000060"#, Ok(Some(1_800_000_060))),
        (r#""exp":1800000060,"expire_at":1800000600"#, Ok(Some(1_800_000_600))),
        (r#""exp":1800000600,"expire_at":0"#, Ok(None)),
        (r#""expire_at":1800000600"#, Ok(Some(1_800_000_600))),
        (r#""expire_at":0"#, Ok(None)),
        (r#""expire_at":1799999971"#, Ok(Some(1_800_000_001))),
        (r#""expire_at":1799999970"#, expired()),
        (r#""exp":1700000000,"expire_at":0"#, expired()),
        (r#""exp":1700000000,"expire_at":1800000600"#, expired()),
        (r#""exp":1800000600,"expire_at":1700000000"#, expired()),
        (r#""nbf":1800000030"#, Ok(None)),
        (r#""nbf":1800000031"#, Err(invalid(Reason::NotYetValid))),
        (r#""nbf":0"#, Ok(None)),
        (r#""iat":1800000030"#, Ok(None)),
        (r#""iat":1800000031"#, Err(invalid(Reason::IssuedInFuture))),
        // Renewing does not help a token that is wrong otherwise.
        (r#""exp":1,"nbf":1900000000"#, Err(invalid(Reason::NotYetValid))),
    ];
    assert_eq!((NOW, LEEWAY), (1_800_000_000, 30));
    for (times, expected) in cases {
        let expire_at = connection(&format!("{{{times}}}")).map(|token| token.expire_at);
        assert_eq!(expire_at, expected, "{times}");
        let claims = [r#""channel":"X""#, times].join(if times.is_empty() { "" } else { "," });
        let expire_at = subscription(&format!("{{{claims}}}")).map(|token| token.expire_at);
        assert_eq!(expire_at, expected, "{times}");
    }
}

#[test]
fn clocks_at_their_limits_do_not_overflow() {
    let verifier = verifier(&hmac());
    let token = token(r#"{"exp":100,"nbf":20,"expire_at":90}"#);
    assert_eq!(verifier.connection(&token, 0).expect("good").expire_at, Some(90));
    assert_eq!(verifier.connection(&token, u64::MAX), Err(TokenError::Expired));
}

#[test]
fn audience_and_issuer_are_required_when_configured() {
    let audience = Config { audience: Some("gateway".into()), ..hmac() };
    let issuer = Config { issuer: Some("backend".into()), ..hmac() };
    let cases = [
        (&audience, r#"{"aud":"gateway"}"#, Ok(())),
        (&audience, r#"{"aud":["x","gateway"]}"#, Ok(())),
        (&audience, r#"{}"#, Err(Reason::Audience)),
        (&audience, r#"{"aud":"other"}"#, Err(Reason::Audience)),
        (&audience, r#"{"aud":"Gateway"}"#, Err(Reason::Audience)),
        (&audience, r#"{"aud":"gateway2"}"#, Err(Reason::Audience)),
        (&audience, r#"{"aud":["x"]}"#, Err(Reason::Audience)),
        (&audience, r#"{"aud":[]}"#, Err(Reason::Audience)),
        (&audience, r#"{"aud":"other","exp":1}"#, Err(Reason::Audience)),
        (&audience, r#"{"aud":{"gateway":true}}"#, Err(Reason::Claim("aud"))),
        (&issuer, r#"{"iss":"backend"}"#, Ok(())),
        (&issuer, r#"{}"#, Err(Reason::Issuer)),
        (&issuer, r#"{"iss":"other"}"#, Err(Reason::Issuer)),
        (&issuer, r#"{"iss":""}"#, Err(Reason::Issuer)),
        (&issuer, r#"{"iss":["backend"]}"#, Err(Reason::Claim("iss"))),
    ];
    for (config, claims, expected) in cases {
        let result = verifier(config).connection(&token(claims), NOW).map(drop);
        assert_eq!(result, expected.map_err(TokenError::Invalid), "{claims} for {config:?}");
    }
}
