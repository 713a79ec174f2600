//! Bytes into characters, control characters and control sequences, one byte at a time.
//!
//! UTF-8 (RFC 3629) as far as Latin-1; of a character beyond, and of bytes that are none, one replacement.
//! Control sequences are `ESC [ parameters last` (ECMA-48 §5.4).
#![forbid(unsafe_code)]

use super::screen::Cell;

/// What a byte completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Symbol {
    /// A printable character in Latin-1, or [`Cell::REPLACEMENT`].
    Character(u8),
    /// A control character below 0x20.
    Control(u8),
    /// One parameter of a control sequence, with the sequence's last byte. A sequence with several parameters
    /// yields each as a sequence of its own, all of them when it ends.
    Sequence { parameter: u16, last: u8 },
}

/// Parameters kept of a sequence; text colour needs two.
const MAX_PARAMETERS: usize = 4;

/// What the bytes so far have begun.
#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Ground,
    /// In a UTF-8 sequence: bytes to come, and the character as far as it is known.
    Utf8 { left: u8, character: u8 },
    /// After ESC.
    Escape,
    /// After ESC and [.
    Sequence { parameters: [u16; MAX_PARAMETERS], count: usize },
    /// In a sequence of a private kind, which is skipped to its end.
    Private,
}

/// The decoder's memory between two bytes.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    state: State,
}

/// What one byte yields: at most [`MAX_PARAMETERS`] symbols.
pub(super) type Symbols = [Option<Symbol>; MAX_PARAMETERS];

const NOTHING: Symbols = [None; MAX_PARAMETERS];

fn one(symbol: Symbol) -> Symbols {
    [Some(symbol), None, None, None]
}

fn two(first: Symbol, second: Symbols) -> Symbols {
    [Some(first), second[0], None, None]
}

impl Decoder {
    /// Takes the next byte.
    pub(super) fn feed(&mut self, byte: u8) -> Symbols {
        match core::mem::take(&mut self.state) {
            State::Ground => self.ground(byte),
            State::Utf8 { left, character } => self.continuation(byte, left, character),
            State::Escape if byte == b'[' => {
                self.go_on(State::Sequence { parameters: [0; MAX_PARAMETERS], count: 1 })
            }
            State::Escape => NOTHING,
            State::Sequence { parameters, count } => self.in_sequence(byte, parameters, count),
            State::Private if (0x40..=0x7e).contains(&byte) => NOTHING,
            State::Private => self.go_on(State::Private),
        }
    }

    fn go_on(&mut self, state: State) -> Symbols {
        self.state = state;
        NOTHING
    }

    fn ground(&mut self, byte: u8) -> Symbols {
        match byte {
            0x1b => self.go_on(State::Escape),
            0x00..0x20 => one(Symbol::Control(byte)),
            0x20..0x7f => one(Symbol::Character(byte)),
            // U+0080 to U+00FF
            0xc2 | 0xc3 => self.go_on(State::Utf8 { left: 1, character: byte << 6 }),
            0xc4..=0xdf => self.go_on(State::Utf8 { left: 1, character: Cell::REPLACEMENT }),
            0xe0..=0xef => self.go_on(State::Utf8 { left: 2, character: Cell::REPLACEMENT }),
            0xf0..=0xf4 => self.go_on(State::Utf8 { left: 3, character: Cell::REPLACEMENT }),
            _ => one(Symbol::Character(Cell::REPLACEMENT)),
        }
    }

    fn continuation(&mut self, byte: u8, left: u8, character: u8) -> Symbols {
        if byte & 0xc0 != 0x80 {
            // The character was cut off; this byte begins something else.
            return two(Symbol::Character(Cell::REPLACEMENT), self.ground(byte));
        }
        if left > 1 {
            return self.go_on(State::Utf8 { left: left - 1, character });
        }
        one(Symbol::Character(match character {
            Cell::REPLACEMENT => Cell::REPLACEMENT,
            // U+0080 to U+009F are control characters.
            0x80 if byte < 0xa0 => Cell::REPLACEMENT,
            _ => character | byte & 0x3f,
        }))
    }

    fn in_sequence(&mut self, byte: u8, mut parameters: [u16; MAX_PARAMETERS], mut count: usize) -> Symbols {
        match byte {
            b'0'..=b'9' => {
                let parameter = &mut parameters[count - 1];
                *parameter = parameter.saturating_mul(10).saturating_add(u16::from(byte - b'0'));
                self.go_on(State::Sequence { parameters, count })
            }
            b';' => {
                count = (count + 1).min(MAX_PARAMETERS);
                parameters[count - 1] = 0;
                self.go_on(State::Sequence { parameters, count })
            }
            0x40..=0x7e => core::array::from_fn(|index| {
                (index < count).then(|| Symbol::Sequence { parameter: parameters[index], last: byte })
            }),
            0x20..0x40 => self.go_on(State::Private),
            // A control character or a new escape cuts the sequence off.
            _ => self.ground(byte),
        }
    }
}
