//! VMware's backdoor: a command in registers, an `in` from port 0x5658, the answer in registers (open-vm-tools,
//! lib/include/backdoor_def.h). QEMU's PC machines have it too.

use core::arch::asm;

use kernel::pv_ops::{self, sites::Installed};

use crate::document::{Value, object};

/// In EAX with every command, and in EBX with the answer to the first.
#[doc(alias = "BDOOR_MAGIC")]
const MAGIC: u32 = 0x564d_5868;
#[doc(alias = "BDOOR_PORT")]
const PORT: u16 = 0x5658;
#[doc(alias = "BDOOR_CMD_GETVERSION")]
const GET_VERSION: u32 = 10;
#[doc(alias = "BDOOR_CMD_GETTIME")]
const GET_TIME: u32 = 23;
#[doc(alias = "BDOOR_CMD_GETHZ")]
const GET_HZ: u32 = 45;

/// What the backdoor told.
pub(crate) struct Answer {
    version: u32,
    product: u32,
    /// Unix time; a host that does not tell it answers with all ones.
    unix_s: Option<u32>,
    tsc_hz: Option<u64>,
}

/// Asks, where the guest may use ports at all; `None` where nobody answers.
pub(crate) fn ask() -> Option<Answer> {
    const IN_EAX_DX: &[u8] = &[0xed];
    let has_ports = pv_ops::ops().any(|op| {
        op.name == "port_in32" && matches!(op.form, Installed::Inline(bytes) if bytes == IN_EAX_DX)
    });
    if !has_ports {
        return None;
    }
    let [version, magic, product] = command(GET_VERSION);
    if magic != MAGIC || version == u32::MAX {
        return None;
    }
    let [unix_s, ..] = command(GET_TIME);
    let [low, high, _] = command(GET_HZ);
    // A host that does not know the command answers with all ones, or with what was asked.
    let told = |word: &u32| *word != u32::MAX && *word != MAGIC && *word != 0;
    let tsc_hz = Some(low).filter(told).map(|low| u64::from(high) << 32 | u64::from(low));
    Some(Answer { version, product, unix_s: Some(unix_s).filter(told), tsc_hz })
}

/// EAX, EBX, ECX of the answer.
fn command(number: u32) -> [u32; 3] {
    let (eax, ebx, ecx): (u32, u64, u32);
    // SAFETY: reads from a port on which either nobody listens or the backdoor, whose commands here only tell something;
    // all registers that it changes are named, rbx is put back.
    unsafe {
        asm!(
            "mov {saved}, rbx",
            "xor ebx, ebx",
            "in eax, dx",
            "xchg {saved}, rbx",
            saved = out(reg) ebx,
            inlateout("eax") MAGIC => eax,
            inlateout("ecx") number => ecx,
            inlateout("edx") u32::from(PORT) => _,
            lateout("rsi") _,
            lateout("rdi") _,
            options(nomem, nostack)
        );
    }
    [eax, ebx as u32, ecx]
}

impl Answer {
    pub(crate) fn into_value(self) -> Value {
        object! { version: self.version, product: self.product, unix_s: self.unix_s, tsc_hz: self.tsc_hz }
    }
}
