//! RTIC: a software task writes, and the system's timer interrupts it in the middle of the arithmetic.
#![no_std]
#![no_main]

#[rtic::app(device = siskin_examples, peripherals = false, dispatchers = [UART0])]
mod app {
    use cortex_m::peripheral::syst::SystClkSource;
    use embassy_futures::yield_now;
    use semihosting::{print, println, process};
    use siskin_device::{Options, Text, Writer, model};

    model! {
        static SHAKESPEARE = "../../../../tests/golden/shakespeare-260k.siskin", arena_bytes_max = 128 * 1024;
    }

    #[shared]
    struct Shared {
        n_ticks: u32,
    }

    #[local]
    struct Local {
        text: Option<Text<'static>>,
    }

    #[init(local = [writer: Option<Writer> = None])]
    fn init(cx: init::Context) -> (Shared, Local) {
        let mut timer = cx.core.SYST;
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(10_000);
        timer.clear_current();
        timer.enable_counter();
        timer.enable_interrupt();
        let text = SHAKESPEARE.writer().and_then(|writer| {
            let writer: &'static mut Writer = cx.local.writer.insert(writer);
            writer.begin("ROMEO:", &Options::greedy(48))
        });
        if let Err(error) = &text {
            println!("{error}");
        }
        write::spawn().ok();
        (Shared { n_ticks: 0 }, Local { text: text.ok() })
    }

    /// Writes token after token; tasks of its priority are served in between.
    #[task(priority = 1, local = [text], shared = [n_ticks])]
    async fn write(mut cx: write::Context) {
        let Some(text) = cx.local.text else { process::exit(1) };
        let mut n_tokens = 0;
        while text.step(|piece| print!("{piece}")).is_some() {
            n_tokens += 1;
            yield_now().await;
        }
        let n_ticks = cx.shared.n_ticks.lock(|n_ticks| *n_ticks);
        println!("\n{n_tokens} tokens, interrupted {n_ticks} times");
        process::exit(0)
    }

    /// Interrupts whatever runs.
    #[task(binds = SysTick, priority = 2, shared = [n_ticks])]
    fn tick(mut cx: tick::Context) {
        cx.shared.n_ticks.lock(|n_ticks| *n_ticks += 1);
    }
}
