//! The machine: made, started, watched until its guest ends.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};

use anyhow::{Context, Result};
use kvm_bindings::{
    KVM_CAP_ENFORCE_PV_FEATURE_CPUID, KVM_CAP_X2APIC_API, KVM_CAP_X86_USER_SPACE_MSR,
    KVM_MSR_EXIT_REASON_UNKNOWN, KVM_PIT_SPEAKER_DUMMY, KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK,
    KVM_X2APIC_API_USE_32BIT_IDS, kvm_enable_cap, kvm_pit_config,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

use crate::messages::Messages;
use crate::options::Options;
use crate::ports::Ports;
use crate::report::{Counts, End, Report};
use crate::serial::{Com1, Out};
use crate::vcpu::Cpu;
use crate::{acpi, cpuid, features, late, memory, registers, rivals, start_info};

/// Where Intel's processors keep what KVM needs for guests in real mode: below the firmware's place.
const TSS: usize = 0xfffb_d000;
const IDENTITY_MAP: u64 = 0xfffb_c000;

/// Runs a guest to its end.
///
/// # Errors
/// There is no KVM, or it refuses something.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let kvm = Kvm::new().context("cannot open /dev/kvm")?;
    let vm = Arc::new(make(&kvm, options)?);
    let memory = memory::make(&vm, options)?;
    let entry = memory::load(memory, options)?;
    let rsdp = acpi::write(memory, &options.apic_ids)?;
    start_info::write(memory, options, rsdp)?;

    let counts = Arc::new(Counts::default());
    if let Some(late) = options.late {
        late::start(memory, late, Arc::clone(&counts))?;
    }
    rivals::start(options.rivals);

    let out = Out::default();
    let com1 = Com1::new(out.clone())?;
    com1.connect(&vm)?;
    let long = options.with & features::MSI_EXT_DEST_ID != 0;
    let messages = Messages::new(Arc::clone(&vm), long, Arc::clone(&counts));
    let ports = Arc::new(Ports::new(com1, Some(messages)));
    let vcpus: Result<Vec<VcpuFd>> =
        options.apic_ids.iter().map(|apic_id| make_vcpu(&kvm, &vm, options, *apic_id)).collect();
    let vcpus = vcpus?;
    registers::set(vcpus.first().context("a machine has a CPU")?, entry)?;
    let (ended, end) = mpsc::channel();
    for vcpu in vcpus {
        let (ports, counts, ended) = (Arc::clone(&ports), Arc::clone(&counts), ended.clone());
        Cpu { vcpu, ports, counts, msr: options.msr, ended, contended: options.rivals > 0 }.start();
    }

    let end = match options.timeout {
        None => end.recv()?,
        Some(timeout) => match end.recv_timeout(timeout) {
            Err(RecvTimeoutError::Timeout) => Ok(End::Timeout),
            other => other?,
        },
    }?;
    out.drain().context("nobody reads the console")?;
    Ok(Report::new(end, &counts))
}

/// A machine with interrupt controllers and timer, of APIC IDs of any size.
fn make(kvm: &Kvm, options: &Options) -> Result<VmFd> {
    let vm = kvm.create_vm().context("KVM makes no machine")?;
    vm.set_tss_address(TSS).context("KVM takes no TSS")?;
    vm.set_identity_map_address(IDENTITY_MAP).context("KVM takes no identity map")?;
    let mut large_ids = kvm_enable_cap { cap: KVM_CAP_X2APIC_API, ..Default::default() };
    large_ids.args[0] = u64::from(KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK);
    vm.enable_cap(&large_ids).context("KVM has no large APIC IDs")?;
    if options.msr.is_some() {
        let mut ask = kvm_enable_cap { cap: KVM_CAP_X86_USER_SPACE_MSR, ..Default::default() };
        ask.args[0] = u64::from(KVM_MSR_EXIT_REASON_UNKNOWN);
        vm.enable_cap(&ask).context("KVM does not ask for registers that it does not know")?;
    }
    vm.create_irq_chip().context("KVM makes no interrupt controllers")?;
    vm.create_pit2(kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() })
        .context("KVM makes no PIT")?;
    Ok(vm)
}

/// A CPU that may use what CPUID offers, and nothing else of KVM's.
fn make_vcpu(kvm: &Kvm, vm: &VmFd, options: &Options, apic_id: u32) -> Result<VcpuFd> {
    let vcpu = vm.create_vcpu(apic_id.into()).with_context(|| format!("KVM makes no CPU {apic_id}"))?;
    let leaves = cpuid::leaves(kvm, options, apic_id)?;
    vcpu.set_cpuid2(&leaves).context("KVM does not take the CPUID leaves")?;
    let mut enforce = kvm_enable_cap { cap: KVM_CAP_ENFORCE_PV_FEATURE_CPUID, ..Default::default() };
    enforce.args[0] = 1;
    vcpu.enable_cap(&enforce).context("KVM does not hold guests to their features")?;
    Ok(vcpu)
}
