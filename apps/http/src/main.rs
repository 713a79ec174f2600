//! A web server (HTTP/1.1, RFC 9110 and 9112): a few files from memory, and under `/disk/` those of the first disk, if it
//! holds an ext4 file system.
//!
//! `app.port=8080` on the command line chooses another port than 80. Memory is bounded: there are as many connections at
//! once as half of what is free at the start has room for, and who comes then waits until one ends.
//! Files: `connection` (one client), `request` (what he asks), `response` (the heads of answers), `range` (parts of
//! files), `files` (what is there), `disk` (the file system), `cache` (its blocks).
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod cache;
mod connection;
mod disk;
mod files;
mod range;
mod request;
mod response;

use alloc::{format, string::String};

use kernel::{
    mm::frame,
    net::{self, Options, TcpListener},
    println,
};

kernel::app!(main);

/// Bytes that a connection may have for what comes in, and for what goes out.
const RECEIVE_BYTES: usize = 2048;
const SEND_BYTES: usize = 8192;
/// The same where there is plenty of memory.
const LARGE_SEND_BYTES: usize = 128 << 10;
/// Bytes that a connection takes beside: its task, the request, the answer.
const OVERHEAD_BYTES: usize = 6 << 10;
/// Free memory from which on connections get large buffers.
const PLENTY_BYTES: u64 = 64 << 20;
/// Connections at once, at most.
const MOST_CONNECTIONS: usize = 1024;

async fn main() -> Result<(), String> {
    let status = net::up().await.map_err(|error| format!("{error}"))?;
    println!("http: this guest is {status}");
    let port = kernel::app::args().find(|(key, _)| *key == "port").map_or(Ok(80), |(_, port)| port.parse());
    let port = port.map_err(|_| "app.port= expects a number up to 65535")?;
    let disk = disk::mount().await;
    let options = options();
    let listener = TcpListener::bind(port, options).map_err(|error| format!("{error}"))?;
    println!("http: port {port}, {} connections at once", options.connections);
    drop(kernel::spawn(accept(listener)));
    // The file system belongs to this task; the others ask it.
    disk::serve(disk).await
}

/// Half of the free memory is for connections.
fn options() -> Options {
    let free = frame::statistics().free_bytes();
    let send_bytes = if free > PLENTY_BYTES { LARGE_SEND_BYTES } else { SEND_BYTES };
    let each = (RECEIVE_BYTES + send_bytes + OVERHEAD_BYTES) as u64;
    let connections = (free / 2 / each).clamp(4, MOST_CONNECTIONS as u64) as usize;
    Options { backlog: connections.min(128), connections, receive_bytes: RECEIVE_BYTES, send_bytes }
}

async fn accept(mut listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        // Without memory for one more the connection is closed.
        let _ = kernel::task::try_spawn(connection::serve(stream));
    }
}
