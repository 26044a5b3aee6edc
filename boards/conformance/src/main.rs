//! Tries every kernel on the target: prints each family's name and number of cases, and ends with 1 at a difference.
#![no_std]
#![no_main]

use core::panic::PanicInfo;

use cortex_m_rt::entry;
use semihosting::{print, println, process};
use siskin_conformance::{FAMILIES, Memory};
use siskin_runtime::Kernels;

#[entry]
fn main() -> ! {
    static mut MEMORY: Memory = Memory::new();
    let kernels = Kernels::detect();
    println!("kernels {}", kernels.name());
    for (name, family) in FAMILIES {
        match family(kernels, MEMORY) {
            Ok(n_cases) => println!("{name} {n_cases}"),
            Err(mismatch) => {
                print!("{} differs:", mismatch.kernel);
                for (what, value) in mismatch.case {
                    print!(" {what} {value}");
                }
                println!("");
                process::exit(1);
            }
        }
    }
    process::exit(0)
}

#[panic_handler]
fn report_panic(info: &PanicInfo<'_>) -> ! {
    println!("{info}");
    process::exit(101)
}
