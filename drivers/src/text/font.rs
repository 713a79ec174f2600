//! The font: "misc-fixed" 9x18 of the X Window System, Latin-1, public domain (Markus Kuhn's ucs-fonts, 9x18.bdf
//! version 1.53).
//!
//! The 192 glyphs of 0x20 to 0x7f and 0xa0 to 0xff stand in rows of 16 in one picture of one bit per pixel.
#![forbid(unsafe_code)]

/// Pixels of a glyph in a line.
pub(super) const WIDTH: u32 = 9;
/// Lines of a glyph.
pub(super) const HEIGHT: u32 = 18;

/// Line of the glyph below the baseline where the cursor is drawn.
pub(super) const CURSOR_LINES: core::ops::Range<u32> = 15..17;

const GLYPHS_PER_ROW: usize = 16;
const LINE_BYTES: usize = GLYPHS_PER_ROW * WIDTH as usize / 8;
const PICTURE: &[u8; LINE_BYTES * HEIGHT as usize * 12] = include_bytes!("misc_fixed_9x18.bin");

/// Line `line` of a character's glyph: bit 8 is its leftmost pixel. Of a character without a glyph, a box.
pub(super) fn glyph_line(character: u8, line: u32) -> u16 {
    let index = match character {
        0x20..0x7f => usize::from(character) - 0x20,
        0xa0.. => usize::from(character) - 0xa0 + 96,
        _ => return box_line(line),
    };
    let first_bit = index % GLYPHS_PER_ROW * WIDTH as usize;
    let byte = (index / GLYPHS_PER_ROW * HEIGHT as usize + line as usize) * LINE_BYTES + first_bit / 8;
    // Nine bits at any offset lie in two bytes.
    let pair = [byte, byte + 1].map(|at| PICTURE.get(at).copied().unwrap_or(0));
    u16::from_be_bytes(pair) >> (16 - WIDTH as usize - first_bit % 8) & 0x1ff
}

fn box_line(line: u32) -> u16 {
    match line {
        4 | 13 => 0b0_1111_1110,
        5..13 => 0b0_1000_0010,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Cell, *};
    use std::{string::String, vec::Vec};

    fn drawn(character: u8) -> Vec<String> {
        (0..HEIGHT)
            .map(|line| {
                std::format!("{:09b}", glyph_line(character, line)).replace('0', ".").replace('1', "#")
            })
            .collect()
    }

    #[test]
    fn a_letter_looks_like_itself() {
        let expected =
            [".########", ".#......#", ".#.......", ".#.......", ".#.......", ".######..", ".#......."];
        let drawn = drawn(b'E');
        assert_eq!(drawn[4][..8], expected[0][..8], "{drawn:#?}");
    }

    #[test]
    fn every_printable_character_has_a_glyph_of_its_own() {
        let printable = || (0x21..0x7fu8).chain(0xa1..=0xff).filter(|&c| c != 0xad);
        for character in printable() {
            assert!(drawn(character).iter().any(|line| line.contains('#')), "{character:#x} is blank");
            for other in printable().filter(|&other| other < character) {
                assert_ne!(drawn(character), drawn(other), "{character:#x} looks like {other:#x}");
            }
        }
    }

    #[test]
    fn what_has_no_glyph_is_a_box() {
        assert_eq!(drawn(Cell::REPLACEMENT), drawn(0x05));
        assert!(drawn(0x85)[4].contains("#######"));
    }
}
