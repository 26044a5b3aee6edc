//! Line charts as SVG, of a bounded size for any number of points.
//!
//! Colours and line widths are classes, so that one drawing serves light and dark pages.

use std::fmt::Write as _;

/// Size of a chart in its own units; the page scales it.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 200.0;
/// Where the plot begins and ends: labels stand outside.
const LEFT: f64 = 46.0;
const RIGHT: f64 = WIDTH - 10.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = HEIGHT - 22.0;
/// Points of a line at most; more are gathered, and the room between their lowest and highest is shaded.
const POINTS_MAX: usize = 240;
/// A line of at most as many points shows each.
const DOTS_MAX: usize = 60;
/// A positive line that spans more than this factor is drawn on a logarithmic scale.
const LINEAR_SPAN_MAX: f64 = 25.0;

/// Values over steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Class of the line, which gives it its colour.
    pub class: &'static str,
    /// What it is called in the legend.
    pub name: &'static str,
    /// Steps and values; what is not finite is left out.
    pub points: Vec<(f64, f64)>,
}

/// What is drawn together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chart {
    /// What it shows.
    pub title: &'static str,
    /// Its lines.
    pub series: Vec<Series>,
    /// A level to compare with, and its name.
    pub levels: Vec<(&'static str, f64)>,
    /// Whether the axis begins at zero.
    pub from_zero: bool,
}

/// Neighbouring points as one.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Gathered {
    at: f64,
    mean: f64,
    low: f64,
    high: f64,
}

impl Chart {
    /// The drawing; empty if there is nothing to draw.
    pub fn svg(&self) -> String {
        let lines: Vec<(&Series, Vec<Gathered>)> =
            self.series.iter().map(|series| (series, gather(&series.points))).collect();
        let all = || lines.iter().flat_map(|(_, line)| line);
        let (Some(first), Some(last)) = (all().map(|p| p.at).reduce(f64::min), all().map(|p| p.at).reduce(f64::max))
        else {
            return String::new();
        };
        let x = Axis::linear(first.min(last - 1.0).max(0.0), last.max(first + 1.0), (LEFT, RIGHT));
        let y = self.y_axis(all().map(|p| p.mean));
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", self.title);
        draw_axes(&mut svg, &x, &y);
        for (series, line) in &lines {
            draw_line(&mut svg, series, line, (&x, &y));
        }
        // Above the lines, so that their names can be read.
        for (name, level) in self.levels.iter().filter(|(_, level)| y.shows(*level)) {
            let at = y.place(*level);
            let _ = write!(
                svg,
                "<path class=\"level\" d=\"M{LEFT} {at:.1}H{RIGHT}\"/><text class=\"end\" x=\"{RIGHT}\" y=\"{:.1}\">{name}</text>",
                at - 3.0
            );
        }
        svg.push_str("</svg>");
        svg
    }

    fn y_axis(&self, values: impl Iterator<Item = f64> + Clone) -> Axis {
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(f64::NEG_INFINITY, f64::max);
        if self.from_zero {
            return Axis::linear(0.0, if high > 0.0 { high * 1.05 } else { 1.0 }, (BOTTOM, TOP));
        }
        if low > 0.0 && high / low > LINEAR_SPAN_MAX {
            return Axis { log: true, ..Axis::linear(low.log10(), high.log10(), (BOTTOM, TOP)) };
        }
        let margin = ((high - low) * 0.05).max(low.abs() * 1e-3).max(1e-9);
        Axis::linear(low - margin, high + margin, (BOTTOM, TOP))
    }
}

/// At most [`POINTS_MAX`] points: as they are, or each the mean of those in an equal stretch of steps.
fn gather(points: &[(f64, f64)]) -> Vec<Gathered> {
    let finite: Vec<(f64, f64)> =
        points.iter().copied().filter(|(at, value)| at.is_finite() && value.is_finite()).collect();
    let (Some(first), Some(last)) = (finite.first(), finite.last()) else { return Vec::new() };
    if finite.len() <= POINTS_MAX {
        return finite.iter().map(|&(at, value)| Gathered { at, mean: value, low: value, high: value }).collect();
    }
    let stretch = (last.0 - first.0).max(1.0) / POINTS_MAX as f64;
    let stretch_of = |point: &(f64, f64)| (((point.0 - first.0) / stretch) as usize).min(POINTS_MAX - 1);
    let gathered = finite.chunk_by(|a, b| stretch_of(a) == stretch_of(b)).map(|part| {
        let n = part.len() as f64;
        let values = || part.iter().map(|point| point.1);
        Gathered {
            at: part.iter().map(|point| point.0).sum::<f64>() / n,
            mean: values().sum::<f64>() / n,
            low: values().fold(f64::INFINITY, f64::min),
            high: values().fold(f64::NEG_INFINITY, f64::max),
        }
    });
    gathered.collect()
}

fn draw_axes(svg: &mut String, x: &Axis, y: &Axis) {
    for (value, label) in y.ticks(5) {
        let at = y.place(value);
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{RIGHT}\"/><text class=\"end\" x=\"{:.0}\" y=\"{:.1}\">{label}</text>",
            LEFT - 5.0,
            at + 3.5
        );
    }
    for (value, label) in x.ticks(5) {
        let _ = write!(svg, "<text class=\"mid\" x=\"{:.1}\" y=\"{:.0}\">{label}</text>", x.place(value), HEIGHT - 6.0);
    }
}

fn draw_line(svg: &mut String, series: &Series, line: &[Gathered], (x, y): (&Axis, &Axis)) {
    let class = series.class;
    let path = |points: &mut dyn Iterator<Item = (f64, f64)>| -> String {
        let parts: Vec<String> =
            points.map(|(at, value)| format!("{:.1} {:.1}", x.place(at), y.place(value))).collect();
        parts.join("L")
    };
    if line.iter().any(|point| point.high > point.low) {
        let around = line.iter().map(|p| (p.at, p.high)).chain(line.iter().rev().map(|p| (p.at, p.low)));
        let _ = write!(svg, "<path class=\"band {class}\" d=\"M{}Z\"/>", path(&mut around.into_iter()));
    }
    let _ = write!(svg, "<path class=\"line {class}\" d=\"M{}\"/>", path(&mut line.iter().map(|p| (p.at, p.mean))));
    if line.len() <= DOTS_MAX {
        for Gathered { at, mean, .. } in line {
            let (cx, cy) = (x.place(*at), y.place(*mean));
            let title = format!("step {at:.0}: {}", figure(*mean));
            let _ = write!(
                svg,
                "<circle class=\"dot {class}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"2\"><title>{title}</title></circle>"
            );
        }
    }
}

/// A range of values and the places that they are drawn at.
struct Axis {
    low: f64,
    high: f64,
    /// Places of `low` and `high`.
    ends: (f64, f64),
    /// Whether `low` and `high` are powers of ten.
    log: bool,
}

impl Axis {
    fn linear(low: f64, high: f64, ends: (f64, f64)) -> Self {
        Self { low, high, ends, log: false }
    }

    /// Where a value is drawn; at the nearer end if it is outside.
    fn place(&self, value: f64) -> f64 {
        let value = if self.log { value.max(f64::MIN_POSITIVE).log10() } else { value };
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.ends.0 + share * (self.ends.1 - self.ends.0)
    }

    fn shows(&self, value: f64) -> bool {
        let value = if self.log { value.log10() } else { value };
        (self.low..=self.high).contains(&value)
    }

    /// About `n` round values with their labels.
    fn ticks(&self, n: usize) -> Vec<(f64, String)> {
        if self.log {
            let digits: &[f64] = if self.high - self.low < 2.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
            let decades = self.low.floor() as i32..=self.high.ceil() as i32;
            let values = decades.flat_map(|decade| digits.iter().map(move |digit| digit * 10_f64.powi(decade)));
            return values.filter(|value| self.shows(*value)).map(|value| (value, figure(value))).collect();
        }
        let rough = (self.high - self.low) / n as f64;
        let power = 10_f64.powf(rough.log10().floor());
        let step = power * [1.0, 2.0, 5.0, 10.0].into_iter().find(|digit| digit * power >= rough).unwrap_or(10.0);
        let (from, to) = ((self.low / step).ceil() as i64, (self.high / step).floor() as i64);
        // By whole numbers of steps, so that zero is zero.
        (from..=to).map(|i| i as f64 * step).map(|value| (value, figure(value))).collect()
    }
}

/// A figure in few characters: `0.0021`, `1.53`, `12.4k`, `3.1M`, `4e-5`.
pub fn figure(value: f64) -> String {
    let trimmed = |text: String| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    let digits = |value: f64| match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => trimmed(format!("{value:.1}")),
        size if size >= 1.0 => trimmed(format!("{value:.3}")),
        _ => trimmed(format!("{value:.4}")),
    };
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !size.is_finite() => "–".to_owned(),
        size if size < 1e-3 => {
            let text = format!("{value:.2e}");
            let (number, power) = text.split_once('e').unwrap_or((&text, "0"));
            format!("{}e{power}", trimmed(number.to_owned()))
        }
        size if size >= 1e9 => digits(value / 1e9) + "G",
        size if size >= 1e6 => digits(value / 1e6) + "M",
        size if size >= 1e3 => digits(value / 1e3) + "k",
        _ => digits(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        Chart { title: "loss", series: vec![Series { class: "train", name: "training", points }], ..Chart::default() }
    }

    #[test]
    fn figures_are_short() {
        let values = [0.0, 0.0021, 1.5, 1.53218, 1.0, 12.44, 812.4, 1000.0, 12_440.0, 3.1e6, 4e-5, -2.5, 1e-12];
        let texts = ["0", "0.0021", "1.5", "1.532", "1", "12.4", "812", "1k", "12.4k", "3.1M", "4e-5", "-2.5", "1e-12"];
        assert_eq!(values.map(figure), texts);
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let ticks = |axis: Axis| axis.ticks(5).into_iter().map(|(_, label)| label).collect::<Vec<_>>();
        assert_eq!(ticks(Axis::linear(0.0, 1000.0, (0.0, 1.0))), ["0", "200", "400", "600", "800", "1k"]);
        assert_eq!(ticks(Axis::linear(1.43, 1.58, (0.0, 1.0))), ["1.45", "1.5", "1.55"]);
        assert_eq!(ticks(Axis { log: true, ..Axis::linear(-3.2, 0.5, (0.0, 1.0)) }), ["0.001", "0.01", "0.1", "1"]);
    }

    #[test]
    fn many_points_are_gathered_and_none_is_lost_from_view() {
        let mut points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), 2.0)).collect();
        points[50_000].1 = 9.0;
        points[70_000].1 = f64::NAN;
        let line = gather(&points);
        assert!(line.len() <= POINTS_MAX);
        assert_eq!(line.iter().map(|p| p.high).fold(0.0, f64::max), 9.0);
        assert!(line.iter().all(|p| p.mean < 2.1));
        let svg = chart(points).svg();
        assert!(svg.len() < 20_000 && svg.contains("band") && !svg.contains("NaN"), "{} bytes", svg.len());
    }

    #[test]
    fn few_points_or_equal_ones_can_be_drawn() {
        assert_eq!(chart(Vec::new()).svg(), "");
        for points in [vec![(1.0, 2.0)], vec![(1.0, 0.0), (2.0, 0.0)], vec![(5.0, 3.0); 400]] {
            let svg = chart(points).svg();
            assert!(svg.ends_with("</svg>") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn a_wide_span_is_drawn_by_decades() {
        let svg = chart((1..50).map(|i| (f64::from(i), 10.0 * 0.8_f64.powi(i))).collect()).svg();
        assert!(svg.contains(">0.01<") && svg.contains(">0.1<") && svg.contains(">1<"), "{svg}");
    }
}
