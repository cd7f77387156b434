//! Medians and quartiles: what a table says of several rounds. Pure.

/// The middle of several figures, and the middle half of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// A quarter of the figures is below.
    pub low: f64,
    /// Half of them is.
    pub median: f64,
    /// Three quarters are.
    pub high: f64,
}

impl Summary {
    /// `None` of nothing.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Summary> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        (!sorted.is_empty()).then(|| Summary {
            low: quantile(&sorted, 0.25),
            median: quantile(&sorted, 0.5),
            high: quantile(&sorted, 0.75),
        })
    }
}

/// Between two figures it is as far as the share is between their ranks.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
    below + (above - below) * rank.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let summary = Summary::of([4.0, 1.0, 3.0, 2.0]).expect("four figures");
        assert_eq!(
            (summary.low, summary.median, summary.high),
            (1.75, 2.5, 3.25)
        );
    }

    #[test]
    fn one_figure_is_its_own_summary_and_none_has_none() {
        let summary = Summary::of([7.0]).expect("one figure");
        assert_eq!((summary.low, summary.median, summary.high), (7.0, 7.0, 7.0));
        assert_eq!(Summary::of([]), None);
    }
}
