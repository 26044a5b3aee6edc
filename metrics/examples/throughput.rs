//! Seconds that each metric takes for pairs of a file, for `cargo xtask bench metrics`.
//!
//!     cargo run --release --example throughput PAIRS.jsonl
//!
//! A line of the file is `["hypothesis", "reference"]`. The answer is one JSON object by name of the measurement:
//! seconds of the clock and of the processor, each the best of three, and the score, which must be what the Python
//! packages say.

use std::error::Error;
use std::time::Instant;

use serde_json::{Map, Value, json};
use siskin_metrics::CorpusMetric as _;
use siskin_metrics::bleu::Bleu;
use siskin_metrics::chrf::Chrf;
use siskin_metrics::rouge::{Rouge, RougeScore, RougeType};

const N_RUNS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("the file of pairs is missing")?;
    let lines = std::fs::read_to_string(path)?;
    let pairs: Vec<[String; 2]> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let hypotheses: Vec<&str> = pairs.iter().map(|[hypothesis, _]| hypothesis.as_str()).collect();
    let references: Vec<[&str; 1]> = pairs.iter().map(|[_, reference]| [reference.as_str()]).collect();
    let mut answer = Map::new();
    let mut time = |name: &str, score: &dyn Fn() -> Result<f64, Box<dyn Error>>| -> Result<(), Box<dyn Error>> {
        let (mut seconds, mut cpu_seconds, mut value) = (f64::INFINITY, f64::INFINITY, 0.0);
        for _ in 0..N_RUNS {
            let (started, cpu_started) = (Instant::now(), cpu_clock()?);
            value = score()?;
            seconds = seconds.min(started.elapsed().as_secs_f64());
            cpu_seconds = cpu_seconds.min(cpu_clock()? - cpu_started);
        }
        answer.insert(name.to_owned(), json!({ "seconds": seconds, "cpu_seconds": cpu_seconds, "score": value }));
        Ok(())
    };

    time("BLEU, corpus", &|| Ok(Bleu::default().corpus(&hypotheses, &references)?.score))?;
    time("BLEU, sentences", &|| {
        let bleu = Bleu::for_sentences();
        Ok(mean(bleu.sentences(&bleu.statistics(&hypotheses, &references)?)))
    })?;
    time("chrF, corpus", &|| Ok(Chrf::default().corpus(&hypotheses, &references)?))?;
    time("chrF++, corpus", &|| Ok(Chrf::plus_plus().corpus(&hypotheses, &references)?))?;
    let types = [RougeType::N(1), RougeType::N(2), RougeType::L, RougeType::Lsum];
    for (name, use_stemmer) in [("ROUGE-1, 2, L, Lsum", false), ("ROUGE-1, 2, L, Lsum, stemmed", true)] {
        let rouge = Rouge::new(&types, use_stemmer)?;
        let total = |scores: Vec<RougeScore>| scores.into_iter().map(|score| score.f1).sum::<f64>();
        time(name, &|| Ok(mean(rouge.scores(&references, &hypotheses)?.into_iter().map(total).collect())))?;
    }
    println!("{}", Value::Object(answer));
    Ok(())
}

/// Seconds that the processor has spent on this program, to a hundredth.
fn cpu_clock() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').ok_or("/proc/self/stat has no name")?.1;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / 100.0)
}

fn mean(values: Vec<f64>) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
