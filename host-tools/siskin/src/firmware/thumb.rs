//! As much of a Thumb-2 decoder as the stack analysis needs: where code branches to, and how it moves the stack pointer.

/// What one instruction does, as far as it matters here.
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
    /// Puts 16 bits into the low half of a register, clearing the high half.
    MoveLow {
        /// The register.
        register: u16,
        /// The half.
        half: u32,
    },
    /// Puts 16 bits into the high half.
    MoveHigh {
        /// The register.
        register: u16,
        /// The half.
        half: u32,
    },
}

/// Whether the instruction that begins with this halfword has a second one.
pub(crate) fn is_wide(first: u16) -> bool {
    first >> 11 > 0b11100
}

/// Decodes a 16-bit instruction at `address`.
pub(crate) fn narrow(address: u32, code: u16) -> Effect {
    let pc = address.wrapping_add(4);
    match code {
        // blx register; bx register, but for the return through lr.
        _ if code & 0xff87 == 0x4780 => Effect::Indirect,
        _ if code & 0xff87 == 0x4700 && code >> 3 & 0xf != 14 => Effect::Indirect,
        // mov pc, register.
        _ if code & 0xff87 == 0x4687 => Effect::Indirect,
        // b with a condition; 14 and 15 are udf and svc.
        _ if code >> 12 == 0b1101 && code >> 9 & 7 != 7 => {
            Effect::Branch(pc.wrapping_add(sign_extend(u32::from(code & 0xff) << 1, 9)))
        }
        _ if code >> 11 == 0b11100 => Effect::Branch(pc.wrapping_add(sign_extend(u32::from(code & 0x7ff) << 1, 12))),
        // push: eight low registers and lr.
        _ if code >> 9 == 0b1011010 => Effect::Push(4 * (code & 0x1ff).count_ones()),
        // sub sp, #imm.
        _ if code >> 7 == 0b1_0110_0001 => Effect::Push(u32::from(code & 0x7f) * 4),
        _ => Effect::None,
    }
}

/// Decodes a 32-bit instruction at `address`.
pub(crate) fn wide(address: u32, first: u16, second: u16) -> Effect {
    let (high, low) = (u32::from(first), u32::from(second));
    if high >> 11 == 0b11110 && low & 0x8000 != 0 {
        return branch(address, high, low);
    }
    let register = second >> 8 & 0xf;
    match first {
        // push.w of many; vpush of doubles or singles: imm8 words.
        0xe92d => Effect::Push(4 * second.count_ones()),
        0xed2d | 0xed6d => Effect::Push(4 * (low & 0xff)),
        // str register, [sp, #-imm]!; strd.
        0xf84d if low & 0xf00 == 0xd00 => Effect::Push(low & 0xff),
        0xe96d => Effect::Push(4 * (low & 0xff)),
        // sub.w sp, sp, #const and subw sp, sp, #imm12.
        _ if first & 0xfbef == 0xf1ad && register == 13 => Effect::Push(expand_immediate(high, low)),
        _ if first & 0xfbff == 0xf2ad && register == 13 => Effect::Push(plain_immediate(high, low)),
        _ if first & 0xfbf0 == 0xf240 => {
            Effect::MoveLow { register, half: (high & 0xf) << 12 | plain_immediate(high, low) }
        }
        _ if first & 0xfbf0 == 0xf2c0 => {
            Effect::MoveHigh { register, half: (high & 0xf) << 12 | plain_immediate(high, low) }
        }
        _ => Effect::None,
    }
}

/// `bl`, `b.w`, and `b.w` with a condition.
fn branch(address: u32, high: u32, low: u32) -> Effect {
    // Loops of ARMv8.1-M (dls, wls, le), which stay inside the function.
    if low & 0xd000 == 0xc000 {
        return Effect::None;
    }
    let pc = address.wrapping_add(4);
    let (s, j1, j2) = (high >> 10 & 1, low >> 13 & 1, low >> 11 & 1);
    if low & 0x5000 == 0 {
        // Conditions 14 and 15 are other instructions: barriers, moves to special registers, hints.
        if high >> 7 & 7 == 7 {
            return Effect::None;
        }
        let offset = s << 20 | j2 << 19 | j1 << 18 | (high & 0x3f) << 12 | (low & 0x7ff) << 1;
        return Effect::Branch(pc.wrapping_add(sign_extend(offset, 21)));
    }
    // Low-overhead loops, which stay inside their function. Cores without them call into the Arm state here, which Cortex-M has not.
    if low & 0x5000 == 0x4000 {
        return Effect::None;
    }
    let (i1, i2) = (1 ^ j1 ^ s, 1 ^ j2 ^ s);
    let offset = s << 24 | i1 << 23 | i2 << 22 | (high & 0x3ff) << 12 | (low & 0x7ff) << 1;
    let target = pc.wrapping_add(sign_extend(offset, 25));
    if low & 0x5000 == 0x1000 { Effect::Branch(target) } else { Effect::Call(target) }
}

fn plain_immediate(high: u32, low: u32) -> u32 {
    (high >> 10 & 1) << 11 | (low >> 12 & 7) << 8 | low & 0xff
}

/// The modified immediate constant of data processing instructions.
fn expand_immediate(high: u32, low: u32) -> u32 {
    let code = plain_immediate(high, low);
    let byte = code & 0xff;
    match code >> 8 {
        0 => byte,
        1 => byte << 16 | byte,
        2 => byte << 24 | byte << 8,
        3 => byte << 24 | byte << 16 | byte << 8 | byte,
        _ => (0x80 | code & 0x7f).rotate_right(code >> 7),
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
        assert_eq!(wide(0x0800_0400, 0xf000, 0xfe72), Effect::Call(0x0800_10e8));
        assert_eq!(wide(0x0800_0448, 0xf000, 0xf832), Effect::Call(0x0800_04b0));
        assert_eq!(narrow(0x0800_0410, 0xe7fb), Effect::Branch(0x0800_040a));
        assert_eq!(narrow(0x0800_040c, 0xd001), Effect::Branch(0x0800_0412));
        assert_eq!(narrow(0, 0x4770), Effect::None);
        assert_eq!(narrow(0, 0x4798), Effect::Indirect);
        assert_eq!(narrow(0, 0xb5f0), Effect::Push(20));
        assert_eq!(narrow(0, 0xb086), Effect::Push(24));
        assert_eq!(wide(0, 0xe92d, 0x4ff0), Effect::Push(36));
        assert_eq!(wide(0, 0xed2d, 0x8b10), Effect::Push(64));
        assert_eq!(wide(0, 0xf5ad, 0x7d00), Effect::Push(512));
        assert_eq!(wide(0, 0xf6ad, 0x0d0c), Effect::Push(2060));
        assert_eq!(wide(0, 0xf84d, 0xbd04), Effect::Push(4));
        assert_eq!(wide(0, 0xf24e, 0x1c23), Effect::MoveLow { register: 12, half: 0xe123 });
        assert_eq!(wide(0, 0xf6c0, 0x0c00), Effect::MoveHigh { register: 12, half: 0x800 });
        assert_eq!(wide(0, 0xf3bf, 0x8f4f), Effect::None);
        // le lr; wlstp.32 lr, r2; dls lr, r2.
        assert_eq!(wide(0x6e, 0xf00f, 0xc803), Effect::None);
        assert_eq!(wide(0x72, 0xf022, 0xc005), Effect::None);
        assert_eq!(wide(0x68, 0xf042, 0xe001), Effect::None);
        // dls lr, r2; le lr, #-14.
        assert_eq!(wide(0, 0xf042, 0xe001), Effect::None);
        assert_eq!(wide(0, 0xf00f, 0xc007), Effect::None);
    }
}
