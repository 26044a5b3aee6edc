//! The learning rate range test (Smith 2017): a short run whose rate grows from step to step shows which rates teach.
//!
//! The loss falls slowly at first, then fast, then no more, and at last it grows. A good highest rate is where it falls fastest, or
//! well before its lowest point: the smaller of the two, since clipping can keep a far too high rate from showing.

use super::TrainError;
use super::adaptation::first_values;
use super::batches::accumulate;
use super::corpus::Corpus;
use super::norm::{clip_factor, norm};
use super::optimizer::Optimizer;
use super::progress::{Event, Progress, StepRecord};
use super::step::Stepper;
use crate::artifact::write_atomic;
use crate::data::Example;
use crate::model;
use crate::recipe::Recipe;
use plotters::prelude::*;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Share of the smoothed loss that a step keeps of the one before.
const SMOOTHING: f64 = 0.9;
/// The test ends where the smoothed loss is this many times its lowest.
const EXPLOSION: f64 = 2.0;
/// A rate is taken to be good only if that of the lowest loss is this many times as high.
const MARGIN: f64 = 10.0;
/// Steps to each side of the one whose slope is taken.
const SLOPE_REACH: usize = 2;

/// Which rates are tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateRange {
    /// The first.
    pub low: f64,
    /// The last, if the loss does not explode before.
    pub high: f64,
}

/// A text that is not a range of rates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a range of learning rates: write the lowest and the highest, as in 1e-5..1e-1")]
pub struct RateRangeError {
    text: String,
}

impl FromStr for RateRange {
    type Err = RateRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rate = |part: &str| part.trim().parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0);
        let (low, high) = text.split_once("..").unwrap_or_default();
        match (rate(low), rate(high)) {
            (Some(low), Some(high)) if low < high => Ok(Self { low, high }),
            _ => Err(RateRangeError { text: text.to_owned() }),
        }
    }
}

impl RateRange {
    /// The rate of a step: each is the same factor above the one before.
    fn rate(self, step: u64, steps: u64) -> f64 {
        self.low * (self.high / self.low).powf(step as f64 / steps.saturating_sub(1).max(1) as f64)
    }
}

/// A step of the test, and a line of its log.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RatePoint {
    /// Steps done.
    pub step: u64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Mean loss over the step's targets, in nats, before its update.
    pub loss: f64,
    /// Average of the losses so far, later ones weighing more.
    pub smoothed_loss: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
}

/// What the test found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RateReport {
    /// A rate to train with.
    pub suggested: f64,
    /// Where the smoothed loss fell fastest.
    pub steepest: f64,
    /// Where it was lowest.
    pub lowest: f64,
    /// The lowest smoothed loss, in nats.
    pub lowest_loss: f64,
    /// Whether the loss exploded before the last step.
    pub exploded: bool,
    /// Whether the test was stopped from outside.
    pub interrupted: bool,
    /// What to try next, where the range does not show what it should.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<&'static str>,
    /// Steps done.
    pub steps: u64,
    /// The steps as JSON lines.
    pub log: PathBuf,
    /// The curve as an SVG picture.
    pub picture: PathBuf,
}

/// Trains for up to `steps` steps over a range of rates; leaves `lr-range.jsonl` and `lr-range.svg` in the folder `out`, and no model.
///
/// The recipe's own rate, schedule and number of steps have no say; all else has. Muon's rate grows along, as far from the
/// other as in the recipe.
///
/// # Errors
/// As a run's. It is not an error if the loss explodes.
pub fn lr_range(
    recipe: &Recipe,
    (range, steps): (RateRange, u64),
    out: &Path,
    interrupt: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<RateReport, TrainError> {
    let (points, exploded) = sweep(recipe, (range, steps), out, interrupt, progress)?;
    let (log, picture) = (out.join("lr-range.jsonl"), out.join("lr-range.svg"));
    let report = RateReport { log, picture, ..judge(&points, steps, exploded) };
    let mut lines = String::new();
    for point in &points {
        lines += &serde_json::to_string(point).map_err(|error| TrainError::Recipe(error.to_string()))?;
        lines.push('\n');
    }
    write_atomic(&report.log, lines.as_bytes())?;
    let svg = draw(&points, &report).map_err(|error| TrainError::Recipe(error.to_string()))?;
    write_atomic(&report.picture, svg.as_bytes())?;
    Ok(report)
}

/// The steps, at least one, and whether the loss of the last or of one more has exploded.
fn sweep(
    recipe: &Recipe,
    (range, steps): (RateRange, u64),
    out: &Path,
    interrupt: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<(Vec<RatePoint>, bool), TrainError> {
    let (train, rule) = (&recipe.train, &recipe.optimizer);
    let corpus = Corpus::prepare(&recipe.for_examples())?;
    let model = model::build_for(&recipe.architecture(corpus.labels.len()), recipe.peft.as_ref())?;
    let mut params = first_values(recipe, &corpus, &*model, out)?.stored_as(train.weights_dtype);
    let mut optimizer = Optimizer::new(rule, model.layout())?;
    progress.event(&Event::Started {
        n_params: params.layout.len() as u64,
        n_train_tokens: corpus.source.n_train_tokens(),
        n_validation_targets: corpus.source.validation().iter().map(Example::n_targets).sum(),
        baselines: None,
        steps_done: 0,
        steps,
    });
    let mut stepper = Stepper::new(&*model);
    let (started, mut all_tokens) = (Instant::now(), 0);
    let mut points: Vec<RatePoint> = Vec::new();
    let (mut sum, mut lowest, mut exploded) = (0.0, f64::INFINITY, false);
    for step in 0..steps {
        if exploded || interrupt.load(Ordering::Relaxed) {
            break;
        }
        let batches = step * train.accumulate as u64..(step + 1) * train.accumulate as u64;
        let (loss, n_tokens) = accumulate(&mut stepper, &*corpus.source, train, &params, batches);
        let gradient = stepper.gradient();
        let (norm, rate) = (norm(gradient), range.rate(step, steps));
        if !(loss.is_finite() && norm.is_finite()) {
            exploded = true;
            break;
        }
        optimizer.update(&mut params, gradient, clip_factor(norm, rule.clip_norm), rate, step);
        sum = SMOOTHING * sum + (1.0 - SMOOTHING) * loss;
        let smoothed_loss = sum / (1.0 - SMOOTHING.powf((step + 1) as f64));
        lowest = smoothed_loss.min(lowest);
        points.push(RatePoint { step: step + 1, learning_rate: rate, loss, smoothed_loss, gradient_norm: norm });
        all_tokens += n_tokens;
        if (step + 1).is_multiple_of((steps / 10).max(1)) {
            let seconds = started.elapsed().as_secs_f64().max(1e-9);
            progress.event(&Event::Step(StepRecord {
                step: step + 1,
                steps,
                n_tokens: all_tokens,
                loss,
                gradient_norm: norm,
                learning_rate: rate,
                tokens_per_second: all_tokens as f64 / seconds,
                seconds_left: (steps - step - 1) as f64 * seconds / (step + 1) as f64,
            }));
        }
        exploded = smoothed_loss > EXPLOSION * lowest;
    }
    if points.is_empty() {
        return Err(TrainError::Diverged { problem: "the first step gives no number".into() });
    }
    Ok((points, exploded))
}

/// Reads the rates off the curve.
fn judge(points: &[RatePoint], steps: u64, exploded: bool) -> RateReport {
    let by_loss = |a: &&RatePoint, b: &&RatePoint| a.smoothed_loss.total_cmp(&b.smoothed_loss);
    let at = points.iter().min_by(by_loss).map_or(0, |point| point.step as usize - 1);
    let slope = |idx: usize| {
        let (from, to) = (&points[idx - SLOPE_REACH], &points[idx + SLOPE_REACH]);
        (to.smoothed_loss - from.smoothed_loss) / (to.learning_rate / from.learning_rate).ln()
    };
    let last = points.len().saturating_sub(SLOPE_REACH).min(at + 1);
    let steepest = (SLOPE_REACH..last).min_by(|a, b| slope(*a).total_cmp(&slope(*b))).unwrap_or(0);
    let is_done = points.len() as u64 == steps && !exploded;
    let advice = match at {
        0 => Some("the loss never fell: begin at a lower rate"),
        at if is_done && at + 1 == points.len() => {
            Some("the loss still falls at the highest rate: end at a higher one")
        }
        _ => None,
    };
    let (lowest, steepest) = (points[at], points[steepest].learning_rate);
    RateReport {
        suggested: steepest.min(lowest.learning_rate / MARGIN),
        steepest,
        lowest: lowest.learning_rate,
        lowest_loss: lowest.smoothed_loss,
        exploded,
        interrupted: !is_done && !exploded,
        advice,
        steps: points.len() as u64,
        log: PathBuf::new(),
        picture: PathBuf::new(),
    }
}

/// The losses over the rates, with lines where the report's rates are.
fn draw(points: &[RatePoint], report: &RateReport) -> Result<String, Box<dyn std::error::Error>> {
    let losses = || points.iter().map(|point| point.smoothed_loss);
    let (low, high) = (losses().fold(f64::INFINITY, f64::min), losses().fold(f64::NEG_INFINITY, f64::max));
    let room = 0.08 * (high - low).max(0.1);
    let y = low - room..high + room;
    let (first, last) = (points[0].learning_rate, points[points.len() - 1].learning_rate);
    let x = first.min(report.suggested)..last.max(1.01 * first);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (800, 500)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(16)
            .caption("Loss while the learning rate grows", ("sans-serif", 20))
            .x_label_area_size(44)
            .y_label_area_size(56)
            .build_cartesian_2d(x.log_scale(), y.clone())?;
        chart
            .configure_mesh()
            .x_desc("learning rate")
            .y_desc("loss (nats)")
            .x_label_formatter(&|rate| format!("{rate:.0e}"))
            .y_label_formatter(&|loss| format!("{loss:.2}"))
            .light_line_style(WHITE)
            .draw()?;
        let grey = RGBColor(170, 178, 189);
        let (blue, red, green) = (RGBColor(30, 90, 180), RGBColor(190, 50, 40), RGBColor(20, 130, 70));
        let line = |value: fn(&RatePoint) -> f64| {
            points.iter().map(move |point| (point.learning_rate, value(point))).collect::<Vec<_>>()
        };
        let inside = line(|point| point.loss).into_iter().map(|(x, loss)| (x, loss.clamp(y.start, y.end)));
        let level = |rate: f64| [(rate, y.start), (rate, y.end)];
        let named = [
            (inside.collect::<Vec<_>>(), grey, "each step".to_owned()),
            (line(|point| point.smoothed_loss), blue, "smoothed".to_owned()),
            (level(report.suggested).to_vec(), green, format!("suggested: {:.1e}", report.suggested)),
            (level(report.lowest).to_vec(), red, format!("lowest: {:.1e}", report.lowest)),
        ];
        for (points, colour, name) in named {
            let style = colour.stroke_width(2);
            chart
                .draw_series(LineSeries::new(points, style))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
        let legend = SeriesLabelPosition::LowerLeft;
        chart.configure_series_labels().position(legend).background_style(WHITE).border_style(grey).draw()?;
        area.present()?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A curve of smoothed losses over rates from 1e-4, twenty steps a factor of ten.
    fn points(losses: &[f64]) -> Vec<RatePoint> {
        let point = |(step, loss): (u64, &f64)| RatePoint {
            step: step + 1,
            learning_rate: 1e-4 * 10_f64.powf(step as f64 / 20.0),
            loss: *loss,
            smoothed_loss: *loss,
            gradient_norm: 1.0,
        };
        (0..).zip(losses).map(point).collect()
    }

    #[test]
    fn rates_are_read_off_the_curve() {
        // Flat, falling fast around the 30th step, lowest at the 51st, then growing.
        let loss = |x: f64| 4.0 - 2.0 / (1.0 + (-(x - 30.0) / 3.0).exp()) + 0.002 * (x - 50.0).max(-20.0).powi(2);
        let losses: Vec<f64> = (0..70).map(|x| loss(x.into())).collect();
        let points = points(&losses);
        let report = judge(&points, 100, true);
        assert!(report.exploded && report.advice.is_none() && report.steps == 70);
        let step_of = |rate: f64| ((rate / 1e-4).log10() * 20.0).round() as i32;
        assert!((28..=33).contains(&step_of(report.steepest)), "{report:?}");
        assert!((48..=51).contains(&step_of(report.lowest)), "{report:?}");
        assert_eq!(report.suggested, f64::min(report.steepest, report.lowest / 10.0));
    }

    #[test]
    fn a_range_that_shows_nothing_is_said_to() {
        let rising = judge(&points(&[1.0, 1.1, 1.3, 2.1]), 10, true);
        assert!(rising.advice.unwrap().contains("lower rate") && rising.exploded);
        let falling = judge(&points(&[4.0, 3.0, 2.0, 1.5, 1.2, 1.0]), 6, false);
        assert!(falling.advice.unwrap().contains("higher") && !falling.exploded);
        let cut = judge(&points(&[1.0]), 2, false);
        assert!(cut.steps == 1 && cut.interrupted && !cut.exploded);
    }

    #[test]
    fn ranges_are_two_rates_in_order() {
        assert_eq!("1e-5..0.1".parse(), Ok(RateRange { low: 1e-5, high: 0.1 }));
        for text in ["", "1e-5", "0..1", "1..1", "2..1", "a..1", "1..nan", "1..inf", "-1..1"] {
            let error = text.parse::<RateRange>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("1e-5..1e-1"), "{error}");
        }
        let range = RateRange { low: 1e-4, high: 1.0 };
        assert!((range.rate(0, 5) - 1e-4).abs() < 1e-18 && (range.rate(2, 5) - 1e-2).abs() < 1e-15);
        assert!((range.rate(4, 5) - 1.0).abs() < 1e-12 && range.rate(0, 1) == 1e-4);
    }
}
