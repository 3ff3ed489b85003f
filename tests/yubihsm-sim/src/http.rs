//! The connector: as much HTTP/1.1 as its clients speak.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Device;
use crate::control::Control;

/// Serves each connection by a thread of its own, until `stopping`.
pub(crate) fn accept(listener: &TcpListener, device: &Arc<Mutex<Device>>, stopping: &Arc<AtomicBool>) {
    for stream in listener.incoming() {
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        if let Ok(stream) = stream {
            let (device, stopping) = (Arc::clone(device), Arc::clone(stopping));
            std::thread::spawn(move || serve(stream, &device, &stopping));
        }
    }
}

struct Request {
    method: String,
    path: String,
    body: Vec<u8>,
}

/// Whatever goes wrong here ends the connection; the client sees that.
fn serve(mut stream: TcpStream, device: &Mutex<Device>, stopping: &AtomicBool) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    while let Ok(Some(request)) = read(&mut stream, &mut buffer) {
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        let (status, body) = answer(&request, device);
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
        if stream.write_all(&[head.as_bytes(), &body].concat()).is_err() {
            return;
        }
    }
}

fn answer(request: &Request, device: &Mutex<Device>) -> (&'static str, Vec<u8>) {
    let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
    match (request.method.as_str(), request.path.as_str()) {
        ("POST", "/connector/api") => match device.receive(&request.body) {
            Some(answer) => ("200 OK", answer),
            None => ("503 Service Unavailable", b"no device\n".to_vec()),
        },
        ("GET", "/connector/status") => {
            let status = if device.is_plugged() { "OK" } else { "NO_DEVICE" };
            let pid = std::process::id();
            ("200 OK", format!("status={status}\nserial=*\nversion=3.0.5\npid={pid}\naddress=localhost\n").into_bytes())
        }
        ("POST", "/control") => match serde_json::from_slice::<Control>(&request.body) {
            Ok(control) => {
                device.control(control);
                ("200 OK", b"{}\n".to_vec())
            }
            Err(error) => ("400 Bad Request", format!("{error}\n").into_bytes()),
        },
        _ => ("404 Not Found", Vec::new()),
    }
}

/// The next request; `None` at the end of the connection. What is read beyond it stays in `buffer`.
fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "not HTTP");
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut parsed = httparse::Request::new(&mut headers);
        if let httparse::Status::Complete(head) = parsed.parse(buffer).map_err(|_| malformed())? {
            let length = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
            let length = match length {
                Some(header) => std::str::from_utf8(header.value)
                    .ok()
                    .and_then(|text| text.parse::<usize>().ok())
                    .filter(|length| *length <= MOST)
                    .ok_or_else(malformed)?,
                None => 0,
            };
            if buffer.len() >= head + length {
                let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
                let (method, path) = (text(parsed.method), text(parsed.path));
                let body = buffer[head..head + length].to_vec();
                buffer.drain(..head + length);
                return Ok(Some(Request { method, path, body }));
            }
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk)? {
            0 => return Ok(None),
            _ if buffer.len() > MOST => return Err(malformed()),
            count => buffer.extend_from_slice(&chunk[..count]),
        }
    }
}

const MOST: usize = 64 * 1024;
