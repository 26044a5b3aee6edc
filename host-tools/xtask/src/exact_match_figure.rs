//! recipes/letters.svg: how many sequences each model gets wholly right, by how long they are.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::Value;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
/// Space for the labels on the left, at the top and at the bottom.
const MARGIN: (f64, f64, f64) = (56.0, 44.0, 48.0);
const COLOURS: [&str; 2] = ["#2868c0", "#c06a28"];

/// Draws bars for the `by_length` of each outcome of `siskin train --format json`.
pub fn draw(models: &[(&str, &Value); 2]) -> Result<String> {
    let (left, top, bottom) = MARGIN;
    let (plot_width, plot_height) = (WIDTH - left - 16.0, HEIGHT - top - bottom);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    for share in [0, 25, 50, 75, 100] {
        let y = top + plot_height * (1.0 - f64::from(share) / 100.0);
        let end = left + plot_width;
        writeln!(svg, "<line x1=\"{left}\" x2=\"{end}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#d8d8d8\"/>")?;
        let (x, y) = (left - 8.0, y + 4.0);
        writeln!(svg, "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{share} %</text>")?;
    }
    for (at, ((name, outcome), colour)) in models.iter().zip(COLOURS).enumerate() {
        let x = left + 200.0 * at as f64;
        writeln!(svg, "<rect x=\"{x}\" y=\"14\" width=\"12\" height=\"12\" fill=\"{colour}\"/>")?;
        writeln!(svg, "<text x=\"{}\" y=\"25\">{name}</text>", x + 18.0)?;
        let groups = outcome["by_length"].as_array().context("an outcome tells what was reached by length")?;
        let slot = plot_width / groups.len() as f64;
        for (place, group) in groups.iter().enumerate() {
            let share = group["exact_match"].as_f64().context("a group has a share that is wholly right")?;
            let bar = slot * 0.3;
            let x = left + slot * (place as f64 + 0.2) + bar * at as f64;
            let (height, middle) = (plot_height * share, x + bar / 2.0);
            let y = top + plot_height - height;
            writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{bar:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>\n\
                 <text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"11\">{:.1}</text>",
                y - 4.0,
                100.0 * share,
            )?;
            if at == 0 {
                let longest = group["n_tokens_max"].as_u64().context("a group has a longest")?;
                let (x, y) = (left + slot * (place as f64 + 0.5), HEIGHT - bottom + 18.0);
                writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">up to {longest}</text>")?;
            }
        }
    }
    let (x, y) = (left + plot_width / 2.0, HEIGHT - 10.0);
    writeln!(
        svg,
        "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">tokens read; share of sequences wholly right</text>\n</svg>"
    )?;
    Ok(svg)
}
