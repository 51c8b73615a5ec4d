//! Charts as inline SVG: bars with whiskers, and lines over linear or stretched axes.
//!
//! Colours come from the page's variables `--c0`, `--c1`, …, so that one drawing serves light and dark.

use std::fmt::Write as _;

use crate::figure::Unit;
use crate::outcome::Spread;

/// Colours of the page.
const COLOURS: usize = 6;

/// A line of so few points shows each.
const FEW: usize = 12;

/// The drawing's width; it is scaled to the page's column.
const WIDTH: f64 = 640.0;

/// A set of bars: one for each label.
pub(crate) struct Bars {
    /// Its name in the legend.
    pub(crate) name: String,
    /// In the order of the labels; none where there is no such figure.
    pub(crate) values: Vec<Option<Spread>>,
}

/// A line.
pub(crate) struct Line {
    /// Its name in the legend.
    pub(crate) name: String,
    /// From left to right.
    pub(crate) points: Vec<(f64, f64)>,
}

/// How values become places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From zero.
    Linear,
    /// By powers of ten.
    Logarithmic,
    /// By powers of two.
    Doubling,
    /// Shares of a distribution: each nine has as much room as the one before.
    Nines,
}

/// Horizontal bars, grouped by label.
pub(crate) fn bars(title: &str, unit: Unit, labels: &[&str], sets: &[Bars]) -> String {
    let (left, right, bar, gap) = (110.0, 96.0, 16.0, 14.0);
    let top = 8.0;
    let group = bar * sets.len() as f64 + gap;
    let height = top + group * labels.len() as f64;
    let most = sets.iter().flat_map(|set| &set.values).flatten().fold(0.0, |most: f64, value| most.max(value.high));
    let scale = (WIDTH - left - right) / if most > 0.0 { most } else { 1.0 };
    let mut svg = open(title, height);
    for (row, label) in labels.iter().enumerate() {
        let y = top + row as f64 * group;
        let middle = y + bar * sets.len() as f64 / 2.0 + 4.0;
        put(&mut svg, format_args!(r#"<text class="l" x="{}" y="{middle:.1}">{}</text>"#, left - 10.0, escape(label)));
        for (number, set) in sets.iter().enumerate() {
            let Some(Spread { median, low, high }) = set.values.get(row).copied().flatten() else {
                continue;
            };
            let y = y + number as f64 * bar;
            let width = (median * scale).max(1.0);
            let shown = unit.show(median);
            put(
                &mut svg,
                format_args!(
                    r#"<rect x="{left}" y="{:.1}" width="{width:.1}" height="{}" rx="2" fill="var(--c{})"><title>{} · {}: {shown}</title></rect>"#,
                    y + 1.0,
                    bar - 2.0,
                    number % COLOURS,
                    escape(label),
                    escape(&set.name),
                ),
            );
            let end = left + width.max(high * scale);
            if low < high {
                put(
                    &mut svg,
                    format_args!(
                        r#"<path class="w" d="M{:.1} {:.1}H{:.1}"/>"#,
                        left + low * scale,
                        y + bar / 2.0,
                        left + high * scale
                    ),
                );
            }
            put(&mut svg, format_args!(r#"<text x="{:.1}" y="{:.1}">{shown}</text>"#, end + 6.0, y + bar / 2.0 + 4.0));
        }
    }
    svg.push_str("</svg>");
    figure(title, &svg, sets.iter().map(|set| set.name.as_str()))
}

/// Lines over a common axis.
pub(crate) fn lines(title: &str, (x_scale, y_scale): (Scale, Scale), unit: Unit, lines: &[Line]) -> String {
    let (left, right, top, bottom, height) = (70.0, 28.0, 10.0, 26.0, 220.0);
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let x_range = range(x_scale, points().map(|(x, _)| x));
    let y_range = range(y_scale, points().map(|(_, y)| y));
    let place = |scale: Scale, value: f64, (low, high): (f64, f64)| (scale.stretch(value) - low) / (high - low);
    let x = |value| left + place(x_scale, value, x_range) * (WIDTH - left - right);
    let y = |value| height - bottom - place(y_scale, value, y_range) * (height - top - bottom);
    let mut svg = open(title, height);
    for (tick, shown) in value_ticks(y_scale, y_range, unit) {
        let y = y(tick);
        put(&mut svg, format_args!(r#"<path class="g" d="M{left} {y:.1}H{}"/>"#, WIDTH - right));
        put(&mut svg, format_args!(r#"<text class="l" x="{}" y="{:.1}">{shown}</text>"#, left - 8.0, y + 4.0));
    }
    for tick in ticks(x_scale, x_range) {
        let label = match x_scale {
            Scale::Nines => format!("{} %", (tick * 1e6).round() / 1e4),
            Scale::Linear => format!("{tick} s"),
            Scale::Logarithmic | Scale::Doubling => tick.to_string(),
        };
        let y = height - 8.0;
        put(&mut svg, format_args!(r#"<text class="m" x="{:.1}" y="{y}">{label}</text>"#, x(tick)));
    }
    for (number, line) in lines.iter().enumerate() {
        let mut path = String::new();
        for (index, point) in line.points.iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            put(&mut path, format_args!("{command}{:.1} {:.1}", x(point.0), y(point.1)));
        }
        let colour = number % COLOURS;
        put(
            &mut svg,
            format_args!(
                r#"<path class="s" stroke="var(--c{colour})" d="{path}"><title>{}</title></path>"#,
                escape(&line.name)
            ),
        );
    }
    for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.points.len() <= FEW) {
        for point in &line.points {
            let (x, y, colour) = (x(point.0), y(point.1), number % COLOURS);
            let (name, shown) = (escape(&line.name), unit.show(point.1));
            put(
                &mut svg,
                format_args!(
                    r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="var(--c{colour})"><title>{name}: {shown}</title></circle>"#
                ),
            );
        }
    }
    svg.push_str("</svg>");
    figure(title, &svg, lines.iter().map(|line| line.name.as_str()))
}

/// Text that is safe in HTML and SVG.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl Scale {
    fn stretch(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Logarithmic => value.max(1e-6).log10(),
            Self::Doubling => value.max(1.0).log2(),
            Self::Nines => -(1.0 - value).max(1e-5).log10(),
        }
    }
}

/// The stretched ends of an axis, never the same.
fn range(scale: Scale, values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        let value = scale.stretch(value);
        (low, high) = (low.min(value), high.max(value));
    }
    if !low.is_finite() {
        return (0.0, 1.0);
    }
    match scale {
        Scale::Linear => (0.0, if high > 0.0 { high * 1.05 } else { 1.0 }),
        Scale::Logarithmic | Scale::Doubling => {
            (low.floor(), if high.ceil() > low.floor() { high.ceil() } else { low.floor() + 1.0 })
        }
        Scale::Nines => (0.0, high.max(1.0)),
    }
}

/// Ticks of an axis of values, and what is written there: round in the unit that is written.
fn value_ticks(scale: Scale, (low, high): (f64, f64), unit: Unit) -> Vec<(f64, String)> {
    match unit {
        Unit::Bytes => {
            let power = high.max(1.0).log(1024.0).floor().min(3.0);
            let (step, name) = (1024_f64.powf(power), ["B", "KiB", "MiB", "GiB"][power as usize]);
            let ticks = ticks(scale, (low / step, high / step)).into_iter();
            ticks.map(|tick| (tick * step, format!("{tick} {name}"))).collect()
        }
        Unit::Milliseconds => ticks(scale, (low, high)).into_iter().map(|tick| (tick, format!("{tick} ms"))).collect(),
        _ => ticks(scale, (low, high)).into_iter().map(|tick| (tick, unit.show(tick))).collect(),
    }
}

fn ticks(scale: Scale, (low, high): (f64, f64)) -> Vec<f64> {
    match scale {
        Scale::Linear => {
            let rough = (high - low) / 5.0;
            let power = 10_f64.powf(rough.log10().floor());
            let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough);
            let step = step.unwrap_or(rough);
            // By multiplication: sums of tenths are no tenths.
            let digits = (-power.log10()).max(0.0) as i32;
            let round = |value: f64| (value * 10_f64.powi(digits)).round() / 10_f64.powi(digits);
            (0..=(high / step) as usize).map(|number| round(number as f64 * step)).collect()
        }
        Scale::Logarithmic => (low as i32..=high as i32).map(|power| 10_f64.powi(power)).collect(),
        Scale::Doubling => (low as i32..=high as i32).map(|power| 2_f64.powi(power)).collect(),
        Scale::Nines => [0.5, 0.9, 0.99, 0.999, 0.9999, 1.0]
            .into_iter()
            .filter(|share| scale.stretch(*share) <= high + 1e-9)
            .collect(),
    }
}

fn open(title: &str, height: f64) -> String {
    format!(r#"<svg viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-label="{}">"#, escape(title))
}

/// A drawing with its title, and a legend where there is more than one colour.
fn figure<'a>(title: &str, svg: &str, names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let mut text = format!("<figure><figcaption>{}</figcaption>", escape(title));
    if names.len() > 1 {
        text.push_str(r#"<p class="legend">"#);
        for (number, name) in names.iter().enumerate() {
            put(
                &mut text,
                format_args!(r#"<span><i style="background:var(--c{})"></i>{}</span>"#, number % COLOURS, escape(name)),
            );
        }
        text.push_str("</p>");
    }
    text.push_str(svg);
    text.push_str("</figure>\n");
    text
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(Scale::Linear, (0.0, 1.05)), [0.0, 0.5, 1.0]);
        assert_eq!(ticks(Scale::Linear, (0.0, 0.31)), [0.0, 0.1, 0.2, 0.3]);
        assert_eq!(ticks(Scale::Linear, (0.0, 8_400_000.0)), [0.0, 2e6, 4e6, 6e6, 8e6]);
        assert_eq!(ticks(Scale::Logarithmic, (-1.0, 2.0)), [0.1, 1.0, 10.0, 100.0]);
        assert_eq!(ticks(Scale::Doubling, (0.0, 4.0)), [1.0, 2.0, 4.0, 8.0, 16.0]);
        assert_eq!(ticks(Scale::Nines, (0.0, 3.0)), [0.5, 0.9, 0.99, 0.999]);
        let shown = |scale, range, unit| {
            value_ticks(scale, range, unit).into_iter().map(|(_, shown)| shown).collect::<Vec<_>>()
        };
        assert_eq!(shown(Scale::Linear, (0.0, 6e6), Unit::Bytes), ["0 MiB", "2 MiB", "4 MiB"]);
        assert_eq!(shown(Scale::Logarithmic, (-2.0, 0.0), Unit::Milliseconds), ["0.01 ms", "0.1 ms", "1 ms"]);
    }

    #[test]
    fn axes_have_a_length_whatever_the_values() {
        for scale in [Scale::Linear, Scale::Logarithmic, Scale::Doubling, Scale::Nines] {
            for values in [&[][..], &[0.0], &[7.0, 7.0], &[1.0]] {
                let (low, high) = range(scale, values.iter().copied());
                assert!(high > low && (high - low).is_finite(), "{scale:?} {values:?}");
                assert!(!ticks(scale, (low, high)).is_empty());
            }
        }
    }

    #[test]
    fn names_are_text() {
        let spread = Some(Spread { median: 2.0, low: 1.0, high: 3.0 });
        let sets = [Bars { name: "a<b".to_owned(), values: vec![spread, None] }];
        let svg = bars("x & y", Unit::Count, &["<one>", "two"], &sets);
        assert!(svg.contains("&lt;one&gt;") && svg.contains("x &amp; y") && !svg.contains("<one>"));
        assert_eq!(svg.matches("<rect").count(), 1);
    }
}
