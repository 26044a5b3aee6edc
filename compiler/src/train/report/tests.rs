//! The page on made-up runs: what it shows, that nothing breaks out of it, and that it stays small.

use super::*;
use crate::train::doctor::FindingKind;
use crate::train::history::{EvaluationPoint, StepPoint};
use crate::train::samples::Sample;
use std::time::Duration;

fn facts() -> Facts {
    Facts { name: "a <run>".into(), recipe: "text = \"</pre><script>\"".into(), steps: 1000, ..Facts::default() }
}

fn history(n_lines: u64) -> History {
    let mut history = History::default();
    for i in 1..=n_lines {
        let loss = 1.5 + 4.0 / i as f64 + 0.1 * (i % 7) as f64;
        let point = StepPoint { step: i, loss, gradient_norm: 0.5 + (i % 5) as f64, ..StepPoint::default() };
        history.steps.push(point);
        if i % 10 == 0 {
            let point = EvaluationPoint { step: i, validation_loss: loss, ..EvaluationPoint::default() };
            history.evaluations.push(point);
            let words = |text: &str| text.repeat(400);
            let sample =
                Sample { read: words("<"), said: words("ł"), expected: Some(words("&")), is_right: Some(false) };
            history.shows.push(Show { step: i, samples: vec![sample; 4], by_length: Vec::new() });
        }
    }
    history
}

#[test]
fn texts_cannot_break_out_of_the_page() {
    let evidence = "<img src=x>".to_owned();
    let (kind, severity) = (FindingKind::LossSpike, Severity::Warning);
    let finding = Finding { kind, severity, step: 3, evidence, advice: "'\"&".into() };
    let status = Status::Failed("<b>no</b>".into());
    let page = page(&facts(), &history(20), &[finding], &status).unwrap();
    for broken in ["<run>", "<script", "<img", "<b>no", "&&"] {
        assert!(!page.contains(broken), "{broken}");
    }
    assert!(page.contains("&lt;img") && page.contains("a &lt;run&gt;"));
}

#[test]
fn the_page_needs_nothing_but_itself_and_is_small_for_any_length_of_run() {
    for n_lines in [0, 1, 2, 300, 100_000] {
        let page = page(&facts(), &history(n_lines), &[], &Status::Running).unwrap();
        assert!(page.len() < 300_000, "{} bytes for {n_lines} lines", page.len());
        for outside in ["http:", "https:", "src=", "<script", "<link", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert_eq!(
            page.matches("<svg").count(),
            if n_lines == 0 {
                0
            } else if n_lines < 10 {
                4
            } else {
                5
            }
        );
    }
}

#[test]
fn a_page_reloads_while_the_run_goes_on() {
    let of = |status| page(&facts(), &history(30), &[], &status).unwrap();
    let running = of(Status::Running);
    assert!(running.contains("http-equiv=\"refresh\"") && running.contains("left"));
    assert!(running.contains("Nothing looks wrong"));
    let finished = of(Status::Finished);
    assert!(!finished.contains("http-equiv=\"refresh\"") && finished.contains("finished"));
}

#[test]
fn moments_and_durations_are_told() {
    let at = |seconds| utc(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    assert_eq!(at(0), "1970-01-01 00:00:00 UTC");
    assert_eq!(at(951_782_399), "2000-02-28 23:59:59 UTC");
    assert_eq!(at(951_782_400), "2000-02-29 00:00:00 UTC");
    assert_eq!(at(4_107_542_400), "2100-03-01 00:00:00 UTC");
    assert_eq!([61.9, 3600.0, -1.0].map(duration), ["1:01", "1:00:00", "0:00"]);
}
