//! The TLS state of one connection, and the bytes it cannot be without.

use std::io::{self, ErrorKind};
use std::mem;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus, WriteTraffic};
use rustls::{Error, ServerConfig};

/// The TLS state of one connection: rustls' unbuffered half. Records are read and written in buffers that a thread's
/// connections share, so an idle connection owns none.
pub(crate) struct Session {
    tls: UnbufferedServerConnection,
    /// The beginning of a record, or of a handshake message, that is not all there. rustls remembers places in it, so it is
    /// given whole and first whenever something is asked of rustls.
    unread: Vec<u8>,
    /// What the peer sent right behind its handshake, decrypted.
    early: Vec<u8>,
    /// Records that were made and have not left.
    held: BytesMut,
    /// The peer has said that nothing more comes.
    ended: bool,
    /// Something was wrong. rustls is not asked again: it would stumble over the same bytes.
    failed: bool,
}

/// The most plain bytes made into records at once.
pub(super) const MAX_PLAIN: usize = 64 * 1024;

/// Room for the records of [`MAX_PLAIN`] bytes: each of 16 KiB adds less than 64 bytes. As much is read at once, and may be
/// incomplete: rustls takes no handshake message above 64 KiB, and no other record above 18 KiB.
pub(super) const RECORDS: usize = MAX_PLAIN + 16 * 64;

impl Session {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let tls = UnbufferedServerConnection::new(config)?;
        Ok(Self { tls, unread: Vec::new(), early: Vec::new(), held: BytesMut::new(), ended: false, failed: false })
    }

    /// The records that must leave before any other.
    pub(super) fn held(&self) -> &[u8] {
        &self.held
    }

    /// Takes note that so many of the bytes held have left.
    pub(super) fn sent(&mut self, len: usize) {
        self.held.advance(len);
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
    }

    /// Keeps records that the socket did not take.
    pub(super) fn hold(&mut self, records: &[u8]) {
        self.held.extend_from_slice(records);
    }

    /// The bytes it owns beside rustls' own.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.unread.capacity() + self.early.capacity() + self.held.capacity()
    }

    /// Whether a read gives something although nothing has come.
    pub(super) fn is_ready(&self) -> bool {
        self.ended || !self.early.is_empty()
    }

    /// Whether the peer has said that nothing more comes.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes the handshake further with what has come; true when it is done. What is to be sent is held, also after an
    /// error.
    pub(super) fn handshake(&mut self, input: &[u8]) -> Result<bool, Error> {
        let mut records = mem::take(&mut self.unread);
        records.extend_from_slice(input);
        let mut early = mem::take(&mut self.early);
        let outcome = self.process(&mut records, |plain| early.extend_from_slice(plain));
        self.early = early;
        outcome.map(|()| !self.tls.is_handshaking())
    }

    /// Takes what came right behind the handshake, as much as fits.
    pub(super) fn take_early(&mut self, plain: &mut [u8]) -> usize {
        let len = self.early.len().min(plain.len());
        plain[..len].copy_from_slice(&self.early[..len]);
        self.early.drain(..len);
        if self.early.is_empty() {
            self.early = Vec::new();
        }
        len
    }

    /// Puts what is incomplete in front of what will be read; returns its length, if that leaves room.
    pub(super) fn put_unread(&self, records: &mut [u8]) -> Option<usize> {
        let len = self.unread.len();
        let (front, room) = records.split_at_mut_checked(len)?;
        front.copy_from_slice(&self.unread);
        (!room.is_empty()).then_some(len)
    }

    /// Decrypts `records`, which begin with what was incomplete, into `plain`; returns how many bytes that gave. There must
    /// be room for as many as `records` has. What is to be sent is held, also after an error.
    pub(super) fn read(&mut self, records: &mut [u8], plain: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        self.process(records, |decrypted| {
            plain[filled..filled + decrypted.len()].copy_from_slice(decrypted);
            filled += decrypted.len();
        })?;
        Ok(filled)
    }

    /// Makes records of `plain`, at most [`MAX_PLAIN`] bytes; returns their length.
    ///
    /// # Errors
    ///
    /// The connection cannot go on. What rustls itself has to send is held: it must leave first.
    pub(super) fn write(&mut self, plain: &[u8], records: &mut [u8]) -> io::Result<usize> {
        self.traffic(|traffic| traffic.encrypt(plain, records).map_err(io::Error::other))
    }

    /// Makes the record that says that nothing more comes. It is held.
    pub(super) fn close(&mut self) -> io::Result<()> {
        let mut record = [0; 128];
        let len = self.traffic(|traffic| traffic.queue_close_notify(&mut record).map_err(io::Error::other))?;
        self.hold(&record[..len]);
        Ok(())
    }

    /// Gives rustls all that it can go on with, and keeps the rest.
    fn process(&mut self, records: &mut [u8], mut take: impl FnMut(&[u8])) -> Result<(), Error> {
        if self.failed {
            return Err(Error::HandshakeNotComplete);
        }
        let mut from = 0;
        loop {
            let UnbufferedStatus { discard, state, .. } = self.tls.process_tls_records(&mut records[from..]);
            let goes_on = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        take(record.payload);
                    }
                    true
                }
                Ok(ConnectionState::EncodeTlsData(encoding)) => {
                    encode(encoding, &mut self.held);
                    true
                }
                Ok(ConnectionState::TransmitTlsData(transmission)) => {
                    transmission.done();
                    true
                }
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    self.ended = true;
                    false
                }
                // Early data is not offered; in all other states it is the peer's turn.
                Ok(_) => false,
                Err(error) => {
                    self.fail();
                    return Err(error);
                }
            };
            from += discard;
            if !goes_on {
                // Behind the peer's last word nothing counts.
                let rest = if self.ended { &[][..] } else { &records[from..] };
                if rest.len() >= RECORDS {
                    self.fail();
                    return Err(Error::General("a message in too many pieces".to_owned()));
                }
                self.unread = rest.to_vec();
                return Ok(());
            }
        }
    }

    /// Ends it, but for the alert that tells the peer why.
    fn fail(&mut self) {
        self.failed = true;
        self.unread = Vec::new();
        while self.tls.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(encoding)) = self.tls.process_tls_records(&mut []).state else {
                return;
            };
            encode(encoding, &mut self.held);
        }
    }

    /// Does something that needs a connection ready for data, which it is between two reads.
    fn traffic<T>(
        &mut self,
        work: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>) -> io::Result<T>,
    ) -> io::Result<T> {
        while !self.failed {
            match self.tls.process_tls_records(&mut self.unread).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => return work(&mut traffic),
                Ok(ConnectionState::EncodeTlsData(encoding)) => encode(encoding, &mut self.held),
                Ok(ConnectionState::TransmitTlsData(transmission)) => transmission.done(),
                Ok(_) => return Err(ErrorKind::NotConnected.into()),
                Err(_) => self.fail(),
            }
        }
        Err(ErrorKind::InvalidData.into())
    }
}

/// Appends what rustls wants sent.
fn encode(mut encoding: EncodeTlsData<'_, ServerConnectionData>, held: &mut BytesMut) {
    let end = held.len();
    if let Err(EncodeError::InsufficientSize(room)) = encoding.encode(&mut []) {
        held.resize(end + room.required_size, 0);
        let written = encoding.encode(&mut held[end..]).unwrap_or(0);
        held.truncate(end + written);
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("held", &self.held.len()).finish_non_exhaustive()
    }
}
