//! What is on the buses, looked at without putting it to use: for apps that report a machine.
//! Neighbours: `pci`, `virtio` (who do put it to use), `drivers::virtio::transport` (reads the features).
#![forbid(unsafe_code)]

use alloc::{format, string::String, vec::Vec};

use drivers::{
    hal::Hal,
    pci::{self, Function, Ports},
    virtio::{
        DeviceId,
        transport::{
            Transport,
            mmio::MmioTransport,
            pci::{PciTransport, Vectors, device_id},
        },
    },
    xen::xenstore::Transaction,
};

use crate::{acpi, cpu::port::PciPorts, platform::Platform, xen};

/// A function of a PCI device.
#[derive(Clone, Debug)]
pub struct PciFunction {
    /// Bus, device, function.
    pub address: String,
    /// The maker's number.
    pub vendor: u16,
    /// The maker's number for the device.
    pub device: u16,
    /// Class, subclass, programming interface (PCI 3.0 §6.2.1).
    pub class: u32,
}

/// A virtio device.
#[derive(Clone, Debug)]
pub struct VirtioDevice {
    /// The PCI function, or the address of its registers.
    pub place: String,
    /// Its number (VirtIO 1.3 §5).
    pub id: u32,
    /// What people call it.
    pub name: &'static str,
    /// The features that it offers; `None` if they cannot be read.
    pub features: Option<u64>,
}

/// A device that another domain of Xen serves.
#[derive(Clone, Debug)]
pub struct XenDevice {
    /// Its place below the domain's own: `device/vbd/51712`.
    pub path: String,
    /// The backend's state, as xenbus.h numbers them; `None` if it tells none.
    pub state: Option<String>,
    /// What the backend offers, key and value: the nodes whose names begin with `feature-` or `max-`, and some of fixed names.
    pub features: Vec<(String, String)>,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Functions on PCI.
    pub functions: Vec<PciFunction>,
    /// Virtio devices on PCI, and without a bus.
    pub virtio: Vec<VirtioDevice>,
}

/// Looks. Devices that are in use already lose their state: for an app that uses none.
pub fn survey() -> Survey {
    /// Class code and revision.
    const CLASS: u16 = 8;
    let mut survey = Survey::default();
    let ports = Ports(PciPorts::new());
    for function in pci::functions(&ports, u8::MAX) {
        let (vendor, device) = function.id();
        let address = format!("{}", function.address());
        if let Some(id) = device_id(vendor, device) {
            survey.virtio.push(found(address.clone(), id, pci_features(&function)));
        }
        survey.functions.push(PciFunction { address, vendor, device, class: function.read(CLASS) >> 8 });
    }
    for place in &acpi::tables().virtio_mmio {
        let Ok(registers) = Platform.device_memory(place.address, place.len_bytes as usize) else { continue };
        if let Ok(Some(mut transport)) = MmioTransport::probe(registers) {
            let features = transport.device_features();
            survey.virtio.push(found(format!("{:#x}", place.address), transport.device_id(), Some(features)));
        }
    }
    survey
}

/// Looks at the devices that other domains serve; none where there is no xenstore. What cannot be read is left out.
pub async fn xenbus() -> Vec<XenDevice> {
    const NONE: Transaction = Transaction::NONE;
    let Some(store) = xen::xenstore() else { return Vec::new() };
    let mut devices = Vec::new();
    for kind in store.directory(NONE, "device").await.unwrap_or_default() {
        for id in store.directory(NONE, &format!("device/{kind}")).await.unwrap_or_default() {
            let path = format!("device/{kind}/{id}");
            let Ok(backend) = store.read(NONE, &format!("{path}/backend")).await else { continue };
            let state = store.find(NONE, &format!("{backend}/state")).await.ok().flatten();
            let mut features = Vec::new();
            for key in store.directory(NONE, &backend).await.unwrap_or_default() {
                let is_offer = OFFERS.iter().any(|offer| key.starts_with(offer));
                if is_offer && let Ok(value) = store.read(NONE, &format!("{backend}/{key}")).await {
                    features.push((key, value));
                }
            }
            devices.push(XenDevice { path, state, features });
        }
    }
    devices
}

/// How the names begin of what a backend offers (public/io/blkif.h, netif.h and others).
const OFFERS: [&str; 6] = ["feature-", "max-", "multi-queue-max-", "sector", "info", "mac"];

fn found(place: String, id: DeviceId, features: Option<u64>) -> VirtioDevice {
    VirtioDevice { place, id: id.0, name: id.name(), features }
}

fn pci_features(function: &Function<'_>) -> Option<u64> {
    function.enable();
    let features = PciTransport::probe(function, &Platform, Vectors::Line)
        .ok()
        .map(|mut transport| transport.device_features());
    function.disable();
    features
}
