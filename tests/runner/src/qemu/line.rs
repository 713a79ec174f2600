//! The QEMU command line for each way into a guest.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use anyhow::{Result, bail};
use clap::ValueEnum;

use super::Ending;
use super::options::{Accel, Machine, Options, Platform, Serial, check_memory, megabytes};
use crate::host::packages::{OVMF, QEMU};
use crate::host::process::shell_line;

/// The I/O port of isa-debug-exit, where a guest writes 16 + its status.
const EXIT_DEVICE: &str = "isa-debug-exit,iobase=0xf4,iosize=4";
/// Everything the host offers, but for the register IA32_ARCH_CAPABILITIES: where KVM cannot keep it, QEMU dies of it.
pub(crate) const KVM_CPU: &str = "host,-arch-capabilities";
const OVMF_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// A QEMU command line.
#[derive(Clone, Debug)]
pub struct Line {
    words: Vec<OsString>,
    /// Whether the program is QEMU; else it is our own monitor.
    pub(crate) is_qemu: bool,
    /// What on the console is the guest's end although QEMU would go on, and which end.
    pub(crate) last_words: &'static [(&'static str, Ending)],
}

impl Line {
    /// The line that boots `file`: an ELF for PVH, a disk image for BIOS and UEFI, an ISO for multiboot2.
    ///
    /// # Errors
    /// QEMU has no such machine, or others run the guest: see [`crate::xen`] and [`crate::nested`].
    pub fn new(options: &Options, file: &Path, serial: Serial) -> Result<Self> {
        if options.platform.is_xen() || options.platform.is_beside_linux() {
            bail!("no QEMU line boots the guest by `--on {}` directly", options.platform.name());
        }
        let by_pvh = matches!(options.platform, Platform::Pvh | Platform::Kvm);
        if options.platform == Platform::Kvm && options.accel != Accel::Kvm {
            bail!("`--on kvm` is `--on pvh --accel kvm`: it goes with no other accelerator");
        }
        if options.machine == Machine::Microvm && !by_pvh {
            bail!("microvm has no firmware that reads disks: it boots by `--on pvh` only");
        }
        check_memory(&options.memory)?;
        if options.machine == Machine::Vmm {
            if options.platform != Platform::Kvm {
                bail!("our own machine monitor goes with `--on kvm` and `--on kvm-nested` only");
            }
            return Self::of_vmm(options, crate::vmm::get()?.as_os_str(), file.as_os_str());
        }
        let machine = options.machine.to_possible_value().map(|value| value.get_name().to_owned());
        let accel = if options.accel == Accel::Kvm { "kvm" } else { "tcg" };
        let cpu = if options.accel == Accel::Kvm { KVM_CPU } else { "max" };
        let mut line = Self::bare(&machine.unwrap_or_default(), accel, options.cpu.as_deref().unwrap_or(cpu));
        line.equip(options.smp, &options.memory, serial);
        line.way_in(options, file);
        if options.gdb {
            line.words.extend(["-S", "-gdb"].map(OsString::from));
            line.words.push("tcp:127.0.0.1:1234".into());
        }
        Ok(line)
    }

    /// The line of our own machine monitor `program`, to run `file`.
    ///
    /// # Errors
    /// It has no such options.
    pub(crate) fn of_vmm(options: &Options, program: &OsStr, file: &OsStr) -> Result<Self> {
        if options.gdb || options.cpu.is_some() {
            bail!("our own machine monitor knows neither gdb nor processor models");
        }
        let mut line = Self { words: vec![program.into()], is_qemu: false, last_words: &[] };
        line.option("--memory", megabytes(&options.memory)?.to_string());
        line.option("--cpus", options.smp.to_string());
        if !options.append.is_empty() {
            line.option("--append", &options.append);
        }
        line.words.extend(options.vmm.iter().map(OsString::from));
        line.words.push(file.into());
        Ok(line)
    }

    /// A machine's kind and processor.
    pub(crate) fn bare(machine: &str, accel: &str, cpu: &str) -> Self {
        let mut line = Self { words: vec![QEMU.what.into()], is_qemu: true, last_words: &[] };
        line.option("-machine", machine);
        line.option("-accel", accel);
        line.option("-cpu", cpu);
        line
    }

    /// What every machine of ours has: processors, memory, a serial line, the port where statuses go.
    pub(crate) fn equip(&mut self, smp: u32, memory: &str, serial: Serial) {
        self.option("-smp", smp.to_string());
        self.option("-m", memory);
        self.words.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(OsString::from));
        self.option("-display", "none");
        self.option("-serial", if serial == Serial::Terminal { "mon:stdio" } else { "stdio" });
        self.option("-device", EXIT_DEVICE);
    }

    fn way_in(&mut self, options: &Options, file: &Path) {
        if options.platform.is_uefi() {
            self.option("-drive", format!("if=pflash,format=raw,readonly=on,file={}", OVMF.what));
            self.option("-drive", format!("if=pflash,format=raw,snapshot=on,file={OVMF_VARIABLES}"));
        }
        match options.platform {
            Platform::Pvh | Platform::Kvm => {
                self.option("-kernel", file);
                if !options.append.is_empty() {
                    self.option("-append", &options.append);
                }
            }
            Platform::Bios | Platform::Uefi => {
                // The loader's BIOS stages wait for ever on a machine without a display adapter.
                self.option("-vga", "std");
                self.option("-drive", drive("format=raw,snapshot=on,file=", file));
            }
            Platform::Multiboot2 | Platform::Multiboot2Uefi => {
                self.option("-vga", "std");
                self.option("-cdrom", file);
            }
            // Refused before.
            Platform::XenPv
            | Platform::XenPvh
            | Platform::XenPvDom0
            | Platform::XenPvhDom0
            | Platform::KvmNested => {}
        }
    }

    /// Adds an option with a value.
    pub fn option(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.words.push(name.into());
        self.words.push(value.as_ref().to_owned());
    }

    /// The state of the machine may be saved while it is stopped: it runs when it starts from there.
    pub fn may_be_saved(&mut self) {
        self.option("-global", "migration.store-global-state=off");
    }

    /// Adds `file` as a drive, as `options` say, which end in `file=`.
    pub fn drive(&mut self, options: &str, file: &Path) {
        self.option("-drive", drive(options, file));
    }

    /// Adds an option without a value.
    pub fn flag(&mut self, name: &str) {
        self.words.push(name.into());
    }

    /// The program and its arguments.
    pub fn words(&self) -> &[OsString] {
        &self.words
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&shell_line(self.words.iter().map(OsString::as_os_str)))
    }
}

/// QEMU's option parser wants commas in values doubled.
fn drive(options: &str, file: &Path) -> String {
    format!("{options}{}", file.display().to_string().replace(',', ",,"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(options: &Options) -> String {
        Line::new(options, Path::new("/k.elf"), Serial::Plain).unwrap().to_string()
    }

    #[test]
    fn pvh_hands_over_the_elf_and_the_command_line() {
        let options = Options { append: "log=debug test=mm".into(), ..Options::default() };
        assert_eq!(
            line(&options),
            "qemu-system-x86_64 -machine q35 -accel tcg -cpu max -smp 1 -m 256M -nodefaults -no-user-config -no-reboot \
             -display none -serial stdio -device isa-debug-exit,iobase=0xf4,iosize=4 -kernel /k.elf -append 'log=debug test=mm'"
        );
    }

    #[test]
    fn disk_images_get_a_display_adapter_and_stay_unwritten() {
        let bios = line(&Options::on(Platform::Bios));
        assert!(bios.contains("-vga std -drive format=raw,snapshot=on,file=/k.elf"), "{bios}");
        assert!(!bios.contains("pflash") && !bios.contains("-kernel"), "{bios}");
    }

    #[test]
    fn uefi_brings_its_firmware() {
        for platform in [Platform::Uefi, Platform::Multiboot2Uefi] {
            assert!(
                line(&Options::on(platform))
                    .contains("if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/")
            );
        }
        assert!(line(&Options::on(Platform::Multiboot2)).ends_with("-vga std -cdrom /k.elf"));
    }

    #[test]
    fn options_reach_the_line() {
        let options = Options {
            machine: Machine::Microvm,
            accel: Accel::Kvm,
            smp: 4,
            memory: "64M".into(),
            gdb: true,
            ..Options::default()
        };
        let line = line(&options);
        for part in
            ["-machine microvm", "-accel kvm -cpu host,", "-smp 4", "-m 64M", "-S -gdb tcp:127.0.0.1:1234"]
        {
            assert!(line.contains(part), "{part} in {line}");
        }
    }

    #[test]
    fn a_terminal_gets_qemus_escape_key() {
        let line = Line::new(&Options::default(), Path::new("/k.elf"), Serial::Terminal).unwrap().to_string();
        assert!(line.contains("-serial mon:stdio"), "{line}");
    }

    #[test]
    fn our_own_monitor_has_its_own_words() {
        let vmm = ["--without", "all"].map(str::to_owned).to_vec();
        let options = Options { smp: 2, append: "a b".into(), vmm, ..Options::on(Platform::Kvm) };
        let line = Line::of_vmm(&options, "/vmm".as_ref(), "/k.elf".as_ref()).unwrap().to_string();
        assert_eq!(line, "/vmm --memory 256 --cpus 2 --append 'a b' --without all /k.elf");
        assert!(Line::of_vmm(&Options { gdb: true, ..options }, "/vmm".as_ref(), "/k".as_ref()).is_err());
    }

    #[test]
    fn microvm_boots_by_pvh_only() {
        let options = Options { machine: Machine::Microvm, ..Options::on(Platform::Bios) };
        let error = Line::new(&options, Path::new("/k"), Serial::Plain).unwrap_err().to_string();
        assert!(error.contains("--on pvh"), "{error}");
    }

    #[test]
    fn commas_in_file_names_do_not_end_the_option() {
        let line = Line::new(&Options::on(Platform::Bios), Path::new("/a,b"), Serial::Plain).unwrap();
        assert!(line.to_string().ends_with("file=/a,,b"));
    }
}
