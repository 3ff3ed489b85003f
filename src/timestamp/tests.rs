#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::sigstore::Tsa;
use testkit::sigstore::tsa::Answer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// How an authority behaves.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Right,
    /// 201, as Sigstore's own.
    Created,
    Status(&'static str),
    Silent,
    Stranger,
    Old,
    /// So many seconds behind.
    Behind(i64),
    Refuses,
    Huge,
}

struct Peer {
    url: String,
    calls: Arc<AtomicUsize>,
}

impl Peer {
    async fn new(tsa: &Arc<Tsa>, manner: Manner) -> Self {
        Self::changing(tsa, vec![manner]).await
    }

    /// The n-th call gets the n-th manner, every further one the last.
    async fn changing(tsa: &Arc<Tsa>, manners: Vec<Manner>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/api/v1/timestamp", listener.local_addr().unwrap());
        let (calls, counted, tsa) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), tsa.clone());
        let count = calls.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let call = counted.fetch_add(1, Ordering::SeqCst);
                count.fetch_add(1, Ordering::SeqCst);
                let manner = manners[call.min(manners.len() - 1)];
                tokio::spawn(answer(stream, tsa.clone(), manner));
            }
        });
        Self { url, calls }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

async fn answer(mut stream: TcpStream, tsa: Arc<Tsa>, manner: Manner) {
    let query = read_query(&mut stream).await;
    let now = UnixTime::now().0;
    let (status, body) = match manner {
        Manner::Right => ("200 OK", tsa.answer(&query, &Answer::at(now))),
        Manner::Created => ("201 Created", tsa.answer(&query, &Answer::at(now))),
        Manner::Status(status) => (status, Vec::new()),
        Manner::Silent => std::future::pending().await,
        Manner::Stranger => ("200 OK", Tsa::new(now).answer(&query, &Answer::at(now))),
        Manner::Old => ("200 OK", tsa.answer(&query, &Answer::at(now - 3600))),
        Manner::Behind(by) => ("200 OK", tsa.answer(&query, &Answer::at(now - by))),
        Manner::Refuses => ("200 OK", tsa.answer(&query, &Answer { status: 2, ..Answer::at(now) })),
        Manner::Huge => ("200 OK", vec![0; MAX_RESPONSE + 1]),
    };
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), &body].concat()).await.ok();
}

async fn read_query(stream: &mut TcpStream) -> Vec<u8> {
    let mut seen = Vec::new();
    loop {
        assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "the client closed early");
        let Some(end) = memchr::memmem::find(&seen, b"\r\n\r\n") else { continue };
        let head = String::from_utf8(seen[..end].to_vec()).unwrap();
        assert!(head.starts_with("POST /api/v1/timestamp HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("content-type: application/timestamp-query"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if seen.len() == end + 4 + length.parse::<usize>().unwrap() {
            return seen[end + 4..].to_vec();
        }
    }
}

fn tsa() -> Arc<Tsa> {
    Arc::new(Tsa::new(UnixTime::now().0))
}

fn client(tsa: &Tsa, peers: &[&Peer], policy: TimestampPolicy) -> Timestamps {
    trusting(&[tsa], peers, policy)
}

fn trusting(tsas: &[&Tsa], peers: &[&Peer], policy: TimestampPolicy) -> Timestamps {
    let one = |(index, peer): (usize, &&Peer)| AuthoritySettings {
        name: format!("tsa{index}"),
        url: peer.url.clone(),
        tls: OutboundTls::default(),
    };
    let settings = TimestampSettings {
        authorities: peers.iter().enumerate().map(one).collect(),
        policy,
        timeout: Duration::from_millis(500),
        failures: 2,
        pause: Duration::from_millis(200),
    };
    let json = testkit::sigstore::trusted_root(None, &[], tsas, UnixTime::now().0).to_string();
    let root = Arc::new(TrustedRoot::from_json(json.as_bytes()).unwrap());
    Timestamps::new(settings, root, &Handle::current()).unwrap()
}

async fn stamp(client: &Timestamps) -> Result<Vec<String>, StampError> {
    let Stamped { stamps, .. } = client.stamp(b"signature", None, Instant::now() + Duration::from_secs(30)).await?;
    Ok(stamps.into_iter().map(|stamp| stamp.authority).collect())
}

#[tokio::test]
async fn the_first_that_answers_rightly_is_taken_and_what_it_said_verifies() {
    let tsa = tsa();
    let (down, right, unused) = (
        Peer::new(&tsa, Manner::Status("503 Service Unavailable")).await,
        Peer::new(&tsa, Manner::Created).await,
        Peer::new(&tsa, Manner::Right).await,
    );
    let client = client(&tsa, &[&down, &right, &unused], TimestampPolicy::One);
    let stamps = client.stamp(b"signature", None, Instant::now() + Duration::from_secs(30)).await.unwrap().stamps;
    assert_eq!((stamps.len(), &*stamps[0].authority), (1, "tsa1"));
    timestamp::verify(&stamps[0].der, b"signature", &client.root, UnixTime::now()).unwrap();
    assert_eq!((down.calls(), unused.calls()), (1, 0));
}

#[tokio::test]
async fn every_way_to_fail_has_its_name() {
    let tsa = tsa();
    for (manner, reason) in [
        (Manner::Status("500 Internal Server Error"), "timestamp_status"),
        (Manner::Status("302 Found"), "timestamp_status"),
        (Manner::Silent, "timestamp_timeout"),
        (Manner::Stranger, "timestamp_untrusted"),
        (Manner::Old, "timestamp_clock"),
        (Manner::Refuses, "timestamp_not_granted"),
        (Manner::Huge, "timestamp_too_large"),
    ] {
        let peer = Peer::new(&tsa, manner).await;
        let error = stamp(&client(&tsa, &[&peer], TimestampPolicy::One)).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        assert!(error.to_string().contains("tsa0: "), "{error}");
    }
    let error = stamp(&client(&tsa, &[], TimestampPolicy::All)).await.unwrap_err();
    assert_eq!(error.reason(), "timestamp_no_authority");
}

#[tokio::test]
async fn where_all_must_stamp_they_stand_in_order_and_one_missing_is_an_error() {
    let (tsa, other) = (tsa(), tsa());
    let (one, two) = (Peer::new(&tsa, Manner::Right).await, Peer::new(&other, Manner::Right).await);
    let all = trusting(&[&tsa, &other], &[&one, &two], TimestampPolicy::All);
    assert_eq!(stamp(&all).await.unwrap(), ["tsa0", "tsa1"]);
    let down = Peer::new(&tsa, Manner::Status("503 Service Unavailable")).await;
    let error = stamp(&client(&tsa, &[&one, &down], TimestampPolicy::All)).await.unwrap_err();
    assert!(matches!(&error, StampError::Failed(attempts) if attempts[0].authority == "tsa1"), "{error}");
}

#[tokio::test]
async fn where_all_must_stamp_one_signer_under_two_names_is_one_witness_too_few() {
    let (tsa, other) = (tsa(), tsa());
    let names = [Peer::new(&tsa, Manner::Right).await, Peer::new(&other, Manner::Right).await];
    let again = Peer::new(&tsa, Manner::Right).await;
    let all = trusting(&[&tsa, &other], &[&names[0], &names[1], &again], TimestampPolicy::All);
    let error = stamp(&all).await.unwrap_err();
    assert_eq!(error.reason(), "timestamp_not_distinct");
    assert!(error.to_string().contains("tsa2: the one who signed is the one who signed for `tsa0`"), "{error}");
}

#[tokio::test]
async fn who_stamped_is_told_by_its_certificate_whatever_it_is_called() {
    let tsa = tsa();
    let peer = Peer::new(&tsa, Manner::Right).await;
    let client = client(&tsa, &[&peer], TimestampPolicy::One);
    let stamps = client.stamp(b"signature", None, Instant::now() + Duration::from_secs(30)).await.unwrap().stamps;
    let certificate = digest(&SHA256, &tsa.signer.certificate);
    assert_eq!(stamps[0].signer_sha256, certificate.as_ref());
}

#[tokio::test]
async fn a_stamp_outside_of_the_certificates_validity_is_none() {
    let tsa = tsa();
    let (behind, right) = (Peer::new(&tsa, Manner::Behind(30)).await, Peer::new(&tsa, Manner::Right).await);
    let soon = Instant::now() + Duration::from_secs(30);
    let now = UnixTime::now();
    // Fulcio has just issued it, by a clock that is right.
    let fresh =
        Window { not_before: now.minus(Duration::from_secs(10)), not_after: now.plus(Duration::from_secs(590)) };
    let ended =
        Window { not_before: now.minus(Duration::from_secs(600)), not_after: now.minus(Duration::from_secs(31)) };

    let one = client(&tsa, &[&behind, &right], TimestampPolicy::One);
    let stamped = one.stamp(b"signature", Some(fresh), soon).await.unwrap();
    assert_eq!(stamped.stamps[0].authority, "tsa1");
    let failed: Vec<_> = stamped.failed.iter().map(|one| (&*one.authority, one.error.reason())).collect();
    assert_eq!(failed, [("tsa0", "timestamp_outside_certificate")]);
    for _ in 0..3 {
        let error = one.stamp(b"signature", Some(ended), soon).await.unwrap_err();
        assert_eq!(error.reason(), "timestamp_outside_certificate", "{error}");
        assert!(matches!(&error, StampError::Failed(attempts) if attempts.len() == 2), "{error}");
    }
    // Whoever needs no window is served as before: the authorities are not left alone for it.
    assert_eq!(stamp(&one).await.unwrap(), ["tsa0"]);

    let all = client(&tsa, &[&behind], TimestampPolicy::All);
    let error = all.stamp(b"signature", Some(fresh), soon).await.unwrap_err();
    assert_eq!(error.reason(), "timestamp_outside_certificate", "{error}");
}

#[tokio::test]
async fn an_authority_that_fails_is_left_alone_and_tried_again_later() {
    let tsa = tsa();
    let broken = Manner::Status("503 Service Unavailable");
    let peer = Peer::changing(&tsa, vec![broken, broken, Manner::Right]).await;
    let client = client(&tsa, &[&peer], TimestampPolicy::One);
    for _ in 0..2 {
        assert_eq!(stamp(&client).await.unwrap_err().reason(), "timestamp_status");
    }
    let paused = stamp(&client).await.unwrap_err();
    assert_eq!((paused.reason(), peer.calls()), ("timestamp_paused", 2));
    assert!(paused.retry_after().is_some_and(|left| left <= Duration::from_millis(200)));
    let deadline = Instant::now() + Duration::from_secs(30);
    let stamped = loop {
        match stamp(&client).await {
            Err(StampError::Failed(attempts)) if matches!(attempts[0].error, AuthorityError::Paused(_)) => {
                assert!(Instant::now() < deadline, "it is never tried again");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            result => break result,
        }
    };
    assert_eq!(stamped.unwrap(), ["tsa0"]);
    let health = client.health();
    assert_eq!((health[0].failures, health[0].paused), (0, None));
}

#[tokio::test]
async fn the_deadline_ends_it_whatever_is_still_to_be_tried() {
    let tsa = tsa();
    let peers = [Peer::new(&tsa, Manner::Silent).await, Peer::new(&tsa, Manner::Silent).await];
    let client = client(&tsa, &[&peers[0], &peers[1]], TimestampPolicy::One);
    let error = client.stamp(b"signature", None, Instant::now() + Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(error.reason(), "timestamp_deadline");
}
