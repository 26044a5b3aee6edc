//! A QEMU TCG plugin that counts guest instructions exactly, between marks in the program.
//!
//! The marks are no-ops that compilers do not emit: `mov r10, r10` (start) and `mov r11, r11` (stop) in Thumb, `mov x10, x10`
//! and `mov x11, x11` in A64, `slti x0, x0, 1` and `slti x0, x0, 2` in RISC-V. Each start-stop pair is a region; it counts every instruction executed between the two, and
//! neither of them. Load it with
//!
//! ```text
//! qemu-system-arm … -plugin target/release/libicount.so,out=counts.txt[,profile=profile.txt][,stack_low=0x20000000,stack_high=0x20002000,main=0x400]
//! ```
//!
//! and find in `out`, one a line: `region N` for every region in order, `stack N` (bytes from the lowest store
//! up to `stack_high`, from the first execution of the instruction at `main` on, past the start-up code that paints the stack;
//! only where the three addresses are given, and it slows the emulation down), and `total N` when the guest ends. `profile` gets, for each
//! instruction that a region executed, its address and how often.

mod plugin_api;
mod profile;

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
use std::ptr;
use std::sync::{Mutex, MutexGuard};

use plugin_api::{Info, Instruction, MemoryAccess, PluginId, TranslationBlock};
use profile::Profile;

/// The marks of an architecture, as their first bytes, little-endian.
#[derive(Clone, Copy)]
struct Marks {
    start: u32,
    stop: u32,
    /// The bytes that count: an instruction may be shorter than the others.
    mask: u32,
}

impl Marks {
    /// `mov r10, r10` and `mov r11, r11`. No 32-bit Thumb instruction begins with either.
    const THUMB: Self = Self { start: 0x46d2, stop: 0x46db, mask: 0xffff };
    /// `slti x0, x0, 1` and `slti x0, x0, 2`, both hints.
    const RISCV: Self = Self { start: 0x0010_2013, stop: 0x0020_2013, mask: u32::MAX };

    /// `mov x10, x10` and `mov x11, x11`.
    const A64: Self = Self { start: 0xaa0a_03ea, stop: 0xaa0b_03eb, mask: u32::MAX };

    /// Those of an emulated architecture, by QEMU's name for it.
    fn of(target: &CStr) -> Option<Self> {
        match target.to_bytes() {
            b"arm" => Some(Self::THUMB),
            b"aarch64" => Some(Self::A64),
            b"riscv32" | b"riscv64" => Some(Self::RISCV),
            _ => None,
        }
    }
}

/// Which version of the interface this plugin speaks: QEMU refuses one that it does not offer.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = 1;

/// Instructions executed so far. QEMU adds to it from generated code, the callbacks read it; there is one virtual core.
static mut EXECUTED: u64 = 0;

static COUNTER: Mutex<Counter> = Mutex::new(Counter::new());

struct Counter {
    marks: Marks,
    out: Option<File>,
    profile: Option<Profile>,
    /// Instructions executed when the current region's start mark was.
    region_start: Option<u64>,
    stack: Range<u64>,
    /// Where the program proper begins.
    main: u64,
    in_main: bool,
    lowest_store: u64,
}

impl Counter {
    const fn new() -> Self {
        Self {
            marks: Marks::THUMB,
            out: None,
            profile: None,
            region_start: None,
            stack: 0..0,
            main: 0,
            in_main: false,
            lowest_store: u64::MAX,
        }
    }

    /// The first instruction of the program proper, where the stack is to be watched.
    fn watched_main(&self) -> Option<u64> {
        (!self.stack.is_empty()).then_some(self.main)
    }

    /// Nobody reads a plugin's errors: a line that cannot be written shows as missing to whoever reads the file.
    fn line(&mut self, keyword: &str, number: u64) {
        if let Some(out) = &mut self.out {
            let _ = writeln!(out, "{keyword} {number}");
        }
    }
}

fn counter() -> MutexGuard<'static, Counter> {
    COUNTER.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn executed() -> u64 {
    // SAFETY: QEMU runs the callbacks and the code that adds on the thread of the one virtual core.
    unsafe { ptr::read_volatile(&raw const EXECUTED) }
}

/// Called by QEMU when the plugin is loaded; not 0 refuses to run.
///
/// # Safety
/// `info` and `argv` (of `argc` strings) must be as QEMU's plugin interface promises.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: PluginId,
    info: *const Info,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    let target = unsafe { CStr::from_ptr((*info).target_name) };
    let Some(marks) = Marks::of(target) else {
        eprintln!(
            "icount: counts Thumb, A64 and RISC-V code in QEMU's system emulators, not {}",
            target.to_string_lossy()
        );
        return 1;
    };
    counter().marks = marks;
    for idx in 0..usize::try_from(argc).unwrap_or(0) {
        // SAFETY: the caller's promise.
        let argument = unsafe { CStr::from_ptr(*argv.add(idx)) }.to_string_lossy();
        if let Err(why) = take_argument(&argument) {
            eprintln!("icount: {argument}: {why}");
            return 1;
        }
    }
    // SAFETY: the id is ours and the callbacks live as long as the program.
    unsafe {
        plugin_api::qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
        plugin_api::qemu_plugin_register_atexit_cb(id, on_exit, ptr::null_mut());
    }
    0
}

fn take_argument(argument: &str) -> Result<(), String> {
    let (key, value) = argument.split_once('=').ok_or("arguments are key=value")?;
    let address = || {
        let digits = value.strip_prefix("0x").ok_or("addresses start with 0x")?;
        u64::from_str_radix(digits, 16).map_err(|error| error.to_string())
    };
    let mut counter = counter();
    match key {
        "out" => counter.out = Some(File::create(value).map_err(|error| error.to_string())?),
        "profile" => counter.profile = Some(Profile::create(value).map_err(|error| error.to_string())?),
        "stack_low" => counter.stack.start = address()?,
        "stack_high" => counter.stack.end = address()?,
        "main" => counter.main = address()?,
        _ => return Err("there are out, profile, stack_low, stack_high and main".to_owned()),
    }
    Ok(())
}

/// Looks at every instruction once, as it is translated, and plants what it needs.
unsafe extern "C" fn on_translation(_id: PluginId, block: *mut TranslationBlock) {
    let (marks, main) = {
        let counter = counter();
        (counter.marks, counter.watched_main())
    };
    // SAFETY: QEMU's block and its instructions are valid during this callback.
    unsafe {
        for idx in 0..plugin_api::qemu_plugin_tb_n_insns(block) {
            let instruction = plugin_api::qemu_plugin_tb_get_insn(block, idx);
            plant_counters(instruction, marks);
            if let Some(main) = main {
                plant_stack_watch(instruction, main);
            }
        }
    }
}

/// # Safety
/// `instruction` must be one of the block being translated.
unsafe fn plant_counters(instruction: *mut Instruction, marks: Marks) {
    // SAFETY: the caller's promise. An instruction has at least two bytes, and four where QEMU says more than two; 7.2 says four of a
    // 16-bit Thumb instruction just before the end of a 1 KiB page, having read four.
    unsafe {
        let data = plugin_api::qemu_plugin_insn_data(instruction);
        let code = match plugin_api::qemu_plugin_insn_size(instruction) {
            ..4 => u32::from(u16::from_le(data.cast::<u16>().read_unaligned())),
            _ => u32::from_le(data.cast::<u32>().read_unaligned()),
        };
        let on_mark = match code & marks.mask {
            code if code == marks.start => Some(on_start as plugin_api::ExecuteCallback),
            code if code == marks.stop => Some(on_stop as plugin_api::ExecuteCallback),
            _ => None,
        };
        if let Some(on_mark) = on_mark {
            plugin_api::qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_mark, 0, ptr::null_mut());
        }
        let executed = (&raw mut EXECUTED).cast::<c_void>();
        plugin_api::qemu_plugin_register_vcpu_insn_exec_inline(instruction, plugin_api::ADD_U64, executed, 1);
        if let Some(profile) = &mut counter().profile {
            let cell = profile.counter(plugin_api::qemu_plugin_insn_vaddr(instruction));
            plugin_api::qemu_plugin_register_vcpu_insn_exec_inline(instruction, plugin_api::ADD_U64, cell, 1);
        }
    }
}

/// # Safety
/// `instruction` must be one of the block being translated.
unsafe fn plant_stack_watch(instruction: *mut Instruction, main: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        if plugin_api::qemu_plugin_insn_vaddr(instruction) == main {
            plugin_api::qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_main, 0, ptr::null_mut());
        }
        // QEMU 7.2 reports loads too where only stores were asked for, so the callback looks for itself.
        let (no_flags, accesses) = (0, plugin_api::LOADS_AND_STORES);
        plugin_api::qemu_plugin_register_vcpu_mem_cb(instruction, on_access, no_flags, accesses, ptr::null_mut());
    }
}

/// Runs before the start mark is counted.
unsafe extern "C" fn on_start(_cpu: c_uint, _data: *mut c_void) {
    let mut counter = counter();
    counter.region_start = Some(executed());
    if let Some(profile) = &mut counter.profile {
        profile.start();
    }
}

/// Runs before the stop mark is counted: the region holds the start mark, which does not belong to it.
unsafe extern "C" fn on_stop(_cpu: c_uint, _data: *mut c_void) {
    let mut counter = counter();
    if let Some(start) = counter.region_start.take() {
        counter.line("region", executed() - start - 1);
        if let Some(profile) = &mut counter.profile {
            profile.stop();
        }
    }
}

unsafe extern "C" fn on_main(_cpu: c_uint, _data: *mut c_void) {
    counter().in_main = true;
}

unsafe extern "C" fn on_access(_cpu: c_uint, access: MemoryAccess, address: u64, _data: *mut c_void) {
    // SAFETY: the access is the one that QEMU just handed over.
    if !unsafe { plugin_api::qemu_plugin_mem_is_store(access) } {
        return;
    }
    let mut counter = counter();
    if counter.in_main && counter.stack.contains(&address) {
        counter.lowest_store = counter.lowest_store.min(address);
    }
}

unsafe extern "C" fn on_exit(_id: PluginId, _data: *mut c_void) {
    let mut counter = counter();
    if counter.lowest_store < counter.stack.end {
        let bytes = counter.stack.end - counter.lowest_store;
        counter.line("stack", bytes);
    }
    counter.line("total", executed());
    // A profile that cannot be written shows as missing.
    let _ = counter.profile.as_mut().map_or(Ok(()), Profile::write);
}
