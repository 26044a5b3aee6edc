//! As much of an A64 decoder as the stack analysis needs: where code branches to, and how it moves the stack pointer.

/// What one instruction does, as far as it matters here. Registers are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing that matters.
    None,
    /// Calls a fixed address.
    Call(u32),
    /// Goes to a fixed address: inside the function, or a tail call.
    Branch(u32),
    /// Calls, or goes to, whatever a register holds.
    Indirect,
    /// Lowers the stack pointer by so many bytes.
    Push(u32),
    /// Puts an address, or that of its page, into a register.
    Address {
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

/// The stack pointer, where an instruction may name it.
const SP: u32 = 31;

/// Decodes the instruction at `address`. Code lies in the first 4 GB.
pub(crate) fn decode(address: u32, code: u32) -> Effect {
    let (rd, rn) = (code & 31, code >> 5 & 31);
    let target = |offset: u32, bits: u32| address.wrapping_add(sign_extend(offset, bits) << 2);
    match code >> 24 {
        0x94..=0x97 => Effect::Call(target(code & 0x3ff_ffff, 26)),
        0x14..=0x17 => Effect::Branch(target(code & 0x3ff_ffff, 26)),
        // b with a condition, cbz and cbnz; tbz and tbnz.
        0x54 | 0x34 | 0x35 | 0xb4 | 0xb5 => Effect::Branch(target(code >> 5 & 0x7_ffff, 19)),
        0x36 | 0x37 | 0xb6 | 0xb7 => Effect::Branch(target(code >> 5 & 0x3fff, 14)),
        // br and blr; ret is the way back.
        0xd6 if code & 0xffdf_fc1f == 0xd61f_0000 => Effect::Indirect,
        // sub sp, sp, #constant.
        0xd1 if (rd, rn) == (SP, SP) && code & 0x80_0000 == 0 => {
            let shift = if code >> 22 & 1 == 1 { 12 } else { 0 };
            Effect::Push((code >> 10 & 0xfff) << shift)
        }
        // add register, register, #constant.
        0x91 if code & 0xc0_0000 == 0 => Effect::Add { base: rn, offset: code >> 10 & 0xfff },
        // stp with the stack pointer lowered first: of words, doubles and vectors.
        0xa9 | 0x6d if rn == SP && code & 0xc0_0000 == 0x80_0000 => lowered(sign_extend(code >> 15 & 0x7f, 7) << 3),
        0xad if rn == SP && code & 0xc0_0000 == 0x80_0000 => lowered(sign_extend(code >> 15 & 0x7f, 7) << 4),
        // str likewise.
        0xf8 | 0xfc | 0x3c if rn == SP && code & 0x60_0c00 == 0x0c00 => lowered(sign_extend(code >> 12 & 0x1ff, 9)),
        // adr; adrp.
        high if high & 0x1f == 0x10 => {
            let offset = sign_extend((code >> 5 & 0x7_ffff) << 2 | code >> 29 & 3, 21);
            let value = match high >> 7 {
                0 => address.wrapping_add(offset),
                _ => (address & !0xfff).wrapping_add(offset << 12),
            };
            Effect::Address { register: rd, value }
        }
        _ => Effect::None,
    }
}

/// The stack pointer plus `amount`, of which only a lowering counts.
fn lowered(amount: u32) -> Effect {
    match amount as i32 {
        ..0 => Effect::Push(amount.wrapping_neg()),
        _ => Effect::None,
    }
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
        assert_eq!(decode(0x4000_0010, 0x9400_048d), Effect::Call(0x4000_1244));
        assert_eq!(decode(0x4000_0014, 0x17ff_fffb), Effect::Branch(0x4000_0000));
        assert_eq!(decode(0x4000_0018, 0x5400_01c1), Effect::Branch(0x4000_0050));
        assert_eq!(decode(0x4000_001c, 0xb4ff_ffa3), Effect::Branch(0x4000_0010));
        assert_eq!(decode(0x4000_0020, 0x3738_0085), Effect::Branch(0x4000_0030));
        assert_eq!(decode(0, 0xd61f_0100), Effect::Indirect);
        assert_eq!(decode(0, 0xd63f_0120), Effect::Indirect);
        assert_eq!(decode(0, 0xd65f_03c0), Effect::None);
        assert_eq!(decode(0, 0xd108_c3ff), Effect::Push(560));
        assert_eq!(decode(0, 0xd140_07ff), Effect::Push(4096));
        assert_eq!(decode(0, 0x9108_c3ff), Effect::Add { base: 31, offset: 560 });
        assert_eq!(decode(0, 0xa9be_7bfd), Effect::Push(32));
        assert_eq!(decode(0, 0x6db9_23e9), Effect::Push(112));
        assert_eq!(decode(0, 0xadbe_07e0), Effect::Push(64));
        assert_eq!(decode(0, 0xf81f_0ffe), Effect::Push(16));
        assert_eq!(decode(0, 0xfc1f_0fe8), Effect::Push(16));
        assert_eq!(decode(0, 0xa8c2_7bfd), Effect::None);
        assert_eq!(decode(0, 0xa901_7bfd), Effect::None);
        assert_eq!(decode(0, 0xf841_07fe), Effect::None);
        assert_eq!(decode(0x4000_005c, 0x30ff_fdc0), Effect::Address { register: 0, value: 0x4000_0015 });
        assert_eq!(decode(0x4000_0060, 0x9000_0003), Effect::Address { register: 3, value: 0x4000_0000 });
        assert_eq!(decode(0, 0x9104_8c64), Effect::Add { base: 3, offset: 0x123 });
        assert_eq!(decode(0, 0xd100_2020), Effect::None);
    }
}
