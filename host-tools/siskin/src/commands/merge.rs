//! `siskin merge`: puts an adapter into the weights of its model, and says what rounding to a device's weights makes of that.

use std::fmt;
use std::path::PathBuf;

use anyhow::anyhow;
use serde::Serialize;
use siskin_compiler::artifact::hf::{self, SavedAdapter};
use siskin_compiler::artifact::{ArtifactError, NamedWeights, write_folder_atomic};
use siskin_compiler::peft::{self, RoundingError};

use crate::console::Console;
use crate::failure::{Failure, OrFail as _, Status};
use crate::input::{self, Unpacked};
use crate::packing::WeightFormat;

const AFTER_HELP: &str = "\
Examples:
  siskin merge runs/shakespeare --adapter runs/poet-lora -o runs/poet
  siskin merge runs/shakespeare --adapter runs/poet-lora -o runs/poet --weights int4-g32 --growth-max 2";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The model that the adapter was trained beside.
    model: PathBuf,
    /// The adapter: adapter_config.json and adapter_model.safetensors, of LoRA, DoRA or IA3.
    #[arg(long, value_name = "FOLDER")]
    adapter: PathBuf,
    /// The folder of the merged model.
    #[arg(long, short, value_name = "DIR")]
    out: PathBuf,
    /// A tokenizer that replaces the model's own.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// What the weights will be rounded to on the device.
    #[arg(long, value_enum, default_value_t = WeightFormat::Int8)]
    weights: WeightFormat,
    /// Refuse to merge where rounding a weight costs more than this many times what it costs without the adapter.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.5)]
    growth_max: f64,
}

#[derive(Serialize)]
struct Reply {
    out: String,
    weights: &'static str,
    merged: Vec<RoundingError>,
    /// The most that an error has grown.
    largest_growth: f64,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "shares of each weight's norm: the update, and rounding to {} before and after it", self.weights)?;
        for RoundingError { name, update, before, after } in &self.merged {
            writeln!(f, "{name:<48} {update:>9.5} {before:>9.5} {after:>9.5}")?;
        }
        write!(f, "{}: {} weights merged, errors at most {:.2} times", self.out, self.merged.len(), self.largest_growth)
    }
}

pub(crate) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let doing = || format!("merge the adapter {}", args.adapter.display());
    let mut model = input::load_unpacked(&args.model, args.tokenizer.as_deref())?;
    let adapter = hf::load_peft(&args.adapter).or_invalid_input(doing)?;
    let format: siskin_runtime::WeightFormat = args.weights.into();
    let merged = match &mut model {
        Unpacked::Llama(checkpoint) => {
            let is_tied = checkpoint.config.tied_head;
            merge(&adapter, &mut checkpoint.tensors, is_tied, format)
        }
        Unpacked::Trained(model) => {
            let is_tied = model.architecture.tied_head;
            merge(&adapter, &mut model.tensors, is_tied, format)
        }
    };
    let merged = merged.or_invalid_input(doing)?;
    let largest_growth = merged.iter().map(RoundingError::growth).fold(0.0, f64::max);
    let reply = Reply { out: args.out.display().to_string(), weights: format.name(), merged, largest_growth };
    if largest_growth > args.growth_max {
        let worst = reply.merged.iter().max_by(|a, b| a.growth().total_cmp(&b.growth()));
        let name = worst.map_or("", |worst| worst.name.as_str());
        let cause = anyhow!(
            "rounding {name} to {} would cost {largest_growth:.2} times what it costs without the adapter, and {} is \
             allowed: keep the adapter beside the weights with siskin adapter, choose other --weights, or raise --growth-max",
            reply.weights,
            args.growth_max
        );
        return Err(Failure::new(Status::Failed, doing(), cause).with_figures(&reply));
    }
    let written = match &model {
        Unpacked::Llama(checkpoint) => hf::save_folder(&args.out, checkpoint),
        Unpacked::Trained(model) => {
            write_folder_atomic(&args.out, |folder| -> Result<(), ArtifactError> { hf::write_trained(folder, model) })
        }
    };
    written.or_failed(|| "write the merged model".to_owned())?;
    console.reply(&reply)
}

fn merge(
    adapter: &SavedAdapter,
    tensors: &mut NamedWeights,
    is_tied: bool,
    format: siskin_runtime::WeightFormat,
) -> anyhow::Result<Vec<RoundingError>> {
    let before = tensors.clone();
    let changed = peft::merge(&adapter.config, &adapter.tensors, tensors, is_tied)?;
    Ok(changed.into_iter().map(|name| RoundingError::of(name, &before, tensors, format)).collect())
}
