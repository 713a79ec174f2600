//! VGA text mode, 80 x 25 characters at physical address 0xb8000 (IBM Personal System/2 Hardware Interface
//! Technical Reference, "Video Subsystem").
//!
//! The mode is used as the firmware left it. The memory holds eight screens, so scrolling moves the start of what
//! is shown: in a virtual machine each cell that is written costs an exit. Neighbours: `mmio` (the cells), `hal` (the registers), [`Surface`].
#![forbid(unsafe_code)]

use core::ops::RangeInclusive;

use super::{Cell, Scroll, Surface, framebuffer::MEMORY};
use crate::{Error, Field, hal::PortIo, mmio::Mmio};

/// Physical address and length in bytes of the cells.
pub const VGA_MEMORY: (u64, usize) = (0xb8000, 0x8000);
/// The ports of a VGA.
pub const VGA_PORTS: RangeInclusive<u16> = 0x3c0..=0x3df;

const COLUMNS: u16 = 80;
const ROWS: u16 = 25;
/// Cells in the memory.
const CELLS: u16 = (VGA_MEMORY.1 / 2) as u16;

const MISC_OUTPUT_READ: u16 = 0x3cc;
/// Miscellaneous output: the CRT controller is at 0x3d4, as in colour modes.
const COLOUR_PORTS: u8 = 1 << 0;

const GRAPHICS_INDEX: u16 = 0x3ce;
const GRAPHICS_DATA: u16 = 0x3cf;
const GRAPHICS_MISC: u8 = 6;
/// Graphics miscellaneous: memory at 0xb8000 (bits 2 and 3), not a graphics mode (bit 0).
const TEXT_AT_B8000: u8 = 0b1100;
const MAP_AND_MODE: u8 = 0b1101;

const CRTC_INDEX: u16 = 0x3d4;
const CRTC_DATA: u16 = 0x3d5;
const HORIZONTAL_DISPLAY_END: u8 = 0x01;
/// Registers that hold the number of a cell, high byte first: of the first one shown, and of the cursor's.
const START_ADDRESS: [u8; 2] = [0x0c, 0x0d];
const CURSOR_LOCATION: [u8; 2] = [0x0e, 0x0f];

/// Registers, and what they hold in a colour text mode.
static MISC: Field = Field { name: "miscellaneous output", expected: "bit 0 set, not 0xff" };
static MODE: Field = Field { name: "graphics mode", expected: "text at 0xb8000" };
static END: Field = Field { name: "last column", expected: "79" };

/// The CRT controller of a VGA in text mode: proof that there is one.
#[derive(Debug)]
pub struct CrtController<P> {
    ports: P,
}

impl<P: PortIo> CrtController<P> {
    /// Finds a VGA in a colour text mode of 80 columns.
    ///
    /// # Errors
    /// [`Error::NoTextMode`] with the register that says otherwise.
    pub fn probe(ports: P) -> Result<Self, Error> {
        let check = |field, found, good| match good {
            true => Ok(()),
            false => Err(Error::NoTextMode { field, found }),
        };
        let misc = ports.read_u8(MISC_OUTPUT_READ);
        check(&MISC, misc, misc != 0xff && misc & COLOUR_PORTS != 0)?;
        let controller = Self { ports };
        let mode = controller.indexed(GRAPHICS_INDEX, GRAPHICS_DATA, GRAPHICS_MISC);
        check(&MODE, mode, mode & MAP_AND_MODE == TEXT_AT_B8000)?;
        let end = controller.indexed(CRTC_INDEX, CRTC_DATA, HORIZONTAL_DISPLAY_END);
        check(&END, end, u16::from(end) == COLUMNS - 1)?;
        Ok(controller)
    }

    fn indexed(&self, index_port: u16, data_port: u16, index: u8) -> u8 {
        self.ports.write_u8(index_port, index);
        self.ports.read_u8(data_port)
    }

    fn set(&self, registers: [u8; 2], cell: u16) {
        for (index, value) in registers.into_iter().zip(cell.to_be_bytes()) {
            self.ports.write_u8(CRTC_INDEX, index);
            self.ports.write_u8(CRTC_DATA, value);
        }
    }
}

/// A VGA in text mode.
#[derive(Debug)]
pub struct VgaText<P> {
    cells: Mmio<u16>,
    controller: CrtController<P>,
    /// The first cell shown.
    start: u16,
}

impl<P: PortIo> VgaText<P> {
    /// A surface on the cells at [`VGA_MEMORY`] of the VGA that `controller` belongs to.
    ///
    /// # Errors
    /// [`Error::BadFramebuffer`] if `memory` is shorter than that.
    pub fn new(memory: Mmio<u8>, controller: CrtController<P>) -> Result<Self, Error> {
        let found = memory.len() as u64;
        let refused = Error::BadFramebuffer { field: &MEMORY, found };
        match memory.into_words::<u16>() {
            Some(cells) if found >= VGA_MEMORY.1 as u64 => {
                controller.set(START_ADDRESS, 0);
                Ok(Self { cells, controller, start: 0 })
            }
            _ => Err(refused),
        }
    }

    fn cell(&self, column: u16, row: u16) -> u16 {
        self.start + row * COLUMNS + column
    }
}

impl<P: PortIo + Send> Surface for VgaText<P> {
    fn name(&self) -> &'static str {
        "vga"
    }

    fn size(&self) -> (u16, u16) {
        (COLUMNS, ROWS)
    }

    fn clear(&mut self) {
        let first = self.cell(0, 0).into();
        self.cells.write_slice(first, &[value(Cell::BLANK); (COLUMNS * ROWS) as usize]);
    }

    fn draw(&mut self, column: u16, row: u16, cell: Cell) {
        self.cells.write(self.cell(column, row).into(), value(cell));
    }

    fn mark(&mut self, column: u16, row: u16) {
        self.controller.set(CURSOR_LOCATION, self.cell(column, row));
    }

    fn scroll(&mut self, rows: u16) -> Scroll {
        let start = self.start + rows * COLUMNS;
        let fits = start + ROWS * COLUMNS <= CELLS;
        self.start = if fits { start } else { 0 };
        self.controller.set(START_ADDRESS, self.start);
        if fits { Scroll::Moved } else { Scroll::Lost }
    }
}

/// A cell as it lies in memory: character, then attribute.
const fn value(cell: Cell) -> u16 {
    u16::from_le_bytes([code_page_437(cell.character), cell.colour.number()])
}

/// The character in the font of a VGA's ROM: the nearest thing, or a small black square.
const fn code_page_437(latin_1: u8) -> u8 {
    const SQUARE: u8 = 0xfe;
    /// 0xa0 to 0xff; 0 where there is none.
    const UPPER: [u8; 96] = [
        0xff, 0xad, 0x9b, 0x9c, 0, 0x9d, 0, 0, 0, 0, 0xa6, 0xae, 0xaa, 0, 0, 0, //
        0xf8, 0xf1, 0xfd, 0, 0, 0xe6, 0, 0xfa, 0, 0, 0xa7, 0xaf, 0xac, 0xab, 0, 0xa8, //
        0, 0, 0, 0, 0x8e, 0x8f, 0x92, 0x80, 0, 0x90, 0, 0, 0, 0, 0, 0, //
        0, 0xa5, 0, 0, 0, 0, 0x99, 0, 0, 0, 0, 0, 0x9a, 0, 0, 0xe1, //
        0x85, 0xa0, 0x83, 0, 0x84, 0x86, 0x91, 0x87, 0x8a, 0x82, 0x88, 0x89, 0x8d, 0xa1, 0x8c, 0x8b, //
        0, 0xa4, 0x95, 0xa2, 0x93, 0, 0x94, 0xf6, 0, 0x97, 0xa3, 0x96, 0x81, 0, 0, 0x98,
    ];
    match latin_1 {
        0x20..0x7f => latin_1,
        0xa0.. => match UPPER[latin_1 as usize - 0xa0] {
            0 => SQUARE,
            glyph => glyph,
        },
        _ => SQUARE,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{HashMap, VecDeque},
        format,
        sync::Mutex,
        vec,
    };

    use super::*;
    use crate::{class::Console, fake::EmptyBus, mmio::testing::leaked, text::TextConsole};

    /// A VGA's indexed registers.
    #[derive(Debug, Default)]
    struct FakeVga {
        registers: Mutex<HashMap<(u16, u8), u8>>,
        index: Mutex<HashMap<u16, u8>>,
    }

    impl FakeVga {
        fn text_mode() -> Self {
            let vga = Self::default();
            vga.registers.lock().unwrap().extend([((0x3cf, 6), 0x0e), ((0x3d5, 1), 79)]);
            vga
        }
    }

    impl PortIo for FakeVga {
        fn read_u8(&self, port: u16) -> u8 {
            match port {
                MISC_OUTPUT_READ => 0x67,
                GRAPHICS_DATA | CRTC_DATA => {
                    let index = self.index.lock().unwrap().get(&(port - 1)).copied().unwrap_or(0);
                    self.registers.lock().unwrap().get(&(port, index)).copied().unwrap_or(0)
                }
                _ => 0xff,
            }
        }

        fn write_u8(&self, port: u16, value: u8) {
            match port {
                GRAPHICS_INDEX | CRTC_INDEX => drop(self.index.lock().unwrap().insert(port, value)),
                _ => {
                    let index = self.index.lock().unwrap().get(&(port - 1)).copied().unwrap_or(0);
                    self.registers.lock().unwrap().insert((port, index), value);
                }
            }
        }
    }

    #[test]
    fn a_machine_without_a_vga_has_no_text_mode() {
        let absent = Error::NoTextMode { field: &MISC, found: 0xff };
        assert_eq!(CrtController::probe(EmptyBus).unwrap_err(), absent);
    }

    #[test]
    fn a_graphics_mode_is_left_alone() {
        let vga = FakeVga::text_mode();
        vga.registers.lock().unwrap().insert((GRAPHICS_DATA, GRAPHICS_MISC), 0x05);
        let graphics = Error::NoTextMode { field: &MODE, found: 0x05 };
        assert_eq!(CrtController::probe(&vga).unwrap_err(), graphics);
    }

    fn number(vga: &FakeVga, registers: [u8; 2]) -> usize {
        let registers = registers.map(|index| vga.registers.lock().unwrap()[&(CRTC_DATA, index)]);
        u16::from_be_bytes(registers).into()
    }

    /// The text of the 25 rows from the start address on.
    fn shown(vga: &FakeVga, memory: &[u8]) -> Vec<String> {
        let cells = memory.chunks(2).skip(number(vga, START_ADDRESS)).take(usize::from(COLUMNS * ROWS));
        let text: Vec<char> = cells.map(|cell| char::from(cell[0])).collect();
        text.chunks(COLUMNS.into()).map(|row| row.iter().collect::<String>().trim_end().into()).collect()
    }

    #[test]
    fn what_is_shown_is_right_however_far_it_has_scrolled() {
        let vga = FakeVga::text_mode();
        let (memory, bytes) = leaked(vec![b'#'; VGA_MEMORY.1]);
        let surface = VgaText::new(memory, CrtController::probe(&vga).unwrap()).unwrap();
        let mut console = TextConsole::new(surface).unwrap();
        console.write(&b"\n".repeat(ROWS.into()));
        let mut lines = VecDeque::from(vec![String::new(); ROWS.into()]);
        for step in 0..400 {
            let text: String =
                (0..1 + step % 40).map(|line| format!("line {line} of step {step}\n")).collect();
            console.write(text.as_bytes());
            lines.pop_back();
            lines.extend(text.lines().map(String::from).chain([String::new()]));
            lines.drain(..lines.len() - usize::from(ROWS));
            assert_eq!(shown(&vga, &bytes()), lines.make_contiguous(), "step {step}");
            let last_row = number(&vga, START_ADDRESS) + usize::from((ROWS - 1) * COLUMNS);
            assert_eq!(number(&vga, CURSOR_LOCATION), last_row);
        }
    }

    #[test]
    fn a_memory_that_is_too_short_is_refused() {
        let vga = FakeVga::text_mode();
        let (memory, _) = leaked(vec![0; VGA_MEMORY.1 - 1]);
        assert!(VgaText::new(memory, CrtController::probe(&vga).unwrap()).is_err());
    }

    #[test]
    fn characters_the_rom_font_lacks_are_squares() {
        assert_eq!(code_page_437(b'A'), b'A');
        assert_eq!(code_page_437(0xb5), 0xe6, "micro sign");
        assert_eq!(code_page_437(0xc3), 0xfe, "A with tilde");
        assert_eq!(code_page_437(Cell::REPLACEMENT), 0xfe);
    }
}
