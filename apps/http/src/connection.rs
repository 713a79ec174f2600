//! One client: requests come in, one after the other or several at once, and are answered in this order.
#![forbid(unsafe_code)]

use alloc::{sync::Arc, vec, vec::Vec};
use core::{ops::Range, time::Duration};

use kernel::{
    net::{Error, TcpStream},
    task::Alarm,
};

use crate::{
    disk,
    files::{self, File},
    range::{self, Part},
    request::{self, Found, Request},
    response::{Head, Status, write_head, write_status},
};

/// Bytes that a request may have.
const MOST_REQUEST_BYTES: usize = 4096;
/// How long a client may keep a connection without a word, or let an answer wait.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a file that are sent together with the head.
const SMALL_BYTES: u64 = 4096;

/// Serves a client until one of both ends it.
pub(crate) async fn serve(stream: TcpStream) {
    // A client that goes away has nothing to be told.
    let _ = answer_all(&mut Client { stream, alarm: Alarm::new() }).await;
}

/// A connection, and how long it has been waited for.
struct Client {
    stream: TcpStream,
    alarm: Alarm,
}

async fn answer_all(client: &mut Client) -> Result<(), Error> {
    let mut requests = vec![0; MOST_REQUEST_BYTES];
    // Bytes that came and are not answered: from `start` on.
    let (mut start, mut end) = (0, 0);
    let mut out = Vec::new();
    loop {
        let found = match start == end {
            true => Found::Partial,
            false => request::find(&requests[start..end]),
        };
        match found {
            Found::Request(request) => {
                answer(client, &request, &mut out).await?;
                start += request.len;
                // Answers to requests that came together go out together.
                if start == end || !request.keeps_alive {
                    send(client, &mut out).await?;
                }
                if !request.keeps_alive {
                    return finish(client).await;
                }
            }
            Found::Bad(status) => return refuse(client, &mut out, status).await,
            Found::Partial => {
                send(client, &mut out).await?;
                requests.copy_within(start..end, 0);
                (start, end) = (0, end - start);
                if end == MOST_REQUEST_BYTES {
                    return refuse(client, &mut out, Status::FieldsTooLarge).await;
                }
                match client.alarm.timeout(PATIENCE, client.stream.read(&mut requests[end..])).await {
                    Ok(Ok(0)) => return Ok(()),
                    Ok(read) => end += read?,
                    Err(_) if end > 0 => return refuse(client, &mut out, Status::RequestTimeout).await,
                    Err(_) => return finish(client).await,
                }
            }
        }
    }
}

/// Says why there is no answer, and ends the connection.
async fn refuse(client: &mut Client, out: &mut Vec<u8>, status: Status) -> Result<(), Error> {
    write_status(out, status, 0, false, false);
    send(client, out).await?;
    finish(client).await
}

/// Writes the answer to `request` to `out`; sends what is too much for it.
async fn answer(client: &mut Client, request: &Request<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    let (keeps_alive, is_head) = (request.keeps_alive, request.is_head);
    let file = match files::find(&request.path).await {
        Ok(file) => file,
        Err(status) => {
            write_status(out, status, 0, keeps_alive, is_head);
            return Ok(());
        }
    };
    let file_len = file.len();
    let part = request.range.map_or(Part::Whole, |range| range::part(range, file_len));
    let (status, bytes) = match part {
        Part::Whole => (Status::Ok, 0..file_len),
        Part::Bytes(bytes) => (Status::PartialContent, bytes),
        Part::Missing => {
            write_status(out, Status::RangeNotSatisfiable, file_len, keeps_alive, is_head);
            return Ok(());
        }
    };
    let content_type = files::content_type(&request.path);
    write_head(out, &Head { status, content_type, file_len, bytes: bytes.clone(), keeps_alive });
    if is_head {
        return Ok(());
    }
    match file {
        File::Memory(content) => {
            let content = &content[bytes.start as usize..bytes.end as usize];
            if content.len() as u64 <= SMALL_BYTES {
                out.extend_from_slice(content);
                return Ok(());
            }
            send(client, out).await?;
            write_all(client, content).await
        }
        File::Disk(path, _) => send_from_disk(client, &path, bytes, out).await,
    }
}

async fn send_from_disk(
    client: &mut Client,
    path: &Arc<str>,
    bytes: Range<u64>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let mut at = bytes.start;
    while at < bytes.end {
        let piece = match disk::read(path.clone(), at, bytes.end - at).await {
            // A file that became shorter, or a disk that fails: the client sees that bytes are missing.
            Ok(piece) if piece.is_empty() => return Err(Error::Reset),
            Err(_) => return Err(Error::Reset),
            Ok(piece) => piece,
        };
        at += piece.len() as u64;
        out.extend_from_slice(&piece);
        send(client, out).await?;
    }
    Ok(())
}

async fn send(client: &mut Client, out: &mut Vec<u8>) -> Result<(), Error> {
    if !out.is_empty() {
        write_all(client, out).await?;
        out.clear();
    }
    Ok(())
}

async fn write_all(client: &mut Client, mut bytes: &[u8]) -> Result<(), Error> {
    while !bytes.is_empty() {
        let written = match client.alarm.timeout(PATIENCE, client.stream.write(bytes)).await {
            Ok(written) => written?,
            Err(_) => return Err(Error::Reset),
        };
        bytes = &bytes[written..];
    }
    Ok(())
}

/// Ends the connection so that the client sees all of the answer: what he still sends is read for a while, for a reset
/// would make him forget what he has not read (RFC 9112 §9.6).
async fn finish(client: &mut Client) -> Result<(), Error> {
    client.stream.shut_down();
    let mut rest = [0; 512];
    let drain = async { while client.stream.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
    let _ = client.alarm.timeout(Duration::from_secs(2), drain).await;
    Ok(())
}
