//! The line editor: bytes in, echo and lines out. Pure.
#![forbid(unsafe_code)]

use alloc::{collections::VecDeque, string::String, vec::Vec};

/// Bytes of a line at most; what is typed beyond rings the bell.
const MAX_LINE_BYTES: usize = 1024;
/// Earlier lines that are remembered.
const MAX_HISTORY: usize = 16;

const INTERRUPT: u8 = 0x03;
const END_OF_INPUT: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const ERASE_LINE: u8 = 0x15;
const ESCAPE: u8 = 0x1b;
const DELETE: u8 = 0x7f;

/// What a byte has led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The line goes on.
    More,
    /// The line has ended.
    Line(String),
    /// Ctrl-C: the line was thrown away.
    Interrupted,
    /// Ctrl-D on an empty line.
    EndOfInput,
}

/// Where in a key's escape sequence the input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    None,
    Begun,
    Sequence,
}

/// A line as far as it has been typed, and earlier lines.
#[derive(Debug)]
pub(super) struct Editor {
    line: Vec<u8>,
    /// From the latest to the earliest.
    history: VecDeque<String>,
    /// How far back in `history` the line was taken from; 0 is the line being typed.
    back: usize,
    escape: Escape,
    /// The last byte ended a line as CR: a LF belongs to it.
    after_return: bool,
}

impl Editor {
    pub(super) const fn new() -> Self {
        Self {
            line: Vec::new(),
            history: VecDeque::new(),
            back: 0,
            escape: Escape::None,
            after_return: false,
        }
    }

    /// Takes a byte; gives what came of it and what to show.
    pub(super) fn feed(&mut self, byte: u8) -> (Step, Vec<u8>) {
        let after_return = core::mem::replace(&mut self.after_return, byte == b'\r');
        if self.escape != Escape::None {
            return (Step::More, self.in_escape(byte));
        }
        match byte {
            b'\n' if after_return => (Step::More, Vec::new()),
            b'\r' | b'\n' => (Step::Line(self.end()), b"\n".to_vec()),
            BACKSPACE | DELETE => (Step::More, self.erase(1)),
            ERASE_LINE => (Step::More, self.erase(usize::MAX)),
            INTERRUPT => {
                self.line.clear();
                self.back = 0;
                (Step::Interrupted, b"^C\n".to_vec())
            }
            END_OF_INPUT if self.line.is_empty() => (Step::EndOfInput, b"\n".to_vec()),
            ESCAPE => {
                self.escape = Escape::Begun;
                (Step::More, Vec::new())
            }
            0x00..0x20 => (Step::More, Vec::new()),
            _ if self.line.len() == MAX_LINE_BYTES => (Step::More, b"\x07".to_vec()),
            _ => {
                self.line.push(byte);
                (Step::More, [byte].to_vec())
            }
        }
    }

    fn in_escape(&mut self, byte: u8) -> Vec<u8> {
        let (next, echo) = match (self.escape, byte) {
            (Escape::Begun, b'[' | b'O') => (Escape::Sequence, Vec::new()),
            (Escape::Sequence, b'A') => (Escape::None, self.recall(self.back + 1)),
            (Escape::Sequence, b'B') => (Escape::None, self.recall(self.back.saturating_sub(1))),
            (Escape::Sequence, 0x20..=0x3f) => (Escape::Sequence, Vec::new()),
            _ => (Escape::None, Vec::new()),
        };
        self.escape = next;
        echo
    }

    /// Ends the line and remembers it, unless it is empty or the same as the last.
    fn end(&mut self) -> String {
        let line = String::from_utf8_lossy(&core::mem::take(&mut self.line)).into_owned();
        self.back = 0;
        if !line.trim().is_empty() && self.history.front() != Some(&line) {
            self.history.truncate(MAX_HISTORY - 1);
            self.history.push_front(line.clone());
        }
        line
    }

    /// Takes back up to `characters` characters.
    fn erase(&mut self, characters: usize) -> Vec<u8> {
        let mut echo = Vec::new();
        for _ in 0..characters {
            while self.line.pop_if(|&mut byte| byte & 0xc0 == 0x80).is_some() {}
            if self.line.pop().is_none() {
                break;
            }
            echo.extend_from_slice(b"\x08 \x08");
        }
        echo
    }

    /// Puts the line from `back` lines ago in the place of this one; of 0 the empty line.
    fn recall(&mut self, back: usize) -> Vec<u8> {
        if back > self.history.len() {
            return Vec::new();
        }
        let mut echo = self.erase(usize::MAX);
        self.back = back;
        if let Some(line) = back.checked_sub(1).and_then(|index| self.history.get(index)) {
            self.line.extend_from_slice(line.as_bytes());
            echo.extend_from_slice(line.as_bytes());
        }
        echo
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An editor, and a terminal that shows the line its echo makes.
    struct Terminal {
        editor: Editor,
        shown: Vec<u8>,
    }

    impl Terminal {
        fn new() -> Self {
            Self { editor: Editor::new(), shown: Vec::new() }
        }

        /// Types `keys`; gives all steps but `More`.
        fn types(&mut self, keys: &[u8]) -> Vec<Step> {
            let mut steps = Vec::new();
            for &key in keys {
                let (step, echo) = self.editor.feed(key);
                if step != Step::More {
                    steps.push(step);
                }
                for byte in echo {
                    match byte {
                        b'\n' => self.shown.clear(),
                        0x07 => {}
                        // "Back, blank, back" takes away a character: the first from the text, then the blank.
                        0x08 => {
                            while self.shown.pop_if(|&mut byte| byte & 0xc0 == 0x80).is_some() {}
                            assert!(self.shown.pop().is_some(), "erased beyond the line's start");
                        }
                        _ => self.shown.push(byte),
                    }
                }
            }
            steps
        }

        fn shows(&self) -> String {
            String::from_utf8_lossy(&self.shown).into()
        }
    }

    fn lines(keys: &[u8]) -> Vec<Step> {
        Terminal::new().types(keys)
    }

    fn line(text: &str) -> Step {
        Step::Line(text.into())
    }

    #[test]
    fn every_line_end_ends_one_line() {
        assert_eq!(lines(b"a\rb\nc\r\nd\r\r\n\n"), ["a", "b", "c", "d", "", ""].map(line));
    }

    #[test]
    fn backspace_takes_back_a_whole_character() {
        assert_eq!(lines("ab\u{7f}\u{e9}\u{20ac}\u{8}\r".as_bytes()), [line("a\u{e9}")]);
        assert_eq!(lines(b"\x7f\x7fa\r"), [line("a")]);
    }

    #[test]
    fn control_keys_give_up_the_line_or_the_input() {
        assert_eq!(lines(b"abc\x15de\r"), [line("de")]);
        assert_eq!(lines(b"abc\x03d\r"), [Step::Interrupted, line("d")]);
        assert_eq!(lines(b"a\x04\r\x04"), [line("a"), Step::EndOfInput]);
    }

    #[test]
    fn arrows_walk_through_earlier_lines() {
        let mut terminal = Terminal::new();
        terminal.types(b"one\rtwo\rtwo\r\r");
        terminal.types(b"x\x1b[A");
        assert_eq!(terminal.shows(), "two");
        terminal.types(b"\x1b[A\x1b[A");
        assert_eq!(terminal.shows(), "one", "further back there is nothing");
        assert_eq!(terminal.types(b"!\r"), [line("one!")]);
        assert_eq!(terminal.types(b"\x1b[A\x1b[B\r"), [line("")]);
    }

    #[test]
    fn other_keys_leave_no_trace() {
        assert_eq!(lines(b"a\x1b[3~\x1bOP\x1b[C\x00\tb\r"), [line("ab")]);
    }

    #[test]
    fn a_line_has_a_bound() {
        assert_eq!(lines(&[&[b'a'; 5000][..], b"\r"].concat()), [line(&"a".repeat(MAX_LINE_BYTES))]);
    }

    proptest! {
        #[test]
        fn what_is_shown_is_the_line(keys in "([a-z\u{e9}]|\x7f|\x15|\x1b\\[[ABCD]|\r|\x03){0,60}") {
            let mut terminal = Terminal::new();
            terminal.types(keys.as_bytes());
            prop_assert_eq!(&terminal.shown, &terminal.editor.line);
        }

        #[test]
        fn any_bytes_are_survived(keys in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut editor = Editor::new();
            for key in keys {
                editor.feed(key);
            }
        }
    }
}
