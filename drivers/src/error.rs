//! Why a device is not driven: what was found, and what was expected.
#![forbid(unsafe_code)]

use thiserror::Error;

/// A value that a device or a description of one has, and what it may be.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What may stand there.
    pub expected: &'static str,
}

/// Every outcome of a request has room for an error, and is moved on its way to who asked.
const _: () = assert!(size_of::<Error>() <= 24);

/// Why a device was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// Nothing answers like a 16550.
    #[error("no UART at port {base:#x}: its scratch register does not keep what is written")]
    NoUart {
        /// First port of the register block.
        base: u16,
    },
    /// The UART never reports that it has sent everything.
    #[error("UART at port {base:#x} is stuck: its transmitter did not run empty within {reads} reads")]
    UartStuck {
        /// First port of the register block.
        base: u16,
        /// Reads of the line status register that were made.
        reads: u32,
    },
    /// The i8042 status port reads as an empty bus.
    #[error("no i8042: its status register reads {status:#04x}")]
    NoController {
        /// What the status register read.
        status: u8,
    },
    /// The i8042 did not take a byte, or did not answer, in time.
    #[error("i8042 gave no answer to {command:#04x} within {reads} reads of its status")]
    ControllerSilent {
        /// The command or device byte that was sent.
        command: u8,
        /// Reads of the status register that were made.
        reads: u32,
    },
    /// The i8042, its port or the keyboard answered a command with the wrong byte.
    #[error("i8042 answered {command:#04x} with {found:#04x}, expected {expected:#04x}")]
    ControllerAnswer {
        /// The command or device byte that was sent.
        command: u8,
        /// The answer.
        found: u8,
        /// The answer of a working one.
        expected: u8,
    },
    /// Nothing answers at the CMOS clock's ports.
    #[error("no CMOS clock: its registers read 0xff")]
    NoClock,
    /// The CMOS clock is updating for ever.
    #[error("CMOS clock is stuck: its update flag stayed set for {reads} reads")]
    ClockUpdating {
        /// Reads of status register A that were made.
        reads: u32,
    },
    /// The CMOS clock does not come to rest.
    #[error("CMOS clock gave {reads} readings of which no two in a row agree")]
    ClockUnsteady {
        /// Readings that were made.
        reads: u32,
    },
    /// The CMOS clock holds something that is no date.
    #[error("CMOS clock holds {value:#04x} in register {register:#04x}, expected {expected}")]
    ClockNonsense {
        /// The register.
        register: u8,
        /// What it held.
        value: u8,
        /// What may stand there.
        expected: &'static str,
    },
    /// No VGA, or one that is not in an 80 x 25 text mode.
    #[error("no VGA text mode: {} reads {found:#04x}, expected {}", field.name, field.expected)]
    NoTextMode {
        /// The register, and what a colour text mode has there.
        field: &'static Field,
        /// What it held.
        found: u8,
    },
    /// A framebuffer whose description cannot be true, or cannot be drawn on.
    #[error("framebuffer refused: {} is {found}, expected {}", field.name, field.expected)]
    BadFramebuffer {
        /// The value in question.
        field: &'static Field,
        /// What it was.
        found: u64,
    },
    /// The heap has no room for the console's cells.
    #[error("no memory for a console of {columns} x {rows} characters")]
    OutOfMemory {
        /// Characters in a row.
        columns: u16,
        /// Rows.
        rows: u16,
    },
    /// There is no memory in one piece for a device.
    #[error("no {len_bytes} bytes of memory in one piece for a device")]
    NoDmaMemory {
        /// Bytes that were asked for.
        len_bytes: usize,
    },
    /// A device says that its registers lie where no device memory is.
    #[error("{len_bytes} bytes at {address:#x} are no device memory")]
    NotDeviceMemory {
        /// Where.
        address: u64,
        /// Bytes.
        len_bytes: usize,
    },
    /// A PCI function has no usable register block of this kind.
    #[error("no usable {what} among the PCI capabilities")]
    NoCapability {
        /// The structure that was looked for.
        what: &'static str,
    },
    /// Nothing that speaks VirtIO over MMIO.
    #[error("virtio-mmio magic value is {found:#010x}, expected 0x74726976")]
    BadMagic {
        /// What the register read.
        found: u32,
    },
    /// A version of VirtIO that this driver does not speak.
    #[error("device speaks VirtIO version {found}, expected 2 (legacy devices are not driven)")]
    Legacy {
        /// What it speaks.
        found: u32,
    },
    /// The device does not offer VIRTIO_F_VERSION_1.
    #[error("device offers features {offered:#x}: not VERSION_1, which every modern device must")]
    NotModern {
        /// What it offers.
        offered: u64,
    },
    /// The device does not take the features that it offered.
    #[error("device refuses the features {chosen:#x} of those it offered")]
    FeaturesRefused {
        /// What was chosen.
        chosen: u64,
    },
    /// The device does not come out of a reset.
    #[error("device does not finish its reset: status {status:#04x} after {reads} reads, expected 0")]
    ResetStuck {
        /// The last status.
        status: u8,
        /// Reads that were made.
        reads: u32,
    },
    /// The device does not have a virtqueue that its kind must have.
    #[error("virtqueue {index}: size {found}, expected {expected}")]
    BadQueue {
        /// Its number.
        index: u16,
        /// The largest size that the device says.
        found: u32,
        /// What would do.
        expected: &'static str,
    },
    /// A value of the device's configuration that makes no sense.
    #[error("configuration: {} is {found}, expected {}", field.name, field.expected)]
    BadConfig {
        /// Which.
        field: &'static Field,
        /// What it holds.
        found: u64,
    },
    /// The device did something that no device may do. It was reset and is not used any more.
    #[error("device failed: {0}")]
    Fault(#[from] crate::virtio::Fault),
    /// The request asks for what this device cannot do.
    #[error("request refused: {0}")]
    Request(&'static str),
    /// The request was taken back before it was answered.
    #[error("request cancelled")]
    Cancelled,
    /// The device says that the request failed.
    #[error("device reports {0}")]
    Failed(&'static str),
}
