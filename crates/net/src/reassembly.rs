//! From bytes to messages, however they were cut.

use std::borrow::Cow;
use std::mem;

use bytes::Bytes;
use fanwire_wire::{Disconnect, Message};
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::Limits;
use crate::decoder::Decoder;
use crate::inspector::{Header, Kind, Pace, Progress, close_code};
use crate::utf8::Utf8;

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    Message(Message),
    Ping(Bytes),
    /// The last thing it sends, with the code it gave.
    Close(Option<u16>),
}

/// What one read gave. One message is the usual.
pub(crate) type Batch = SmallVec<[Incoming; 1]>;

/// The most things taken out of a read at once: tiny messages take more memory than the bytes they came in.
pub(crate) const MAX_BATCH: usize = 128;

/// What a connection remembers between two reads: nothing but its pace, unless something is incomplete.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    partial: Option<Box<Partial>>,
    pace: Pace,
}

/// What is incomplete. Bounded by the limit of a message: once for the frame, once for the fragments before it.
#[derive(Debug)]
struct Partial {
    since: Instant,
    /// The bytes of a frame that is not all there.
    frame: Vec<u8>,
    /// The header of that frame, once there.
    header: Option<Header>,
    /// How much of the payload of that frame `text` has seen.
    checked: usize,
    /// The fragments of a message whose last one has not come.
    message: Option<Fragments>,
    text: Utf8,
}

/// A whole frame, in the chunk or put together.
type Frame<'a> = (Header, Cow<'a, [u8]>);

#[derive(Debug)]
struct Fragments {
    is_text: bool,
    count: usize,
    payload: Vec<u8>,
}

impl Reassembly {
    /// Since when something is incomplete.
    pub(crate) fn incomplete_since(&self) -> Option<Instant> {
        self.partial.as_ref().map(|partial| partial.since)
    }

    /// Takes bytes off the front of `chunk` and appends what they complete to `batch`. Stops early only behind a close,
    /// or when the batch is full.
    ///
    /// # Errors
    ///
    /// How the connection ends; what came before the fault is in `batch`.
    pub(crate) fn take(
        &mut self,
        chunk: &mut &[u8],
        batch: &mut Batch,
        decoder: &mut Decoder,
        limits: &Limits,
    ) -> Result<(), Disconnect> {
        while batch.len() < MAX_BATCH
            && !chunk.is_empty()
            && let Some((header, frame)) = self.next_frame(chunk, limits)?
        {
            let payload = decoder.decode(&frame)?;
            match header.kind {
                Kind::Ping => {
                    self.pace.step(limits)?;
                    batch.push(Incoming::Ping(Bytes::copy_from_slice(&payload)));
                }
                Kind::Pong => {
                    self.pace.step(limits)?;
                    batch.push(Incoming::Message(Message::Pong));
                }
                Kind::Close => {
                    batch.push(Incoming::Close(close_code(&payload)?));
                    *self = Self::default();
                    return Ok(());
                }
                Kind::Continuation | Kind::Text | Kind::Binary => {
                    batch.extend(self.take_data(&header, &payload)?.map(Incoming::Message));
                }
            }
            if self.partial.as_ref().is_some_and(|partial| partial.message.is_none()) {
                self.partial = None;
            }
        }
        Ok(())
    }

    /// Takes a whole frame off `chunk`, or all of `chunk` if it does not complete one.
    fn next_frame<'a>(&mut self, chunk: &mut &'a [u8], limits: &Limits) -> Result<Option<Frame<'a>>, Disconnect> {
        let progress = self.progress();
        if self.partial.as_ref().is_none_or(|partial| partial.frame.is_empty())
            && let Some(header) = Header::read(chunk, progress, limits)?
            && let Some((frame, rest)) = chunk.split_at_checked(header.frame_len())
        {
            *chunk = rest;
            return Ok(Some((header, Cow::Borrowed(frame))));
        }

        let partial = self.partial.get_or_insert_with(Partial::new);
        let header = loop {
            if let Some(header) = partial.header {
                break header;
            }
            let Some((byte, rest)) = chunk.split_first() else { return Ok(None) };
            *chunk = rest;
            partial.frame.push(*byte);
            partial.header = Header::read(&partial.frame, progress, limits)?;
        };
        let missing = header.frame_len() - partial.frame.len();
        let (part, rest) = chunk.split_at(missing.min(chunk.len()));
        *chunk = rest;
        partial.frame.extend_from_slice(part);
        if part.len() == missing {
            partial.header = None;
            return Ok(Some((header, Cow::Owned(mem::take(&mut partial.frame)))));
        }
        partial.check_text_so_far(&header)?;
        Ok(None)
    }

    /// Takes the payload of a data frame; returns the message it completes.
    fn take_data(&mut self, header: &Header, payload: &[u8]) -> Result<Option<Message>, Disconnect> {
        if header.fin && header.kind != Kind::Continuation {
            // In one frame: the decoder has checked the text.
            return Ok(Some(message(header.kind == Kind::Text, Bytes::copy_from_slice(payload))));
        }
        let partial = self.partial.get_or_insert_with(Partial::new);
        let fragments = partial.message.get_or_insert_with(|| Fragments {
            is_text: header.kind == Kind::Text,
            count: 0,
            payload: Vec::new(),
        });
        if fragments.is_text {
            partial.text.check(&payload[mem::take(&mut partial.checked)..])?;
        }
        fragments.count += 1;
        fragments.payload.extend_from_slice(payload);
        if !header.fin {
            return Ok(None);
        }
        partial.text.finish()?;
        let complete = partial.message.take();
        Ok(complete.map(|fragments| message(fragments.is_text, fragments.payload.into())))
    }

    fn progress(&self) -> Option<Progress> {
        let fragments = self.partial.as_ref()?.message.as_ref()?;
        Some(Progress { fragments: fragments.count, bytes: fragments.payload.len() })
    }
}

impl Partial {
    fn new() -> Box<Self> {
        Box::new(Self {
            since: Instant::now(),
            frame: Vec::new(),
            header: None,
            checked: 0,
            message: None,
            text: Utf8::default(),
        })
    }

    /// Checks what is there of a text, so that a wrong one ends before all of it has come.
    fn check_text_so_far(&mut self, header: &Header) -> Result<(), Disconnect> {
        let is_text = match header.kind {
            Kind::Text => true,
            Kind::Continuation => self.message.as_ref().is_some_and(|message| message.is_text),
            _ => false,
        };
        if !is_text {
            return Ok(());
        }
        let mut clear = [0; 512];
        let masked = &self.frame[header.len..];
        while self.checked < masked.len() {
            let piece = &masked[self.checked..masked.len().min(self.checked + clear.len())];
            for (i, (clear, masked)) in clear.iter_mut().zip(piece).enumerate() {
                *clear = masked ^ header.mask[(self.checked + i) % 4];
            }
            self.text.check(&clear[..piece.len()])?;
            self.checked += piece.len();
        }
        Ok(())
    }
}

fn message(is_text: bool, payload: Bytes) -> Message {
    if is_text { Message::Text(payload) } else { Message::Binary(payload) }
}

#[cfg(test)]
mod tests;
