//! Tables for people.

/// Which way a column leans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// Lays out rows under their headings; each column is as wide as it must be.
pub(super) fn table<const N: usize>(columns: [(&str, Align); N], rows: &[[String; N]]) -> String {
    let headings = columns.map(|(heading, _)| heading.to_owned());
    let lines = || std::iter::once(&headings).chain(rows);
    let widths: [usize; N] =
        std::array::from_fn(|column| lines().map(|cells| cells[column].chars().count()).max().unwrap_or_default());
    let mut text = String::new();
    for cells in lines() {
        let mut line = String::new();
        for ((cell, (_, align)), width) in cells.iter().zip(columns).zip(widths) {
            let cell = match align {
                Align::Left => format!("{cell:<width$}  "),
                Align::Right => format!("{cell:>width$}  "),
            };
            line.push_str(&cell);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows = [["a".to_owned(), "12345".to_owned()], ["größer".to_owned(), "1".to_owned()]];
        let expected = "NAME       NO\na       12345\ngrößer      1\n";
        assert_eq!(table([("NAME", Align::Left), ("NO", Align::Right)], &rows), expected);
    }
}
