//! Wall-clock time, for what leaves the process or comes from a token. Everything else uses tokio's clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// The time in milliseconds since 1970.
#[must_use]
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The seconds until a Unix time in seconds; 0 if it is past.
#[must_use]
pub fn seconds_until(unix_seconds: u64) -> u32 {
    u32::try_from(unix_seconds.saturating_sub(unix_ms() / 1000)).unwrap_or(u32::MAX)
}
