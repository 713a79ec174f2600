//! The state of the boot CPU at a PVH entry: 32-bit protected mode, flat, paging off (Xen `docs/misc/pvh.pandoc`).

use anyhow::{Context, Result};
use kvm_bindings::{kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;

use crate::memory::START_INFO;

const CODE: u8 = 0xb;
const DATA: u8 = 0x3;
/// A busy 32-bit TSS.
const TASK: u8 = 0xb;
const PROTECTED: u64 = 1;
/// The bit of RFLAGS that is always set.
const RFLAGS: u64 = 2;

/// Sets it, to begin at `entry`.
///
/// # Errors
/// KVM refuses.
pub(crate) fn set(vcpu: &VcpuFd, entry: u64) -> Result<()> {
    let mut special = vcpu.get_sregs().context("KVM tells no registers")?;
    special.cr0 = PROTECTED;
    special.cr4 = 0;
    special.efer = 0;
    special.cs = flat(0x8, CODE);
    for segment in [&mut special.ds, &mut special.es, &mut special.fs, &mut special.gs, &mut special.ss] {
        *segment = flat(0x10, DATA);
    }
    special.tr = kvm_segment { limit: 0x67, type_: TASK, present: 1, ..Default::default() };
    vcpu.set_sregs(&special).context("KVM takes no segments")?;
    let registers = kvm_regs { rip: entry, rbx: START_INFO, rflags: RFLAGS, ..Default::default() };
    vcpu.set_regs(&registers).context("KVM takes no registers")
}

/// All of 4 GiB.
fn flat(selector: u16, type_: u8) -> kvm_segment {
    kvm_segment { limit: u32::MAX, selector, type_, present: 1, db: 1, s: 1, g: 1, ..Default::default() }
}
