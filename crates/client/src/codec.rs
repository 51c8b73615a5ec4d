//! Commands to bytes, bytes to replies: protobuf, each message behind its length.

use bytes::{Bytes, BytesMut};
use prost::Message as _;

use crate::proto::{Command, Reply};

/// Appends one command.
pub(crate) fn write(command: &Command, out: &mut BytesMut) {
    out.reserve(command.encoded_len() + 10);
    // Fails only for want of room, and there is some.
    let _ = command.encode_length_delimited(out);
}

/// Reads the replies of one message.
pub(crate) fn read(mut message: Bytes) -> Result<Vec<Reply>, prost::DecodeError> {
    let mut replies = Vec::with_capacity(1);
    while !message.is_empty() {
        replies.push(Reply::decode_length_delimited(&mut message)?);
    }
    Ok(replies)
}

/// Whether a reply says nothing at all.
pub(crate) fn is_ping(reply: &Reply) -> bool {
    *reply == Reply::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{PublishResult, Push};

    #[test]
    fn replies_behind_each_other() {
        let mut bytes = BytesMut::new();
        let published = Reply { id: 7, publish: Some(PublishResult {}), ..Reply::default() };
        let push = Reply { push: Some(Push { channel: "a".to_owned(), ..Push::default() }), ..Reply::default() };
        for reply in [&published, &Reply::default(), &push] {
            reply.encode_length_delimited(&mut bytes).unwrap();
        }
        let replies = read(bytes.freeze()).unwrap();
        assert_eq!(replies, [published, Reply::default(), push]);
        assert_eq!(replies.iter().map(is_ping).collect::<Vec<_>>(), [false, true, false]);
        assert!(read(Bytes::from_static(&[5, 1])).is_err());
    }

    #[test]
    fn the_pong_is_one_byte() {
        let mut bytes = BytesMut::new();
        write(&Command::default(), &mut bytes);
        assert_eq!(&bytes[..], [0]);
    }
}
