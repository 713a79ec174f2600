//! The QEMU lines of the two machines with Xen.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Rig;
use crate::linux::Setting;
use crate::qemu::{Accel, Ending, Line, Machine, Options, Platform, Serial, megabytes};

/// QEMU's best processor, without the identity of a K8 (its MSRs are not there) and without MONITOR (Xen would idle by
/// it, and fault) and XSAVE: QEMU 7.2 does not tell Xen of a guest's XSETBV, and its XRSTOR does not trap where CR0.TS is set,
/// so that Xen, which switches these registers lazily, would overwrite what a guest has just loaded.
const CPU: &str = "max,family=23,model=1,stepping=2,-monitor,-xsave";
/// With several processors and a busy host, Xen 4.17 on QEMU 7.2 sometimes leaves a vCPU that could run in its queue, while all
/// processors idle, for ever: not seen in a hundred starts with all of them in one thread and the older scheduler.
const ACCEL: &str = "tcg,thread=single";
const SCHEDULER: &str = "sched=credit";
/// Xen and dom0 on the first serial line. SMAP is for HVM guests only: QEMU 7.2 faults on IRETQ to a user page with it.
const XEN: &str = "console=com1 com1=115200 loglvl=warning guest_loglvl=all smap=hvm";
const DOM0_KERNEL: &str = "console=hvc0 quiet loglevel=4 rdinit=/init";
/// What a guest writes as dom0 waits here for the line; Xen drops what goes beyond.
const TX_BUFFER: &str = "serial_tx_buffer=4M";
/// What Xen itself takes of the machine's memory, with room.
const XEN_MEGABYTES: u32 = 128;
/// Memory of the Linux dom0.
const DOM0_MEGABYTES: u32 = 384;
/// What Xen says when dom0 or itself ends, and would then wait for a hand on the switch, or for five seconds.
const LAST_WORDS: &[(&str, Ending)] = &[
    ("Hardware Dom0 halted: halting machine", Ending::PowerOff),
    ("Hardware Dom0 crashed:", Ending::Crashed),
    ("Reboot in five seconds", Ending::Crashed),
    ("Hardware Dom0 shutdown: rebooting machine", Ending::Reset),
];

/// The line on which Xen boots `guest` as dom0, alone.
///
/// # Errors
/// Xen runs on no such machine, or the options cannot be told to it.
pub fn alone(rig: &Rig, guest: &Path, options: &Options, serial: Serial) -> Result<Line> {
    supported(options)?;
    let guest = guest.to_str().filter(|path| !path.contains([' ', ',']));
    let guest = guest.context("QEMU passes Xen no guest whose path has blanks or commas")?;
    let own = megabytes(&options.memory)?;
    let mut line = Line::bare("q35", ACCEL, options.cpu.as_deref().unwrap_or(CPU));
    line.equip(options.smp, &format!("{}M", own + XEN_MEGABYTES), serial);
    line.option("-kernel", rig.hypervisor());
    let shape = if options.platform == Platform::XenPvhDom0 { " dom0=pvh dom0-iommu=none" } else { "" };
    let vcpus = options.smp;
    let memory = format!("dom0_mem={own}M,max:{own}M dom0_max_vcpus={vcpus}");
    line.option("-append", format!("{XEN} {SCHEDULER} {TX_BUFFER} {memory}{shape}"));
    line.option("-initrd", format!("{guest} {}", options.append.replace(',', ",,")).trim_end());
    if options.gdb {
        line.flag("-S");
        line.option("-gdb", "tcp:127.0.0.1:1234");
    }
    line.last_words = LAST_WORDS;
    Ok(line)
}

/// Xen with Linux as dom0 and `guest_megabytes` for its guests.
pub(super) fn with_linux(rig: &Rig, guest_megabytes: u32) -> Setting {
    let mut line = Line::bare("q35", "tcg", CPU);
    line.equip(1, &format!("{}M", DOM0_MEGABYTES + XEN_MEGABYTES + guest_megabytes), Serial::Plain);
    line.option("-kernel", rig.hypervisor());
    let memory = format!("dom0_mem={DOM0_MEGABYTES}M,max:{DOM0_MEGABYTES}M dom0_max_vcpus=1");
    line.option("-append", format!("{XEN} {memory}"));
    line.option("-initrd", format!("{} {DOM0_KERNEL},{}", rig.kernel().display(), rig.initramfs().display()));
    Setting { name: "Xen's dom0", saved_in: "xen-ready", parts: rig.parts().clone(), line }
}

/// Whether Xen runs on what `options` ask for.
///
/// # Errors
/// It does not; why.
pub(super) fn supported(options: &Options) -> Result<()> {
    let platform = options.platform.name();
    ensure!(options.machine == Machine::Q35, "`--on {platform}` goes with `--machine q35` only");
    ensure!(options.accel == Accel::Tcg, "`--on {platform}` goes with `--accel tcg` only");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rig() -> Rig {
        Rig::at("/rig".into())
    }

    #[test]
    fn alone_xen_gets_the_guest_as_its_module() {
        let options = Options { append: "log=debug a=b,c".into(), ..Options::on(Platform::XenPvDom0) };
        let line = alone(&rig(), Path::new("/k.elf"), &options, Serial::Plain).unwrap().to_string();
        assert_eq!(
            line,
            "qemu-system-x86_64 -machine q35 -accel tcg,thread=single -cpu max,family=23,model=1,stepping=2,-monitor,-xsave -smp 1 -m 384M \
             -nodefaults -no-user-config -no-reboot -display none -serial stdio -device isa-debug-exit,iobase=0xf4,iosize=4 \
             -kernel /rig/xen -append 'console=com1 com1=115200 loglvl=warning guest_loglvl=all smap=hvm \
             sched=credit serial_tx_buffer=4M dom0_mem=256M,max:256M dom0_max_vcpus=1' -initrd '/k.elf log=debug a=b,,c'"
        );
    }

    #[test]
    fn pvh_is_xens_choice_and_needs_no_iommu() {
        let options = Options { smp: 2, ..Options::on(Platform::XenPvhDom0) };
        let line = alone(&rig(), Path::new("/k.elf"), &options, Serial::Plain).unwrap().to_string();
        assert!(line.contains("dom0_max_vcpus=2 dom0=pvh dom0-iommu=none' -initrd /k.elf"), "{line}");
    }

    #[test]
    fn what_cannot_be_told_to_xen_is_refused() {
        let refused = |options: &Options, guest: &str| {
            alone(&rig(), Path::new(guest), options, Serial::Plain).unwrap_err().to_string()
        };
        let on = Options::on(Platform::XenPvDom0);
        assert!(refused(&on, "/a b").contains("blanks"));
        let pc = Options { machine: Machine::Pc, ..on.clone() };
        assert!(refused(&pc, "/k").contains("q35` only"));
        let kvm = Options { accel: Accel::Kvm, ..on.clone() };
        assert!(refused(&kvm, "/k").contains("tcg` only"));
        assert!(refused(&Options { memory: "much".into(), ..on }, "/k").contains("no size"));
    }

    #[test]
    fn linux_is_xens_first_module_and_its_root_the_second() {
        let line = with_linux(&rig(), 256).line.to_string();
        assert!(line.contains("-m 768M"), "{line}");
        let modules = "-initrd '/rig/vmlinuz console=hvc0 quiet loglevel=4 rdinit=/init,/rig/dom0.cpio'";
        assert!(line.contains(modules), "{line}");
    }
}
