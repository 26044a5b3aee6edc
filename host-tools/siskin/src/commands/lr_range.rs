//! `siskin train RECIPE --lr-range LOW..HIGH`: which learning rate suits a recipe.

use std::fmt;

use serde::Serialize;
use siskin_compiler::train::lr_range::RateReport;

/// What the test found, and where its curve is.
#[derive(Serialize)]
pub(crate) struct Reply {
    #[serde(flatten)]
    pub(crate) report: RateReport,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RateReport { suggested, steepest, lowest, lowest_loss, exploded, advice, steps, picture, .. } =
            &self.report;
        let end = if *exploded { "until the loss exploded" } else { "to the end of the range" };
        writeln!(f, "{steps} steps, {end}")?;
        writeln!(f, "the loss fell fastest at a learning rate of {steepest:.2e}")?;
        writeln!(f, "it was lowest, {lowest_loss:.3} nats, at {lowest:.2e}")?;
        if let Some(advice) = advice {
            writeln!(f, "{advice}")?;
        }
        writeln!(f, "suggestion: --set optimizer.learning_rate={suggested:.1e}")?;
        write!(f, "curve: {}", picture.display())
    }
}
