//! What surrounds the claims: size, parts, encoding, header.

use fanwire_auth::{MAX_TOKEN_SIZE, Reason, mint};
use proptest::prelude::*;

use crate::support::*;

#[test]
fn broken_envelopes_are_refused() {
    let good = token(r#"{"sub":"42"}"#);
    let [header, claims, signature]: [&str; 3] = good.split('.').collect::<Vec<_>>().try_into().expect("three parts");
    let cases = [
        ("", "empty"),
        ("invalid_token", "no parts"),
        (".", "two empty parts"),
        ("..", "three empty parts"),
        ("....", "five empty parts"),
        (&format!("{header}.{claims}"), "no signature part"),
        (&format!(".{claims}.{signature}"), "no header"),
        (&format!("{good}.{signature}"), "four parts"),
        (&format!("{good}."), "a dot at the end"),
        (&format!(" {good}"), "a space before"),
        (&format!("{good}\n"), "a line break after"),
        (&format!("Bearer {good}"), "as in an HTTP header"),
        (&format!("{good}="), "padded"),
        (&format!("{header}.{claims}=.{signature}"), "padded claims"),
        (&good[..good.len() - 2], "truncated into half a byte"),
        (&good.replace('.', "\u{ff0e}"), "dots that are none"),
        (&format!("{header}.{claims}.+/{}", &signature[2..]), "the other base64 alphabet"),
        (&sign("", r#"{"sub":"42"}"#, SECRET.as_bytes()), "empty header"),
        (&sign("null", "{}", SECRET.as_bytes()), "null as header"),
        (&sign(r#"["HS256"]"#, "{}", SECRET.as_bytes()), "array as header"),
        (&sign(r#"{"alg":"HS256""#, "{}", SECRET.as_bytes()), "unfinished header"),
        (&sign(r#"{"alg":"HS256"} {}"#, "{}", SECRET.as_bytes()), "two headers"),
        (&token(""), "empty claims"),
        (&token("null"), "null as claims"),
        (&token("[]"), "array as claims"),
        (&token(r#""42""#), "text as claims"),
        (&token(r#"{"sub":"42""#), "unfinished claims"),
        (&token(r#"{"sub":"42"}{"#), "something after the claims"),
    ];
    let verifier = verifier(&hmac());
    for (token, case) in cases {
        assert_eq!(verifier.connection(token, NOW), Err(invalid(Reason::Malformed)), "{case}");
        assert_eq!(verifier.subscription(token, NOW).err(), Some(invalid(Reason::Malformed)), "{case}");
    }
}

#[test]
fn headers_choose_among_our_algorithms_only() {
    let cases = [
        (r#"{}"#, Reason::Algorithm),
        (r#"{"alg":null}"#, Reason::Algorithm),
        (r#"{"alg":256}"#, Reason::Algorithm),
        (r#"{"alg":["HS256"]}"#, Reason::Algorithm),
        (r#"{"alg":""}"#, Reason::Algorithm),
        (r#"{"alg":"none"}"#, Reason::Algorithm),
        (r#"{"alg":"None"}"#, Reason::Algorithm),
        (r#"{"alg":"NONE"}"#, Reason::Algorithm),
        (r#"{"alg":"hs256"}"#, Reason::Algorithm),
        (r#"{"alg":"HS256 "}"#, Reason::Algorithm),
        (r#"{"alg":"HS1"}"#, Reason::Algorithm),
        (r#"{"alg":"EdDSA"}"#, Reason::Algorithm),
        (r#"{"alg":"RS256"}"#, Reason::Algorithm),
        // The signature is that of HS256.
        (r#"{"alg":"HS384"}"#, Reason::Signature),
        (r#"{"alg":"HS512"}"#, Reason::Signature),
        (r#"{"alg":"HS256","crit":["exp"]}"#, Reason::Critical),
        (r#"{"alg":"HS256","crit":[]}"#, Reason::Critical),
        (r#"{"alg":"HS256","crit":null}"#, Reason::Critical),
        (r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#, Reason::Critical),
        (r#"{"alg":"none","crit":["exp"]}"#, Reason::Critical),
        (r#"{"alg":"HS256","kid":"../../../dev/null"}"#, Reason::KeyId),
        (r#"{"alg":"HS256","kid":"x' UNION SELECT 'a'--"}"#, Reason::KeyId),
        (r#"{"alg":"HS256","kid":"http://evil"}"#, Reason::KeyId),
        (r#"{"alg":"HS256","kid":"a\u0000"}"#, Reason::KeyId),
        (r#"{"alg":"HS256","kid":"ключ"}"#, Reason::KeyId),
        (r#"{"alg":"HS256","kid":7}"#, Reason::KeyId),
        (r#"{"alg":"HS256","kid":null}"#, Reason::KeyId),
        (&format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "k".repeat(129)), Reason::KeyId),
    ];
    let verifier = verifier(&hmac());
    for (header, reason) in cases {
        let signed = sign(header, r#"{"sub":"42"}"#, SECRET.as_bytes());
        assert_eq!(verifier.connection(&signed, NOW), Err(invalid(reason)), "{header}");
        let unsigned = &signed[..signed.rfind('.').expect("a signature") + 1];
        assert!(verifier.connection(unsigned, NOW).is_err(), "{header} without signature");
    }
}

/// Keys and addresses that a token brings along change nothing, in either direction.
#[test]
fn harmless_headers_are_accepted_and_ignored() {
    let long = format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "k".repeat(128));
    let cases = [
        r#"{"alg":"HS256"}"#,
        r#" { "alg" : "HS256" } "#,
        r#"{"alg":"HS256","typ":"JWT","cty":"x"}"#,
        r#"{"alg":"HS256","kid":""}"#,
        r#"{"alg":"HS256","kid":"2026-11.a_b~c"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","jku":"http://127.0.0.1:1/keys","x5u":"http://127.0.0.1:1/cert"}"#,
        r#"{"alg":"HS256","jwk":{"kty":"oct","k":"YXR0YWNrZXI"}}"#,
        &long,
    ];
    let verifier = verifier(&hmac());
    for header in cases {
        let user =
            verifier.connection(&sign(header, r#"{"sub":"42"}"#, SECRET.as_bytes()), NOW).map(|token| token.user);
        assert_eq!(user.as_deref(), Ok("42"), "{header}");
        let forged = sign(header, r#"{"sub":"42"}"#, b"attacker");
        assert_eq!(verifier.connection(&forged, NOW), Err(invalid(Reason::Signature)), "{header} with another key");
    }
}

#[test]
fn the_size_is_bounded() {
    let verifier = verifier(&hmac());
    let padded = |spaces: usize| token(&format!("{{}}{}", " ".repeat(spaces)));
    assert_eq!(padded(6081).len(), MAX_TOKEN_SIZE);
    assert!(verifier.connection(&padded(6081), NOW).is_ok());
    assert_eq!(verifier.connection(&padded(6082), NOW), Err(invalid(Reason::TooLarge)));
    assert_eq!(verifier.connection(&"a".repeat(MAX_TOKEN_SIZE + 1), NOW), Err(invalid(Reason::TooLarge)));
}

#[test]
fn minted_tokens_are_good() {
    #[derive(serde::Serialize)]
    struct Claims {
        sub: &'static str,
    }
    let minted = mint::hs256(&Claims { sub: "42" }, SECRET.as_bytes()).expect("minted");
    assert_eq!(minted, token(r#"{"sub":"42"}"#));
    assert_eq!(verifier(&hmac()).connection(&minted, NOW).expect("good").user, "42");
}

proptest! {
    /// No byte of a token can be changed without its being noticed.
    #[test]
    fn changed_tokens_are_refused(index in 0..1000_usize, replacement in "[A-Za-z0-9_.=-]") {
        let good = token(r#"{"sub":"42","exp":4000000000}"#);
        let index = index % good.len();
        prop_assume!(good[index..=index] != replacement);
        let mut changed = good;
        changed.replace_range(index..=index, &replacement);
        prop_assert!(verifier(&hmac()).connection(&changed, NOW).is_err(), "{}", changed);
    }

    /// Anything may come instead of a token, also with our signature.
    #[test]
    fn nothing_panics(text in any::<String>(), header in any::<Vec<u8>>(), claims in any::<Vec<u8>>()) {
        let verifier = verifier(&hmac());
        let unsigned = format!("{}.{}.AAAA", encode(&header), encode(&claims));
        prop_assert!(verifier.connection(&text, NOW).is_err());
        prop_assert!(verifier.subscription(&unsigned, NOW).is_err());
        let _ = verifier.connection(&token(&String::from_utf8_lossy(&claims)), NOW);
    }
}
