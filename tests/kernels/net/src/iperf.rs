//! The server's part of iperf3's protocol, for TCP: a connection on which both ends tell each other, in JSON and by single
//! bytes, what is done on the others. One test at a time.
#![forbid(unsafe_code)]

use alloc::{format, string::String, sync::Arc, vec, vec::Vec};
use core::{
    future::Future,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use embedded_io_async::{Read, Write};
use kernel::{
    net::{Error, Options, TcpListener, TcpStream},
    sleep, spawn, time,
};

use crate::services::{OPTIONS, PIECE_BYTES};

const PORT: u16 = 5201;
/// What each connection begins with, the same on all of a test.
const COOKIE_BYTES: usize = 37;
/// Bytes of JSON that a client may send.
const MOST_JSON_BYTES: usize = 64 << 10;
/// Connections of a test, at most.
const MOST_STREAMS: u64 = 16;

/// What the two ends tell each other by a byte.
mod state {
    pub(super) const TEST_START: u8 = 1;
    pub(super) const TEST_RUNNING: u8 = 2;
    pub(super) const TEST_END: u8 = 4;
    pub(super) const PARAM_EXCHANGE: u8 = 9;
    pub(super) const CREATE_STREAMS: u8 = 10;
    pub(super) const EXCHANGE_RESULTS: u8 = 13;
    pub(super) const DISPLAY_RESULTS: u8 = 14;
}

/// One test after the other.
pub(crate) fn serve() -> impl Future<Output = ()> {
    let listener = TcpListener::bind(PORT, Options { connections: 32, ..OPTIONS });
    async move {
        let Ok(mut listener) = listener else { return };
        while let Ok((stream, _)) = listener.accept().await {
            let _ = test(&mut listener, stream).await;
        }
    }
}

async fn test(listener: &mut TcpListener, mut control: TcpStream) -> Result<(), Error> {
    let mut cookie = [0; COOKIE_BYTES];
    read(&mut control, &mut cookie).await?;
    control.write_all(&[state::PARAM_EXCHANGE]).await?;
    let wishes = read_json(&mut control).await?;
    let count = number(&wishes, "parallel").next().unwrap_or(1).min(MOST_STREAMS);
    let is_reverse = wishes.contains("\"reverse\":true");
    control.write_all(&[state::CREATE_STREAMS]).await?;
    let (mut streams, is_over) = (Vec::new(), Arc::new(AtomicBool::new(false)));
    let mut bytes = Vec::new();
    for _ in 0..count {
        let (mut stream, _) = listener.accept().await?;
        let mut told = [0; COOKIE_BYTES];
        read(&mut stream, &mut told).await?;
        if told != cookie {
            return Err(Error::Refused);
        }
        streams.push(stream);
    }
    control.write_all(&[state::TEST_START, state::TEST_RUNNING]).await?;
    let begun = time::now();
    for stream in streams {
        let counted = Arc::new(AtomicU64::new(0));
        bytes.push(counted.clone());
        drop(spawn(transfer(stream, is_reverse, counted, is_over.clone())));
    }
    let mut said = [0];
    read(&mut control, &mut said).await?;
    is_over.store(true, Relaxed);
    if said[0] != state::TEST_END {
        return Ok(());
    }
    control.write_all(&[state::EXCHANGE_RESULTS]).await?;
    let results = read_json(&mut control).await?;
    // What the client has sent may still be on its way.
    let sent: u64 = number(&results, "bytes").sum();
    let total = || bytes.iter().map(|bytes| bytes.load(Relaxed)).sum::<u64>();
    for _ in 0..1000 {
        if is_reverse || total() >= sent {
            break;
        }
        sleep(Duration::from_millis(5)).await;
    }
    let took = begun.elapsed();
    let seconds = format!("{}.{:03}", took.as_secs(), took.subsec_millis());
    let of_streams: Vec<String> = bytes
        .iter()
        .enumerate()
        .map(|(at, bytes)| {
            // The numbers that iperf3 gives its connections: 1, 3, 4, 5.
            let (id, bytes) = (if at == 0 { 1 } else { at + 2 }, bytes.load(Relaxed));
            format!(
                "{{\"id\":{id},\"bytes\":{bytes},\"retransmits\":-1,\"jitter\":0,\"errors\":0,\"packets\":0,\
                 \"start_time\":0,\"end_time\":{seconds}}}"
            )
        })
        .collect();
    let answer = format!(
        "{{\"cpu_util_total\":0,\"cpu_util_user\":0,\"cpu_util_system\":0,\"sender_has_retransmits\":-1,\"streams\":[{}]}}",
        of_streams.join(",")
    );
    control.write_all(&(answer.len() as u32).to_be_bytes()).await?;
    control.write_all(answer.as_bytes()).await?;
    control.write_all(&[state::DISPLAY_RESULTS]).await?;
    read(&mut control, &mut said).await
}

/// Takes what comes, or sends until it `is_over`.
async fn transfer(
    mut stream: TcpStream,
    is_reverse: bool,
    counted: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
) {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let moved = match is_reverse {
            true if is_over.load(Relaxed) => return,
            true => stream.write(&piece).await,
            false => stream.read(&mut piece).await,
        };
        match moved {
            Ok(moved) if moved > 0 => counted.fetch_add(moved as u64, Relaxed),
            _ => return,
        };
    }
}

async fn read(stream: &mut TcpStream, bytes: &mut [u8]) -> Result<(), Error> {
    stream.read_exact(bytes).await.map_err(|_| Error::Reset)
}

/// A text behind its length.
async fn read_json(stream: &mut TcpStream) -> Result<String, Error> {
    let mut len = [0; 4];
    read(stream, &mut len).await?;
    let len = u32::from_be_bytes(len) as usize;
    if len > MOST_JSON_BYTES {
        return Err(Error::TooLong);
    }
    let mut text = vec![0; len];
    read(stream, &mut text).await?;
    let text = String::from_utf8(text).map_err(|_| Error::Reset)?;
    Ok(text.split_whitespace().collect())
}

/// The numbers that stand behind `key` in a text without blanks.
fn number<'a>(json: &'a str, key: &'a str) -> impl Iterator<Item = u64> + 'a {
    json.split('"').zip(json.split('"').skip(1)).filter(move |(known, _)| *known == key).filter_map(
        |(_, rest)| {
            let digits = rest.strip_prefix(':')?;
            digits.split(|other: char| !other.is_ascii_digit()).next()?.parse().ok()
        },
    )
}
