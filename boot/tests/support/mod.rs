//! A machine's memory, played by an array, and bytes written into it.

use boot::physical::PhysicalMemory;
use boot::{Info, RegionKind};

/// Physical memory with RAM at `base` only; nothing else may be read.
pub(crate) struct Memory {
    pub(crate) base: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Memory {
    pub(crate) fn new(base: u64, len_bytes: usize) -> Self {
        Self { base, bytes: vec![0; len_bytes] }
    }

    /// Writes numbers of 8 bytes, little-endian, at physical `address`.
    pub(crate) fn put(&mut self, address: u64, numbers: &[u64]) {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.put_bytes(address, &bytes);
    }

    pub(crate) fn put_bytes(&mut self, address: u64, bytes: &[u8]) {
        let start = (address - self.base) as usize;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
    }
}

impl PhysicalMemory for Memory {
    fn bytes(&self, address: u64, len_bytes: u64) -> Option<&[u8]> {
        let start = usize::try_from(address.checked_sub(self.base)?).ok()?;
        let end = start.checked_add(usize::try_from(len_bytes).ok()?)?;
        self.bytes.get(start..end)
    }
}

/// What holds for every `Info`, whatever the loader wrote.
pub(crate) fn assert_sound(info: &Info) {
    for module in &info.modules {
        let end = module.address.checked_add(module.len_bytes).unwrap();
        assert!(info.memory.covers(module.address, end, |kind| kind == RegionKind::Module), "{module:x?}");
    }
    if let Some(framebuffer) = info.framebuffer {
        let end = framebuffer.address + framebuffer.len_bytes().expect("a framebuffer that was accepted");
        assert!(info.memory.usable().all(|region| region.end <= framebuffer.address || end <= region.start));
    }
    for problem in &info.problems {
        assert!(!problem.to_string().chars().any(char::is_control));
    }
    assert_eq!(info.check().is_ok(), info.memory.usable_bytes() > 0);
}
