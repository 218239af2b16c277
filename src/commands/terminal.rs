//! What a person looks at: columns that fit the terminal, colours where it has them, times in few
//! words. What came from outside is [`Printable`] before it is measured, cut or coloured.

use std::io::{IsTerminal, stdout};
use std::time::Duration;

use rustix::termios::tcgetwinsize;
use unicode_width::UnicodeWidthChar;

use crate::approval::{Approval, Risk};
use crate::clock::Timestamp;
use crate::complaint::{Printable, PrintableJson};
use crate::config::Environment;

/// Columns of a terminal that does not say how many it has.
const USUAL: usize = 80;
/// Columns that are at most filled up with spaces where nothing limits a line. One long text must
/// not make every other line as long.
const PADDED: usize = 100;
/// Between two columns.
const GAP: &str = "  ";

/// Standard output, as far as it matters to what is written there.
pub(super) struct Terminal {
    /// How wide a line may be, if anything limits it.
    columns: Option<usize>,
    coloured: bool,
}

/// One column of a table.
#[derive(Clone, Copy, Debug)]
pub(super) enum Column {
    /// Shown whole whatever the terminal, for it is short or is to be copied.
    Whole(&'static str),
    /// Gives way with `…`.
    Elastic(&'static str),
}

/// Text for a terminal: harmless, and perhaps coloured.
pub(super) struct Cell {
    text: String,
    colour: Option<&'static str>,
}

impl Terminal {
    /// Asks the system, then the environment.
    pub(super) fn of(environment: &Environment) -> Self {
        let watched = stdout().is_terminal();
        let size = watched.then(|| tcgetwinsize(stdout()).ok()).flatten();
        let asked = size.map(|size| usize::from(size.ws_col));
        let columns = [asked, environment.columns()].into_iter().flatten();
        Self {
            columns: columns
                .filter(|columns| *columns > 0)
                .chain(watched.then_some(USUAL))
                .next(),
            coloured: watched && !environment.forbids_colour(),
        }
    }

    /// Rows under their titles. Every line fits as long as the whole columns leave room for that.
    pub(super) fn table(&self, columns: &[Column], rows: &[Vec<Cell>]) -> String {
        let widths = self.widths(columns, rows);
        let titles: Vec<Cell> = columns.iter().map(|column| column.title().into()).collect();
        let lines = [&titles].into_iter().chain(rows);
        lines.map(|row| self.row(row, &widths)).collect()
    }

    /// Columns as wide as their widest cell; then the widest elastic one gives way until all fit.
    fn widths(&self, columns: &[Column], rows: &[Vec<Cell>]) -> Vec<usize> {
        let natural = |(index, column): (usize, &Column)| {
            let cells = rows.iter().filter_map(|row| row.get(index));
            let cells = cells.map(|cell| width(&cell.text)).max().unwrap_or(0);
            cells.max(width(column.title()))
        };
        let mut widths: Vec<usize> = columns.iter().enumerate().map(natural).collect();
        let gaps = GAP.len() * columns.len().saturating_sub(1);
        let mut total = widths.iter().sum::<usize>() + gaps;
        while self.columns.is_some_and(|columns| total > columns) {
            let elastic = columns.iter().zip(&mut widths);
            let elastic = elastic.filter(|(column, _)| matches!(column, Column::Elastic(_)));
            let widest = elastic.map(|(_, width)| width).max();
            let Some(widest) = widest.filter(|width| **width > 1) else {
                break;
            };
            *widest -= 1;
            total -= 1;
        }
        widths
    }

    fn row(&self, cells: &[Cell], widths: &[usize]) -> String {
        let mut line = String::new();
        // Spaces are owed until something follows them.
        let mut owed = 0;
        for (cell, limit) in cells.iter().zip(widths) {
            let text = match self.columns {
                Some(_) => fit(&cell.text, *limit),
                None => cell.text.clone(),
            };
            let filled = match self.columns {
                Some(_) => *limit,
                None => (*limit).min(PADDED),
            };
            line.extend(std::iter::repeat_n(' ', owed));
            owed = filled.saturating_sub(width(&text)) + GAP.len();
            line += &self.paint(&text, cell.colour);
        }
        line + "\n"
    }

    /// A line of its own, cut where the terminal ends.
    pub(super) fn line(&self, text: &str) -> String {
        let text = Printable(text).to_string();
        self.columns
            .map_or(text.clone(), |columns| fit(&text, columns))
            + "\n"
    }

    /// A cell as it stands in running text.
    pub(super) fn inline(&self, cell: &Cell) -> String {
        self.paint(&cell.text, cell.colour)
    }

    fn paint(&self, text: &str, colour: Option<&str>) -> String {
        match colour.filter(|_| self.coloured) {
            Some(colour) => format!("\x1b[{colour}m{text}\x1b[0m"),
            None => text.to_owned(),
        }
    }
}

impl Column {
    fn title(self) -> &'static str {
        match self {
            Self::Whole(title) | Self::Elastic(title) => title,
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self {
            text: Printable(text).to_string(),
            colour: None,
        }
    }
}

impl From<Risk> for Cell {
    fn from(risk: Risk) -> Self {
        // Parameters of SGR (ECMA-48): bold, and the foreground.
        let colour = match risk {
            Risk::Critical => "1;31",
            Risk::High => "31",
            Risk::Medium => "33",
            Risk::Low => "32",
        };
        Self {
            text: risk.word().to_owned(),
            colour: Some(colour),
        }
    }
}

/// The document as it is stored, with a line's end.
pub(super) fn json(approval: &Approval) -> String {
    let text = approval.to_bytes();
    PrintableJson(&String::from_utf8_lossy(&text)).to_string()
}

/// `12s`, `4m`, `3h`, `2d`: what is over of the largest unit that fits.
pub(super) fn brief(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..86400 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86400),
    }
}

/// `2024-01-15 15:30:45 UTC (3d ago)`, or `… (in 4m)`.
pub(super) fn time(at: Timestamp, now: Timestamp) -> String {
    let distance = if at > now {
        format!("in {}", brief(at.since(now)))
    } else {
        format!("{} ago", brief(now.since(at)))
    };
    format!("{} ({distance})", at.for_people())
}

/// The text, or as much of it as leaves room for `…`.
fn fit(text: &str, columns: usize) -> String {
    let mut kept = 0;
    for (end, taken) in ends(text) {
        if taken > columns {
            return format!("{}…", &text[..kept]);
        }
        if taken < columns {
            kept = end;
        }
    }
    text.to_owned()
}

fn width(text: &str) -> usize {
    ends(text).last().map_or(0, |(_, columns)| columns)
}

/// Where each character ends, in bytes and in columns. Characters count one by one, for most
/// terminals draw a joined emoji as its parts; the selector that makes a sign an emoji widens it.
fn ends(text: &str) -> impl Iterator<Item = (usize, usize)> {
    let (mut columns, mut last) = (0, 0);
    text.char_indices().map(move |(start, c)| {
        let width = match c {
            '\u{fe0f}' if last == 1 => 1,
            c => c.width().unwrap_or(0),
        };
        (columns, last) = (columns + width, width);
        (start + c.len_utf8(), columns)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_only_when_it_must_be_and_never_inside_a_wide_character() {
        for (text, columns, cut) in [
            ("scale", 5, "scale"),
            ("scale", 4, "sca…"),
            ("scale", 1, "…"),
            ("日本語", 6, "日本語"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            ("e\u{301}e\u{301}e\u{301}", 2, "e\u{301}…"),
            ("⚠\u{fe0f}⚠\u{fe0f}", 3, "⚠\u{fe0f}…"),
            ("", 0, ""),
        ] {
            assert_eq!(fit(text, columns), cut);
        }
    }

    #[test]
    fn a_span_is_told_in_its_largest_unit() {
        for (seconds, told) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3599, "59m"),
            (3600, "1h"),
            (86_399, "23h"),
            (86_400, "1d"),
            (8_640_000, "100d"),
        ] {
            assert_eq!(brief(Duration::from_secs(seconds)), told);
        }
    }

    #[test]
    fn the_widest_elastic_column_gives_way_first() {
        let terminal = |columns| Terminal {
            columns: Some(columns),
            coloured: false,
        };
        let columns = [
            Column::Whole("ID"),
            Column::Elastic("OPERATION"),
            Column::Elastic("BY"),
        ];
        let row = || vec!["apr-1".into(), "abcdefghijklmnop".into(), "alice".into()];
        let table = |width| terminal(width).table(&columns, &[row()]);
        let second = |width| table(width).lines().nth(1).unwrap().to_owned();
        assert_eq!(second(30), "apr-1  abcdefghijklmnop  alice");
        assert_eq!(second(29), "apr-1  abcdefghijklmn…  alice");
        assert_eq!(second(17), "apr-1  abc…  ali…");
        assert_eq!(second(3), "apr-1  …  …");
    }
}
