//! ESP32-C3: RV32IMC without an FPU, behind Espressif's bootloader; built only.
#![no_std]
#![no_main]

siskin_firmware::main!(request_bytes: 4096, prompt_tokens: 1024, first: silence_watchdogs);

/// What Espressif's tools look for at the start of the constants: `esp_app_desc_t`, of which all but the first word may be 0.
#[unsafe(link_section = ".app_description")]
#[used]
static APP_DESCRIPTION: [u32; 64] = {
    let mut words = [0; 64];
    words[0] = 0xabcd_5432;
    words
};

/// Stops the watchdogs that the bootloader leaves running: nothing here would feed them.
fn silence_watchdogs() {
    /// Of a watchdog: where it is configured, where it is unlocked, the key, and what stops it.
    const WATCHDOGS: [[u32; 4]; 4] = [
        // The main watchdogs of both groups of timers, and that of the real-time clock.
        [0x6001_f048, 0x6001_f064, 0x50d8_3aa1, 0],
        [0x6002_0048, 0x6002_0064, 0x50d8_3aa1, 0],
        [0x6000_8090, 0x6000_80a8, 0x50d8_3aa1, 0],
        // The super watchdog feeds itself with bit 31.
        [0x6000_80ac, 0x6000_80b0, 0x8f1d_312a, 1 << 31],
    ];
    for [configuration, lock, key, value] in WATCHDOGS {
        // SAFETY: registers of this chip; only watchdogs change. A locked one ignores what is written.
        unsafe {
            (lock as *mut u32).write_volatile(key);
            (configuration as *mut u32).write_volatile(value);
            (lock as *mut u32).write_volatile(0);
        }
    }
}
