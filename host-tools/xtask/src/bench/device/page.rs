//! boards/BENCH.md.

use std::fmt::Write as _;

use super::measure::{Measurement, Product, Tokens};

/// Instructions a multiply-accumulate that others take for the same products in int8, as far as they have been counted: CMSIS-NN's
/// fully-connected kernel, compiled by gcc 12 for the M4 and clang 19 for the M55.
const CMSIS_NN: [(&str, [f64; 4]); 2] =
    [("cortex-m4", [2.68, 2.66, 2.05, 1.94]), ("cortex-m55", [0.363, 0.344, 0.197, 0.172])];
/// Functions that are named.
const N_FUNCTIONS: usize = 8;

/// One line for the terminal.
pub fn summary(measured: &Measurement) -> String {
    let products: Vec<String> = int8(measured).map(|product| format!("{:.3}", product.per_mac())).collect();
    let (first, mean) = (measured.tokens.by_position[0], measured.tokens.mean());
    let tokens = format!("{first} instructions at position 0, {mean} on average");
    format!("{}: {} instructions a multiply-accumulate; {tokens}", measured.board, products.join(", "))
}

fn int8(measured: &Measurement) -> impl Iterator<Item = &Product> {
    measured.products.iter().filter(|product| product.format == "int8")
}

/// The whole page.
pub fn page(measured: &[Measurement]) -> String {
    let introduction = "# Instructions, counted\n\n\
        Written by `cargo xtask bench device`. Counts are exact (host-tools/icount) and do not depend on the host. The emulators have no\n\
        model of time: these are instructions, not cycles. board.toml of each board holds its budgets; a count over one per cent above fails.\n";
    [introduction.to_owned(), products(measured), tokens(measured), memory(measured), functions(measured)].join("\n")
}

/// A table of products for each format.
fn products(measured: &[Measurement]) -> String {
    let mut text = "## Matrix-vector products\n\n\
        Instructions a multiply-accumulate, from f32 activations to f32 outputs: quantising, the product, the scales. CMSIS-NN's take int8 to int8.\n"
        .to_owned();
    let mut formats: Vec<&str> = Vec::new();
    for product in measured.iter().flat_map(|measured| &measured.products) {
        if !formats.contains(&product.format.as_str()) {
            formats.push(&product.format);
        }
    }
    for format in formats {
        let of_format = |measured: &Measurement| -> Vec<String> {
            let products = measured.products.iter().filter(|product| product.format == format);
            products.map(|product| format!("{:.3}", product.per_mac())).collect()
        };
        let title = if format == "int32" { "int8, to int32: without the scales of the outputs" } else { format };
        let _ = write!(
            text,
            "\n**{title}**\n\n| board | core | 64 → 64 | 64 → 172 | 288 → 288 | 768 → 288 |\n| --- | --- | --- | --- | --- | --- |\n"
        );
        for measured in measured {
            let mut cells = of_format(measured);
            if cells.is_empty() {
                continue;
            }
            cells.resize(4, "does not fit".to_owned());
            let _ = writeln!(text, "| {} | {} | {} |", measured.board, measured.cpu, cells.join(" | "));
        }
        if format == "int8" {
            for (core, per_mac) in CMSIS_NN {
                let cells = per_mac.map(|per_mac| format!("{per_mac:.3}")).join(" | ");
                let _ = writeln!(text, "| *CMSIS-NN* | {core} | {cells} |");
            }
        }
    }
    text
}

/// Whole tokens.
fn tokens(measured: &[Measurement]) -> String {
    let mut text = "## Tokens\n\n\
        Models with random weights, int8, greedy: stories260K (dim 64, hidden 172, 5 layers, 8 heads, 4 key heads, vocabulary 512, context 256),\n\
        or on boards that it does not fit, tiny (32, 48, 2, 4, 1, 256, 32). A token is one pass over the model, the draw and\n\
        the text.\n\n\
        | board | core | model | position 0 | half-way | last | mean | compiler |\n\
        | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for measured in measured {
        let Tokens { model, by_position, .. } = &measured.tokens;
        let cells = [0, by_position.len() / 2, by_position.len() - 1].map(|position| by_position[position].to_string());
        let (board, cpu, compiler) = (&measured.board, &measured.cpu, &measured.compiler);
        let mean = measured.tokens.mean();
        let _ = writeln!(text, "| {board} | {cpu} | {model} | {} | {mean} | {compiler} |", cells.join(" | "));
    }
    text
}

/// Flash and RAM of the same firmware.
fn memory(measured: &[Measurement]) -> String {
    let mut text = "## Memory\n\n\
        Bytes of the same firmware. RAM is the arena, the statics and the most stack that the code can use.\n\n\
        | board | flash | code and constants | RAM | arena | statics | stack, at most | stack, used |\n\
        | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for Measurement { board, tokens, .. } in measured {
        let sizes = &tokens.sizes;
        let arena = sizes.ram_bytes - sizes.static_ram_bytes;
        let ram = sizes.ram_bytes + sizes.stack_bytes;
        let cells = [sizes.flash_bytes, sizes.code_bytes, ram, arena, sizes.static_ram_bytes, sizes.stack_bytes];
        let cells = cells.map(|bytes| bytes.to_string()).join(" | ");
        let _ = writeln!(text, "| {board} | {cells} | {} |", tokens.stack_used_bytes);
    }
    text
}

/// Where a token's instructions go.
fn functions(measured: &[Measurement]) -> String {
    let mut text = "## Where they go\n\n\
        Shares of all instructions over all positions, by function; what is inlined counts for its caller.\n"
        .to_owned();
    for Measurement { board, tokens, .. } in measured {
        let _ = write!(text, "\n**{board}**\n\n| share | function |\n| --- | --- |\n");
        for (share, name) in tokens.functions.iter().take(N_FUNCTIONS) {
            let _ = writeln!(text, "| {share:.1}% | `{}` |", name.replace('|', "\\|"));
        }
    }
    text
}
