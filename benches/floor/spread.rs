//! What several runs say together: medians, and how far apart the runs lie.

use std::fmt;

use crate::Figures;

pub(crate) const SUBJECT: &str = "enlist";
pub(crate) const HEAD: &str = "in hand   enlist/s    floor/s  ratio of rates       p50 us  floor  ratio of p50s        \
                               cpu us  floor  ratio of cpu         RSS MiB  floor";

/// One line of the table.
pub(crate) struct Spread {
    in_hand: usize,
    ours: Figures,
    floor: Figures,
    rates: Ratio,
    p50s: Ratio,
    cpus: Ratio,
}

/// The median of the ratios of runs that followed each other, the least and the most.
pub(crate) struct Ratio(f64, f64, f64);

impl Ratio {
    pub(crate) fn of(each: impl Iterator<Item = f64>) -> Self {
        let each = sorted(each);
        Self(each[each.len() / 2], each[0], each[each.len() - 1])
    }
}

pub(crate) fn median(each: impl Iterator<Item = f64>) -> f64 {
    let each = sorted(each);
    each[each.len() / 2]
}

fn sorted(each: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut each: Vec<f64> = each.collect();
    each.sort_by(f64::total_cmp);
    each
}

impl Spread {
    pub(crate) fn of(in_hand: usize, ours: &[Figures], floor: &[Figures]) -> Self {
        let ratio = |figure: fn(&Figures) -> f64| {
            Ratio::of(ours.iter().zip(floor).map(|(ours, floor)| figure(ours) / figure(floor)))
        };
        Self {
            in_hand,
            ours: medians(ours),
            floor: medians(floor),
            rates: ratio(|figures| figures.rate),
            p50s: ratio(|figures| figures.p50),
            cpus: ratio(|figures| figures.cpu),
        }
    }
}

fn medians(runs: &[Figures]) -> Figures {
    let median = |figure: fn(&Figures) -> f64| median(runs.iter().map(figure));
    Figures {
        rate: median(|run| run.rate),
        p50: median(|run| run.p50),
        p95: median(|run| run.p95),
        cpu: median(|run| run.cpu),
        rss: median(|run| run.rss),
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { in_hand, ours, floor, rates, p50s, cpus } = self;
        write!(
            f,
            "{in_hand:>7} {:>10.0} {:>10.0}  {rates}  {:>8.0} {:>6.0}  {p50s}  {:>6.0} {:>6.0}  {cpus}  {:>6.1} {:>6.0}",
            ours.rate, floor.rate, ours.p50, floor.p50, ours.cpu, floor.cpu, ours.rss, floor.rss
        )
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(median, least, most) = self;
        write!(f, "{median:.2} [{least:.2}-{most:.2}]")
    }
}
