//! What the scheduler is asked, how often and when, in virtual time against a scripted scheduler.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use super::*;
use crate::domain::Worker;
use crate::domain::{Capabilities, CommandId, Pool, Registration, SpecHash, State, WorkerId, WorkerType};
use crate::registration::ListedWorker;

const TRY: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);

/// One answer of the script; the last one is given again and again.
#[derive(Clone)]
enum Answer {
    Yes,
    Busy(u64),
    Refused,
    Nobody,
    Garbled,
    Silent,
}

struct Script {
    answers: Mutex<VecDeque<Answer>>,
    registers: Mutex<Vec<(Duration, RegisterWorker)>>,
    unregisters: Mutex<Vec<Duration>>,
    start: Instant,
}

impl Script {
    fn of(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self {
            answers: Mutex::new(answers.into_iter().collect()),
            registers: Mutex::default(),
            unregisters: Mutex::default(),
            start: Instant::now(),
        }
    }

    async fn answer(&self) -> Result<(), RegistrationError> {
        let answer = {
            let mut answers = self.answers.lock().unwrap();
            if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
        };
        match answer.unwrap() {
            Answer::Yes => Ok(()),
            Answer::Busy(ms) => Err(RegistrationError::Busy { retry_after: Duration::from_millis(ms) }),
            Answer::Refused => {
                Err(RegistrationError::Rejected { code: "banned".to_owned(), message: "go away".to_owned() })
            }
            Answer::Nobody => {
                Err(RegistrationError::Unavailable { code: "no_responders", message: "nobody".to_owned() })
            }
            Answer::Garbled => Err(RegistrationError::Unreadable("not JSON".to_owned())),
            Answer::Silent => std::future::pending().await,
        }
    }

    fn numbers(&self) -> Vec<u32> {
        self.registers.lock().unwrap().iter().map(|(_, request)| request.attempt).collect()
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

impl WorkerRegistrationPort for Script {
    async fn register_worker(&self, request: &RegisterWorker) -> Result<(), RegistrationError> {
        self.registers.lock().unwrap().push((self.elapsed(), request.clone()));
        self.answer().await
    }

    async fn unregister_worker(&self, _: &UnregisterWorker) -> Result<(), RegistrationError> {
        self.unregisters.lock().unwrap().push(self.elapsed());
        self.answer().await
    }

    async fn list_workers(&self, _: &Pool) -> Result<Option<Vec<ListedWorker>>, RegistrationError> {
        Ok(None)
    }
}

fn worker() -> Worker {
    Worker {
        pool: Pool::new("gpu").unwrap(),
        worker_id: WorkerId::new("w-1").unwrap(),
        worker_type: WorkerType::Dynamic,
        state: State::Provisioned,
        rev: 2,
        epoch: 3,
        command_id: CommandId::new("c-1").unwrap(),
        correlation_id: None,
        spec_hash: SpecHash::of(b""),
        ended_by: None,
        provider: "null".to_owned(),
        instance_id: Some("i-1".to_owned()),
        endpoint: None,
        capabilities: Capabilities { labels: BTreeMap::default(), ..Capabilities::default() },
        registration: Registration::wanted(true),
        error: None,
        attempts: 0,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
    }
}

async fn registered(script: &Script, max_retries: u32, seconds: u64) -> Registered {
    let config = RegistrationConfig { enabled: true, max_retries, timeout: Duration::from_secs(seconds) };
    let now = || Timestamp::UNIX_EPOCH.checked_add(script.elapsed()).unwrap();
    register(script, RegisterWorker::from(&worker()), &config, TRY, now, rand::random, |_| ()).await
}

async fn unregistered(script: &Script, grace: Duration, force: bool) -> Unregistered {
    let Worker { worker_id, pool, instance_id, epoch, .. } = worker();
    let request =
        UnregisterWorker { worker_id, pool, instance_id, epoch, reason: "done".to_owned(), grace, trace: None };
    unregister(script, &request, TRY, PATIENCE, force, rand::random, |_| ()).await
}

fn code(ended: &Registered) -> String {
    ended.fault().unwrap().code
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_that_accepts_is_asked_once() {
    let script = Script::of([Answer::Yes]);
    assert_eq!(registered(&script, 3, 30).await, Registered { attempts: 1, error: None });
    let asked = script.registers.lock().unwrap();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].1.epoch, asked[0].1.rev, asked[0].1.attempt), (3, 2, 1));
    assert_eq!(asked[0].1.expires_at, Timestamp::UNIX_EPOCH.checked_add(TRY).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_that_is_away_is_tried_once_and_max_retries_more() {
    let script = Script::of([Answer::Nobody]);
    let ended = registered(&script, 3, 30).await;
    assert_eq!((ended.attempts, code(&ended).as_str()), (4, "no_responders"));
    assert!(!ended.fault().unwrap().critical, "the sweep goes on trying");
    assert_eq!(script.numbers(), [1, 2, 3, 4]);
    assert!(script.elapsed() <= Duration::from_millis(100 + 200 + 400 + 10), "{:?}", script.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_later_try_that_succeeds_is_a_success_and_says_how_many_it_took() {
    let script = Script::of([Answer::Nobody, Answer::Garbled, Answer::Yes]);
    assert_eq!(registered(&script, 3, 30).await, Registered { attempts: 3, error: None });
}

#[tokio::test(start_paused = true)]
async fn a_refusal_ends_it_at_once_and_is_critical() {
    let script = Script::of([Answer::Nobody, Answer::Refused, Answer::Yes]);
    let ended = registered(&script, 3, 30).await;
    assert_eq!((ended.attempts, code(&ended).as_str()), (2, "banned"));
    assert!(ended.fault().unwrap().critical);
}

#[tokio::test(start_paused = true)]
async fn a_busy_scheduler_is_waited_for_and_not_counted() {
    let script = Script::of([Answer::Busy(2_000), Answer::Busy(3_000), Answer::Yes]);
    assert_eq!(registered(&script, 0, 30).await, Registered { attempts: 1, error: None });
    assert_eq!(script.numbers(), [1, 1, 1]);
    assert_eq!(script.registers.lock().unwrap()[2].0.as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_busy_scheduler_that_says_no_time_is_not_asked_in_a_hot_loop() {
    let script = Script::of([Answer::Busy(0)]);
    let ended = registered(&script, 3, 1).await;
    assert_eq!((ended.attempts, code(&ended).as_str()), (0, "busy"));
    assert!(script.numbers().len() <= 20, "{}", script.numbers().len());
}

#[tokio::test(start_paused = true)]
async fn a_wait_beyond_the_time_out_is_not_begun() {
    let script = Script::of([Answer::Busy(31_000)]);
    assert_eq!(code(&registered(&script, 3, 30).await), "busy");
    assert_eq!(script.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_silent_scheduler_costs_a_try_its_time_out_and_all_tries_together_theirs() {
    let script = Script::of([Answer::Silent]);
    let ended = registered(&script, 100, 12).await;
    assert_eq!((ended.attempts, code(&ended).as_str()), (3, "timeout"));
    assert!((Duration::from_millis(11_990)..Duration::from_millis(12_010)).contains(&script.elapsed()));
    // The third try has what is left and no more, and tells the scheduler so.
    let asked = script.registers.lock().unwrap();
    let end = asked[2].1.expires_at.duration_since(Timestamp::UNIX_EPOCH);
    assert!((11_990..12_010).contains(&end.as_millis()), "{end}");
}

#[tokio::test(start_paused = true)]
async fn every_request_is_told_to_the_caller_with_its_end() {
    let script = Script::of([Answer::Busy(100), Answer::Nobody, Answer::Yes]);
    let mut seen = Vec::new();
    let config = RegistrationConfig::default();
    register(
        &script,
        RegisterWorker::from(&worker()),
        &config,
        TRY,
        || Timestamp::UNIX_EPOCH,
        rand::random,
        |answer| seen.push(answer.is_ok()),
    )
    .await;
    assert_eq!(seen, [false, false, true]);
}

#[tokio::test(start_paused = true)]
async fn both_can_be_spawned() {
    let script = std::sync::Arc::new(Script::of([Answer::Yes]));
    let task = tokio::spawn(async move {
        let ended = registered(&script, 3, 30).await;
        (ended.fault(), unregistered(&script, PATIENCE, false).await)
    });
    assert_eq!(task.await.unwrap(), (None, Unregistered::Done));
}

#[tokio::test(start_paused = true)]
async fn an_unregister_that_is_accepted_is_done() {
    assert_eq!(unregistered(&Script::of([Answer::Yes]), PATIENCE, false).await, Unregistered::Done);
}

#[tokio::test(start_paused = true)]
async fn a_draining_worker_is_asked_after_until_it_has_drained() {
    let script = Script::of([Answer::Busy(1_000), Answer::Busy(1_000), Answer::Yes]);
    assert_eq!(unregistered(&script, Duration::from_secs(10), false).await, Unregistered::Done);
    assert_eq!(script.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_with_its_grace_and_a_last_question() {
    let script = Script::of([Answer::Busy(4_000)]);
    assert_eq!(unregistered(&script, Duration::from_secs(10), false).await, Unregistered::StillBusy);
    let asked: Vec<_> = script.unregisters.lock().unwrap().iter().map(Duration::as_secs).collect();
    assert_eq!(asked, [0, 4, 8, 10]);
}

#[tokio::test(start_paused = true)]
async fn force_tells_the_scheduler_and_does_not_wait_for_the_drain() {
    let script = Script::of([Answer::Busy(4_000)]);
    assert_eq!(unregistered(&script, Duration::from_secs(10), true).await, Unregistered::StillBusy);
    assert_eq!((script.elapsed(), script.unregisters.lock().unwrap().len()), (Duration::ZERO, 1));
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_that_is_away_delays_an_unregister_by_no_more_than_the_patience() {
    for answer in [Answer::Nobody, Answer::Silent, Answer::Garbled] {
        let script = Script::of([answer]);
        let ended = unregistered(&script, Duration::from_secs(600), false).await;
        assert!(matches!(ended, Unregistered::Unreachable(_)), "{ended:?}");
        assert!(script.elapsed() <= PATIENCE + Duration::from_millis(20), "{:?}", script.elapsed());
        // Nor by less: it may be back at any moment until then.
        assert!(script.elapsed() + 2 * SHORTEST_LAST > PATIENCE, "{:?}", script.elapsed());
        assert!(script.unregisters.lock().unwrap().len() > 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_that_comes_back_is_found_within_the_patience() {
    let script = Script::of([Answer::Nobody, Answer::Silent, Answer::Busy(100), Answer::Nobody, Answer::Yes]);
    assert_eq!(unregistered(&script, PATIENCE, false).await, Unregistered::Done);
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_that_comes_and_goes_does_not_hold_a_terminate_for_ever() {
    let flapping = std::iter::repeat_n([Answer::Silent, Answer::Busy(50)], 100).flatten();
    let script = Script::of(flapping);
    let ended = unregistered(&script, Duration::from_secs(3600), false).await;
    assert!(matches!(ended, Unregistered::Unreachable(_)), "{ended:?}");
    assert!(script.elapsed() < PATIENCE + Duration::from_secs(2), "{:?}", script.elapsed());
}

#[test]
fn pauses_double_from_100_ms_to_30_s_and_start_anywhere_from_nothing() {
    let mut longest = [Duration::ZERO; 14];
    let mut shortest = [Duration::MAX; 14];
    for _ in 0..2_000 {
        let mut pauses = pauses();
        for (longest, shortest) in longest.iter_mut().zip(&mut shortest) {
            let pause = next(&mut pauses, rand::random());
            *longest = pause.max(*longest);
            *shortest = pause.min(*shortest);
        }
    }
    let mut window = Duration::from_millis(100);
    for (longest, shortest) in longest.into_iter().zip(shortest) {
        assert!(
            longest <= window + Duration::from_nanos(1) && longest > window.mul_f64(0.9),
            "{longest:?} of {window:?}"
        );
        assert!(shortest < window.mul_f64(0.1), "{shortest:?} of {window:?}");
        window = (window * 2).min(Duration::from_secs(30));
    }
}

#[test]
fn a_refusal_under_a_code_of_ours_is_no_absence() {
    let refused = RegistrationError::Rejected { code: "busy".to_owned(), message: "not you".to_owned() };
    assert_eq!(refused.fault().code, "busy");
    assert!(!refused.is_away(), "who comes next may be accepted");
    assert!(RegistrationError::Busy { retry_after: Duration::ZERO }.is_away());
    assert!(RegistrationError::Unavailable { code: "timeout", message: String::new() }.is_away());
}
