//! As much of a RISC-V decoder as the stack analysis needs: where code branches to, and how it moves the stack pointer.

/// What one instruction does, as far as it matters here. Registers are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing that matters.
    None,
    /// Calls a fixed address.
    Call(u32),
    /// Goes to a fixed address: inside the function, or a tail call.
    Branch(u32),
    /// Calls (`links`), or goes to, the address in a register plus an offset.
    Jump {
        /// The register.
        base: u32,
        /// The offset.
        offset: u32,
        /// Whether it comes back.
        links: bool,
    },
    /// Lowers the stack pointer by so many bytes.
    Push(u32),
    /// Puts the upper part of an address or a constant into a register.
    Upper {
        /// The register.
        register: u32,
        /// What it holds then.
        value: u32,
    },
    /// Adds a constant to a register, which may complete an address.
    Add {
        /// The register.
        base: u32,
        /// The constant.
        offset: u32,
    },
}

const RA: u32 = 1;
const SP: u32 = 2;
/// The other link register, of what the compiler makes functions of because it occurs more than once. No other jump goes through it.
const T0: u32 = 5;

/// Whether the instruction that begins with this halfword has a second one.
pub(crate) fn is_wide(first: u16) -> bool {
    first & 3 == 3
}

/// Decodes a 16-bit instruction at `address`. In 64 bits, what is `c.jal` in 32 is an addition to a register.
pub(crate) fn narrow(address: u32, code: u16, is_64: bool) -> Effect {
    let code = u32::from(code);
    let field = |low: u32, bits: u32| code >> low & ((1 << bits) - 1);
    match (code & 3, code >> 13) {
        // c.jal and c.j.
        (1, 1) if !is_64 => Effect::Call(address.wrapping_add(jump_offset(code))),
        (1, 5) => Effect::Branch(address.wrapping_add(jump_offset(code))),
        // c.beqz and c.bnez.
        (1, 6 | 7) => {
            let offset = field(12, 1) << 8 | field(5, 2) << 6 | field(2, 1) << 5 | field(10, 2) << 3 | field(3, 2) << 1;
            Effect::Branch(address.wrapping_add(sign_extend(offset, 9)))
        }
        // c.addi16sp and c.lui.
        (1, 3) if field(7, 5) == SP => {
            let amount = field(12, 1) << 9 | field(3, 2) << 7 | field(5, 1) << 6 | field(2, 1) << 5 | field(6, 1) << 4;
            lowered(sign_extend(amount, 10))
        }
        (1, 3) => {
            let value = sign_extend(field(12, 1) << 5 | field(2, 5), 6) << 12;
            Effect::Upper { register: field(7, 5), value }
        }
        // c.addi.
        (1, 0) => {
            let amount = sign_extend(field(12, 1) << 5 | field(2, 5), 6);
            if field(7, 5) == SP { lowered(amount) } else { Effect::Add { base: field(7, 5), offset: amount } }
        }
        // c.jr and c.jalr; c.ebreak has no register.
        (2, 4) if field(2, 5) == 0 && field(7, 5) != 0 => through(field(7, 5), 0, field(12, 1) == 1),
        _ => Effect::None,
    }
}

/// Decodes a 32-bit instruction at `address`.
pub(crate) fn wide(address: u32, code: u32) -> Effect {
    let (rd, rs1) = (code >> 7 & 31, code >> 15 & 31);
    let immediate = (code as i32 >> 20) as u32;
    match code & 0x7f {
        // jal.
        0x6f => {
            let offset =
                (code >> 31) << 20 | (code >> 12 & 0xff) << 12 | (code >> 20 & 1) << 11 | (code >> 21 & 0x3ff) << 1;
            let target = address.wrapping_add(sign_extend(offset, 21));
            if rd == 0 { Effect::Branch(target) } else { Effect::Call(target) }
        }
        // jalr.
        0x67 => through(rs1, immediate, rd != 0),
        // Branches with a condition.
        0x63 => {
            let offset = (code >> 31) << 12 | (code >> 7 & 1) << 11 | (code >> 25 & 0x3f) << 5 | (code >> 8 & 0xf) << 1;
            Effect::Branch(address.wrapping_add(sign_extend(offset, 13)))
        }
        // lui and auipc.
        0x37 => Effect::Upper { register: rd, value: code & 0xffff_f000 },
        0x17 => Effect::Upper { register: rd, value: address.wrapping_add(code & 0xffff_f000) },
        // addi.
        0x13 if code >> 12 & 7 == 0 && rd == SP && rs1 == SP => lowered(immediate),
        0x13 if code >> 12 & 7 == 0 => Effect::Add { base: rs1, offset: immediate },
        _ => Effect::None,
    }
}

/// A jump to what a register holds; through a link register it is the return.
fn through(base: u32, offset: u32, links: bool) -> Effect {
    if matches!(base, RA | T0) && !links && offset == 0 { Effect::None } else { Effect::Jump { base, offset, links } }
}

/// The stack pointer plus `amount`, of which only a lowering counts.
fn lowered(amount: u32) -> Effect {
    match amount as i32 {
        ..0 => Effect::Push(amount.wrapping_neg()),
        _ => Effect::None,
    }
}

fn jump_offset(code: u32) -> u32 {
    let bit = |from: u32, to: u32| (code >> from & 1) << to;
    let offset = bit(12, 11) | bit(11, 4) | bit(10, 9) | bit(9, 8) | bit(8, 10) | bit(7, 6) | bit(6, 7) | bit(2, 5);
    sign_extend(offset | (code >> 3 & 7) << 1, 12)
}

fn sign_extend(value: u32, bits: u32) -> u32 {
    let shift = 32 - bits;
    ((value << shift) as i32 >> shift) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encodings and their meaning as an independent disassembler (LLVM's) gives them.
    #[test]
    fn effects_are_those_of_a_disassembler() {
        assert_eq!(wide(0x8000_00b2, 0x5950_106f), Effect::Branch(0x8000_1e46));
        assert_eq!(narrow(0x8000_339e, 0xa029, false), Effect::Branch(0x8000_33a8));
        assert_eq!(narrow(0x8000_3062, 0xbff9, false), Effect::Branch(0x8000_3040));
        assert_eq!(wide(0x8000_2386, 0xc7e0_80e7), Effect::Jump { base: 1, offset: -898i32 as u32, links: true });
        assert_eq!(narrow(0, 0x8082, false), Effect::None);
        assert_eq!(narrow(0, 0x8282, false), Effect::None);
        assert_eq!(narrow(0x8000_0aae, 0xcc15, false), Effect::Branch(0x8000_0aea));
        assert_eq!(narrow(0x8000_37c0, 0xdbed, false), Effect::Branch(0x8000_37b2));
        assert_eq!(narrow(0x8000_3484, 0xf17d, false), Effect::Branch(0x8000_346a));
        assert_eq!(wide(0x8000_21c2, 0x0336_6463), Effect::Branch(0x8000_21ea));
        assert_eq!(wide(0, 0xcccc_d637), Effect::Upper { register: 12, value: 838_861 << 12 });
        assert_eq!(wide(0x8000_20d4, 0x0000_2317), Effect::Upper { register: 6, value: 0x8000_40d4 });
        assert_eq!(narrow(0, 0x6405, false), Effect::Upper { register: 8, value: 0x1000 });
        assert_eq!(narrow(0, 0x1101, false), Effect::Push(32));
        assert_eq!(narrow(0, 0x1141, false), Effect::Push(16));
        assert_eq!(narrow(0, 0x0141, false), Effect::None);
        assert_eq!(wide(0, 0xcb01_0113), Effect::Push(848));
        assert_eq!(wide(0, 0x3501_0113), Effect::None);
        assert_eq!(narrow(0, 0x7139, false), Effect::Push(64));
        assert_eq!(narrow(0, 0x9502, false), Effect::Jump { base: 10, offset: 0, links: true });
        assert_eq!(narrow(0x8000_0000, 0x2011, false), Effect::Call(0x8000_0004));
        assert_eq!(narrow(0x8000_0000, 0x2011, true), Effect::None);
    }
}
