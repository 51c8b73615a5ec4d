//! Quantiles of many latencies, medians of a few runs.

/// A histogram with a relative error of at most 1/32, over all of `u64`.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// An empty histogram.
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; bucket(u64::MAX) + 1], total: 0 }
    }

    /// Whether nothing was counted.
    pub(crate) fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Counts one value.
    pub(crate) fn record(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.total += 1;
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
    }

    /// The smallest bucket bound that at least `share` of the values do not exceed; 0 when empty.
    pub(crate) fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_bound(index);
            }
        }
        0
    }
}

/// The median; the mean of the middle two for an even number. `None` without values.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// Values below 64 have a bucket each; above, every power of two has 32.
fn bucket(value: u64) -> usize {
    if value < 64 {
        return value as usize;
    }
    let exponent = 63 - value.leading_zeros() as usize;
    let within = (value >> (exponent - 5)) as usize & 31;
    64 + (exponent - 6) * 32 + within
}

fn upper_bound(bucket: usize) -> u64 {
    if bucket < 64 {
        return bucket as u64;
    }
    let exponent = (bucket - 64) / 32 + 6;
    let within = ((bucket - 64) % 32) as u64;
    let width = 1u64 << (exponent - 5);
    (1 << exponent) + within * width + (width - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        let mut value = 1u64;
        while value < u64::MAX / 3 {
            for v in [value - 1, value, value + 1] {
                let bound = upper_bound(bucket(v));
                assert!(bound >= v, "{v} above {bound}");
                assert!(bound - v <= v / 32 + 1, "{v} far below {bound}");
                assert!(bucket(v) == 0 || upper_bound(bucket(v) - 1) < v);
            }
            value = value * 3 / 2 + 1;
        }
        assert_eq!(upper_bound(bucket(u64::MAX)), u64::MAX);
    }

    #[test]
    fn quantiles_of_a_uniform_distribution() {
        let mut histogram = Histogram::new();
        for value in 1..=100_000 {
            histogram.record(value);
        }
        for (share, exact) in [(0.01, 1_000.0), (0.5, 50_000.0), (0.99, 99_000.0)] {
            let found = histogram.quantile(share) as f64;
            assert!(found >= exact && found <= exact * 1.04, "{share}: {found}");
        }
    }

    #[test]
    fn quantiles_of_few_values() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(0.5), 0);
        histogram.record(7);
        assert_eq!(histogram.quantile(0.0), 7);
        assert_eq!(histogram.quantile(1.0), 7);
        histogram.record(9);
        assert_eq!(histogram.quantile(0.5), 7);
        assert_eq!(histogram.quantile(0.51), 9);
        histogram.clear();
        assert_eq!(histogram.quantile(0.5), 0);
    }

    #[test]
    fn medians() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0]), Some(3.0));
        assert_eq!(median([9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median([4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }
}
