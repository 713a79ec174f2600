//! CPU, clocks, interrupts and devices.
#![forbid(unsafe_code)]

use alloc::{format, string::ToString, vec::Vec};

use kernel::{
    acpi, cpu, devices,
    irq::{self, apic, event_channel},
    pv_ops, time, xen,
};

use crate::document::{Value, object};

pub(crate) fn cpu() -> Value {
    let features = cpu::features().to_string();
    object! {
        brand: cpu::features::brand().as_str(),
        features: Value::List(features.split(' ').map(Value::from).collect()),
        cpus_up: cpu::percpu::up().len(),
        cpus_told: acpi::tables().madt.as_ref().map(|madt| madt.processors.len() as u64),
    }
}

/// How long clocks are compared.
const COMPARED_NS: u64 = 20_000_000;

/// The clocks, and how far they agree over some milliseconds.
pub(crate) fn clocks() -> Value {
    let rate = time::tsc_rate();
    // Who asks first has the clock chip read.
    let date = time::wall();
    let (start_ns, start_tsc, start_wall) = (pv_ops::monotonic_ns(), pv_ops::rdtsc(), pv_ops::wall_ns());
    let mut went_back = 0u64;
    let mut last = start_ns;
    while last < start_ns.saturating_add(COMPARED_NS) {
        let now = pv_ops::monotonic_ns();
        went_back += u64::from(now < last);
        // A clock that stands still ends this too.
        if pv_ops::rdtsc().wrapping_sub(start_tsc) > rate.map_or(0, |rate| rate.hz / 5) {
            break;
        }
        last = last.max(now);
    }
    let (ns, tsc, wall) = (pv_ops::monotonic_ns(), pv_ops::rdtsc(), pv_ops::wall_ns());
    let elapsed_ns = ns.saturating_sub(start_ns);
    let by_tsc_ns = rate.map(|rate| {
        (u128::from(tsc.wrapping_sub(start_tsc)) * 1_000_000_000 / u128::from(rate.hz.max(1))) as u64
    });
    let ppm = |other: u64| {
        (u128::from(other.abs_diff(elapsed_ns)) * 1_000_000 / u128::from(elapsed_ns.max(1))) as u64
    };
    let wall_ns = start_wall.zip(wall).map(|(start, end)| end.saturating_sub(start));
    object! {
        tsc_hz: rate.map(|rate| rate.hz),
        tsc_source: rate.map(|rate| rate.to_string()),
        invariant_tsc: cpu::features().has(cpu::Feature::InvariantTsc),
        compared_us: elapsed_ns / 1000,
        monotonic_went_back: went_back,
        tsc_differs_ppm: by_tsc_ns.map(ppm),
        wall_differs_ppm: wall_ns.map(ppm),
        wall: date.map(|date| date.to_string()),
        stolen_ns: pv_ops::steal_ns(0),
        one_shot_timer: time::has_timer(),
    }
}

pub(crate) fn interrupts() -> Value {
    let tables = acpi::tables();
    let io_apics = tables.madt.iter().flat_map(|madt| &madt.io_apics).map(|io_apic| {
        object! { address: format!("{:#x}", io_apic.address), first_line: io_apic.first_gsi }
    });
    let counts = irq::counts()
        .map(|count| object! { name: count.name, vector: u32::from(count.vector), count: count.total });
    object! {
        local_apic: apic::local().map(|apic| apic.mode()),
        local_apic_id: apic::local().map(|apic| apic.id()),
        event_channels: event_channel::is_up(),
        io_apics: Value::List(io_apics.collect()),
        counts: Value::List(counts.collect()),
    }
}

/// What is on the buses, with the features that virtio devices offer; nothing is put to use.
pub(crate) async fn devices() -> Value {
    let found = devices::survey::survey();
    let pci = found.functions.iter().map(|function| {
        object! {
            address: function.address.as_str(),
            id: format!("{:04x}:{:04x}", function.vendor, function.device),
            class: format!("{:06x}", function.class),
        }
    });
    let virtio = found.virtio.iter().map(|device| {
        object! {
            place: device.place.as_str(),
            kind: device.name,
            id: device.id,
            features: device.features.map(|bits| format!("{bits:#018x}")),
        }
    });
    let served = devices::survey::xenbus().await;
    let served = served.iter().map(|device| {
        let features = device.features.iter().map(|(key, value)| Value::from(format!("{key}={value}")));
        object! {
            path: device.path.as_str(),
            state: device.state.as_deref(),
            features: Value::List(features.collect()),
        }
    });
    let tables: Vec<Value> = [
        ("MADT", acpi::tables().madt.is_some()),
        ("FADT", acpi::tables().fadt.is_some()),
        ("HPET", acpi::tables().hpet.is_some()),
        ("MCFG", !acpi::tables().mcfg.is_empty()),
    ]
    .iter()
    .filter(|(_, is_there)| *is_there)
    .map(|(name, _)| Value::from(*name))
    .collect();
    object! {
        acpi: Value::List(tables),
        pci: Value::List(pci.collect()),
        virtio: Value::List(virtio.collect()),
        xen: Value::List(served.collect()),
        xenstore: xen::xenstore().is_some(),
        grants: xen::hypervisor().is_some(),
    }
}
