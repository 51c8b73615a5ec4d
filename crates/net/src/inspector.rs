//! Which frames a client may send: RFC 6455, and bounds.
//!
//! The decoder behind it takes unmasked frames, over-long control frames and lengths in needless bytes, and reserves
//! what a header announces. So no frame reaches it whose header was not read here first.

use fanwire_wire::Disconnect;
use fanwire_wire::frame::MAX_CONTROL_PAYLOAD;
use tokio::time::{Duration, Instant};

use crate::Limits;

/// What a frame is (RFC 6455 §5.2, opcode).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Kind {
    fn read(opcode: u8) -> Option<Self> {
        Some(match opcode {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// A header that a client may send at this point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// The last frame of its message.
    pub(crate) fin: bool,
    pub(crate) mask: [u8; 4],
    /// The header's own length.
    pub(crate) len: usize,
    pub(crate) payload_len: usize,
}

/// How far a message in several frames is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) fragments: usize,
    pub(crate) bytes: usize,
}

impl Header {
    /// Reads the header at the start of `bytes`; `None` if not all of it is there. A header that is wrong is refused at
    /// its first wrong byte, so the verdict does not depend on how the bytes were cut.
    ///
    /// `progress` is that of the message under way, if there is one.
    pub(crate) fn read(bytes: &[u8], progress: Option<Progress>, limits: &Limits) -> Result<Option<Self>, Disconnect> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let fin = first & 0x80 != 0;
        let reserved = first & 0x70 != 0;
        let kind = Kind::read(first & 0x0F).ok_or(Disconnect::ProtocolError)?;
        let continues = kind == Kind::Continuation;
        if reserved || kind.is_control() && !fin || !kind.is_control() && continues != progress.is_some() {
            return Err(Disconnect::ProtocolError);
        }
        let Progress { fragments, bytes: so_far } = progress.unwrap_or(Progress { fragments: 0, bytes: 0 });
        if !kind.is_control() && fragments >= limits.max_fragments {
            return Err(Disconnect::PolicyViolation);
        }

        let Some(&second) = bytes.get(1) else { return Ok(None) };
        let masked = second & 0x80 != 0;
        let short_len = usize::from(second & 0x7F);
        if !masked || kind.is_control() && short_len > MAX_CONTROL_PAYLOAD {
            return Err(Disconnect::ProtocolError);
        }

        let (payload_len, mask_at) = match short_len {
            126 => match bytes.get(2..4).and_then(|len| len.try_into().ok()) {
                Some(len) => (u64::from(u16::from_be_bytes(len)), 4),
                None => return Ok(None),
            },
            127 => match bytes.get(2..10).and_then(|len| len.try_into().ok()) {
                Some(len) => (u64::from_be_bytes(len), 10),
                None => return Ok(None),
            },
            len => (len as u64, 2),
        };
        let minimal = match mask_at {
            4 => payload_len > 125,
            10 => payload_len > u64::from(u16::MAX) && payload_len <= i64::MAX as u64,
            _ => true,
        };
        if !minimal {
            return Err(Disconnect::ProtocolError);
        }
        let room = limits.max_message_size.saturating_sub(so_far) as u64;
        if !kind.is_control() && payload_len > room {
            return Err(Disconnect::MessageTooBig);
        }

        let Some(mask) = bytes.get(mask_at..mask_at + 4).and_then(|mask| mask.try_into().ok()) else {
            return Ok(None);
        };
        Ok(Some(Self { kind, fin, mask, len: mask_at + 4, payload_len: payload_len as usize }))
    }

    /// The length of the whole frame.
    pub(crate) fn frame_len(&self) -> usize {
        self.len + self.payload_len
    }
}

/// Reads what a close frame carries: its code, if any.
pub(crate) fn close_code(payload: &[u8]) -> Result<Option<u16>, Disconnect> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(Disconnect::ProtocolError) };
    };
    let code = u16::from_be_bytes(*code);
    // RFC 6455 §7.4: those registered for use on the wire, those of libraries, those of applications.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Disconnect::ProtocolError);
    }
    simdutf8::basic::from_utf8(reason).map_err(|_| Disconnect::InvalidPayload)?;
    Ok(Some(code))
}

/// How fast control frames come: a bucket that is kept as the moment at which it will be full again.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    full_at: Option<Instant>,
}

impl Pace {
    /// Counts a control frame.
    pub(crate) fn step(&mut self, limits: &Limits) -> Result<(), Disconnect> {
        let now = Instant::now();
        let interval = Duration::from_secs(1) / limits.control_rate.max(1);
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now));
        if full_at - now > interval * limits.control_burst.saturating_sub(1) {
            return Err(Disconnect::PolicyViolation);
        }
        self.full_at = Some(full_at + interval);
        Ok(())
    }
}
