#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::super::handshake::greet;
use super::super::{Link, peer};
use super::{Channel, LinkError};
use crate::custody::Lane;
use crate::custody::wire::{
    Failure, FailureCode, Hello, Inbox, KeyHandle, Reply, Request, WireError, decode_request, encode_reply,
};

/// The worker's end of a connection, to misbehave with.
struct FakeWorker {
    stream: UnixStream,
    inbox: Inbox,
}

impl FakeWorker {
    async fn next(&mut self) -> (u64, Request) {
        loop {
            if let Some(frame) = self.inbox.next_frame().unwrap() {
                return decode_request(frame).unwrap();
            }
            let count = self.stream.read(self.inbox.space()).await.unwrap();
            assert!(count > 0, "the front hung up");
            self.inbox.filled(count);
        }
    }

    async fn send(&mut self, id: u64, reply: &Reply) {
        let mut out = Vec::new();
        encode_reply(id, reply, &mut out);
        self.stream.write_all(&out).await.unwrap();
    }
}

/// The front's end of a connection, and the worker's.
fn pair() -> (Link, UnixStream, FakeWorker) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let link = Link::new("main".into(), "/none".into(), nix::unistd::getuid().as_raw());
    peer::admit(&link, &ours).unwrap();
    (link, ours, FakeWorker { stream: theirs, inbox: Inbox::new() })
}

async fn connected() -> (Arc<Channel>, FakeWorker) {
    let (link, ours, mut worker) = pair();
    let (channel, ()) = tokio::join!(greet(&link, ours), async {
        assert_eq!(worker.next().await, (0, Request::Hello(Hello::new("signerd"))));
        worker.send(0, &Reply::Hello(Hello::new("main"))).await;
    });
    worker.inbox.lift_limit();
    (Arc::new(channel.unwrap()), worker)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// A signature that is asked for in the background.
fn asked(channel: &Arc<Channel>) -> tokio::task::JoinHandle<Result<[u8; 64], LinkError>> {
    let channel = Arc::clone(channel);
    tokio::spawn(async move { channel.sign(KeyHandle(1), Lane::APPLIANCE, &[1; 32], soon()).await })
}

#[tokio::test]
async fn answers_find_their_requests_in_any_order() {
    let (channel, mut worker) = connected().await;
    let (first, second) = (asked(&channel), asked(&channel));
    let (a, _) = worker.next().await;
    let (b, _) = worker.next().await;
    worker.send(b, &Reply::Signed([2; 64])).await;
    worker.send(a, &Reply::Signed([1; 64])).await;
    assert_eq!(first.await.unwrap().unwrap(), [1; 64]);
    assert_eq!(second.await.unwrap().unwrap(), [2; 64]);
}

#[tokio::test]
async fn the_worker_is_told_the_lane() {
    let (channel, mut worker) = connected().await;
    let lane = Lane::of_tenant("acme");
    let asked = tokio::spawn(async move { channel.sign(KeyHandle(1), lane, &[1; 32], soon()).await });
    let (id, request) = worker.next().await;
    assert!(matches!(request, Request::Sign { lane: told, .. } if told == lane.number()), "{request:?}");
    worker.send(id, &Reply::Signed([1; 64])).await;
    asked.await.unwrap().unwrap();
}

#[tokio::test]
async fn requests_of_one_turn_leave_in_one_write() {
    let (channel, worker) = connected().await;
    let requests: Vec<_> = (0..20).map(|_| asked(&channel)).collect();
    let mut buffer = [0; 4096];
    worker.stream.readable().await.unwrap();
    let first = worker.stream.try_read(&mut buffer).unwrap();
    assert_eq!(first, 20 * 61, "all twenty frames at once");
    drop((requests, channel));
}

#[tokio::test]
async fn whatever_breaks_the_protocol_ends_the_connection() {
    type Offence = fn(u64) -> Vec<u8>;
    let table: [(&str, Offence); 6] = [
        ("an answer to nothing", |id| frame(id + 7, &Reply::Signed([0; 64]))),
        ("an answer of the wrong kind", |id| frame(id, &Reply::Pong)),
        ("a second hello", |id| frame(id, &Reply::Hello(Hello::new("main")))),
        ("a frame that is too long", |_| vec![0xff; 4]),
        ("a request", |_| [&[0, 0, 0, 9, 5][..], &[0; 8]].concat()),
        ("an empty frame", |_| vec![0; 4]),
    ];
    for (name, bytes) in table {
        let (channel, mut worker) = connected().await;
        let request = asked(&channel);
        let (id, _) = worker.next().await;
        worker.stream.write_all(&bytes(id)).await.unwrap();
        let error = request.await.unwrap().unwrap_err();
        assert!(matches!(error, LinkError::Lost(_) | LinkError::Protocol(_)), "{name}: {error}");
        let mut rest = [0; 16];
        assert_eq!(worker.stream.read(&mut rest).await.unwrap(), 0, "{name}: closed");
        assert!(!channel.is_live(), "{name}");
    }
}

#[tokio::test]
async fn an_end_tells_what_was_sent_from_what_was_not() {
    let (channel, mut worker) = connected().await;
    let sent = asked(&channel);
    worker.next().await;
    drop(worker);
    assert!(matches!(sent.await.unwrap(), Err(LinkError::Lost(_))));
    let after = channel.sign(KeyHandle(1), Lane::APPLIANCE, &[1; 32], soon()).await;
    assert!(matches!(after, Err(LinkError::Unsent(_))));
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_no_offence() {
    let (channel, mut worker) = connected().await;
    let impatient =
        channel.sign(KeyHandle(1), Lane::APPLIANCE, &[1; 32], Instant::now() + Duration::from_millis(20)).await;
    assert!(matches!(impatient, Err(LinkError::Timeout)));
    let (late, _) = worker.next().await;
    worker.send(late, &Reply::Signed([1; 64])).await;
    let next = asked(&channel);
    let (id, _) = worker.next().await;
    worker.send(id, &Reply::Failed(Failure::new(FailureCode::QueueFull, "full"))).await;
    assert!(matches!(next.await.unwrap(), Err(LinkError::Refused(f)) if f.code == FailureCode::QueueFull));
    assert!(channel.is_live());
}

#[tokio::test]
async fn a_worker_that_never_answers_is_given_up() {
    let (channel, _worker) = connected().await;
    for _ in 0..super::MAX_UNANSWERED {
        let gone = channel.sign(KeyHandle(1), Lane::APPLIANCE, &[1; 32], Instant::now()).await;
        assert!(matches!(gone, Err(LinkError::Timeout)));
    }
    assert!(!channel.is_live());
}

#[tokio::test]
async fn a_hello_of_another_version_or_token_is_refused() {
    let table = [
        (Reply::Hello(Hello { version: 9, name: "main".into() }), WireError::Version { theirs: 9 }),
        (Reply::Hello(Hello::new("other")), WireError::WrongToken { theirs: "other".into(), expected: "main".into() }),
        (Reply::Pong, WireError::NotHello),
    ];
    for (reply, expected) in table {
        let (link, ours, mut worker) = pair();
        worker.send(0, &reply).await;
        let error = greet(&link, ours).await.unwrap_err();
        assert!(matches!(&error, LinkError::Protocol(e) if *e == expected), "{error}");
    }
}

fn frame(id: u64, reply: &Reply) -> Vec<u8> {
    let mut out = Vec::new();
    encode_reply(id, reply, &mut out);
    out
}
