//! Checks the packed model named by `SISKIN_MODEL` and turns it into a `static` in flash; what its header says, or `SISKIN_ARENA_BYTES`,
//! into constants. The applications that need no model have none; `gemv` gets matrices in the layout named by `SISKIN_LAYOUT`.
//!
//! `SISKIN_FAULT=rounding` has `selftest` find a fault: a Cortex-M's FPU that rounds to zero. `SISKIN_MODEL_ROOM` is the flash that the model has to itself, where another may take its place without a new build.

use std::path::{Path, PathBuf};
use std::{env, fs, process};

#[path = "build/products.rs"]
mod products;

use siskin_runtime::format::{SECTION_ALIGN, SectionKind};
use siskin_runtime::{PackedModel, Snapshot};

fn main() {
    println!("cargo::rerun-if-env-changed=SISKIN_MODEL");
    println!("cargo::rerun-if-env-changed=SISKIN_LAYOUT");
    println!("cargo::rerun-if-env-changed=SISKIN_ARENA_BYTES");
    println!("cargo::rerun-if-env-changed=SISKIN_ADAPTER_BYTES");
    println!("cargo::rerun-if-env-changed=SISKIN_MODEL_ROOM");
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_else(|| fail("cargo sets OUT_DIR")));
    let has_feature = |name: &str| env::var_os(format!("CARGO_FEATURE_{name}")).is_some();
    let (conforms, multiplies) = (has_feature("CONFORMANCE"), has_feature("GEMV"));
    println!("cargo::rustc-check-cfg=cfg(has_model, generates, armv6m, has_grammar, rounds_to_zero)");
    if env::var("TARGET").is_ok_and(|triple| triple.starts_with("thumbv6m")) {
        println!("cargo::rustc-cfg=armv6m");
    }
    println!("cargo::rerun-if-env-changed=SISKIN_FAULT");
    match env::var("SISKIN_FAULT").as_deref() {
        Err(_) => {}
        Ok("rounding") => println!("cargo::rustc-cfg=rounds_to_zero"),
        Ok(other) => fail(&format!("SISKIN_FAULT is {other:?}; there is \"rounding\"")),
    }
    if multiplies {
        write(&out_dir.join("products.rs"), products::source(has_feature("SMALL_RAM")).as_bytes());
    }
    if !conforms && !multiplies {
        println!("cargo::rustc-cfg=has_model");
        if !["GREEDY", "SERIAL", "SELFTEST"].into_iter().any(has_feature) {
            println!("cargo::rustc-cfg=generates");
        }
        write(&out_dir.join("model.rs"), linked_model(&out_dir).as_bytes());
    }
}

/// The packed model as source text; where it has room, filled up with zeros.
fn linked_model(out_dir: &Path) -> String {
    let Some(model_path) = env::var_os("SISKIN_MODEL").map(PathBuf::from) else {
        fail("SISKIN_MODEL must be the path of a packed model (.siskin); `cargo xtask firmware` sets it");
    };
    let model_path = fs::canonicalize(&model_path)
        .unwrap_or_else(|error| fail(&format!("cannot find the model {}: {error}", model_path.display())));
    println!("cargo::rerun-if-changed={}", model_path.display());
    let mut bytes = fs::read(&model_path)
        .unwrap_or_else(|error| fail(&format!("cannot read the model {}: {error}", model_path.display())));
    check(&bytes).unwrap_or_else(|error| fail(&format!("{} is not a packed model: {error}", model_path.display())));
    let arena_bytes = bytes_of("SISKIN_ARENA_BYTES").unwrap_or("SHAPE.arena_bytes".to_owned());
    let adapter_bytes = bytes_of("SISKIN_ADAPTER_BYTES").unwrap_or("0".to_owned());
    let room = env::var("SISKIN_MODEL_ROOM").ok();
    if let Some(given) = &room {
        match given.parse() {
            Ok(room_bytes) if room_bytes >= bytes.len() => bytes.resize(room_bytes, 0),
            _ => fail(&format!("SISKIN_MODEL_ROOM is {given:?}, but the model has {} bytes", bytes.len())),
        }
        println!("cargo::rustc-cfg=has_grammar");
    }
    let contents = out_dir.join("model.siskin");
    write(&contents, &bytes);
    let has_room = room.is_some();

    let model = match env::var_os("CARGO_FEATURE_LINKED_MODEL") {
        Some(_) => "pub use siskin_runtime::linked::MODEL;".to_owned(),
        None => format!(
            "pub static MODEL: siskin_runtime::Aligned<[u8; {}]> = siskin_runtime::Aligned(*include_bytes!({:?}));",
            bytes.len(),
            contents.display().to_string()
        ),
    };
    format!(
        "/// The packed model, in flash.\n\
         {model}\n\
         /// What its header says.\n\
         pub const SHAPE: Shape = Shape::read(&MODEL.0);\n\
         /// Bytes of the arena: what the model needs, where nothing else was asked for.\n\
         pub const ARENA_BYTES: usize = {arena_bytes};\n\
         /// Bytes of the room for an adapter that the host sends.\n\
         pub const ADAPTER_BYTES: usize = {adapter_bytes};\n\
         /// Whether another model may take this one's place: then what it is is seen when it runs.\n\
         pub const HAS_ROOM: bool = {has_room};\n"
    )
}

/// The number of bytes in an environment variable, if it is set.
fn bytes_of(variable: &str) -> Option<String> {
    let given = env::var(variable).ok()?;
    match given.parse::<u32>() {
        Ok(_) => Some(given),
        Err(_) => fail(&format!("{variable} is {given:?}, no number")),
    }
}

/// Checks the whole file, so that a board never holds one that it would refuse. Code for grammars is built where it has one.
fn check(file: &[u8]) -> Result<(), String> {
    let mut padded = vec![0; file.len() + SECTION_ALIGN];
    let start = padded.as_ptr().align_offset(SECTION_ALIGN);
    let aligned = &mut padded[start..start + file.len()];
    aligned.copy_from_slice(file);
    let model = PackedModel::parse(aligned).map_err(|error| error.to_string())?;
    if model.section(SectionKind::Grammar).is_some() {
        println!("cargo::rustc-cfg=has_grammar");
    }
    if let Some(prefix) = model.section(SectionKind::Prefix) {
        Snapshot::parse(prefix, &model).map_err(|error| error.to_string())?;
    }
    match model.header().file_bytes == file.len() as u64 {
        true => Ok(()),
        false => Err("there are bytes behind its end".to_owned()),
    }
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap_or_else(|error| fail(&format!("cannot write {}: {error}", path.display())));
}

pub(crate) fn fail(why: &str) -> ! {
    eprintln!("{why}");
    process::exit(1)
}
