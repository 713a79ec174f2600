//! Every op, declared once: `CLASS VISIBILITY SAFETY fn NAME(ARGUMENT: TYPE => REGISTER) -> TYPE => REGISTER;`
//!
//! Classes: `keep` sites keep every register but the result (and what the bare instruction itself needs, in
//! `clobbers`); `pure` moreover depend on their argument alone; `call` sites are ordinary function calls; a `jump` does
//! not come back. Every class changes the arithmetic flags.
//!
//! Each op says what it does, then how: natively, under Xen, and under KVM. "SDM" is Intel's Software Developer's Manual; `*.h` are Xen's public headers (`xen/include/public`), `*.rst`
//! Linux's `Documentation/virt/kvm/x86`.
//! Neighbours: `table` (what the macro makes of this), `native` (the bodies), `docs/pv-ops.md` (the same as a table).

use crate::{cpu_set::CpuSet, descriptor::PseudoDescriptor, word::Shutdown};
use core::{arch::x86_64::CpuidResult, sync::atomic::AtomicU8};

pv_ops! {
    /// Interrupts: the CPU's flag, sleep, the way back, the local controller.
    irq {
        /// Returns from an interrupt; used by entry code through [`iret!`](crate::iret).
        /// Native: `iretq` (SDM vol. 2A, IRET). KVM: native. Xen PV: the event mask, then `iretq`; the `iret` hypercall if
        /// events wait (arch-x86/xen-x86_64.h, `struct iret_context`).
        jump pub unsafe fn iret();

        /// Disables maskable interrupts on this CPU.
        /// Native: `cli` (SDM vol. 2A, CLI). KVM: native. Xen PV: `vcpu_info.evtchn_upcall_mask = 1` (xen.h).
        keep pub safe fn irq_disable();

        /// Enables maskable interrupts on this CPU, after the next instruction.
        /// Native: `sti` (SDM vol. 2B, STI). KVM: native. Xen PV: `evtchn_upcall_mask = 0`, then a forced upcall if
        /// `evtchn_upcall_pending` (xen.h).
        keep pub safe fn irq_enable();

        /// The flags register; of interest is bit 9, IF: interrupts enabled.
        /// Native: `pushfq; pop rax` (SDM vol. 2B, PUSHF). KVM: native. Xen PV: bit 9 from `evtchn_upcall_mask` (xen.h).
        keep pub safe fn irq_flags() -> u64 => "rax";

        /// Puts the interrupt flag back as [`irq_flags`] found it.
        /// Native: `push rdi; popfq` (SDM vol. 2B, POPF). KVM: native. Xen PV: `evtchn_upcall_mask` from bit 9 (xen.h).
        keep pub safe fn irq_restore(flags: u64 => "rdi");

        /// Stops this CPU until an interrupt; with interrupts disabled, for good.
        /// Native: `hlt` (SDM vol. 2A, HLT). KVM: native. Xen PV: `SCHEDOP_block`, or `VCPUOP_down` when disabled
        /// (sched.h, vcpu.h).
        keep pub safe fn halt();

        /// Enables interrupts and stops this CPU until one comes: none can slip in between and leave it asleep.
        /// Native: `sti; hlt`, whose interrupt shadow is what makes it safe (SDM vol. 2B, STI). KVM: native.
        /// Xen PV: `SCHEDOP_block`, which unmasks upcalls itself (sched.h).
        keep pub safe fn safe_halt();

        /// Tells the local interrupt controller that the interrupt in service is handled.
        /// Native: 0 to the EOI register of the xAPIC (SDM vol. 3A §11.8.5) or MSR 0x80b of the x2APIC (§11.12.1),
        /// whichever was chosen at [`install`](crate::install). KVM: a test of the PV EOI bit first (msr.rst,
        /// MSR_KVM_PV_EOI_EN). Xen PV: nothing, event channels have none.
        keep pub safe fn eoi() clobbers["rax", "rcx", "rdx"];

        /// Sends an inter-processor interrupt: `icr_low` is the lower half of the interrupt command register.
        /// Native: ICR at 0x300/0x310 or MSR 0x830 (SDM vol. 3A §11.6.1, §11.12.9). KVM: `KVM_HC_SEND_IPI`
        /// (hypercalls.rst). Xen PV: `EVTCHNOP_send` on a bound IPI channel (event_channel.h).
        ///
        /// # Safety
        /// INIT and start-up messages reset other CPUs: their code must be ready for it. A fixed message's vector
        /// has a handler there.
        call pub unsafe fn send_ipi(apic_id: u32 => "rdi", icr_low: u32 => "rsi");

        /// Raises `vector` on each of `cpus`, by the kernel's numbers, as cheaply as the host allows.
        /// Native: ICR, CPU by CPU (SDM vol. 3A §11.6.1); in x2APIC mode up to 16 at a time by their logical IDs
        /// (§11.12.10.2). KVM: `KVM_HC_SEND_IPI` (hypercalls.rst). Xen PV: `EVTCHNOP_send` on the channel that each CPU
        /// has for all its vectors (event_channel.h).
        ///
        /// # Safety
        /// The vector has a handler.
        call pub unsafe fn send_ipi_many(cpus: &CpuSet => "rdi", vector: u8 => "rsi");

        /// Arms this CPU's one-shot timer for the time `deadline_ns` of [`monotonic_ns`]; a past one fires at once,
        /// `u64::MAX` disarms. It may fire early (a 32-bit counter cannot reach far): the handler looks at the clock.
        /// Native: TSC-deadline MSR 0x6e0 or initial count at 0x380 (SDM vol. 3A §11.5.4). KVM: native.
        /// Xen PV: `VCPUOP_set_singleshot_timer` (vcpu.h).
        call pub safe fn timer_arm(deadline_ns: u64 => "rdi");
    }

    /// The CPU: identification, control and model-specific registers, descriptor tables, ports, time-stamp counter.
    cpu {
        /// What the CPU, or the hypervisor in its place, says of itself.
        /// Native: `cpuid` (SDM vol. 2A, CPUID). KVM: native (it traps). Xen PV: the emulated form `ud2; "xen"; cpuid`
        /// (arch-x86/xen.h, `XEN_CPUID`).
        keep pub safe fn cpuid(leaf: u32 => "rax", subleaf: u32 => "rcx") -> CpuidResult => "eax:ebx:ecx:edx";

        /// Reads CR0 (SDM vol. 3A §2.5).
        /// Native: `mov rax, cr0`. KVM: native. Xen PV: the virtual CR0, of which only TS is ours
        /// (`HYPERVISOR_fpu_taskswitch`, xen.h).
        keep pub safe fn read_cr0() -> u64 => "rax";

        /// Writes CR0 (SDM vol. 3A §2.5).
        /// Native: `mov cr0, rdi`. KVM: native. Xen PV: as for [`read_cr0`].
        ///
        /// # Safety
        /// Protection and paging of all memory hang on it; reserved bits fault.
        keep pub unsafe fn write_cr0(value: u64 => "rdi");

        /// Reads CR2, the address of the last page fault (SDM vol. 3A §2.5).
        /// Native: `mov rax, cr2`. KVM: native; the token of an asynchronous page fault where that is on (msr.rst).
        /// Xen PV: `vcpu_info.arch.cr2` (arch-x86/xen-x86_64.h).
        keep pub safe fn read_cr2() -> u64 => "rax";

        /// Reads CR4 (SDM vol. 3A §2.5).
        /// Native: `mov rax, cr4`. KVM: native. Xen PV: emulated by Xen.
        keep pub safe fn read_cr4() -> u64 => "rax";

        /// Writes CR4 (SDM vol. 3A §2.5).
        /// Native: `mov cr4, rdi`. KVM: native. Xen PV: emulated, for the few bits that Xen lets through.
        ///
        /// # Safety
        /// Paging mode and protection hang on it; reserved bits fault.
        keep pub unsafe fn write_cr4(value: u64 => "rdi");

        /// Reads a model-specific register.
        /// Native: `rdmsr` (SDM vol. 2B). KVM: native. Xen PV: emulated; what Xen does not know faults.
        ///
        /// # Safety
        /// The register exists, else the CPU faults.
        keep pub unsafe fn rdmsr(msr: u32 => "rcx") -> u64 => "edx:eax";

        /// Writes a model-specific register.
        /// Native: `wrmsr` (SDM vol. 2C). KVM: native. Xen PV: emulated for a few, `HYPERVISOR_set_segment_base` for
        /// the segment bases (arch-x86/xen-x86_64.h).
        ///
        /// # Safety
        /// The register exists and takes the value, and what hangs on it (paging, system calls, ..) stays sound.
        keep pub unsafe fn wrmsr(msr: u32 => "rcx", value: u64 => "edx:eax");

        /// Reads the time-stamp counter; not ordered with the instructions around it (SDM vol. 3B §18.17).
        /// Native, KVM, Xen: `rdtsc` (SDM vol. 2B), unless the host makes it trap.
        keep pub safe fn rdtsc() -> u64 => "edx:eax";

        /// Loads GDTR from a pseudo-descriptor; [`load_gdt`](crate::load_gdt) makes one.
        /// Native: `lgdt [rdi]` (SDM vol. 2A, LGDT). KVM: native. Xen PV: `HYPERVISOR_set_gdt` with the table's
        /// frames (xen.h).
        keep pub(crate) unsafe fn load_gdt(descriptor: *const PseudoDescriptor => "rdi");

        /// Lets CS and SS, DS, ES take these selectors of the table that [`load_gdt`](crate::load_gdt) loaded.
        /// Native: moves and a far return (SDM vol. 3A §3.4.3). KVM: native. Xen PV: nothing, Xen's own flat segments
        /// serve.
        ///
        /// # Safety
        /// They are flat segments of 64-bit code and of data, for this privilege level.
        call pub unsafe fn load_segments(code: u16 => "rdi", data: u16 => "rsi");

        /// Loads IDTR from a pseudo-descriptor; [`load_idt`](crate::load_idt) makes one.
        /// Native: `lidt [rdi]` (SDM vol. 2A, LIDT). KVM: native. Xen PV: `HYPERVISOR_set_trap_table` with what the
        /// gates say (arch-x86/xen.h, `struct trap_info`).
        keep pub(crate) unsafe fn load_idt(descriptor: *const PseudoDescriptor => "rdi");

        /// Loads the task register.
        /// Native: `ltr di` (SDM vol. 2A, LTR). KVM: native. Xen PV: nothing; the kernel stack is told by
        /// `HYPERVISOR_stack_switch` (xen.h).
        ///
        /// # Safety
        /// The selector names an available 64-bit TSS in the GDT, whose stacks stay in place.
        keep pub unsafe fn load_tr(selector: u16 => "rdi");

        /// Sets the base of the GS segment, where per-CPU data is.
        /// Native: MSR 0xc000_0101 (SDM vol. 4). KVM: native. Xen PV: `SEGBASE_GS_KERNEL` of
        /// `HYPERVISOR_set_segment_base` (arch-x86/xen-x86_64.h).
        ///
        /// # Safety
        /// The address is canonical and this CPU's per-CPU data is there.
        call pub unsafe fn write_gs_base(base: u64 => "rdi");

        /// Reads a byte from an I/O port.
        /// Native: `in al, dx` (SDM vol. 2A, IN). KVM: native. Xen: for a domain that was given the port.
        ///
        /// # Safety
        /// Reading has no effect at the device that breaks another's work.
        keep pub unsafe fn port_in8(port: u16 => "rdx") -> u8 => "rax";

        /// Reads 16 bits from an I/O port; otherwise as [`port_in8`]. Native: `in ax, dx`.
        ///
        /// # Safety
        /// As for [`port_in8`].
        keep pub unsafe fn port_in16(port: u16 => "rdx") -> u16 => "rax";

        /// Reads 32 bits from an I/O port; otherwise as [`port_in8`]. Native: `in eax, dx`.
        ///
        /// # Safety
        /// As for [`port_in8`].
        keep pub unsafe fn port_in32(port: u16 => "rdx") -> u32 => "rax";

        /// Writes a byte to an I/O port.
        /// Native: `out dx, al` (SDM vol. 2B, OUT). KVM: native. Xen: for a domain that was given the port.
        ///
        /// # Safety
        /// What the device then does (direct memory access, reset, ..) is sound and breaks no other's work.
        keep pub unsafe fn port_out8(port: u16 => "rdx", value: u8 => "rax");

        /// Writes `len_bytes` bytes one after the other to an I/O port, which is one exit in a guest; otherwise as
        /// [`port_out8`]. Native: `rep outsb`.
        ///
        /// # Safety
        /// As for [`port_out8`]; there are so many bytes.
        call pub unsafe fn port_out8_many(port: u16 => "rdi", bytes: *const u8 => "rsi", len_bytes: u64 => "rdx");

        /// Writes 16 bits to an I/O port; otherwise as [`port_out8`]. Native: `out dx, ax`.
        ///
        /// # Safety
        /// As for [`port_out8`].
        keep pub unsafe fn port_out16(port: u16 => "rdx", value: u16 => "rax");

        /// Writes 32 bits to an I/O port; otherwise as [`port_out8`]. Native: `out dx, eax`.
        ///
        /// # Safety
        /// As for [`port_out8`].
        keep pub unsafe fn port_out32(port: u16 => "rdx", value: u32 => "rax");
    }

    /// Memory management: page-table entries, the root, the TLB.
    mmu {
        /// The entry to store in a page table for this entry with a guest-physical address.
        /// Native, KVM: the same value, no instruction at all. Xen PV: guest frame becomes machine frame (p2m,
        /// arch-x86/xen.h).
        pure pub safe fn pte_make(entry: u64 => "rax") -> u64 => "rax";

        /// The reverse of [`pte_make`], for an entry read from a page table.
        /// Native, KVM: the same value, no instruction at all. Xen PV: machine frame becomes guest frame (m2p).
        pure pub safe fn pte_value(entry: u64 => "rax") -> u64 => "rax";

        /// Stores an entry of the lowest level (4 KiB page), as [`pte_make`] gave it.
        /// Native, KVM: `mov [rdi], rsi`. Xen PV: `HYPERVISOR_mmu_update`, `MMU_NORMAL_PT_UPDATE` (xen.h).
        ///
        /// # Safety
        /// `entry` points into a page table of ours; no mapping in use is taken away or made to alias what Rust
        /// believes unique; a changed mapping is flushed before it is relied upon.
        keep pub unsafe fn set_pte(entry: *mut u64 => "rdi", value: u64 => "rsi");

        /// Stores an entry of level 2 (2 MiB page or table); otherwise as [`set_pte`].
        ///
        /// # Safety
        /// As for [`set_pte`]; a table that is entered has valid content.
        keep pub unsafe fn set_pmd(entry: *mut u64 => "rdi", value: u64 => "rsi");

        /// Stores an entry of level 3 (1 GiB page or table); otherwise as [`set_pte`].
        ///
        /// # Safety
        /// As for [`set_pmd`].
        keep pub unsafe fn set_pud(entry: *mut u64 => "rdi", value: u64 => "rsi");

        /// Stores an entry of level 4 (table); otherwise as [`set_pte`].
        ///
        /// # Safety
        /// As for [`set_pmd`].
        keep pub unsafe fn set_pgd(entry: *mut u64 => "rdi", value: u64 => "rsi");

        /// Stores `count` entries of one table one after the other, from `first` on, as [`pte_make`] gave them: pages of
        /// the table's level, or zero.
        /// Native, KVM: one store each. Xen PV: one `mmu_update` for many (xen.h).
        ///
        /// # Safety
        /// As for [`set_pte`], for each; there are `count` words at `values`.
        call pub unsafe fn set_ptes(first: *mut u64 => "rdi", values: *const u64 => "rsi", count: u64 => "rdx");

        /// Reads CR3: the root table's address and its flags (SDM vol. 3A §4.5).
        /// Native, KVM: `mov rax, cr3`. Xen PV: the frame last loaded, as a guest frame.
        keep pub safe fn read_cr3() -> u64 => "rax";

        /// Loads CR3 and with it flushes all TLB entries (SDM vol. 3A §4.10.4.1).
        /// Native, KVM: `mov cr3, rdi`. Xen PV: `MMUEXT_NEW_BASEPTR` (xen.h).
        ///
        /// # Safety
        /// The new tables map the running code, its stack and all that Rust holds references to, as before.
        keep pub unsafe fn write_cr3(value: u64 => "rdi");

        /// Flushes this CPU's whole TLB. There are no global entries: the kernel leaves CR4.PGE clear.
        /// Native, KVM: `mov rax, cr3; mov cr3, rax` (SDM vol. 3A §4.10.4.1).
        /// Xen PV: `MMUEXT_TLB_FLUSH_LOCAL` (xen.h).
        call pub safe fn flush_tlb();

        /// Flushes this CPU's TLB entries for the page of this linear address.
        /// Native, KVM: `invlpg [rdi]` (SDM vol. 2A, INVLPG). Xen PV: `MMUEXT_INVLPG_LOCAL` (xen.h).
        keep pub safe fn flush_tlb_one(address: u64 => "rdi");

        /// Flushes on the CPUs `cpus`, of which this is none, the pages of `len_bytes` bytes from `start`, or everything
        /// if `len_bytes` is `u64::MAX`; when it returns, no CPU uses an entry from before.
        /// Native: the kernel's shoot-down ([`set_shootdown`](crate::native::mmu::set_shootdown)); an empty set needs
        /// none. KVM: `KVM_VCPU_FLUSH_TLB` for CPUs that do not run (cpuid.rst, KVM_FEATURE_PV_TLB_FLUSH).
        /// Xen PV: `MMUEXT_INVLPG_MULTI`, `MMUEXT_TLB_FLUSH_MULTI` (xen.h).
        call pub safe fn flush_tlb_others(cpus: &CpuSet => "rdi", start: u64 => "rsi", len_bytes: u64 => "rdx");

        /// Announces that the frame with this number is a page table of this level (1 = lowest, 4 = root) from now on.
        /// Native, KVM: nothing. Xen PV: made read-only and pinned, `MMUEXT_PIN_L1_TABLE` .. `L4` (xen.h).
        ///
        /// # Safety
        /// The frame holds a valid table of that level and is changed only through `set_*` while it is pinned.
        keep pub unsafe fn pin_table(frame: u64 => "rdi", level: u8 => "rsi");

        /// The reverse of [`pin_table`]: the frame becomes ordinary memory.
        /// Native, KVM: nothing. Xen PV: `MMUEXT_UNPIN_TABLE` (xen.h).
        ///
        /// # Safety
        /// The frame was pinned and no table and no CR3 refers to it any more.
        keep pub unsafe fn unpin_table(frame: u64 => "rdi");
    }

    /// Clocks.
    time {
        /// Nanoseconds since boot; never goes back on one CPU. 0 until the clock's frequency is known.
        /// Native: TSC times a scale ([`set_tsc_hz`](crate::native::time::set_tsc_hz)). KVM: kvmclock (msr.rst,
        /// MSR_KVM_SYSTEM_TIME_NEW). Xen: `vcpu_info.time` (xen.h, `struct vcpu_time_info`).
        keep pub safe fn monotonic_ns() -> u64 => "rax";

        /// Nanoseconds since the Unix epoch, if known.
        /// Native: what the kernel read from a clock chip ([`set_wall`](crate::native::time::set_wall)) plus
        /// [`monotonic_ns`]. KVM: MSR_KVM_WALL_CLOCK_NEW (msr.rst). Xen: `shared_info.wc_sec` (xen.h).
        call pub safe fn wall_ns() -> Option<u64> => "rax";

        /// Nanoseconds in which this virtual CPU wanted to run and the host ran something else.
        /// Native: 0 (`xor eax, eax`). KVM: MSR_KVM_STEAL_TIME (msr.rst). Xen: `VCPUOP_register_runstate_memory_area`
        /// (vcpu.h).
        keep pub safe fn steal_ns(cpu: u32 => "rdi") -> u64 => "rax";
    }

    /// Spin locks that tell the hypervisor that they wait.
    lock {
        /// Wakes the CPU that [`lock_wait`]s for what was just released.
        /// Native: nothing. KVM: `KVM_HC_KICK_CPU` (hypercalls.rst). Xen: an event channel (event_channel.h).
        keep pub safe fn lock_kick(cpu: u32 => "rdi");

        /// Waits, perhaps asleep, while `lock` has the value `seen`; may return early. For a spinning loop.
        /// Native: `pause` (SDM vol. 2B, PAUSE). KVM: halt until kicked (hypercalls.rst, KVM_HC_KICK_CPU).
        /// Xen: `SCHEDOP_poll` (sched.h).
        keep pub safe fn lock_wait(lock: &AtomicU8 => "rdi", seen: u8 => "rsi");
    }

    /// What the guest asks of its host's scheduler and its console.
    sched {
        /// Gives way to another virtual CPU.
        /// Native: `pause` (SDM vol. 2B, PAUSE). KVM: native, or `KVM_HC_SCHED_YIELD` to a CPU that an IPI went to
        /// (hypercalls.rst). Xen: `SCHEDOP_yield` (sched.h).
        keep pub safe fn sched_yield();

        /// Calls the hypervisor in KVM's way: number and up to four arguments; a negative answer is an error.
        /// Native, Xen: -1000, "no such call" (Linux `include/uapi/linux/kvm_para.h`, KVM_ENOSYS). KVM: `vmcall`, on
        /// AMD `vmmcall`, with the first argument in rbx, which the compiler keeps for itself (hypercalls.rst).
        ///
        /// # Safety
        /// What the host does for it is sound.
        keep pub(crate) unsafe fn hypercall(number: u64 => "rax", a: u64 => "rdi", b: u64 => "rcx", c: u64 => "rdx", d: u64 => "rsi") -> u64 => "rax";

        /// Ends the guest. Returns if this platform has no way that needs no ACPI: then the kernel goes on with ACPI.
        /// Native: `Exit` writes 16 + status to QEMU's isa-debug-exit port 0xf4; `Reboot` asks the reset control
        /// register 0xcf9 and the keyboard controller; `PowerOff` returns. KVM: native.
        /// Xen: `SCHEDOP_shutdown` (sched.h).
        call pub safe fn shutdown(how: Shutdown => "rdi");

        /// Early console, by address and length; [`console_write`](crate::console_write) takes a slice.
        /// Native: COM1 if there is one, else port 0xe9. KVM: native. Xen: `CONSOLEIO_write` (xen.h), or the ring of
        /// io/console.h.
        call pub(crate) unsafe fn console_write(text: *const u8 => "rdi", len_bytes: u64 => "rsi");
    }
}
