//! Rows of words, aligned by the width that a terminal gives them (DECIDE).

use unicode_width::UnicodeWidthStr;

/// Between two columns.
const GAP: &str = "  ";

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// What stands above it.
    pub title: &'static str,
    /// Whether it is aligned to the right, as numbers are.
    pub right: bool,
}

/// A column of words.
#[must_use]
pub const fn words(title: &'static str) -> Column {
    Column { title, right: false }
}

/// A column of numbers.
#[must_use]
pub const fn numbers(title: &'static str) -> Column {
    Column { title, right: true }
}

/// The table as text, a line each; no line ends in a space. A row may be shorter than the columns.
#[must_use]
pub fn table(columns: &[Column], rows: &[Vec<String>]) -> String {
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.width());
        cells.chain([columns[at].title.width()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut out = String::new();
    let titles: Vec<String> = columns.iter().map(|c| c.title.to_owned()).collect();
    for row in std::iter::once(&titles).chain(rows) {
        let mut line = String::new();
        for ((cell, column), width) in row.iter().zip(columns).zip(&widths) {
            let pad = " ".repeat(width.saturating_sub(cell.width()));
            let (before, after) = if column.right { (pad.as_str(), "") } else { ("", pad.as_str()) };
            line.extend([before, cell, after, GAP]);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_the_width_of_a_letter() {
        let rows = [["tower", "8", "x"], ["工作站", "22", ""], ["ü", "-", "long words"]];
        let rows: Vec<Vec<String>> = rows.iter().map(|r| r.iter().map(ToString::to_string).collect()).collect();
        insta::assert_snapshot!(table(&[words("NAME"), numbers("FREE"), words("STATE")], &rows), @r"
        NAME    FREE  STATE
        tower      8  x
        工作站    22
        ü          -  long words
        ");
    }
}
