//! What a span of time held: deliveries, CPU time, reads and segments.

use serde::Serialize;

use crate::error::Error;
use crate::figure::Figure;
use crate::mux::{Counters, Mux};
use crate::outcome::Run;
use crate::{clock, meter};

/// A reading of everything that is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    at: u64,
    sender_cpu: Option<u64>,
    client_cpu: u64,
    segments: Option<u64>,
    counters: Counters,
    deliveries: u64,
    own: Own,
}

/// Traffic of the publishers' connections, which is no delivery.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Own {
    /// Reads on it.
    pub(crate) reads: u64,
    /// Bytes read on it.
    pub(crate) bytes: u64,
}

/// What lies between two samples.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Figures {
    /// Publications that were read by subscribers.
    pub(crate) deliveries: u64,
    /// Length of the span.
    pub(crate) seconds: f64,
    /// Deliveries per second of the clock.
    pub(crate) per_second: f64,
    /// CPU seconds of the senders; none if their processes are unknown.
    pub(crate) sender_cpu_seconds: Option<f64>,
    /// Deliveries per CPU second of the sender: the figure that counts.
    pub(crate) per_cpu_second: Option<f64>,
    /// Share of the span in which the sender's core worked for it.
    pub(crate) sender_busy: Option<f64>,
    /// The same for this process: near 1, the client was what limited deliveries per second.
    pub(crate) client_busy: f64,
    /// Publications per read of a subscriber.
    pub(crate) frames_per_read: f64,
    /// Publications per TCP segment, which is a write of the sender; none if the kernel does not
    /// tell, or others send, too. Replies to the publisher that one read brought together make it too small, by at most
    /// the window over the subscribers.
    pub(crate) frames_per_write: Option<f64>,
    /// Bytes of a publication on the wire.
    pub(crate) bytes_per_delivery: f64,
}

impl Sample {
    /// Reads everything; `senders` are the processes whose CPU time counts.
    pub(crate) fn take(mux: &Mux, senders: &[u32], deliveries: u64, own: Own) -> Result<Self, Error> {
        Ok(Self {
            sender_cpu: meter::cpu_of_all(senders)?,
            client_cpu: meter::cpu_nanoseconds(std::process::id())?,
            segments: meter::data_segments(),
            counters: mux.counters(),
            deliveries,
            own,
            at: clock::now(),
        })
    }

    /// What happened between `earlier` and this.
    pub(crate) fn since(&self, earlier: &Self) -> Figures {
        let seconds = (self.at - earlier.at) as f64 / 1e9;
        let deliveries = self.deliveries - earlier.deliveries;
        let own_reads = self.own.reads - earlier.own.reads;
        let own_bytes = self.own.bytes - earlier.own.bytes;
        let reads = self.counters.reads - earlier.counters.reads - own_reads;
        let bytes = self.counters.bytes - earlier.counters.bytes - own_bytes;
        let own_writes = self.counters.writes - earlier.counters.writes;
        let writes = match (self.segments, earlier.segments) {
            (Some(here), Some(before)) => (here - before).checked_sub(own_writes + own_reads),
            _ => None,
        };
        let sender_cpu_seconds = match (self.sender_cpu, earlier.sender_cpu) {
            (Some(here), Some(before)) => Some((here - before) as f64 / 1e9),
            _ => None,
        };
        let client_cpu = (self.client_cpu - earlier.client_cpu) as f64 / 1e9;
        let per = |count: u64| deliveries as f64 / count.max(1) as f64;
        Figures {
            deliveries,
            seconds,
            per_second: deliveries as f64 / seconds,
            sender_cpu_seconds,
            per_cpu_second: sender_cpu_seconds.map(|cpu| deliveries as f64 / cpu),
            sender_busy: sender_cpu_seconds.map(|cpu| cpu / seconds),
            client_busy: client_cpu / seconds,
            frames_per_read: per(reads),
            frames_per_write: writes.map(per).filter(|frames| *frames > OWN_SEGMENTS),
            bytes_per_delivery: bytes as f64 / deliveries.max(1) as f64,
        }
    }
}

/// Fewer frames in a segment than this means that others send in this network namespace, too: the count says nothing.
const OWN_SEGMENTS: f64 = 0.95;

impl Figures {
    /// Notes what others compare.
    pub(crate) fn note(&self, run: &mut Run) {
        run.set(Figure::Deliveries, self.deliveries as f64);
        run.set(Figure::DeliveriesPerSecond, self.per_second);
        run.set_some(Figure::DeliveriesPerCpuSecond, self.per_cpu_second);
        run.set_some(Figure::ServerBusy, self.sender_busy);
        run.set(Figure::ClientBusy, self.client_busy);
        run.set(Figure::FramesPerRead, self.frames_per_read);
        run.set_some(Figure::FramesPerWrite, self.frames_per_write);
        run.set(Figure::BytesPerDelivery, self.bytes_per_delivery);
    }

    /// The same figures with the frames per read and write of a longer span.
    ///
    /// A sender is ahead of its reader by up to a sweep. Only a span that begins before the first
    /// message and ends after the last one holds as many deliveries as it holds frames sent.
    pub(crate) fn with_frames_of(self, whole: &Self) -> Self {
        Self { frames_per_read: whole.frames_per_read, frames_per_write: whole.frames_per_write, ..self }
    }
}
