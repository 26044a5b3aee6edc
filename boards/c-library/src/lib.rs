//! `libsiskin.a`: a packed model from C. What each function does is said in `siskin.h`; here is how that is kept.
#![no_std]

use core::mem::MaybeUninit;
use core::panic::PanicInfo;
use core::slice;

use siskin_runtime::sampler::SamplingError;
use siskin_runtime::{Kernels, PackedModel, Sampler, Sampling, Serial, Session, StepError, TokenId, Tokenizer};

/// `SISKIN_BYTES`
const SISKIN_BYTES: usize = 2048;

/// What `siskin_t` holds.
pub struct Siskin {
    session: Session<'static, Serial>,
    tokenizer: Option<Tokenizer<'static>>,
    sampler: Sampler<'static>,
}

const _: () = assert!(size_of::<Siskin>() <= SISKIN_BYTES && align_of::<Siskin>() <= align_of::<u64>());

/// `siskin_status`
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// `SISKIN_OK`
    Ok = 0,
    /// `SISKIN_BAD_MODEL`
    BadModel = 1,
    /// `SISKIN_WRONG_LAYOUT`
    WrongLayout = 2,
    /// `SISKIN_BAD_ARENA`
    BadArena = 3,
    /// `SISKIN_NO_TOKENIZER`
    NoTokenizer = 4,
    /// `SISKIN_NOT_UTF8`
    NotUtf8 = 5,
    /// `SISKIN_NO_ROOM`
    NoRoom = 6,
    /// `SISKIN_BAD_TOKENS`
    BadTokens = 7,
    /// `SISKIN_CONTEXT_FULL`
    ContextFull = 8,
    /// `SISKIN_BAD_SAMPLING`
    BadSampling = 9,
}

impl From<Result<(), Status>> for Status {
    fn from(outcome: Result<(), Status>) -> Self {
        outcome.err().unwrap_or(Self::Ok)
    }
}

/// `siskin_sampling`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CSampling {
    temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    seed: u64,
}

impl CSampling {
    fn sampler(&self) -> Result<Sampler<'static>, SamplingError> {
        let mut sampling = Sampling::random(self.temperature)?.with_min_p(self.min_p)?;
        if self.top_k != 0 {
            sampling = sampling.with_top_k(self.top_k)?;
        }
        if self.top_p != 0.0 {
            sampling = sampling.with_top_p(self.top_p)?;
        }
        Ok(Sampler::new(sampling, self.seed))
    }
}

/// See `siskin.h`. A number that is no status is told as one.
#[unsafe(no_mangle)]
pub extern "C" fn siskin_error(status: u32) -> *const core::ffi::c_char {
    let text = match status {
        0 => c"well",
        1 => c"the model is no packed file, or damaged, or of another version or family, or not aligned to 16 bytes",
        2 => c"the weights lie in another order than this core's kernels read: compile the model for this board",
        3 => c"the arena is too small or not aligned to 16 bytes, or the model continues no text",
        4 => c"the model has no tokenizer",
        5 => c"the text is not UTF-8",
        6 => c"there is no room for the text's tokens",
        7 => c"there is no token, or one that the vocabulary does not have, or a source is missing",
        8 => c"the context is full: shorten the prompt or compile with a longer context",
        9 => c"a parameter of sampling is out of its range",
        _ => c"no status of Siskin",
    };
    text.as_ptr()
}

/// See `siskin.h`.
///
/// # Safety
/// `model` points to `model_bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn siskin_arena_bytes(model: *const u8, model_bytes: usize) -> usize {
    // SAFETY: the caller says so.
    let file = unsafe { slice::from_raw_parts(model, model_bytes) };
    PackedModel::parse_weights(file).map_or(0, |model| model.memory_plan().arena_bytes)
}

/// See `siskin.h`.
///
/// # Safety
/// `siskin` points to a `siskin_t`, `model` and `arena` to as many bytes as are named, which nobody writes to or, of the arena, reads
/// until the last use of `siskin`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn siskin_init(
    siskin: *mut MaybeUninit<Siskin>,
    model: *const u8,
    model_bytes: usize,
    arena: *mut u8,
    arena_bytes: usize,
) -> Status {
    // SAFETY: the caller says so; `siskin_t` is large enough and aligned, which an assertion above checks.
    let (siskin, file, arena) = unsafe {
        (&mut *siskin, slice::from_raw_parts(model, model_bytes), slice::from_raw_parts_mut(arena, arena_bytes))
    };
    set_up(siskin, file, arena).into()
}

fn set_up(siskin: &mut MaybeUninit<Siskin>, file: &'static [u8], arena: &'static mut [u8]) -> Result<(), Status> {
    let model = PackedModel::parse(file).map_err(|_| Status::BadModel)?;
    let kernels = Kernels::detect();
    if model.header().layout != kernels.preferred_layout() {
        return Err(Status::WrongLayout);
    }
    let session = Session::new(&model, arena, kernels).map_err(|_| Status::BadArena)?;
    let sampler = Sampler::new(Sampling::greedy(), 0);
    siskin.write(Siskin { session, tokenizer: model.tokenizer(), sampler });
    Ok(())
}

/// See `siskin.h`.
///
/// # Safety
/// `siskin` was set up; `sampling` points to one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn siskin_set_sampling(siskin: *mut Siskin, sampling: *const CSampling) -> Status {
    // SAFETY: the caller says so.
    let (siskin, sampling) = unsafe { (&mut *siskin, &*sampling) };
    let Ok(sampler) = sampling.sampler() else { return Status::BadSampling };
    siskin.sampler = sampler;
    Status::Ok
}

/// See `siskin.h`.
///
/// # Safety
/// `siskin` was set up; `text` points to `text_bytes` bytes, `tokens` to room for `*n_tokens` tokens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn siskin_encode(
    siskin: *const Siskin,
    text: *const u8,
    text_bytes: usize,
    tokens: *mut TokenId,
    n_tokens: *mut usize,
) -> Status {
    // SAFETY: the caller says so.
    let (siskin, text, n_tokens) = unsafe { (&*siskin, slice::from_raw_parts(text, text_bytes), &mut *n_tokens) };
    // SAFETY: as above.
    let tokens = unsafe { slice::from_raw_parts_mut(tokens, *n_tokens) };
    let Some(tokenizer) = &siskin.tokenizer else { return Status::NoTokenizer };
    let Ok(text) = core::str::from_utf8(text) else { return Status::NotUtf8 };
    let Ok(n_encoded) = siskin.session.model().encode_input(tokenizer, text, tokens) else { return Status::NoRoom };
    *n_tokens = n_encoded;
    Status::Ok
}

/// See `siskin.h`.
///
/// # Safety
/// `siskin` was set up; `tokens` points to `n_tokens` tokens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn siskin_read(siskin: *mut Siskin, tokens: *const TokenId, n_tokens: usize) -> Status {
    // SAFETY: the caller says so.
    let (siskin, tokens) = unsafe { (&mut *siskin, slice::from_raw_parts(tokens, n_tokens)) };
    match siskin.session.prefill(tokens) {
        Ok(_) => Status::Ok,
        Err(StepError::ContextFull { .. }) => Status::ContextFull,
        Err(_) => Status::BadTokens,
    }
}

/// See `siskin.h`.
///
/// # Safety
/// `siskin` was set up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn siskin_draw(siskin: *mut Siskin) -> TokenId {
    // SAFETY: the caller says so.
    let siskin = unsafe { &mut *siskin };
    siskin.sampler.next(siskin.session.logits())
}

/// See `siskin.h`.
///
/// # Safety
/// `siskin` was set up; `n_bytes` points to a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn siskin_piece(siskin: *const Siskin, token: TokenId, n_bytes: *mut usize) -> *const u8 {
    // SAFETY: the caller says so.
    let (siskin, n_bytes) = unsafe { (&*siskin, &mut *n_bytes) };
    let piece = match &siskin.tokenizer {
        Some(tokenizer) if (token as usize) < tokenizer.vocab_size() && !tokenizer.is_control(token) => {
            tokenizer.piece(token)
        }
        _ => &[],
    };
    *n_bytes = piece.len();
    piece.as_ptr()
}

/// See `siskin.h`.
///
/// # Safety
/// `siskin` was set up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn siskin_is_end(siskin: *const Siskin, token: TokenId) -> core::ffi::c_int {
    // SAFETY: the caller says so.
    let siskin = unsafe { &*siskin };
    siskin.tokenizer.is_some_and(|tokenizer| tokenizer.eos() == Some(token)).into()
}

/// See `siskin.h`.
///
/// # Safety
/// `siskin` was set up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn siskin_reset(siskin: *mut Siskin) {
    // SAFETY: the caller says so.
    unsafe { (*siskin).session.reset() }
}

unsafe extern "C" {
    /// What the program defines.
    fn siskin_panic() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: the header says that it takes nothing and does not come back.
    unsafe { siskin_panic() }
}
