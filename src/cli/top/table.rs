//! The pools as lines of a terminal: where it is narrow or low, what says least is left out, and that it is told.

use super::{Fleet, Glance, HEADS, row};
use crate::domain::State;

/// Columns that can be left out, by their places in [`HEADS`], in this order: what has ended, what passes, the size, and last
/// what stands. The name stays, what lives, and what waits.
const DISPENSABLE: [usize; 9] = [8, 9, 10, 3, 7, 1, 4, 5, 6];
/// Between two columns.
const GAP: usize = 2;

/// A line, and whether something is wrong with what it tells.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) sick: bool,
}

/// The heads, then a line a pool, then their sum: no wider than `width`, and no more lines than `height` where that is
/// possible.
pub(super) fn lines(fleet: &Fleet, width: usize, height: usize) -> Vec<Line> {
    let mut rows: Vec<[String; 13]> = fleet.pools.iter().map(|(pool, glance)| row(pool.as_str(), glance)).collect();
    rows.push(total(fleet));
    let mut widths = HEADS.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let columns = columns(&rows, &widths, width);
    let line = |row: &[String; 13]| aligned(row, &widths, &columns);
    // The heads, the sum, and a line that tells of those that are not shown.
    let shown = if rows.len() < height { rows.len() - 1 } else { height.saturating_sub(3) };
    let mut lines = vec![Line { text: line(&HEADS.map(str::to_owned)), sick: false }];
    for (row, glance) in rows.iter().zip(fleet.pools.values()).take(shown) {
        lines.push(Line { text: line(row), sick: is_sick(glance) });
    }
    let hidden = fleet.pools.values().skip(shown);
    if hidden.len() > 0 {
        let text = format!("and {} pools more, for which there is no room", hidden.len());
        lines.push(Line { text, sick: hidden.into_iter().any(is_sick) });
    }
    lines.extend(rows.last().map(|row| Line { text: line(row), sick: false }));
    lines
}

fn is_sick(glance: &Glance) -> bool {
    glance.states.get(State::RegistrationFailed.as_str()).is_some_and(|count| *count > 0)
}

/// The columns that are shown: where not all have room, those in which nothing stands go first.
fn columns(rows: &[[String; 13]], widths: &[usize; 13], room: usize) -> Vec<usize> {
    let mut columns: Vec<usize> = (0..HEADS.len()).collect();
    let is_empty = |column: &usize| rows.iter().all(|row| ["0", "-"].contains(&row[*column].as_str()));
    let (empty, full): (Vec<usize>, Vec<usize>) = DISPENSABLE.into_iter().partition(is_empty);
    for column in empty.into_iter().chain(full) {
        let needed = columns.iter().map(|column| widths[*column] + GAP).sum::<usize>() - GAP;
        if needed <= room {
            break;
        }
        columns.retain(|kept| *kept != column);
    }
    columns
}

/// Names to the left, numbers to the right.
fn aligned(row: &[String; 13], widths: &[usize; 13], columns: &[usize]) -> String {
    let mut line = String::new();
    for &column in columns {
        let (cell, width) = (&row[column], widths[column]);
        let cell = if column == 0 { format!("{cell:<width$}") } else { format!("{:GAP$}{cell:>width$}", "") };
        line.push_str(&cell);
    }
    line
}

fn total(fleet: &Fleet) -> [String; 13] {
    // Of which one is not known the sum is not known.
    let queued = fleet.pools.values().map(|glance| glance.queued).sum();
    let mut all = Glance { queued, ..Glance::default() };
    for glance in fleet.pools.values() {
        all.live += glance.live;
        for (state, count) in &glance.states {
            *all.states.entry(state).or_default() += count;
        }
        all.oldest_ms = all.oldest_ms.max(glance.oldest_ms);
    }
    row("all", &all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Pool;

    fn fleet(pools: usize) -> Fleet {
        let glance = |failed| Glance {
            live: 50_000,
            states: [("registered", 49_000), ("registration_failed", failed)].into(),
            queued: Some(12),
            oldest_ms: Some(90_000),
            ..Glance::default()
        };
        let pools =
            (0..pools).map(|n| (Pool::new(format!("pool-{n:02}")).unwrap(), glance(u64::from(n == 7)))).collect();
        Fleet { pools, ..Fleet::default() }
    }

    #[test]
    fn what_lives_and_what_waits_is_seen_on_a_narrow_terminal_too() {
        for (width, seen) in [
            (40, &["POOL", "LIVE", "QUEUED", "OLDEST"][..]),
            (80, &["POOL", "LIVE", "REGISTERED", "REG.FAILED", "QUEUED", "OLDEST"]),
            (140, &HEADS),
        ] {
            let lines = lines(&fleet(3), width, 24);
            assert!(lines.iter().all(|line| line.text.chars().count() <= width), "{lines:#?}");
            let heads: Vec<&str> = lines[0].text.split_whitespace().collect();
            assert!(seen.iter().all(|head| heads.contains(head)), "{width}: {heads:?}");
            assert!(lines[1].text.ends_with("1m 30s"), "{lines:#?}");
        }
    }

    #[test]
    fn pools_without_room_are_told_of_and_the_sum_is_of_all() {
        let all = lines(&fleet(9), 140, 11);
        assert_eq!((all.len(), all[8].sick), (11, true), "{all:#?}");
        let some = lines(&fleet(9), 140, 8);
        assert_eq!(some.len(), 8, "{some:#?}");
        assert_eq!((some[6].text.as_str(), some[6].sick), ("and 4 pools more, for which there is no room", true));
        assert!(some[7].text.starts_with("all") && some[7].text.contains("450000"), "{some:#?}");
        assert_eq!(lines(&fleet(9), 140, 0).len(), 3, "however low");
        assert_eq!(lines(&Fleet::default(), 140, 24).len(), 2);
    }
}
