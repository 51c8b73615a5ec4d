//! The figures a measurement can have: a closed set, so that an assertion with a misspelt name is an error before the
//! run and not after it.

use serde::{Serialize, Serializer};

/// How a figure is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A number of things.
    Count,
    /// Things per second.
    Rate,
    /// A part of a whole, 1 being all of it.
    Share,
    /// A quotient of two figures of one run.
    Ratio,
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

macro_rules! figures {
    ($($variant:ident $name:literal $unit:ident $title:literal)*) => {
        /// What was measured; in the order in which tables show it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Figure {
            $($variant,)*
        }

        impl Figure {
            /// All figures.
            pub(crate) const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in assertions and in JSON.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The name in tables and charts.
            pub(crate) fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// What it is counted in.
            pub(crate) fn unit(self) -> Unit {
                match self { $(Self::$variant => Unit::$unit,)* }
            }
        }
    };
}

figures! {
    DeliveriesPerCpuSecond "deliveries_per_cpu_second" Rate "deliveries per server CPU s"
    LimitPerCpuSecond "limit_per_cpu_second" Rate "raw limit per CPU s"
    ShareOfLimit "share_of_limit" Ratio "share of the limit"
    DeliveriesPerSecond "deliveries_per_second" Rate "deliveries/s"
    PublicationsPerSecond "publications_per_second" Rate "publications/s"
    FramesPerWrite "frames_per_write" Ratio "frames per write"
    FramesPerWriteByServer "frames_per_write_by_server" Ratio "frames per write, by the server"
    FramesPerRead "frames_per_read" Ratio "frames per read"
    LatencyP50 "latency_p50_ms" Milliseconds "latency p50"
    LatencyP90 "latency_p90_ms" Milliseconds "latency p90"
    LatencyP99 "latency_p99_ms" Milliseconds "latency p99"
    LatencyP999 "latency_p999_ms" Milliseconds "latency p99.9"
    LatencyMax "latency_max_ms" Milliseconds "latency, longest"
    FloorP50 "redis_floor_p50_ms" Milliseconds "Redis floor p50"
    OverFloor "latency_over_redis_floor" Ratio "p50 over the Redis floor"
    RelayedFloorP50 "relayed_floor_p50_ms" Milliseconds "the same through two bare relays"
    OverRelayedFloor "latency_over_relayed_floor" Ratio "p50 over the relayed floor"
    LateP99 "publisher_late_p99_ms" Milliseconds "publisher late p99"
    HandshakeCpu "handshake_cpu_us" Microseconds "server CPU per handshake"
    HandshakeLimit "handshake_limit_cpu_us" Microseconds "the same by the raw limit"
    HandshakeOverLimit "handshake_over_limit" Ratio "times the raw limit"
    HandshakesPerSecond "handshakes_per_second" Rate "handshakes/s"
    AllBack "all_back_seconds" Seconds "all back after"
    OperationsPerSecond "operations_per_second" Rate "subscribes and unsubscribes/s"
    OperationCpu "operation_cpu_us" Microseconds "server CPU per subscribe or unsubscribe"
    ConnectionBytes "bytes_per_connection" Bytes "memory per connection"
    ConnectionBytesRested "bytes_per_connection_rested" Bytes "after the rest"
    ConnectionBytesUsed "bytes_per_connection_used" Bytes "after one message each"
    IdleCpu "idle_cpu_us_per_second" Microseconds "server CPU per idle connection and s"
    PingsAnswered "pings_answered" Count "pings answered"
    SubscriptionBytes "bytes_per_subscription" Bytes "memory per subscription"
    SubscriptionsBytes "bytes_of_subscriptions" Bytes "memory of all subscriptions"
    SlowBytes "bytes_per_slow_consumer" Bytes "memory per slow consumer"
    SlowDisconnected "slow_disconnected" Count "slow consumers disconnected"
    SlowStalled "slow_stalled" Count "slow consumers still connected"
    RecoveredPerSecond "recoveries_per_second" Rate "recoveries/s"
    NotRecovered "not_recovered" Count "not recovered"
    Deliveries "deliveries" Count "deliveries"
    Lost "lost" Count "lost"
    OutOfOrder "out_of_order" Count "repeated or reordered"
    ServerBusy "server_cpu" Share "server CPU"
    ClientBusy "client_cpu" Share "client CPU"
    LimitClientBusy "limit_client_cpu" Share "client CPU at the limit"
    ServerMemory "server_memory" Bytes "server memory"
    BytesPerDelivery "bytes_per_delivery" Bytes "bytes per delivery"
}

impl Figure {
    /// The figure of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|figure| figure.name() == name)
    }
}

impl Serialize for Figure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Unit {
    /// A value for people.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Count => grouped(value),
            Self::Rate => scaled(value, 1e3, &["", " k", " M", " G"]),
            Self::Bytes => scaled(value, 1024.0, &[" B", " KiB", " MiB", " GiB"]),
            Self::Share => format!("{:.0} %", value * 100.0),
            Self::Ratio => format!("{value:.2}"),
            Self::Milliseconds => format!("{} ms", significant(value)),
            Self::Microseconds => format!("{} µs", significant(value)),
            Self::Seconds => format!("{} s", significant(value)),
        }
    }
}

/// Four figures at most: what a measurement of this kind can tell apart, and a little more.
fn significant(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 0.1 || v == 0.0 => 2,
        _ => 4,
    };
    format!("{value:.digits$}")
}

fn scaled(value: f64, step: f64, suffixes: &[&str; 4]) -> String {
    let (mut value, mut suffix) = (value, 0);
    // Four digits are read as easily as two and a decimal point.
    while value.abs() >= 10.0 * step && suffix + 1 < suffixes.len() {
        value /= step;
        suffix += 1;
    }
    if suffix == 0 && value.fract() != 0.0 && value.abs() < 100.0 {
        return format!("{value:.1}{}", suffixes[suffix]);
    }
    format!("{}{}", grouped(value), suffixes[suffix])
}

/// A whole number with commas.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    if value < 0.0 && digits != "0" {
        text.push('-');
    }
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_differ() {
        for figure in Figure::ALL {
            assert_eq!(Figure::named(figure.name()), Some(*figure));
        }
        assert_eq!(Figure::named("lots"), None);
    }

    #[test]
    fn values_for_people() {
        for (unit, value, text) in [
            (Unit::Rate, 8_419_331.0, "8,419 k"),
            (Unit::Rate, 236_000.0, "236 k"),
            (Unit::Rate, 9_500.0, "9,500"),
            (Unit::Rate, 20_300_000.0, "20 M"),
            (Unit::Rate, 12.5, "12.5"),
            (Unit::Count, 1_000_000.0, "1,000,000"),
            (Unit::Count, -1_500.0, "-1,500"),
            (Unit::Bytes, 1_191.0, "1,191 B"),
            (Unit::Bytes, 150.0 * 1024.0 * 1024.0, "150 MiB"),
            (Unit::Milliseconds, 2.468, "2.47 ms"),
            (Unit::Milliseconds, 0.0612, "0.0612 ms"),
            (Unit::Microseconds, 44.04, "44.0 µs"),
            (Unit::Share, 0.931, "93 %"),
        ] {
            assert_eq!(unit.show(value), text);
        }
    }
}
