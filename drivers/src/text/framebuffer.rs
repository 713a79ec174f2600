//! A linear framebuffer of 24 or 32 bits per pixel as a surface for text.
//!
//! Neighbours: `font` (glyphs), `mmio` (the pixels), [`Surface`].
#![forbid(unsafe_code)]

use super::{Cell, Surface, font};
use crate::{Error, Field, mmio::Mmio};

/// How the pixels of a framebuffer lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Visible pixels in a line.
    pub width: u32,
    /// Visible lines.
    pub height: u32,
    /// Bytes from one line to the next.
    pub pitch_bytes: u32,
    /// Bytes of one pixel: 3 or 4.
    pub bytes_per_pixel: u8,
    /// Bit position of red, green and blue (8 bits each) in a little-endian pixel.
    pub rgb_shift: [u8; 3],
}

/// The longest line and the most lines that are believed.
const MAX_PIXELS: u32 = 16_384;

/// What is refused if it cannot be true.
static WIDTH: Field = Field { name: "width", expected: "9 to 16384" };
static HEIGHT: Field = Field { name: "height", expected: "18 to 16384" };
static PIXEL: Field = Field { name: "bytes per pixel", expected: "3 or 4" };
static PITCH: Field =
    Field { name: "bytes per line", expected: "what its pixels take, whole pixels, 65536 at most" };
static SHIFT: Field = Field { name: "bit position of a colour", expected: "8 bits inside the pixel" };
static ADDRESS: Field = Field { name: "address modulo 4", expected: "0" };
pub(super) static MEMORY: Field =
    Field { name: "memory in bytes", expected: "what all pixels or characters take" };

/// Red, green and blue of the sixteen colours of a PC, softened for text on black.
const PALETTE: [[u8; 3]; 16] = [
    [0x00, 0x00, 0x00],
    [0x3b, 0x6f, 0xd8],
    [0x3f, 0xae, 0x4b],
    [0x2f, 0xab, 0xab],
    [0xd0, 0x3d, 0x3d],
    [0xac, 0x58, 0xc0],
    [0xc0, 0x8b, 0x30],
    [0xd0, 0xd0, 0xd0],
    [0x78, 0x78, 0x78],
    [0x78, 0xa5, 0xff],
    [0x76, 0xe0, 0x80],
    [0x6a, 0xe0, 0xe0],
    [0xff, 0x73, 0x70],
    [0xe0, 0x93, 0xf0],
    [0xf5, 0xd7, 0x6a],
    [0xff, 0xff, 0xff],
];

/// The pixels, accessed by whole pixels where they are words.
#[derive(Debug)]
enum Pixels {
    /// Three bytes each.
    Bytes(Mmio<u8>),
    /// One word each.
    Words(Mmio<u32>),
}

/// A framebuffer that shows text.
#[derive(Debug)]
pub struct Framebuffer {
    pixels: Pixels,
    /// From one line to the next, in bytes or words as the pixels are.
    pitch: usize,
    /// The palette as pixels.
    colours: [u32; 16],
    columns: u16,
    rows: u16,
}

impl Format {
    /// How many bytes of memory a framebuffer of this format takes.
    ///
    /// # Errors
    /// [`Error::BadFramebuffer`] for a format that cannot be true or that is not drawn on here.
    pub fn len_bytes(&self) -> Result<usize, Error> {
        let Self { width, height, pitch_bytes, bytes_per_pixel, rgb_shift } = *self;
        let pixel = u32::from(bytes_per_pixel);
        let refuse = |field, found: u32| Err(Error::BadFramebuffer { field, found: found.into() });
        match () {
            () if pixel != 3 && pixel != 4 => refuse(&PIXEL, pixel),
            () if !(font::WIDTH..=MAX_PIXELS).contains(&width) => refuse(&WIDTH, width),
            () if !(font::HEIGHT..=MAX_PIXELS).contains(&height) => refuse(&HEIGHT, height),
            () if pitch_bytes < width * pixel => refuse(&PITCH, pitch_bytes),
            () if pitch_bytes > MAX_PIXELS * 4 => refuse(&PITCH, pitch_bytes),
            () if pixel == 4 && !pitch_bytes.is_multiple_of(4) => refuse(&PITCH, pitch_bytes),
            () => match rgb_shift.iter().find(|&&shift| u32::from(shift) > pixel * 8 - 8) {
                Some(&shift) => refuse(&SHIFT, shift.into()),
                None => Ok(pitch_bytes as usize * height as usize),
            },
        }
    }

    fn pixel(&self, rgb: [u8; 3]) -> u32 {
        rgb.iter().zip(self.rgb_shift).fold(0, |pixel, (&part, shift)| pixel | u32::from(part) << shift)
    }
}

impl Framebuffer {
    /// A surface on `memory`, whose size is [`Format::len_bytes`] or more.
    ///
    /// # Errors
    /// [`Error::BadFramebuffer`].
    pub fn new(memory: Mmio<u8>, format: Format) -> Result<Self, Error> {
        let needed = format.len_bytes()?;
        if memory.len() < needed {
            return Err(Error::BadFramebuffer { field: &MEMORY, found: memory.len() as u64 });
        }
        let memory = memory.first(needed);
        let (pixels, pitch) = match format.bytes_per_pixel {
            4 => {
                let unaligned = Error::BadFramebuffer { field: &ADDRESS, found: 1 };
                let words = memory.into_words().ok_or(unaligned)?;
                (Pixels::Words(words), format.pitch_bytes as usize / 4)
            }
            _ => (Pixels::Bytes(memory), format.pitch_bytes as usize),
        };
        let colours = PALETTE.map(|rgb| format.pixel(rgb));
        let (columns, rows) = ((format.width / font::WIDTH) as u16, (format.height / font::HEIGHT) as u16);
        Ok(Self { pixels, pitch, colours, columns, rows })
    }

    /// Sets the pixels of one line of a glyph.
    fn set(&mut self, left: u32, y: u32, line: [u32; font::WIDTH as usize]) {
        let (left, start) = (left as usize, y as usize * self.pitch);
        match &mut self.pixels {
            Pixels::Words(words) => words.write_slice(start + left, &line),
            Pixels::Bytes(bytes) => {
                for (index, pixel) in line.into_iter().enumerate() {
                    bytes.write_slice(start + (left + index) * 3, &pixel.to_le_bytes()[..3]);
                }
            }
        }
    }
}

impl Surface for Framebuffer {
    fn name(&self) -> &'static str {
        "framebuffer"
    }

    fn size(&self) -> (u16, u16) {
        (self.columns, self.rows)
    }

    fn clear(&mut self) {
        match &mut self.pixels {
            Pixels::Words(words) => words.fill(0),
            Pixels::Bytes(bytes) => bytes.fill(0),
        }
    }

    fn draw(&mut self, column: u16, row: u16, cell: Cell) {
        let (left, top) = corner(column, row);
        let colour = self.colours[usize::from(cell.colour.number())];
        for line in 0..font::HEIGHT {
            let bits = font::glyph_line(cell.character, line);
            let is_ink = |x: usize| bits >> (font::WIDTH as usize - 1 - x) & 1 != 0;
            self.set(left, top + line, core::array::from_fn(|x| if is_ink(x) { colour } else { 0 }));
        }
    }

    fn mark(&mut self, column: u16, row: u16) {
        let (left, top) = corner(column, row);
        let colour = self.colours[usize::from(Cell::BLANK.colour.number())];
        for line in font::CURSOR_LINES {
            self.set(left, top + line, [colour; font::WIDTH as usize]);
        }
    }
}

/// The first pixel of a cell.
fn corner(column: u16, row: u16) -> (u32, u32) {
    (u32::from(column) * font::WIDTH, u32::from(row) * font::HEIGHT)
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use super::*;
    use crate::{
        class::Console,
        mmio::testing::leaked,
        text::{Colour, TextConsole},
    };
    use proptest::prelude::*;

    const BGR32: Format =
        Format { width: 30, height: 40, pitch_bytes: 128, bytes_per_pixel: 4, rgb_shift: [16, 8, 0] };
    const RGB24: Format =
        Format { width: 30, height: 40, pitch_bytes: 100, bytes_per_pixel: 3, rgb_shift: [0, 8, 16] };

    /// Red, green and blue of the visible pixels after `text`, in the memory of a framebuffer full of noise.
    fn painted(format: Format, text: &str) -> Vec<[u8; 3]> {
        let (memory, bytes) = leaked(vec![0xa5; format.len_bytes().unwrap()]);
        let mut console = TextConsole::new(Framebuffer::new(memory, format).unwrap()).unwrap();
        console.write(text.as_bytes());
        drop(console);
        let bytes = bytes();
        let pixels = (0..format.height).flat_map(|y| (0..format.width).map(move |x| (x, y)));
        pixels
            .map(|(x, y)| {
                let at = (y * format.pitch_bytes + x * u32::from(format.bytes_per_pixel)) as usize;
                format.rgb_shift.map(|shift| bytes[at + usize::from(shift / 8)])
            })
            .collect()
    }

    #[test]
    fn text_looks_the_same_in_every_format() {
        let picture = painted(BGR32, "L\x1b[91m.");
        assert_eq!(picture, painted(RGB24, "L\x1b[91m."));
        let count = |colour: Colour| {
            picture.iter().filter(|&&rgb| rgb == PALETTE[usize::from(colour.number())]).count()
        };
        assert!(count(Colour::LIGHT_GREY) > 10 && count(Colour::new(12)) > 0 && count(Colour::new(0)) > 900);
    }

    #[test]
    fn every_pixel_is_cleared_and_nothing_behind_them() {
        let len_bytes = BGR32.len_bytes().unwrap();
        let (memory, bytes) = leaked(vec![0xa5; len_bytes + 100]);
        TextConsole::new(Framebuffer::new(memory, BGR32).unwrap()).unwrap();
        let bytes = bytes();
        let (pixels, behind) = bytes.split_at(len_bytes);
        assert!(pixels.iter().all(|&byte| byte == 0) && behind.iter().all(|&byte| byte == 0xa5));
    }

    #[test]
    fn a_format_that_cannot_be_true_is_refused() {
        for format in [
            Format { bytes_per_pixel: 2, ..BGR32 },
            Format { width: 0, ..BGR32 },
            Format { height: u32::MAX, ..BGR32 },
            Format { pitch_bytes: 119, ..BGR32 },
            Format { pitch_bytes: 122, ..BGR32 },
            Format { rgb_shift: [25, 8, 0], ..BGR32 },
            Format { rgb_shift: [16, 8, 17], ..RGB24 },
        ] {
            assert!(matches!(format.len_bytes(), Err(Error::BadFramebuffer { .. })), "{format:?}");
        }
        let (memory, _) = leaked(vec![0; BGR32.len_bytes().unwrap() - 1]);
        assert!(Framebuffer::new(memory, BGR32).is_err(), "too little memory");
    }

    proptest! {
        #[test]
        fn any_believed_format_is_drawn_within_its_memory(
            width in 0..200u32, height in 0..100u32, pitch_bytes in 0..900u32, bytes_per_pixel in 2..6u8, rgb_shift: [u8; 3],
        ) {
            let format = Format { width, height, pitch_bytes, bytes_per_pixel, rgb_shift };
            if let Ok(len_bytes) = format.len_bytes() {
                let (memory, _) = leaked(vec![0; len_bytes]);
                let mut console = TextConsole::new(Framebuffer::new(memory, format).unwrap()).unwrap();
                console.write(&b"some text, \xff and more\n".repeat(5));
            }
        }
    }
}
