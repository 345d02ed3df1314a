//! The terminal of `enlist top`: taken at the start, and given back at the end, whichever end it is.

use std::io::{self, Stdout, Write as _, stdout};
use std::sync::Once;

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{execute, queue};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Fleet, Glance, HEADS, row};
use crate::bus::orders::Orders;
use crate::bus::view::{Record, Seen};
use crate::cli::page::{tone_of, what};
use crate::config::colour_wanted;
use crate::domain::{PoolState, State};
use crate::text::cut;

/// What a key asks for.
pub(super) enum Key {
    End,
    Draw,
    None,
}

/// Reads a key.
pub(super) fn key(event: &Event) -> Key {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => match key.code {
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => Key::End,
            KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::End,
            _ => Key::None,
        },
        Event::Resize(..) => Key::Draw,
        _ => Key::None,
    }
}

/// The terminal in hand.
pub(super) struct Screen {
    out: Stdout,
    colour: bool,
    zone: TimeZone,
}

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        // What a panic says must not vanish with the screen that it is said on.
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                before(panic);
            }));
        });
        enable_raw_mode()?;
        let screen = Self { out: stdout(), colour: colour_wanted(), zone: TimeZone::system() };
        execute!(stdout(), EnterAlternateScreen, Hide)?;
        Ok(screen)
    }

    pub(super) fn draw(&mut self, orders: &Orders, fleet: &Fleet) -> io::Result<()> {
        let (width, height) = size()?;
        let (width, height) = (usize::from(width), usize::from(height));
        let mut lines = self.head(orders, fleet);
        let room = height.saturating_sub(lines.len());
        let newest: Vec<&Seen> = fleet.newest.iter().rev().take(room).collect();
        lines.extend(newest.into_iter().rev().map(|seen| self.event(seen)));
        queue!(self.out, MoveTo(0, 0))?;
        for (n, (text, tone)) in lines.iter().take(height).enumerate() {
            queue!(self.out, MoveTo(0, u16::try_from(n).unwrap_or(u16::MAX)))?;
            let text: String = text.chars().take(width).collect();
            if self.colour {
                write!(self.out, "{tone}{text}\x1b[0m")?;
            } else {
                write!(self.out, "{text}")?;
            }
            queue!(self.out, Clear(ClearType::UntilNewLine))?;
        }
        queue!(self.out, Clear(ClearType::FromCursorDown))?;
        self.out.flush()
    }

    /// Everything but the newest events.
    fn head(&self, orders: &Orders, fleet: &Fleet) -> Vec<(String, &'static str)> {
        let (bold, plain, bad) = ("\x1b[1m", "", "\x1b[31m");
        let now = Timestamp::now().to_zoned(self.zone.clone()).strftime("%H:%M:%S").to_string();
        let title = format!("fleet {} at {}, {now}; q ends", orders.subjects.prefix(), cut(&orders.url, 80));
        let mut lines = vec![(title, bold)];
        if fleet.away {
            lines.push(("the connection is down; it is being made anew".to_owned(), bad));
        }
        lines.push((String::new(), plain));
        let rows: Vec<[String; 13]> =
            fleet.pools.iter().map(|(pool, glance)| row(pool.as_str(), glance)).chain([total(fleet)]).collect();
        let mut widths = HEADS.map(str::len);
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        lines.push((line(&HEADS.map(str::to_owned), &widths), bold));
        for (row, glance) in rows.iter().zip(fleet.pools.values().map(Some).chain([None])) {
            let sick = |glance: &Glance| {
                let count = |state: State| glance.states.get(state.as_str()).copied().unwrap_or_default();
                count(State::RegistrationFailed) > 0
            };
            let tone = if glance.is_some_and(sick) { bad } else { plain };
            lines.push((line(row, &widths), tone));
        }
        lines.push((String::new(), plain));
        let rates = State::ALL.map(|state| format!("{} {}", state.as_str(), fleet.rate(state)));
        lines.push((format!("within the last minute: {}", rates.join(", ")), plain));
        lines.push((String::new(), plain));
        lines
    }

    fn event(&self, seen: &Seen) -> (String, &'static str) {
        let time = seen.time.to_zoned(self.zone.clone()).strftime("%H:%M:%S%.3f");
        match &seen.record {
            Record::Worker(worker) => {
                let state = worker.state.as_str();
                let what = cut(&what(worker, None, false), 200);
                (format!("{time}  {:<24}  {state:<19}  {what}", worker.key().to_string()), tone_of(state).code())
            }
            Record::Pool(record) => {
                let reached = if record.state == PoolState::Sized { "all there" } else { "wanted" };
                (format!("{time}  {:<24}  size {} {reached}", record.pool.as_str(), record.size), "")
            }
            Record::Unreadable(subject, why) => {
                (format!("{time}  {}: {}", cut(subject, 80), cut(why, 100)), "\x1b[31m")
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Called once too often it does no harm.
fn give_back() {
    let _ = execute!(stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
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

/// Names to the left, numbers to the right.
fn line(row: &[String; 13], widths: &[usize; 13]) -> String {
    let mut line = String::new();
    for (n, (cell, width)) in row.iter().zip(widths).enumerate() {
        let cell = if n == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
        line.push_str(&cell);
    }
    line
}
