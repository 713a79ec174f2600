//! Text on a surface that the test reads back.
use std::{string::String, vec, vec::Vec};

use super::*;
use proptest::prelude::*;

/// Remembers what it shows and how often it was drawn on.
struct Paper {
    /// How it answers when asked to scroll.
    scroll: Scroll,
    size: (u16, u16),
    cells: Vec<Cell>,
    marked: (u16, u16),
    drawn: usize,
}

impl Surface for Paper {
    fn name(&self) -> &'static str {
        "paper"
    }

    fn size(&self) -> (u16, u16) {
        self.size
    }

    fn clear(&mut self) {
        self.cells.fill(Cell::BLANK);
    }

    fn draw(&mut self, column: u16, row: u16, cell: Cell) {
        assert!(column < self.size.0 && row < self.size.1);
        self.cells[usize::from(row * self.size.0 + column)] = cell;
        self.drawn += 1;
    }

    fn mark(&mut self, column: u16, row: u16) {
        assert!(column < self.size.0 && row < self.size.1);
        self.marked = (column, row);
    }

    fn scroll(&mut self, rows: u16) -> Scroll {
        assert!(rows > 0 && rows < self.size.1);
        let moved = usize::from(rows * self.size.0);
        let lost = match self.scroll {
            Scroll::Unchanged => self.cells.len()..,
            Scroll::Moved => {
                self.cells.copy_within(moved.., 0);
                self.cells.len() - moved..
            }
            Scroll::Lost => 0..,
        };
        self.cells[lost].fill(NOISE);
        self.scroll
    }
}

const NOISE: Cell = Cell { character: b'?', colour: Colour::LIGHT_GREY };

fn console(columns: u16, rows: u16) -> TextConsole<Paper> {
    let cells = vec![NOISE; usize::from(columns) * usize::from(rows)];
    let (scroll, size) = (Scroll::Unchanged, (columns, rows));
    TextConsole::new(Paper { scroll, size, cells, marked: (0, 0), drawn: 0 }).unwrap()
}

fn shown(console: &TextConsole<Paper>) -> Vec<String> {
    let row = |cells: &[Cell]| cells.iter().map(|cell| char::from(cell.character)).collect::<String>();
    let columns = usize::from(console.surface.size.0);
    console.surface.cells.chunks(columns).map(|cells| row(cells).trim_end().into()).collect()
}

fn after(text: &str) -> Vec<String> {
    let mut console = console(8, 3);
    console.write(text.as_bytes());
    shown(&console)
}

#[test]
fn a_new_console_is_blank() {
    assert_eq!(after(""), ["", "", ""]);
}

#[test]
fn lines_wrap_and_scroll() {
    assert_eq!(after("one\ntwo"), ["one", "two", ""]);
    assert_eq!(after("123456789"), ["12345678", "9", ""]);
    assert_eq!(after("12345678\n9"), ["12345678", "9", ""], "a full line is one line");
    assert_eq!(after("1\n2\n3\n4"), ["2", "3", "4"]);
}

#[test]
fn control_characters_move_the_cursor() {
    assert_eq!(after("abc\rx"), ["xbc", "", ""]);
    assert_eq!(after("abc\x08 \x08d"), ["abd", "", ""]);
    assert_eq!(after("\x08a"), ["a", "", ""]);
    assert_eq!(after("a\tb\x07"), ["a      b", "", ""]);
}

#[test]
fn latin_1_is_shown_and_anything_else_replaced() {
    assert_eq!(after("12 \u{b5}s \u{e9}"), ["12 \u{b5}s \u{e9}", "", ""]);
    assert_eq!(after("\u{2192}\u{1f600}."), ["\x7f\x7f.", "", ""], "one replacement for each");
    let mut broken = console(8, 3);
    broken.write(b"\xff\xc3a\xe2\x86b\xc0\x80");
    assert_eq!(shown(&broken), ["\x7f\x7fa\x7fb\x7f\x7f", "", ""]);
}

#[test]
fn a_character_may_come_in_two_writes() {
    let mut console = console(8, 3);
    console.write(b"\xc2");
    console.write(b"\xb5 \x1b[3");
    console.write(b"1mr");
    assert_eq!(shown(&console)[0], "\u{b5} r");
}

#[test]
fn terminal_sequences_colour_erase_and_move() {
    assert_eq!(after("abc\x1b[2D\x1b[K"), ["a", "", ""]);
    assert_eq!(after("abc\n\x1b[H\x1b[2Jx"), ["x", "", ""]);
    assert_eq!(after("a\x1b[?25lb\x1b[99;7zc"), ["abc", "", ""], "unknown ones are skipped");
    let mut console = console(8, 3);
    console.write(b"\x1b[1;31mr\x1b[0md\x1b[92mg");
    let colours: Vec<_> = console.screen.cells()[..3].iter().map(|cell| cell.colour.number()).collect();
    assert_eq!(colours, [4, 7, 10], "red, light grey, bright green");
}

#[test]
fn only_what_changed_is_drawn() {
    let mut console = console(80, 25);
    console.write(&b"a line of text\n".repeat(100));
    let before = console.surface.drawn;
    console.write(b"x");
    // The character, and the place that the mark has left.
    assert!(console.surface.drawn - before <= 2);
    console.write(b"\na line of text");
    assert!(console.surface.drawn - before < 40, "scrolling equal lines draws next to nothing");
}

#[test]
fn the_mark_follows_the_cursor() {
    let mut console = console(8, 3);
    console.write(b"ab");
    assert_eq!(console.surface.marked, (2, 0));
    console.write(b"cdefgh");
    assert_eq!(console.surface.marked, (7, 0), "inside a full line");
}

proptest! {
    #[test]
    fn any_bytes_leave_the_cursor_inside_and_the_surface_true(
        columns in 1..12u16,
        rows in 1..6u16,
        scroll in prop::sample::select(vec![Scroll::Unchanged, Scroll::Moved, Scroll::Lost]),
        writes in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                "(\x1b\\[[0-9;]{0,6}[A-Za-z]|[a-z\n\r\t\x08\u{e4}\u{20ac}]){0,20}".prop_map(String::into_bytes),
            ],
            0..8,
        ),
    ) {
        let mut console = console(columns, rows);
        console.surface.scroll = scroll;
        for bytes in writes {
            console.write(&bytes);
            let (column, row) = console.screen.cursor();
            prop_assert!(column < columns && row < rows);
            prop_assert_eq!(console.screen.cells(), &console.surface.cells[..]);
        }
    }
}
