//! Configurations that must be refused at start, and what is said about them.

use std::path::{Path, PathBuf};

use fanwire_auth::{Config, Mistake, Verifier, mint};

use crate::support::*;

const RSA_1024: &str = include_str!("../keys/rsa-1024.pub.pem");
const RSA_PKCS1: &str = include_str!("../keys/rsa.pkcs1.pub.pem");
const CERTIFICATE: &str = include_str!("../keys/rsa.cert.pem");
const SECP256K1: &str = include_str!("../keys/secp256k1.pub.pem");
const ED25519: &str = include_str!("../keys/ed25519.pub.pem");

fn secret(secret: &str) -> Config {
    Config { hmac_secret: Some(secret.into()), ..Config::default() }
}

fn key_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name)
}

/// The first mistake's text.
fn mistake(config: &Config) -> Option<String> {
    Verifier::new(config).err().map(|error| error.mistakes[0].to_string())
}

#[test]
fn each_mistake_is_named() {
    let weak = |config: Config| Config { allow_weak_secret: true, ..config };
    let cases = [
        (secret("secret"), Some("token.hmac_secret: has 6 bytes")),
        (secret(&SECRET[1..]), Some("token.hmac_secret: has 31 bytes")),
        (secret(SECRET), None),
        (weak(secret("secret")), None),
        (secret("a-string-secret-at-least-256-bits-long"), Some("token.hmac_secret: is a well-known example")),
        (weak(secret("a-string-secret-at-least-256-bits-long")), None),
        (secret(""), Some("token.hmac_secret: is empty")),
        (weak(secret("")), Some("token.hmac_secret: is empty")),
        (secret(RSA_PUBLIC), Some("token.hmac_secret: holds a PEM document")),
        (secret(P256_PUBLIC), Some("token.hmac_secret: holds a PEM document")),
        (secret(&format!("\n {RSA_PUBLIC}")), Some("token.hmac_secret: holds a PEM document")),
        (weak(secret(CERTIFICATE)), Some("token.hmac_secret: holds a PEM document")),
        (rsa(RSA_PUBLIC), None),
        (rsa(RSA_PKCS1), None),
        (rsa(""), Some("token.rsa_public_key: is empty")),
        (rsa("key"), Some("token.rsa_public_key: is not a PEM public key")),
        (rsa(&RSA_PUBLIC[..200]), Some("token.rsa_public_key: is not a PEM public key")),
        (rsa(RSA), Some("token.rsa_public_key: holds a private key")),
        (rsa(&[RSA_PUBLIC, RSA].concat()), Some("token.rsa_public_key: holds a private key")),
        (rsa(P256_PUBLIC), Some("token.rsa_public_key: is not a PEM public key")),
        (rsa(CERTIFICATE), Some("token.rsa_public_key: is not a PEM public key")),
        (rsa(RSA_1024), Some("token.rsa_public_key: has 1024 bits")),
        (ecdsa(P256_PUBLIC), None),
        (ecdsa(P384_PUBLIC), None),
        (ecdsa(P521_PUBLIC), None),
        (ecdsa(P256), Some("token.ecdsa_public_key: holds a private key")),
        (ecdsa(RSA_PUBLIC), Some("token.ecdsa_public_key: is not a PEM public key")),
        (ecdsa(SECP256K1), Some("token.ecdsa_public_key: is not a PEM public key")),
        (ecdsa(ED25519), Some("token.ecdsa_public_key: is not a PEM public key")),
        (Config { audience: Some(String::new()), ..hmac() }, Some("token.audience: is empty")),
        (Config { issuer: Some(String::new()), ..hmac() }, Some("token.issuer: is empty")),
        (
            Config { hmac_secret_file: Some("x".into()), ..hmac() },
            Some("token.hmac_secret: token.hmac_secret_file is given too"),
        ),
        (
            Config { hmac_secret_file: Some("/nowhere/secret".into()), ..Config::default() },
            Some("token.hmac_secret_file: cannot read /nowhere/secret"),
        ),
        (
            Config { hmac_secret_file: Some(key_file("rsa.pub.pem")), ..Config::default() },
            Some("token.hmac_secret: holds a PEM document"),
        ),
        (
            Config { rsa_public_key_file: Some(key_file("p256.pub.pem")), ..Config::default() },
            Some("token.rsa_public_key: is not a PEM public key"),
        ),
    ];
    for (config, expected) in cases {
        let said = mistake(&config);
        match expected {
            None => assert_eq!(said, None, "{config:?}"),
            Some(expected) => {
                assert!(said.as_ref().is_some_and(|said| said.starts_with(expected)), "{said:?} for {config:?}")
            }
        }
    }
}

#[test]
fn all_mistakes_are_reported_together() {
    let config = Config {
        hmac_secret_file: Some("/nowhere/secret".into()),
        ecdsa_public_key: Some(RSA_PUBLIC.into()),
        issuer: Some(String::new()),
        ..rsa(RSA)
    };
    let error = Verifier::new(&config).expect_err("four mistakes");
    assert!(matches!(
        &error.mistakes[..],
        [
            Mistake::Unreadable { key: "hmac_secret", .. },
            Mistake::PrivateKey { key: "rsa_public_key" },
            Mistake::NotPublicKey { key: "ecdsa_public_key" },
            Mistake::Empty { key: "issuer" },
        ]
    ));
    let text = error.to_string();
    assert_eq!(text.matches("token.").count(), 4, "{text}");
    assert!(text.contains("/nowhere/secret: No such file"), "the cause is in it: {text}");
}

/// A secret in a file ends before the line break that editors put there; keys come from files as they do in place.
#[test]
fn keys_come_from_files() {
    let file = std::env::temp_dir().join(format!("fanwire-auth-{}-secret", std::process::id()));
    std::fs::write(&file, format!("{SECRET}\r\n\n")).expect("a temporary file");
    let config = Config {
        hmac_secret_file: Some(file.clone()),
        rsa_public_key_file: Some(key_file("rsa.pub.pem")),
        ecdsa_public_key_file: Some(key_file("p521.pub.pem")),
        ..Config::default()
    };
    let verifier = Verifier::new(&config);
    std::fs::write(&file, "\n").expect("a temporary file");
    let empty = mistake(&Config { hmac_secret_file: Some(file.clone()), ..Config::default() });
    std::fs::remove_file(&file).expect("a temporary file");

    let verifier = verifier.expect("good files");
    assert!(verifier.has_keys());
    for (algorithm, key) in [("HS256", SECRET), ("RS256", RSA), ("ES512", P521)] {
        assert!(verifier.connection(&sign_as(algorithm, key, "{}"), NOW).is_ok(), "{algorithm}");
    }
    assert_eq!(empty.as_deref(), Some("token.hmac_secret: is empty"));
}

#[test]
fn the_section_reads_from_toml() {
    let config: Config = toml::from_str("hmac_secret = \"secret\"\nallow_weak_secret = true").expect("good");
    assert_eq!(config, Config { allow_weak_secret: true, ..secret("secret") });
    let token = mint::hs256(&std::collections::BTreeMap::from([("sub", "42")]), b"secret").expect("minted");
    assert_eq!(verifier(&config).connection(&token, NOW).expect("good").user, "42");

    assert_eq!(toml::from_str::<Config>("").expect("all optional"), Config::default());
    assert!(toml::from_str::<Config>("hmac_secert = \"x\"").is_err(), "unknown keys are errors");
    assert!(toml::from_str::<Config>("hmac_secret = 7").is_err());
}

#[test]
fn secrets_are_not_printed() {
    let config = hmac();
    for printed in [format!("{config:?}"), format!("{:?}", verifier(&config))] {
        assert!(!printed.contains(SECRET) && printed.contains("redacted"), "{printed}");
    }
}
