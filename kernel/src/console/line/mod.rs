//! Reading a line with echo, as a terminal would have it edited.
//!
//! Backspace takes back a character, Ctrl-U the line, Ctrl-C gives up, Ctrl-D on an empty line ends the input,
//! the arrows up and down walk through earlier lines. CR, LF and CR LF all end a line.
#![forbid(unsafe_code)]

mod editor;

use alloc::string::String;

use editor::{Editor, Step};

use super::{read_byte, write_bytes};
use crate::sync::IrqMutex;

/// Why there is no line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadLineError {
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// Ctrl-D on an empty line.
    #[error("end of input")]
    EndOfInput,
}

/// The line that is being typed and those before: kept when a read is dropped half-way.
static EDITOR: IrqMutex<Editor> = IrqMutex::new(Editor::new());

/// Reads a line, without its end; at most 1024 bytes. Bytes that are no UTF-8 are replaced.
///
/// # Errors
/// [`ReadLineError`] when it was not ended but given up.
pub async fn read_line() -> Result<String, ReadLineError> {
    loop {
        let byte = read_byte().await;
        let (step, echo) = EDITOR.lock().feed(byte);
        write_bytes(&echo);
        match step {
            Step::More => {}
            Step::Line(line) => return Ok(line),
            Step::Interrupted => return Err(ReadLineError::Interrupted),
            Step::EndOfInput => return Err(ReadLineError::EndOfInput),
        }
    }
}
