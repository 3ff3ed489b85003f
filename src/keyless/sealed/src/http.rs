//! One answer of HTTP/1.1, bounded in every direction.

#![forbid(unsafe_code)]

use std::io::{self, Read};

use httparse::{EMPTY_HEADER, Response, Status};

/// A status and what came with it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `Retry-After` where it is a number of seconds.
    pub(crate) retry_after: Option<u32>,
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum HttpError {
    /// Not HTTP as a server speaks it.
    Malformed(&'static str),
    /// Head or body are longer than their bounds.
    TooLarge,
    /// The connection ended before the answer did.
    Closed,
    /// Reading failed.
    Io(io::Error),
}

/// Reads one answer, with a body of at most `bound` bytes: by `Content-Length` or in chunks. An answer that ends only
/// with the connection cannot be told from one cut short: it is refused, but for the status of an error, which needs no body.
///
/// # Errors
/// Whatever is not exactly that.
pub(crate) fn read_answer(stream: &mut impl Read, bound: usize) -> Result<Answer, HttpError> {
    let mut input = Input { stream, bytes: Vec::with_capacity(MAX_HEAD) };
    let head = read_head(&mut input)?;
    input.bytes.drain(..head.length);
    let body = match head.framing {
        Framing::Length(length) if length > bound => return Err(HttpError::TooLarge),
        Framing::Length(length) => input.take(length)?,
        Framing::Chunked => read_chunks(&mut input, bound)?,
    };
    Ok(Answer { status: head.status, retry_after: head.retry_after, body })
}

struct Head {
    status: u16,
    retry_after: Option<u32>,
    framing: Framing,
    length: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Framing {
    Length(usize),
    Chunked,
}

fn read_head(input: &mut Input<'_, impl Read>) -> Result<Head, HttpError> {
    loop {
        let mut headers = [EMPTY_HEADER; MAX_HEADERS];
        let mut response = Response::new(&mut headers);
        match response.parse(&input.bytes) {
            Ok(Status::Complete(length)) => return head(&response, length),
            Ok(Status::Partial) if input.bytes.len() >= MAX_HEAD => return Err(HttpError::TooLarge),
            Ok(Status::Partial) => input.more()?,
            Err(httparse::Error::TooManyHeaders) => return Err(HttpError::TooLarge),
            Err(_) => return Err(HttpError::Malformed("the head of the answer is not HTTP")),
        }
    }
}

fn head(response: &Response<'_, '_>, length: usize) -> Result<Head, HttpError> {
    let mut framing = None;
    let mut retry_after = None;
    for header in response.headers.iter() {
        let value = std::str::from_utf8(header.value).map(str::trim).unwrap_or_default();
        let found = if header.name.eq_ignore_ascii_case("content-length") {
            let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            let length = value.parse().ok().filter(|_| digits);
            Framing::Length(length.ok_or(HttpError::Malformed("Content-Length is no number"))?)
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case("chunked") {
                return Err(HttpError::Malformed("a transfer encoding other than chunked"));
            }
            Framing::Chunked
        } else {
            if header.name.eq_ignore_ascii_case("retry-after") {
                retry_after = value.parse().ok();
            }
            continue;
        };
        // Two that differ, or both kinds: whoever is between us and the server may have read another answer.
        if framing.is_some_and(|before| before != found) {
            return Err(HttpError::Malformed("two lengths"));
        }
        framing = Some(found);
    }
    let status = response.code.unwrap_or(0);
    let framing = match framing {
        Some(framing) => framing,
        None if status == 204 => Framing::Length(0),
        // An error's status says all that is acted upon; a proxy in between that ends it with the connection is heard too.
        None if (400..600).contains(&status) => Framing::Length(0),
        None => return Err(HttpError::Malformed("an answer without a length")),
    };
    if status < 200 {
        return Err(HttpError::Malformed("an interim answer"));
    }
    Ok(Head { status, retry_after, framing, length })
}

fn read_chunks(input: &mut Input<'_, impl Read>, bound: usize) -> Result<Vec<u8>, HttpError> {
    let mut body = Vec::new();
    loop {
        let size = read_chunk_size(input)?;
        if size == 0 {
            return read_trailer(input).map(|()| body);
        }
        if size > bound - body.len() {
            return Err(HttpError::TooLarge);
        }
        body.extend_from_slice(&input.take(size)?);
        if input.take(2)? != b"\r\n" {
            return Err(HttpError::Malformed("a chunk longer than it says"));
        }
    }
}

fn read_chunk_size(input: &mut Input<'_, impl Read>) -> Result<usize, HttpError> {
    loop {
        match httparse::parse_chunk_size(&input.bytes) {
            Ok(Status::Complete((length, size))) => {
                input.bytes.drain(..length);
                return usize::try_from(size).map_err(|_| HttpError::TooLarge);
            }
            Ok(Status::Partial) if input.bytes.len() < MAX_CHUNK_LINE => input.more()?,
            _ => return Err(HttpError::Malformed("not the size of a chunk")),
        }
    }
}

/// Trailers say nothing to us; they end with an empty line.
fn read_trailer(input: &mut Input<'_, impl Read>) -> Result<(), HttpError> {
    let mut length = 0;
    loop {
        let line = loop {
            if let Some(end) = input.bytes.windows(2).position(|pair| pair == b"\r\n") {
                break end;
            }
            if length + input.bytes.len() >= MAX_HEAD {
                return Err(HttpError::TooLarge);
            }
            input.more()?;
        };
        input.bytes.drain(..line + 2);
        length += line + 2;
        if line == 0 {
            return Ok(());
        }
        if length >= MAX_HEAD {
            return Err(HttpError::TooLarge);
        }
    }
}

/// What was read and not yet used.
struct Input<'a, R> {
    stream: &'a mut R,
    bytes: Vec<u8>,
}

impl<R: Read> Input<'_, R> {
    fn more(&mut self) -> Result<(), HttpError> {
        let mut part = [0; 2048];
        match self.stream.read(&mut part) {
            Ok(0) => Err(HttpError::Closed),
            Ok(count) => {
                self.bytes.extend_from_slice(&part[..count]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(HttpError::Closed),
            Err(error) => Err(HttpError::Io(error)),
        }
    }

    fn take(&mut self, count: usize) -> Result<Vec<u8>, HttpError> {
        while self.bytes.len() < count {
            self.more()?;
        }
        Ok(self.bytes.drain(..count).collect())
    }
}

const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
const MAX_CHUNK_LINE: usize = 256;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gives at most `step` bytes at once, as a slow server does.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(self.1).min(into.len());
            into[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn read(text: &[u8]) -> Result<Answer, HttpError> {
        read_answer(&mut Slow(text, usize::MAX), 1000)
    }

    #[test]
    fn an_answer_is_the_same_in_one_piece_and_byte_by_byte_with_a_length_and_in_chunks() {
        for text in [
            &b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello"[..],
            b"HTTP/1.1 201 Created\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello and more",
            b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nA: b\r\n\r\n",
        ] {
            for step in [1, 2, 7, usize::MAX] {
                let answer = read_answer(&mut Slow(text, step), 5).unwrap();
                assert_eq!((answer.status, &answer.body[..]), (201, &b"hello"[..]));
            }
        }
        let busy = read(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n").unwrap();
        assert_eq!((busy.status, busy.retry_after), (429, Some(7)));
        let busy = read(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\n\r\nupstream gone").unwrap();
        assert_eq!((busy.status, busy.retry_after, &busy.body[..]), (503, Some(7), &b""[..]));
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nhel\r\n0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n",
        ] {
            assert!(matches!(read(text.as_bytes()), Err(HttpError::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn nothing_is_longer_than_its_bound() {
        let header = format!("A: {}\r\n", "b".repeat(1000));
        for text in [
            format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", header.repeat(20)),
            format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "A: b\r\n".repeat(65)),
            "HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n".to_owned(),
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{}", header.repeat(20)),
        ] {
            assert!(matches!(read(text.as_bytes()), Err(HttpError::TooLarge)), "{text:.90}");
        }
    }

    #[test]
    fn an_answer_cut_short_anywhere_is_no_answer() {
        for text in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ] {
            for end in 0..text.len() {
                assert!(matches!(read(&text[..end]), Err(HttpError::Closed)), "cut at {end}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(head in "(HTTP/1.1 200 OK\r\n)?", bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&[head.as_bytes(), &bytes].concat());
        }

        #[test]
        fn no_chunks_make_it_panic(bytes in "[0-9a-f;\r\n ]{0,60}") {
            let text = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{bytes}");
            if let Ok(answer) = read(text.as_bytes()) {
                prop_assert!(answer.body.len() <= 1000);
            }
        }
    }
}
