#![allow(clippy::unwrap_used)]

use std::os::unix::net::UnixStream;

use super::super::connection::Connections;
use super::*;

const LONG: Duration = Duration::from_secs(60);

/// A queue with a session, and jobs to put in it.
struct Bench {
    queue: Queue,
    connection: Arc<Connection>,
    _peer: UnixStream,
}

impl Bench {
    fn new(capacity: usize) -> Self {
        let (ours, peer) = UnixStream::pair().unwrap();
        let connection = Connections::default().admit(ours).unwrap().unwrap();
        let queue = Queue::new(capacity);
        std::mem::forget(queue.joined());
        Self { queue, connection, _peer: peer }
    }

    fn job(&self, lane: u64, id: u64, time: Duration) -> Job {
        Job {
            connection: Arc::clone(&self.connection),
            id,
            lane,
            deadline: Instant::now() + time,
            retried: false,
            work: Work::Open { uri: String::new() },
        }
    }

    /// Puts in jobs with these ids in a lane; the ids that were refused for it, of whatever lane.
    fn push(&self, lane: u64, ids: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let jobs = ids.into_iter().map(|id| self.job(lane, id, LONG));
        self.queue.push(jobs).into_iter().map(|(job, _)| job.id).collect()
    }

    fn pop(&self) -> u64 {
        match self.queue.pop(Some(Instant::now())) {
            Next::Work(job) => job.id,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn lanes_take_turns_whatever_they_have_queued() {
    let bench = Bench::new(1_000);
    bench.push(1, 0..100);
    bench.push(2, 100..105);
    bench.push(3, 105..107);
    let served: Vec<u64> = (0..12).map(|_| bench.pop()).collect();
    assert_eq!(served, [0, 100, 105, 1, 101, 106, 2, 102, 3, 103, 4, 104]);
    assert_eq!(bench.pop(), 5, "the rest is the first lane's alone");
}

#[test]
fn a_burst_is_refused_to_the_lane_that_made_it() {
    let bench = Bench::new(10);
    assert_eq!(bench.push(1, 0..12), [10, 11], "one lane alone may have all the room");
    assert_eq!(bench.push(2, 20..25), [9, 8, 7, 6, 5], "another one's share comes from its last jobs");
    assert_eq!(bench.push(2, 25..27), [25, 26], "and it may have no more than that");
    assert_eq!(bench.queue.depth(), 10);
}

#[test]
fn a_retried_job_keeps_its_place() {
    let bench = Bench::new(10);
    bench.push(1, 0..2);
    bench.push(2, 10..12);
    let Next::Work(job) = bench.queue.pop(None) else { panic!("a job") };
    bench.queue.put_back(job);
    let served: Vec<u64> = (0..4).map(|_| bench.pop()).collect();
    assert_eq!(served, [10, 0, 11, 1]);
}

#[test]
fn a_job_whose_turn_would_come_too_late_is_refused_at_once() {
    let bench = Bench::new(1_000);
    bench.queue.took(Duration::from_millis(100));
    bench.push(1, 0..20);
    let refused = bench.queue.push([bench.job(1, 20, Duration::from_secs(1))].into_iter());
    let [(_, Refusal::TooLate { ahead: 20, wait })] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!(wait.as_millis(), 2_200);
    // In a lane of its own its turn is the next but one.
    assert!(bench.queue.push([bench.job(2, 21, Duration::from_secs(1))].into_iter()).is_empty());
    std::mem::forget(bench.queue.joined());
    std::mem::forget(bench.queue.joined());
    assert!(bench.queue.push([bench.job(1, 22, Duration::from_secs(1))].into_iter()).is_empty(), "three sessions");
}

#[test]
fn a_slow_time_behind_it_does_not_shut_the_queue_for_ever() {
    let bench = Bench::new(10);
    bench.queue.took(Duration::from_secs(30));
    let soon = || bench.job(1, 0, Duration::from_millis(100));
    assert!(bench.queue.push([soon()].into_iter()).is_empty(), "with nobody ahead it is tried");
    assert_eq!(bench.queue.push([soon()].into_iter()).len(), 1);
    bench.pop();
    for _ in 0..200 {
        bench.queue.took(Duration::from_millis(1));
    }
    assert!(bench.queue.push((0..5).map(|_| soon())).is_empty(), "the average has learned");
}

#[test]
fn what_expires_is_handed_out_at_its_deadline_while_every_session_is_busy() {
    let bench = Bench::new(10);
    bench.push(1, 0..2);
    let jobs = [bench.job(1, 7, Duration::from_millis(30)), bench.job(2, 8, Duration::from_millis(30))];
    assert!(bench.queue.push(jobs.into_iter()).is_empty());
    let began = Instant::now();
    let mut expired = Vec::new();
    while expired.len() < 2 {
        expired.extend(bench.queue.expired().unwrap().into_iter().map(|job| job.id));
    }
    expired.sort_unstable();
    assert_eq!(expired, [7, 8]);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!((bench.queue.depth(), bench.pop(), bench.pop()), (2, 0, 1));
    bench.queue.close();
    assert!(bench.queue.expired().is_none());
}

#[test]
fn sessions_are_called_away_and_come_back_to_the_same_jobs() {
    let bench = Bench::new(10);
    bench.push(1, 0..1);
    bench.queue.recall(true);
    assert!(matches!(bench.queue.pop(None), Next::Leave));
    bench.queue.recall(false);
    assert_eq!(bench.pop(), 0);
    assert!(matches!(bench.queue.pop(Some(Instant::now() + Duration::from_millis(5))), Next::Idle));
    bench.queue.close();
    assert!(matches!(bench.queue.pop(None), Next::End));
}
