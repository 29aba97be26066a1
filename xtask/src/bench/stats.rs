//! Median and percentiles of a handful of samples.

use serde::Serialize;
use std::time::Duration;

/// What is said of a series.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Series {
    /// Every sample, in the order it was taken; milliseconds.
    pub samples_ms: Vec<f64>,
    /// The middle one, or the mean of the two in the middle.
    pub median_ms: f64,
    /// Nine of ten were not slower (nearest rank).
    pub p90_ms: f64,
}

impl Series {
    /// Of these; `None` when there are none.
    pub fn of(samples: &[Duration]) -> Option<Series> {
        let samples_ms: Vec<f64> = samples.iter().map(|sample| sample.as_secs_f64() * 1000.0).collect();
        let mut sorted = samples_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let median_ms = (sorted[last / 2] + sorted[sorted.len() / 2]) / 2.0;
        let p90_ms = sorted[(sorted.len() * 9).div_ceil(10) - 1];
        Some(Series { samples_ms, median_ms, p90_ms })
    }
}

/// The n-th of points that fill [0, 1) evenly however many are taken (multiples of the golden ratio): an event must not
/// always come at the same moment of a polling interval.
pub fn spread(n: usize) -> f64 {
    (n as f64 * 0.618_033_988_749_895 + 0.5).fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_nearest_rank() {
        let ms = |values: &[u64]| values.iter().map(|ms| Duration::from_millis(*ms)).collect::<Vec<_>>();
        assert_eq!(Series::of(&[]), None);
        let one = Series::of(&ms(&[7])).expect("one");
        assert_eq!((one.median_ms, one.p90_ms), (7.0, 7.0));
        let ten = Series::of(&ms(&[10, 1, 9, 2, 8, 3, 7, 4, 6, 5])).expect("ten");
        assert_eq!((ten.median_ms, ten.p90_ms), (5.5, 9.0));
        let fifteen = Series::of(&ms(&(1..=15).collect::<Vec<_>>())).expect("fifteen");
        assert_eq!((fifteen.median_ms, fifteen.p90_ms), (8.0, 14.0));
    }

    #[test]
    fn few_points_are_spread() {
        let mut points: Vec<f64> = (0..8).map(spread).collect();
        points.sort_by(f64::total_cmp);
        assert!(points.windows(2).all(|pair| pair[1] - pair[0] > 0.05), "{points:?}");
        assert!(points[0] < 0.2 && points[7] > 0.8, "{points:?}");
    }
}
