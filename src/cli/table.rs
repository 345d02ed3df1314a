//! Tables for people: columns without borders, within the width of the terminal.

use std::io::{IsTerminal as _, stdout};

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};

use crate::text::cut;

/// What others wrote fills no more of a cell than this.
const LONGEST: usize = 400;

/// The lines of a table. Where no terminal reads it, a row is a line, however long.
pub(super) fn table<const N: usize>(heads: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    lay_out(heads, rows, width())
}

fn lay_out<const N: usize>(
    heads: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    width: Option<u16>,
) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(heads);
    for row in rows {
        // It must not reach the terminal as it is.
        table.add_row(row.map(|cell| cut(&cell, LONGEST)));
    }
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table.trim_fmt()
}

fn width() -> Option<u16> {
    let out = stdout();
    let size = out.is_terminal().then(|| rustix::termios::tcgetwinsize(&out).ok()).flatten()?;
    (size.ws_col > 0).then_some(size.ws_col)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> [[String; 2]; 2] {
        [["w-1", "gone\n, and nobody asked"], ["worker-2", "-"]].map(|row| row.map(str::to_owned))
    }

    #[test]
    fn a_row_is_a_line_where_no_terminal_reads_it() {
        let text = lay_out(["WORKER", "REASON"], rows(), None);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines, [" WORKER    REASON", " w-1       gone\\n, and nobody asked", " worker-2  -"]);
    }

    #[test]
    fn a_table_is_no_wider_than_the_terminal() {
        let text = lay_out(["WORKER", "REASON"], rows(), Some(24));
        assert!(text.lines().all(|line| line.chars().count() <= 24), "{text}");
        assert!(text.contains("worker-2"), "{text}");
    }
}
