//! What reading verbs print: a table for people, or JSON for programs; a row at a time, however many there are.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _, stdout};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::Exit;
use super::page::Tone;
use crate::config::colour_wanted;
use crate::text::cut;

/// So many rows settle how wide the columns are; with a table of any length no more than these are held.
const CHUNK: usize = 200;
/// What others wrote fills no more of a cell than this.
const LONGEST: usize = 200;

/// The form of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns, for people
    Table,
    /// One JSON document
    Json,
    /// One JSON object a line, as it comes
    Ndjson,
}

/// What every reading verb takes.
#[derive(Args)]
pub(super) struct OutputArgs {
    /// The form of what is printed
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    pub(super) output: Format,
}

/// How a row is set off: by the text of one column.
pub(super) type Paint = (usize, fn(&str) -> Tone);

/// A table, an array or lines, on standard output.
pub(super) struct Sheet<const N: usize> {
    format: Format,
    out: BufWriter<Stdout>,
    heads: [&'static str; N],
    paint: Option<Paint>,
    held: Vec<[String; N]>,
    longest: usize,
    widths: Option<[usize; N]>,
    rows: u64,
}

impl<const N: usize> Sheet<N> {
    pub(super) fn new(format: Format, heads: [&'static str; N]) -> Self {
        let out = BufWriter::with_capacity(64 * 1024, stdout());
        Self { format, out, heads, paint: None, held: Vec::new(), longest: LONGEST, widths: None, rows: 0 }
    }

    /// Sets a column off by what it says, where a terminal reads it.
    pub(super) fn painted(mut self, column: usize, tone: fn(&str) -> Tone) -> Self {
        self.paint = coloured().then_some((column, tone));
        self
    }

    /// What is in the cells is ours, or told to be acted upon: it is shown whole.
    pub(super) fn unlimited(mut self) -> Self {
        self.longest = 2000;
        self
    }

    /// A row: `cells` for people, `record` for programs.
    pub(super) fn row(&mut self, cells: impl FnOnce() -> [String; N], record: &impl Serialize) -> io::Result<()> {
        match self.format {
            Format::Table => {
                self.held.push(cells().map(|cell| cut(&cell, self.longest)));
                if self.held.len() >= CHUNK {
                    self.print_held()?;
                }
            }
            Format::Json => {
                self.out.write_all(if self.rows == 0 { b"[\n" } else { b",\n" })?;
                serde_json::to_writer(&mut self.out, record)?;
            }
            Format::Ndjson => {
                serde_json::to_writer(&mut self.out, record)?;
                self.out.write_all(b"\n")?;
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// Prints what is left; says how many rows there were.
    pub(super) fn end(mut self) -> io::Result<u64> {
        match self.format {
            Format::Table => self.print_held()?,
            Format::Json => self.out.write_all(if self.rows == 0 { b"[]\n" } else { b"\n]\n" })?,
            Format::Ndjson => {}
        }
        self.out.flush()?;
        Ok(self.rows)
    }

    fn print_held(&mut self) -> io::Result<()> {
        let rows = std::mem::take(&mut self.held);
        if rows.is_empty() {
            return Ok(());
        }
        let widths = if let Some(widths) = self.widths {
            widths
        } else {
            let mut widths = self.heads.map(str::len);
            for row in &rows {
                for (width, cell) in widths.iter_mut().zip(row) {
                    *width = (*width).max(cell.chars().count());
                }
            }
            self.widths = Some(widths);
            let heads = self.heads.map(str::to_owned);
            self.line(&heads, &widths, None)?;
            widths
        };
        for row in &rows {
            self.line(row, &widths, self.paint)?;
        }
        self.out.flush()
    }

    fn line(&mut self, row: &[String; N], widths: &[usize; N], paint: Option<Paint>) -> io::Result<()> {
        // No blanks behind the last cell that says something.
        let last = row.iter().rposition(|cell| !cell.is_empty()).unwrap_or(0);
        for (n, (cell, width)) in row.iter().zip(widths).enumerate().take(last + 1) {
            let width = if n == last { 0 } else { *width };
            let gap = if n == 0 { "" } else { "  " };
            match paint {
                Some((column, tone)) if column == n => {
                    write!(self.out, "{gap}{}{cell:width$}\x1b[0m", tone(cell).code())?;
                }
                _ => write!(self.out, "{gap}{cell:width$}")?,
            }
        }
        self.out.write_all(b"\n")
    }
}

/// Whether standard output takes colours.
pub(super) fn coloured() -> bool {
    stdout().is_terminal() && colour_wanted()
}

/// A line on standard output. That nobody reads it any more does not keep the verb from its work.
pub(super) fn say(text: impl Display) {
    let _ = writeln!(stdout(), "{text}");
}

/// One document on standard output.
pub(super) fn print_json(record: &impl Serialize, format: Format) -> io::Result<()> {
    let mut out = BufWriter::new(stdout());
    match format {
        Format::Json | Format::Table => serde_json::to_writer_pretty(&mut out, record)?,
        Format::Ndjson => serde_json::to_writer(&mut out, record)?,
    }
    out.write_all(b"\n")?;
    out.flush()
}

/// A reader that has seen enough, say `head`, is no failure of ours.
pub(super) fn printed(done: anyhow::Result<bool>) -> Exit {
    match done {
        Err(error) if error.downcast_ref().is_some_and(is_closed) => Exit::Done,
        done => super::ended(done),
    }
}

fn is_closed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// A span of time for people: its two largest units.
pub(super) fn span(time: Duration) -> String {
    let (seconds, millis) = (time.as_secs(), time.subsec_millis());
    match seconds {
        0 => format!("{millis} ms"),
        1..10 => format!("{seconds}.{} s", millis / 100),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A moment for people, by their own clock.
pub(super) fn at(time: jiff::Timestamp) -> String {
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string()
}

/// How long ago; nothing for what lies ahead, as where two clocks differ.
pub(super) fn since(then: jiff::Timestamp, now: jiff::Timestamp) -> Duration {
    now.duration_since(then).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_by_its_two_largest_units() {
        let told = |millis| span(Duration::from_millis(millis));
        assert_eq!([7, 1_250, 59_900, 61_000].map(told), ["7 ms", "1.2 s", "59 s", "1m 1s"]);
        assert_eq!([7_260_000, 100_000_000].map(told), ["2h 1m", "1d 3h"]);
    }
}
