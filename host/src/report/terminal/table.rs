//! Aligned columns of harmless text. No lines are drawn: a table is read in a terminal, in a CI log and by `awk` alike.

use super::paint::{Paint, Style};
use crate::report::words::width;

/// A table under construction.
#[derive(Default)]
pub struct Table {
    rows: Vec<Vec<Cell>>,
}

/// One cell: its text and how it is painted.
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A cell with a style.
    pub fn styled(text: impl Into<String>, style: Style) -> Cell {
        Cell {
            text: text.into(),
            style,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Cell::styled(text, Style::Plain)
    }
}

impl Table {
    /// A table with a heading.
    pub fn with_heading(titles: &[&str]) -> Table {
        let mut table = Table::default();
        table.rows.push(
            titles
                .iter()
                .map(|title| Cell::styled(*title, Style::Faint))
                .collect(),
        );
        table
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The lines, each column as wide as its widest cell, two spaces between. Nothing stands behind the last cell of a line.
    pub fn lines(&self, paint: Paint) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows
                    .iter()
                    .filter_map(|row| row.get(column))
                    .map(|cell| width(&cell.text))
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        self.rows
            .iter()
            .map(|row| {
                let last = row
                    .iter()
                    .rposition(|cell| !cell.text.is_empty())
                    .unwrap_or(0);
                let mut line = String::new();
                for (column, cell) in row.iter().enumerate().take(last + 1) {
                    line.push_str(&paint.paint(cell.style, &cell.text));
                    if column < last {
                        let gap = widths[column] - width(&cell.text) + 2;
                        line.extend(std::iter::repeat_n(' ', gap));
                    }
                }
                line
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_by_width_not_by_bytes() {
        let mut table = Table::with_heading(&["probe", "verdict"]);
        table.row(["漢字".into(), "pass".into()]);
        table.row(["a".into(), "".into(), "".into()]);
        assert_eq!(
            table.lines(Paint::Never),
            ["probe  verdict", "漢字   pass", "a"]
        );
    }
}
