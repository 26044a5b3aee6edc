//! Adapters: packed with a model, in files of their own, and put to work.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use siskin_compiler::artifact::hf;
use siskin_compiler::pack::{AlignedBytes, PackedFile, pack_adapter, relayout_adapter, with_adapters};
use siskin_runtime::adapter::Adapter;
use siskin_runtime::{Join, PackedModel, Session};

use crate::failure::{Failure, OrFail as _};
use crate::input;

/// A name and the folder that PEFT saved an adapter to.
#[derive(Clone, Debug)]
pub(crate) struct NamedFolder {
    name: String,
    folder: PathBuf,
}

impl NamedFolder {
    /// `NAME=FOLDER`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, folder)) if !name.is_empty() && !folder.is_empty() => {
                Ok(Self { name: name.to_owned(), folder: folder.into() })
            }
            _ => Err("an adapter is given as NAME=FOLDER".to_owned()),
        }
    }
}

/// The bytes of the adapter in a PEFT folder, for `model`.
pub(crate) fn pack_folder(name: &str, folder: &Path, model: &PackedModel<'_>) -> Result<AlignedBytes, Failure> {
    let adapter = hf::load_adapter(folder).or_invalid_input(|| "load the adapter".to_owned())?;
    pack_adapter(name, &adapter, model).or_invalid_input(|| format!("pack the adapter {}", folder.display()))
}

/// The model's file with these adapters, beside those that it has under other names.
pub(crate) fn add(file: PackedFile, folders: &[NamedFolder]) -> Result<PackedFile, Failure> {
    if folders.is_empty() {
        return Ok(file);
    }
    let doing = || "pack the adapters".to_owned();
    let model = file.model();
    let adapters = model.adapters();
    let kept = adapters.iter().filter(|adapter| folders.iter().all(|folder| folder.name != adapter.name()));
    let mut sections: Vec<AlignedBytes> = kept.map(|adapter| AlignedBytes::copy_of(adapter.bytes())).collect();
    for NamedFolder { name, folder } in folders {
        sections.push(pack_folder(name, folder, &model)?);
    }
    let bytes = with_adapters(&model, &sections).or_invalid_input(doing)?;
    PackedFile::from_bytes(bytes).or_failed(doing)
}

/// Which adapter generates.
#[derive(clap::Args)]
pub(crate) struct AdapterArgs {
    /// Generate with the model's adapter NAME; `siskin inspect` lists them.
    #[arg(long, value_name = "NAME", conflicts_with = "adapter_file")]
    pub(crate) adapter: Option<String>,
    /// Generate with an adapter in a file of its own, which `siskin adapter` made for this model.
    #[arg(long, value_name = "FILE")]
    pub(crate) adapter_file: Option<PathBuf>,
}

impl AdapterArgs {
    /// The bytes of the adapter file, for the packed file at `model_path` as it was laid out anew in `model`.
    pub(crate) fn received(&self, model_path: &Path, model: &PackedModel<'_>) -> Result<Option<AlignedBytes>, Failure> {
        let Some(path) = &self.adapter_file else { return Ok(None) };
        let doing = || format!("use the adapter {}", path.display());
        let bytes = AlignedBytes::copy_of(&std::fs::read(path).or_invalid_input(doing)?);
        let original = input::open_packed(model_path)?;
        let original = original.model();
        let adapter = Adapter::parse(&bytes, &original).or_invalid_input(doing)?;
        relayout_adapter(&adapter, &original, model).map(Some).or_failed(doing)
    }

    /// Encoders have no session that could switch.
    pub(crate) fn refuse(&self) -> Result<(), Failure> {
        match (&self.adapter, &self.adapter_file) {
            (None, None) => Ok(()),
            _ => Err(Failure::command_line(anyhow!(
                "an encoder takes no adapter; leave --adapter and --adapter-file out"
            ))),
        }
    }

    /// Puts the adapter to work; `received` is what [`AdapterArgs::received`] gave.
    pub(crate) fn start<'a>(
        &self,
        session: &mut Session<'a, impl Join + Sync>,
        received: Option<&'a [u8]>,
    ) -> Result<(), Failure> {
        let doing = || "use the adapter".to_owned();
        match received {
            Some(bytes) => session.use_received_adapter(bytes).or_invalid_input(doing),
            None => session
                .use_adapter(self.adapter.as_deref())
                .map_err(|error| Failure::invalid_input("use the adapter", anyhow!("{error}"))),
        }
    }
}
