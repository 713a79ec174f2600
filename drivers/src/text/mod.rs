//! A text console on a screen: a grid of characters ([`Screen`]), and the two surfaces it is shown on, a linear
//! framebuffer ([`Framebuffer`]) and VGA text mode ([`VgaText`]).
//!
//! A write first changes the grid in memory and then draws the cells that differ from what is shown: ten lines
//! that scroll the screen ten times cost one redraw, and the slow device memory is never read.
#![forbid(unsafe_code)]

mod decoder;
mod font;
mod framebuffer;
mod screen;
mod vga;

use alloc::{boxed::Box, vec::Vec};

pub use framebuffer::{Format, Framebuffer};
pub use screen::{Cell, Colour, Screen};
pub use vga::{CrtController, VGA_MEMORY, VGA_PORTS, VgaText};

use crate::{Error, class::Console};

/// Something that shows a grid of cells.
pub trait Surface: Send {
    /// A short name for log lines.
    fn name(&self) -> &'static str;

    /// Columns and rows.
    fn size(&self) -> (u16, u16);

    /// Makes every cell [`Cell::BLANK`].
    fn clear(&mut self);

    /// Shows `cell`; `column` and `row` lie inside [`size`](Self::size).
    fn draw(&mut self, column: u16, row: u16, cell: Cell);

    /// Marks the cell as the one to be written next, until it is drawn again.
    fn mark(&mut self, column: u16, row: u16);

    /// Moves everything up by `rows`, fewer than there are, if the device does that faster than it is drawn.
    fn scroll(&mut self, _rows: u16) -> Scroll {
        Scroll::Unchanged
    }
}

/// A surface that is known when the guest runs: one [`TextConsole`] in the image serves all.
impl Surface for Box<dyn Surface> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn size(&self) -> (u16, u16) {
        (**self).size()
    }

    fn clear(&mut self) {
        (**self).clear();
    }

    fn draw(&mut self, column: u16, row: u16, cell: Cell) {
        (**self).draw(column, row, cell);
    }

    fn mark(&mut self, column: u16, row: u16) {
        (**self).mark(column, row);
    }

    fn scroll(&mut self, rows: u16) -> Scroll {
        (**self).scroll(rows)
    }
}

/// What a surface shows after it was asked to scroll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scroll {
    /// The same as before.
    Unchanged,
    /// Everything further up, and anything in the rows at the bottom.
    Moved,
    /// Anything.
    Lost,
}

/// A console on a [`Surface`].
#[derive(Debug)]
pub struct TextConsole<S> {
    surface: S,
    screen: Screen,
    /// What the surface shows, row by row.
    shown: Vec<Cell>,
    marked: (u16, u16),
}

impl<S: Surface> TextConsole<S> {
    /// Clears the surface and makes a console of it.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(surface: S) -> Result<Self, Error> {
        let (columns, rows) = surface.size();
        let screen = Screen::new(columns, rows)?;
        let mut shown = Vec::new();
        shown.try_reserve_exact(screen.cells().len()).map_err(|_| Error::OutOfMemory { columns, rows })?;
        shown.extend_from_slice(screen.cells());
        let mut console = Self { surface, screen, shown, marked: (0, 0) };
        console.surface.clear();
        Ok(console)
    }

    /// Draws what has changed.
    fn refresh(&mut self) {
        let columns = usize::from(self.surface.size().0);
        self.scroll(columns);
        let cursor = self.screen.cursor();
        let old_mark = usize::from(self.marked.1) * columns + usize::from(self.marked.0);
        for (index, (cell, shown)) in self.screen.cells().iter().zip(&mut self.shown).enumerate() {
            let unmark = index == old_mark && self.marked != cursor;
            if cell != shown || unmark {
                self.surface.draw((index % columns) as u16, (index / columns) as u16, *cell);
                *shown = *cell;
            }
        }
        self.surface.mark(cursor.0, cursor.1);
        self.marked = cursor;
    }
}

impl<S: Surface> TextConsole<S> {
    /// Lets the surface scroll as far as the screen has since the last time.
    fn scroll(&mut self, columns: usize) {
        let rows = self.screen.take_scrolled();
        if rows == 0 || rows >= self.surface.size().1 {
            return;
        }
        let moved = usize::from(rows) * columns;
        match self.surface.scroll(rows) {
            Scroll::Unchanged => {}
            Scroll::Moved => {
                self.shown.copy_within(moved.., 0);
                let kept = self.shown.len() - moved;
                self.shown[kept..].fill(Cell::UNKNOWN);
            }
            Scroll::Lost => self.shown.fill(Cell::UNKNOWN),
        }
    }
}

impl<S: Surface> Console for TextConsole<S> {
    fn name(&self) -> &'static str {
        self.surface.name()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.screen.write(bytes);
        self.refresh();
    }
}

#[cfg(test)]
mod tests;
