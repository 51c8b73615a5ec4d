//! What a connection does with the bytes it reads, without its socket.

use fanwire_wire::Disconnect;

use crate::Limits;
use crate::decoder::Decoder;
use crate::reassembly::{Batch, Reassembly};

/// The way from a client's bytes to messages, through the inspector and the decoder: what benchmarks measure alone.
#[derive(Debug, Default)]
pub struct Reader {
    reassembly: Reassembly,
    decoder: Decoder,
    limits: Limits,
}

impl Reader {
    /// Reads all of `bytes`; how many messages and pings they complete.
    ///
    /// # Errors
    ///
    /// How the connection would end.
    pub fn read(&mut self, mut bytes: &[u8]) -> Result<usize, Disconnect> {
        let mut count = 0;
        while !bytes.is_empty() {
            let mut batch = Batch::new();
            self.reassembly.take(&mut bytes, &mut batch, &mut self.decoder, &self.limits)?;
            count += batch.len();
        }
        Ok(count)
    }
}
