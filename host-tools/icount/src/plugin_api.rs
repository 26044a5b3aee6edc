//! The part of QEMU's TCG plugin interface, version 1, that this plugin uses. Debian's QEMU ships no header for it.

use std::ffi::{c_char, c_int, c_uint, c_void};

/// QEMU's name for a loaded plugin.
pub(crate) type PluginId = u64;
/// What an access was: QEMU's own encoding.
pub(crate) type MemoryAccess = u32;

/// The beginning of what QEMU tells a plugin about itself; the rest is not looked at.
#[repr(C)]
pub struct Info {
    /// The guest's architecture, as in the emulator's name.
    pub target_name: *const c_char,
}

/// A run of instructions being translated; only ever behind a pointer.
#[repr(C)]
pub(crate) struct TranslationBlock([u8; 0]);

/// One of its instructions; only ever behind a pointer.
#[repr(C)]
pub(crate) struct Instruction([u8; 0]);

/// The inline operation that adds to a `u64`.
pub(crate) const ADD_U64: c_int = 0;
/// Every access to memory.
pub(crate) const LOADS_AND_STORES: c_int = 3;

pub(crate) type TranslationCallback = unsafe extern "C" fn(PluginId, *mut TranslationBlock);
pub(crate) type ExecuteCallback = unsafe extern "C" fn(c_uint, *mut c_void);
pub(crate) type MemoryCallback = unsafe extern "C" fn(c_uint, MemoryAccess, u64, *mut c_void);
pub(crate) type ExitCallback = unsafe extern "C" fn(PluginId, *mut c_void);

unsafe extern "C" {
    pub(crate) fn qemu_plugin_register_vcpu_tb_trans_cb(id: PluginId, callback: TranslationCallback);
    pub(crate) fn qemu_plugin_register_atexit_cb(id: PluginId, callback: ExitCallback, data: *mut c_void);
    pub(crate) fn qemu_plugin_tb_n_insns(block: *const TranslationBlock) -> usize;
    pub(crate) fn qemu_plugin_tb_get_insn(block: *const TranslationBlock, idx: usize) -> *mut Instruction;
    pub(crate) fn qemu_plugin_insn_data(instruction: *const Instruction) -> *const c_void;
    pub(crate) fn qemu_plugin_insn_size(instruction: *const Instruction) -> usize;
    pub(crate) fn qemu_plugin_insn_vaddr(instruction: *const Instruction) -> u64;
    pub(crate) fn qemu_plugin_mem_is_store(access: MemoryAccess) -> bool;
    pub(crate) fn qemu_plugin_register_vcpu_insn_exec_cb(
        instruction: *mut Instruction,
        callback: ExecuteCallback,
        flags: c_int,
        data: *mut c_void,
    );
    pub(crate) fn qemu_plugin_register_vcpu_insn_exec_inline(
        instruction: *mut Instruction,
        operation: c_int,
        counter: *mut c_void,
        operand: u64,
    );
    pub(crate) fn qemu_plugin_register_vcpu_mem_cb(
        instruction: *mut Instruction,
        callback: MemoryCallback,
        flags: c_int,
        accesses: c_int,
        data: *mut c_void,
    );
}
