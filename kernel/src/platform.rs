//! What drivers ask for, answered by this kernel: the only glue between `drivers` and `pv_ops`.
//! Neighbours: `cpu::port` (which ports a device may reach), `mm::mmio` (device memory).
#![forbid(unsafe_code)]

use drivers::hal::PortIo;

use crate::cpu::port::Ports;

impl PortIo for Ports {
    fn read_u8(&self, port: u16) -> u8 {
        (*self).read_u8(port)
    }

    fn write_u8(&self, port: u16, value: u8) {
        (*self).write_u8(port, value);
    }
}
