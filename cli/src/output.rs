//! What people and tools read: tables, lines of JSON, errors. Colour only on a terminal, and not if `NO_COLOR` is set.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

/// Where output goes and how it looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// Lines of JSON instead of tables.
    pub(crate) json: bool,
    colour: bool,
    colour_errors: bool,
    /// Standard error is a terminal, so that bars can be drawn there.
    pub(crate) interactive: bool,
}

impl Output {
    /// For the standard streams of the process.
    pub(crate) fn new(json: bool, no_color: bool) -> Self {
        let interactive = io::stderr().is_terminal();
        Self {
            json,
            colour: !no_color && io::stdout().is_terminal(),
            colour_errors: !no_color && interactive,
            interactive,
        }
    }

    /// A line on standard output.
    pub(crate) fn line(&self, text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.write_all(b"\n")?;
        stdout.flush()
    }

    /// A value as one line of JSON on standard output.
    pub(crate) fn json_line(&self, value: &impl Serialize) -> io::Result<()> {
        self.line(&serde_json::to_string(value)?)
    }

    /// A table on standard output.
    pub(crate) fn table(&self, table: &Table) -> io::Result<()> {
        self.line(&table.render(self.colour))
    }

    /// A list: one line of JSON per element, or a table.
    pub(crate) fn list<T: Serialize>(&self, list: &[T], table: impl FnOnce(&[T]) -> Table) -> io::Result<()> {
        if self.json { list.iter().try_for_each(|element| self.json_line(element)) } else { self.table(&table(list)) }
    }

    /// A line for people on standard error, which does not disturb what tools read.
    pub(crate) fn note(&self, text: &str) {
        // Without standard error there is nobody to tell.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// An error, and what to do about it.
    pub(crate) fn error(&self, text: &str, advice: Option<&str>) {
        let (red, cyan, reset) = if self.colour_errors { ("\x1b[1;31m", "\x1b[36m", "\x1b[0m") } else { ("", "", "") };
        self.note(&format!("{red}error:{reset} {text}"));
        if let Some(advice) = advice {
            self.note(&format!("  {cyan}help:{reset} {advice}"));
        }
    }
}

/// Text from outside, with everything that could steer a terminal made harmless.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

/// A cell's place in its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Columns as wide as they need to be.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns. Empty names everywhere leave the head away.
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Names on the left, values on the right.
    pub(crate) fn pairs() -> Self {
        Self::new(&[("", Align::Left), ("", Align::Left)])
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.iter().map(|cell| clean(cell)).collect());
    }

    /// Adds a name and a value.
    pub(crate) fn pair(&mut self, name: &str, value: impl ToString) {
        self.row([name.to_owned(), value.to_string()]);
    }

    fn render(&self, colour: bool) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            let head = self.columns.get(column).map_or(0, |(name, _)| name.chars().count());
            cells.max().unwrap_or(0).max(head)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let aligned = |cells: &[&str]| {
            let mut line = String::new();
            for ((cell, width), (_, align)) in cells.iter().zip(&widths).zip(&self.columns) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                match align {
                    Align::Left => line.push_str(&format!("{cell:<width$}")),
                    Align::Right => line.push_str(&format!("{cell:>width$}")),
                }
            }
            line.trim_end().to_owned()
        };
        let mut lines = Vec::with_capacity(self.rows.len() + 1);
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        if names.iter().any(|name| !name.is_empty()) {
            let head = aligned(&names);
            lines.push(if colour { format!("\x1b[1m{head}\x1b[0m") } else { head });
        }
        lines.extend(self.rows.iter().map(|row| aligned(&row.iter().map(String::as_str).collect::<Vec<_>>())));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&[("NAME", Align::Left), ("TASKS", Align::Right)]);
        table.row(["map".into(), "1000".into()]);
        table.row(["réduction".into(), "8".into()]);
        assert_eq!(table.render(false), "NAME       TASKS\nmap         1000\nréduction      8");
    }

    #[test]
    fn an_empty_table_is_its_head() {
        assert_eq!(Table::new(&[("A", Align::Left), ("B", Align::Left)]).render(false), "A  B");
    }

    #[test]
    fn colour_is_only_where_it_is_asked_for() {
        let table = Table::new(&[("A", Align::Left)]);
        assert_eq!(table.render(true), "\x1b[1mA\x1b[0m");
        assert_eq!(table.render(false), "A");
    }

    #[test]
    fn text_from_outside_cannot_steer_a_terminal() {
        let mut table = Table::pairs();
        table.pair("name", "\x1b[2Jevil\r\n");
        assert_eq!(table.render(false), "name  \u{FFFD}[2Jevil\u{FFFD}\u{FFFD}");
    }
}
