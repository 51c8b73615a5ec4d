//! The query string of a plain connection.

use fanwire_wire::Channel;

/// What a client asks for when it opens a connection.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) channel: Channel,
    /// The connection token; empty for none.
    pub(crate) token: String,
    /// The subscription token; empty for none.
    pub(crate) subscription_token: String,
}

/// Reads a raw query string. Parameters it does not know are ignored, a known one may come once.
///
/// Says what is wrong with it.
pub(crate) fn parse(raw: &str) -> Result<Query, String> {
    let (mut channel, mut token, mut subscription_token) = (None, None, None);
    for pair in raw.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let slot = match name {
            "channel" => &mut channel,
            "token" => &mut token,
            "subscription_token" => &mut subscription_token,
            _ => continue,
        };
        let value = decode(value).ok_or_else(|| format!("query parameter {name}: bad percent-encoding"))?;
        if slot.replace(value).is_some() {
            return Err(format!("query parameter {name}: given twice"));
        }
    }
    let channel = channel.ok_or("query parameter channel: missing, as in /plain?channel=chat")?;
    Ok(Query {
        channel: Channel::new(&channel).map_err(|error| format!("query parameter channel: {error}"))?,
        token: token.unwrap_or_default(),
        subscription_token: subscription_token.unwrap_or_default(),
    })
}

/// Undoes percent-encoding (RFC 3986 §2.1). A `+` stays one: none of the parameters can contain a space.
fn decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            decoded.push((digit()? * 16 + digit()?) as u8);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = parse("x=%zz&channel=%24chat%3A4%32&token=a+b%2Bc&subscription_token=&v").unwrap();
        assert_eq!(query.channel.as_str(), "$chat:42");
        assert_eq!((&*query.token, &*query.subscription_token), ("a+b+c", ""));
    }

    #[test]
    fn mistakes_are_named() {
        let mistake = |raw: &str| parse(raw).unwrap_err();
        for missing in ["", "token=x", "Channel=x"] {
            assert!(mistake(missing).starts_with("query parameter channel: missing"), "{missing}");
        }
        assert!(mistake("channel").ends_with("is empty"));
        assert!(mistake("channel=a%20b").contains("printable ASCII"));
        assert!(mistake("channel=%C3%A4").contains("printable ASCII"));
        assert!(mistake("channel=a&channel=b").ends_with("channel: given twice"));
        for bad in ["%", "%4", "%4g", "%ff", "%+1"] {
            let raw = format!("channel=a&token={bad}");
            assert_eq!(mistake(&raw), "query parameter token: bad percent-encoding");
        }
    }
}
