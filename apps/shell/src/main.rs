//! A shell on the console: looks into the running guest, and ends it. `help` lists what it knows.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod act;
mod command;
mod look;

use kernel::{
    console::{self, ReadLineError},
    devices, print, println,
};

kernel::app!(main);

async fn main() {
    if devices::console::attach().await {
        // What is typed there arrives with the rest.
        println!();
    }
    console::listen();
    println!("Pliant {}. `help` lists the commands.", env!("CARGO_PKG_VERSION"));
    loop {
        print!("pliant> ");
        match console::read_line().await {
            Ok(line) => command::execute(&line).await,
            Err(ReadLineError::Interrupted) => {}
            Err(ReadLineError::EndOfInput) => return,
        }
    }
}
