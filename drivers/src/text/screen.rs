//! The grid of characters behind a text console: where a byte goes, how the grid scrolls. Pure data.
//!
//! It understands UTF-8 up to Latin-1, the control characters `\n` `\r` `\t` and backspace, and of the terminal
//! sequences (ECMA-48 §8.3) the colours, "erase" and the cursor moves that line editing needs.
#![forbid(unsafe_code)]

use alloc::vec::Vec;

use super::decoder::{Decoder, Symbol};
use crate::Error;

/// One of the sixteen colours of a PC: bit 0 blue, bit 1 green, bit 2 red, bit 3 bright.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour(u8);

impl Colour {
    /// What text has until it says otherwise.
    pub const LIGHT_GREY: Self = Self(7);

    /// The colour with this number; of a greater one its lowest four bits.
    pub const fn new(number: u8) -> Self {
        Self(number & 0x0f)
    }

    /// Its number, below 16.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The colour of "select graphic rendition" 30 to 37 and 90 to 97, where bit 0 is red (ECMA-48 §8.3.117).
    fn of_terminal(number: u8, bright: bool) -> Self {
        let swapped = number & 0b010 | number >> 2 & 1 | (number & 1) << 2;
        Self(swapped | u8::from(bright) << 3)
    }
}

/// One place of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The character in Latin-1, or [`Cell::REPLACEMENT`].
    pub character: u8,
    /// Its colour, on black.
    pub colour: Colour,
}

impl Cell {
    /// An empty place.
    pub const BLANK: Self = Self { character: b' ', colour: Colour::LIGHT_GREY };
    /// What a place shows that has not been drawn: no cell of a [`Screen`] is equal to it.
    pub(super) const UNKNOWN: Self = Self { character: 0, colour: Colour::LIGHT_GREY };
    /// Stands for a character that is not in Latin-1 (0x7f is no character there).
    pub const REPLACEMENT: u8 = 0x7f;
}

/// Places between tabulator stops.
const TAB: u16 = 8;

/// A grid of cells and the place where the next character goes.
#[derive(Debug)]
pub struct Screen {
    columns: u16,
    rows: u16,
    /// Row by row from the top.
    cells: Vec<Cell>,
    /// At most `columns`: a full row is left when the next character comes, not before.
    column: u16,
    row: u16,
    colour: Colour,
    decoder: Decoder,
    /// Rows by which the grid has moved up since [`take_scrolled`](Screen::take_scrolled).
    scrolled: u16,
}

impl Screen {
    /// An empty grid, at least one cell large.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(columns: u16, rows: u16) -> Result<Self, Error> {
        let (columns, rows) = (columns.max(1), rows.max(1));
        let len = usize::from(columns) * usize::from(rows);
        let mut cells = Vec::new();
        cells.try_reserve_exact(len).map_err(|_| Error::OutOfMemory { columns, rows })?;
        cells.resize(len, Cell::BLANK);
        Ok(Self {
            columns,
            rows,
            cells,
            column: 0,
            row: 0,
            colour: Colour::LIGHT_GREY,
            decoder: Decoder::default(),
            scrolled: 0,
        })
    }

    /// All cells, row by row from the top.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// Column and row of the next character; always inside the grid.
    pub fn cursor(&self) -> (u16, u16) {
        (self.column.min(self.columns - 1), self.row)
    }

    /// By how many rows the grid has moved up since this was asked last.
    pub(super) fn take_scrolled(&mut self) -> u16 {
        core::mem::take(&mut self.scrolled)
    }

    /// Takes text. Any bytes will do; what is cut at the end of one call goes on in the next.
    pub fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            for symbol in self.decoder.feed(byte).into_iter().flatten() {
                self.apply(symbol);
            }
        }
    }

    fn apply(&mut self, symbol: Symbol) {
        match symbol {
            Symbol::Character(character) => self.put(character),
            Symbol::Control(b'\n') => {
                self.column = 0;
                self.line_feed();
            }
            Symbol::Control(b'\r') => self.column = 0,
            Symbol::Control(b'\t') => {
                self.column = (self.column / TAB + 1).saturating_mul(TAB).min(self.columns - 1);
            }
            Symbol::Control(0x08) => self.column = self.cursor().0.saturating_sub(1),
            Symbol::Control(_) => {}
            Symbol::Sequence { parameter, last } => self.sequence(parameter, last),
        }
    }

    fn put(&mut self, character: u8) {
        if self.column >= self.columns {
            self.column = 0;
            self.line_feed();
        }
        let index = self.index(self.column, self.row);
        self.cells[index] = Cell { character, colour: self.colour };
        self.column += 1;
    }

    fn line_feed(&mut self) {
        if self.row + 1 < self.rows {
            self.row += 1;
            return;
        }
        self.scrolled = self.scrolled.saturating_add(1);
        let row_len = usize::from(self.columns);
        self.cells.copy_within(row_len.., 0);
        let last_row = self.cells.len() - row_len;
        self.cells[last_row..].fill(Cell::BLANK);
    }

    /// One parameter of a control sequence that ends in `last`; an absent one is 0.
    fn sequence(&mut self, parameter: u16, last: u8) {
        let (column, row) = self.cursor();
        let here = self.index(column, row);
        let distance = parameter.max(1);
        match (last, parameter) {
            (b'm', 0 | 39) => self.colour = Colour::LIGHT_GREY,
            (b'm', 1) => self.colour = Colour::new(self.colour.number() | 8),
            (b'm', 30..=37) => self.colour = Colour::of_terminal((parameter - 30) as u8, false),
            (b'm', 90..=97) => self.colour = Colour::of_terminal((parameter - 90) as u8, true),
            (b'K', 0) => {
                let row_end = self.index(self.columns - 1, row);
                self.cells[here..=row_end].fill(Cell::BLANK);
            }
            (b'J', 0) => self.cells[here..].fill(Cell::BLANK),
            (b'J', 2) => self.cells.fill(Cell::BLANK),
            (b'H', 0) => (self.column, self.row) = (0, 0),
            (b'C', _) => self.column = column.saturating_add(distance).min(self.columns - 1),
            (b'D', _) => self.column = column.saturating_sub(distance),
            _ => {}
        }
    }

    fn index(&self, column: u16, row: u16) -> usize {
        usize::from(row) * usize::from(self.columns) + usize::from(column)
    }
}
