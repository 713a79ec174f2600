//! Tests on the host: pure parts by cases and laws, the patching by patching this very process.

mod detection;
mod encoder;
mod forms;
mod hosted;
mod patching;
mod registers;
mod time;
mod words;
