//! What many figures come to: medians, spreads, percentiles. Limits: figures are finite; of none there is no median.

use serde::Serialize;

/// A figure that was measured several times.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    /// The one in the middle.
    pub(super) median: f64,
    /// The smallest.
    pub(super) least: f64,
    /// The largest.
    pub(super) most: f64,
}

impl Spread {
    /// What these come to; `None` of none.
    pub(super) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let (least, most) = (*figures.first()?, *figures.last()?);
        let middle = figures.len() / 2;
        let upper = *figures.get(middle)?;
        // Of an even number, half way between the two in the middle.
        let median = match figures.get(middle.wrapping_sub(1)) {
            Some(lower) if figures.len().is_multiple_of(2) => lower.midpoint(upper),
            _ => upper,
        };
        Some(Self { median, least, most })
    }
}

/// The smallest of the sorted figures that at least so many hundredths of them do not exceed; `None` of none.
pub(super) fn percentile(sorted: &[u64], hundredths: f64) -> Option<u64> {
    let rank = (hundredths / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_stands_in_the_middle_whatever_the_order() {
        let median = |figures: &[f64]| Spread::of(figures.iter().copied()).map(|spread| spread.median);
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[9.0, 1.0, 4.0]), Some(4.0));
        assert_eq!(median(&[9.0, 1.0, 4.0, 2.0]), Some(3.0));
        let spread = Spread::of([9.0, 1.0, 4.0, 2.0]).unwrap();
        assert_eq!((spread.least, spread.most), (1.0, 9.0));
    }

    #[test]
    fn a_percentile_is_one_of_the_figures_by_nearest_rank() {
        let hundred: Vec<u64> = (1..=100).collect();
        for (hundredths, expected) in [(0.0, 1), (50.0, 50), (99.0, 99), (99.5, 100), (100.0, 100)] {
            assert_eq!(percentile(&hundred, hundredths), Some(expected), "{hundredths}");
        }
        assert_eq!(percentile(&[3, 8], 50.0), Some(3));
        assert_eq!(percentile(&[3, 8], 51.0), Some(8));
        assert_eq!(percentile(&[5], 99.0), Some(5));
        assert_eq!(percentile(&[], 50.0), None);
    }
}
