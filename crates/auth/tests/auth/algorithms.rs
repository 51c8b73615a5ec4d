//! Each algorithm with its key, and with every other key.

use fanwire_auth::{Config, Reason};

use crate::support::*;

const ALGORITHMS: [(&str, &str); 9] = [
    ("HS256", SECRET),
    ("HS384", SECRET),
    ("HS512", SECRET),
    ("RS256", RSA),
    ("RS384", RSA),
    ("RS512", RSA),
    ("ES256", P256),
    ("ES384", P384),
    ("ES512", P521),
];

fn configs() -> [(&'static [&'static str], Config); 5] {
    [
        (&["HS256", "HS384", "HS512"], hmac()),
        (&["RS256", "RS384", "RS512"], rsa(RSA_PUBLIC)),
        (&["ES256"], ecdsa(P256_PUBLIC)),
        (&["ES384"], ecdsa(P384_PUBLIC)),
        (&["ES512"], ecdsa(P521_PUBLIC)),
    ]
}

/// A token is accepted by the key of its algorithm, and the same token by no other.
#[test]
fn each_algorithm_belongs_to_one_key() {
    let tokens = ALGORITHMS.map(|(algorithm, key)| (algorithm, sign_as(algorithm, key, r#"{"sub":"42"}"#)));
    for (accepted, config) in configs() {
        let verifier = verifier(&config);
        for (algorithm, token) in &tokens {
            let user = verifier.connection(token, NOW).map(|token| token.user);
            if accepted.contains(algorithm) {
                assert_eq!(user.as_deref(), Ok("42"), "{algorithm} by {config:?}");
            } else {
                assert_eq!(user, Err(invalid(Reason::Algorithm)), "{algorithm} by {config:?}");
            }
        }
    }
}

/// The same signatures, made by another implementation.
#[test]
fn tokens_of_openssl_are_accepted() {
    let mut seen = 0;
    for line in include_str!("../keys/openssl-tokens.txt").lines() {
        let (algorithm, token) = line.split_once(' ').expect("algorithm and token");
        let (_, config) = configs().into_iter().find(|(names, _)| names.contains(&algorithm)).expect("known");
        let verified = verifier(&config).connection(token, NOW).expect(algorithm);
        assert_eq!((verified.user.as_str(), verified.expire_at), ("42", Some(4_000_000_000)), "{algorithm}");
        seen += 1;
    }
    assert_eq!(seen, ALGORITHMS.len());
}

/// Each family in one configuration: the header chooses among them and cannot cross over.
#[test]
fn keys_of_all_families_live_together() {
    let config =
        Config { rsa_public_key: Some(RSA_PUBLIC.into()), ecdsa_public_key: Some(P256_PUBLIC.into()), ..hmac() };
    let verifier = verifier(&config);
    for (algorithm, key) in [("HS256", SECRET), ("RS256", RSA), ("ES256", P256)] {
        assert!(verifier.connection(&sign_as(algorithm, key, "{}"), NOW).is_ok(), "{algorithm}");
    }
    for (algorithm, key, claims) in [
        ("HS256", RSA_PUBLIC, "the RSA public key as the HMAC secret"),
        ("HS512", RSA_PUBLIC, "the same with another hash"),
        ("HS256", P256_PUBLIC, "the EC public key as the HMAC secret"),
        ("HS256", RSA_PUBLIC.trim_end(), "a trimmed one"),
        ("HS256", "", "the empty secret"),
        ("RS256", RSA_OTHER, "another RSA key"),
    ] {
        let forged = sign_as(algorithm, key, "{}");
        assert_eq!(verifier.connection(&forged, NOW), Err(invalid(Reason::Signature)), "{claims}");
    }
    // Signed by the right key, in a scheme that is not on the list.
    for (algorithm, key) in [("PS256", RSA), ("PS512", RSA)] {
        let token = sign_as(algorithm, key, "{}");
        assert_eq!(verifier.connection(&token, NOW), Err(invalid(Reason::Algorithm)), "{algorithm}");
    }
}

/// A signature of another length or of nothing is wrong, whatever the algorithm.
#[test]
fn damaged_signatures_are_refused() {
    for (accepted, config) in configs() {
        let verifier = verifier(&config);
        for algorithm in accepted {
            let (_, key) = ALGORITHMS.into_iter().find(|(name, _)| name == algorithm).expect("known");
            let token = sign_as(algorithm, key, "{}");
            let (message, signature) = token.rsplit_once('.').expect("a signature");
            // Four characters are three whole bytes, so what remains is well-formed.
            let shortened = &signature[..signature.len() / 4 * 4 - 4];
            for damaged in ["", "AAAA", shortened, &format!("AAAA{signature}"), &"A".repeat(signature.len() / 4 * 4)] {
                let result = verifier.connection(&format!("{message}.{damaged}"), NOW);
                assert_eq!(result, Err(invalid(Reason::Signature)), "{algorithm} {damaged:?}");
            }
        }
    }
}

#[test]
fn without_keys_every_token_is_refused() {
    let verifier = verifier(&Config::default());
    assert!(!verifier.has_keys());
    for (algorithm, key) in ALGORITHMS {
        let token = sign_as(algorithm, key, "{}");
        assert_eq!(verifier.connection(&token, NOW), Err(invalid(Reason::Algorithm)), "{algorithm}");
    }
}
