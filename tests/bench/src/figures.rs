//! What was measured, as numbers: samples, what they come to, and what they are held against.

use serde::{Deserialize, Serialize};

/// What some samples come to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many.
    pub n: usize,
    /// The least.
    pub min: f64,
    /// A quarter of them is below.
    pub q1: f64,
    /// Half of them is below.
    pub median: f64,
    /// Three quarters of them are below.
    pub q3: f64,
    /// 99 of 100 are below. Of fewer than 100 samples it is near the greatest.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

impl Summary {
    /// Of some samples; `None` of none.
    #[must_use]
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        Some(Self {
            n: sorted.len(),
            min,
            q1: quantile(&sorted, 0.25),
            median: quantile(&sorted, 0.5),
            q3: quantile(&sorted, 0.75),
            p99: quantile(&sorted, 0.99),
            max,
        })
    }

    /// The figure that a goal is about.
    #[must_use]
    pub fn at(&self, point: Point) -> f64 {
        match point {
            Point::Median => self.median,
            Point::P99 => self.p99,
            Point::Max => self.max,
        }
    }
}

/// The value below which this part of the sorted samples is, between two of them where it falls there.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let at = part * sorted.len().saturating_sub(1) as f64;
    let (below, above) = (at.floor() as usize, at.ceil() as usize);
    let value = |i: usize| sorted.get(i).copied().unwrap_or(f64::NAN);
    value(below) + (value(above) - value(below)) * (at - at.floor())
}

/// Slope and intercept of the straight line that is nearest to some points (least squares); `None` where they give no line.
#[must_use]
pub fn line(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let n = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / n;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / n;
    let spread = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>();
    let slope = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>() / spread;
    slope.is_finite().then_some((slope, mean_y - slope * mean_x))
}

/// Which of a summary's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Point {
    /// The median.
    Median,
    /// 99 of 100.
    P99,
    /// The greatest.
    Max,
}

/// What a figure must not exceed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// Which figure.
    pub point: Point,
    /// In the figure's unit.
    pub at_most: f64,
    /// Whether it does not.
    pub met: bool,
}

/// Compared with another variant, measured in the same rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The other variant.
    pub to: String,
    /// Median of the rounds' ratios.
    pub median: f64,
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// Of which variant.
    pub variant: String,
    /// Its unit.
    pub unit: String,
    /// What the samples come to.
    pub summary: Summary,
    /// Against another variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Ratio>,
    /// What it is held against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<Goal>,
    /// All of them, in the order in which they were taken. Left out of what is published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<f64>,
}

impl Figure {
    /// Of some samples; `None` of none.
    #[must_use]
    pub fn of(what: &str, variant: &str, unit: &str, samples: &[f64]) -> Option<Self> {
        Some(Self {
            what: what.to_owned(),
            variant: variant.to_owned(),
            unit: unit.to_owned(),
            summary: Summary::of(samples)?,
            ratio: None,
            goal: None,
            samples: samples.to_vec(),
        })
    }

    /// Held against a goal.
    #[must_use]
    pub fn at_most(mut self, point: Point, at_most: f64) -> Self {
        let met = self.summary.at(point) <= at_most;
        self.goal = Some(Goal { point, at_most, met });
        self
    }

    /// Compared with another variant, by the rounds' ratios.
    #[must_use]
    pub fn against(mut self, other: &str, ratios: &[f64]) -> Self {
        self.ratio = Summary::of(ratios).map(|summary| Ratio {
            to: other.to_owned(),
            median: summary.median,
        });
        self
    }
}

/// How a figure grows with the number of something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slope {
    /// What grows.
    pub what: String,
    /// Its unit.
    pub unit: String,
    /// For each of these.
    pub per: String,
    /// By so much.
    pub slope: f64,
    /// And so much without any.
    pub base: f64,
}

/// What one benchmark has found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Section {
    /// Name on the command line, and of its pictures.
    pub name: String,
    /// For people.
    pub title: String,
    /// What was done, and what the figures mean.
    pub about: String,
    /// The rows.
    pub figures: Vec<Figure>,
    /// How they grow.
    #[serde(default)]
    pub slopes: Vec<Slope>,
    /// Goes that have failed, in words: they are in no figure.
    #[serde(default)]
    pub failed: Vec<String>,
    /// Its pictures, without suffix, and what they show.
    #[serde(default)]
    pub pictures: Vec<(String, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_fall_between_samples_where_they_must() {
        let summary = Summary::of(&[4.0, 1.0, 3.0, 2.0]).expect("four");
        assert_eq!((summary.n, summary.min, summary.max), (4, 1.0, 4.0));
        assert_eq!((summary.q1, summary.median, summary.q3), (1.75, 2.5, 3.25));
        assert_eq!(Summary::of(&[7.0]).expect("one").p99, 7.0);
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn a_ratio_is_the_median_of_those_of_the_rounds() {
        let own = Figure::of("gap", "hybond", "ms", &[2.0, 20.0, 50.0]).expect("three");
        let ratio = own.clone().against("virtio", &[2.0, 2.0, 0.5]).ratio.expect("a ratio");
        assert_eq!((ratio.to.as_str(), ratio.median), ("virtio", 2.0));
        assert_eq!(own.against("virtio", &[]).ratio, None);
    }

    #[test]
    fn a_goal_is_met_up_to_its_bound() {
        let figure = Figure::of("rss", "1000", "MiB", &[39.0, 40.0, 41.0]).expect("three");
        assert!(figure.clone().at_most(Point::Median, 40.0).goal.expect("a goal").met);
        assert!(!figure.at_most(Point::Max, 40.0).goal.expect("a goal").met);
    }

    #[test]
    fn a_line_has_its_slope_and_one_point_has_none() {
        let (slope, base) = line(&[(10.0, 25.0), (100.0, 205.0), (1000.0, 2005.0)]).expect("a line");
        assert!((slope - 2.0).abs() < 1e-9 && (base - 5.0).abs() < 1e-6);
        assert_eq!(line(&[(10.0, 25.0)]), None);
    }
}
