//! What a scenario demands of its figures: `deliveries_per_cpu_second[W = 16] >= 2.5e6`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::figure::Figure;
use crate::outcome::Row;

/// A demand on the medians of one row, or of every row that has the figure.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Assertion {
    figure: Figure,
    label: Option<String>,
    comparison: Comparison,
    bound: f64,
}

/// How it went.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    /// The assertion as it was written, more or less.
    pub(crate) assertion: String,
    /// Whether it held.
    pub(crate) held: bool,
    /// What was found instead.
    pub(crate) found: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    AtLeast,
    AtMost,
    Above,
    Below,
    Equal,
}

impl Assertion {
    /// A demand of every row that has the figure.
    pub(crate) fn zero(figure: Figure) -> Self {
        Self { figure, label: None, comparison: Comparison::Equal, bound: 0.0 }
    }

    /// Whether `rows` fulfil it. No row with the figure means that they do not.
    pub(crate) fn judge(&self, rows: &[Row]) -> Verdict {
        let concerned = rows.iter().filter(|row| self.label.as_ref().is_none_or(|label| same(label, &row.label)));
        let values: Vec<(&str, f64)> =
            concerned.filter_map(|row| Some((row.label.as_str(), row.figures.get(&self.figure)?.median))).collect();
        let show = |(label, value): &(&str, f64)| format!("{label}: {}", self.figure.unit().show(*value));
        let wrong: Vec<String> = values.iter().filter(|(_, value)| !self.holds(*value)).map(show).collect();
        let found = if values.is_empty() {
            "was not measured".to_owned()
        } else if wrong.is_empty() {
            values.iter().map(show).collect::<Vec<_>>().join(", ")
        } else {
            wrong.join(", ")
        };
        Verdict { assertion: self.to_string(), held: !values.is_empty() && wrong.is_empty(), found }
    }

    fn holds(&self, value: f64) -> bool {
        match self.comparison {
            Comparison::AtLeast => value >= self.bound,
            Comparison::AtMost => value <= self.bound,
            Comparison::Above => value > self.bound,
            Comparison::Below => value < self.bound,
            Comparison::Equal => (value - self.bound).abs() <= f64::EPSILON * self.bound.abs(),
        }
    }
}

/// Labels are compared without their blanks, which nobody remembers.
fn same(left: &str, right: &str) -> bool {
    let dense = |text: &str| text.chars().filter(|c| !c.is_whitespace() && *c != ',').collect::<String>();
    dense(left) == dense(right)
}

impl fmt::Display for Assertion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.figure.name())?;
        if let Some(label) = &self.label {
            write!(out, "[{label}]")?;
        }
        write!(out, " {} {}", self.comparison.sign(), self.bound)
    }
}

impl Comparison {
    /// Longer signs first: `>=` begins with `>`.
    const ALL: [Self; 5] = [Self::AtLeast, Self::AtMost, Self::Equal, Self::Above, Self::Below];

    fn sign(self) -> &'static str {
        match self {
            Self::AtLeast => ">=",
            Self::AtMost => "<=",
            Self::Above => ">",
            Self::Below => "<",
            Self::Equal => "==",
        }
    }
}

impl FromStr for Assertion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            |why: &str| format!("{text:?}: {why}; an assertion reads `figure >= 100` or `figure[label] >= 100`");
        let found = Comparison::ALL.iter().find_map(|comparison| {
            // A label may hold any sign: the comparison follows it.
            let from = text.find(']').unwrap_or_default();
            let at = from + text[from..].find(comparison.sign())?;
            Some((*comparison, &text[..at], &text[at + comparison.sign().len()..]))
        });
        let (comparison, left, right) = found.ok_or_else(|| wrong("no comparison"))?;
        let (name, label) = match left.trim().split_once('[') {
            Some((name, label)) => {
                let label = label.strip_suffix(']').ok_or_else(|| wrong("the label does not end"))?;
                (name.trim(), Some(label.trim().to_owned()))
            }
            None => (left.trim(), None),
        };
        let figure = Figure::named(name).ok_or_else(|| {
            let names: Vec<&str> = Figure::ALL.iter().map(|figure| figure.name()).collect();
            format!("{text:?}: there is no figure `{name}`; there are {}", names.join(", "))
        })?;
        let bound = right.trim().replace('_', "").parse().map_err(|_| wrong("no number"))?;
        Ok(Self { figure, label, comparison, bound })
    }
}

impl TryFrom<String> for Assertion {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Run, rows};

    fn judge(assertion: &str) -> bool {
        let run = |label: &str, value| {
            let mut run = Run::new(label);
            run.set(Figure::ShareOfLimit, value);
            run
        };
        let rows = rows(&[run("W = 1", 0.9), run("W = 16", 0.7)]);
        assertion.parse::<Assertion>().unwrap().judge(&rows).held
    }

    #[test]
    fn judged_by_every_row_or_by_the_one_named() {
        assert!(judge("share_of_limit >= 0.7"));
        assert!(!judge("share_of_limit >= 0.8"));
        assert!(judge("share_of_limit[W=1] >= 0.8"));
        assert!(!judge("share_of_limit[W = 16]>=0.8"));
        assert!(judge("share_of_limit[W=16] == 0.7"));
        assert!(judge("share_of_limit < 1_0e-1"));
        assert!(!judge("share_of_limit > 0.7"));
    }

    #[test]
    fn what_was_not_measured_does_not_hold() {
        assert!(!judge("lost == 0"));
        assert!(!judge("share_of_limit[W=2] >= 0"));
    }

    #[test]
    fn mistakes_are_said() {
        for (text, part) in [
            ("loss == 0", "there is no figure `loss`"),
            ("lost", "no comparison"),
            ("lost == none", "no number"),
            ("lost[W=1 == 0", "the label does not end"),
        ] {
            let error = text.parse::<Assertion>().unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn shown_as_written() {
        let text = "deliveries_per_cpu_second[W = 16] >= 2500000";
        assert_eq!(text.parse::<Assertion>().unwrap().to_string(), text);
    }
}
