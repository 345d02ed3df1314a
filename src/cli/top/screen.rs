//! The terminal of `enlist top`: taken at the start, and given back at the end, whichever end it is.

use std::io::{self, Stdout, Write as _, stdout};
use std::sync::Once;

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::terminal::{
    Clear, ClearType, DisableLineWrap, EnableLineWrap, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
    enable_raw_mode, size,
};
use crossterm::{execute, queue};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::time::Instant;

use super::table::{self, Line};
use super::{Fleet, MINUTE};
use crate::bus::orders::Orders;
use crate::bus::view::{Record, Seen};
use crate::cli::output::span;
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
    begun: Instant,
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
        let screen = Self { out: stdout(), colour: colour_wanted(), zone: TimeZone::system(), begun: Instant::now() };
        // A sign may be wider than the one place that it is counted for: it is cut off, and pushes nothing on.
        execute!(stdout(), EnterAlternateScreen, DisableLineWrap, Hide)?;
        Ok(screen)
    }

    pub(super) fn draw(&mut self, orders: &Orders, fleet: &Fleet) -> io::Result<()> {
        let (width, height) = size()?;
        let (width, height) = (usize::from(width), usize::from(height));
        let mut lines = self.head(orders, fleet, width, height);
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
    fn head(&self, orders: &Orders, fleet: &Fleet, width: usize, height: usize) -> Vec<(String, &'static str)> {
        let (bold, plain, bad) = ("\x1b[1m", "", "\x1b[31m");
        let now = Timestamp::now().to_zoned(self.zone.clone()).strftime("%H:%M:%S").to_string();
        let title = format!("fleet {} at {}, {now}; q ends", orders.subjects.prefix(), cut(&orders.url, 80));
        let mut lines = vec![(title, bold)];
        if fleet.away {
            lines.push(("the connection is down; it is being made anew".to_owned(), bad));
        }
        lines.push((String::new(), plain));
        // The rates come behind it, between blank lines.
        let pools = table::lines(fleet, width, height.saturating_sub(lines.len() + 3));
        for (n, Line { text, sick }) in pools.into_iter().enumerate() {
            lines.push((
                text,
                if n == 0 {
                    bold
                } else if sick {
                    bad
                } else {
                    plain
                },
            ));
        }
        lines.push((String::new(), plain));
        lines.push((self.rates(fleet), plain));
        lines.push((String::new(), plain));
        lines
    }

    /// How many events of each state came, of those of which one came: in the last minute, or since the start.
    fn rates(&self, fleet: &Fleet) -> String {
        let rates = State::ALL.map(|state| (fleet.rate(state), state.as_str()));
        let rates: Vec<String> =
            rates.into_iter().filter(|(rate, _)| *rate > 0).map(|(rate, state)| format!("{rate} {state}")).collect();
        let told = if rates.is_empty() { "nothing".to_owned() } else { rates.join(", ") };
        let begun = self.begun.elapsed();
        let last = if begun < MINUTE { span(begun) } else { "minute".to_owned() };
        format!("within the last {last}: {told}")
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
    let _ = execute!(stdout(), EnableLineWrap, LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}
