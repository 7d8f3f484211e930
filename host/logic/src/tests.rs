//! One rule of the queue per test.

use partita_types::{ArrayIndex, AttemptNumber, JobId, TaskId};

use super::*;

const A: TenantId = TenantId(1);
const B: TenantId = TenantId(2);
const NOW: Timestamp = Timestamp::from_micros(1_000_000);

fn attempt(tenant: TenantId, index: u32) -> AttemptId {
    let task = TaskId { job: JobId { tenant, number: 1 }, array: ArrayIndex(0), index };
    AttemptId { task, number: AttemptNumber::FIRST }
}

fn offer(frame: u64, tenant: TenantId, indexes: std::ops::Range<u32>) -> Offer {
    let attempts = indexes.map(|index| attempt(tenant, index)).collect();
    Offer { frame: FrameId(frame), tenant, memory: ByteSize::mib(100), attempts }
}

fn host() -> Logic<()> {
    Logic::new(8, ByteSize::gib(1))
}

fn ready(logic: &mut Logic<()>, offer: Offer) -> WorkId {
    let id = logic.admit(offer).unwrap();
    assert_eq!(logic.prepared(id, (), &[]), Prepared::Queued);
    id
}

fn take(logic: &mut Logic<()>) -> Job<()> {
    match logic.take(NOW) {
        Taken::Job(job) => job,
        Taken::Nothing { until } => panic!("nothing to take until {until:?}"),
    }
}

fn nothing(logic: &mut Logic<()>, now: Timestamp) -> Option<Timestamp> {
    match logic.take(now) {
        Taken::Job(job) => panic!("{job:?} was taken"),
        Taken::Nothing { until } => until,
    }
}

fn terms(weight: u32) -> Terms {
    Terms { weight, limit: None, guaranteed: partita_types::MilliCpu(0) }
}

fn millis(millis: u64) -> CpuTime {
    CpuTime::from_micros(millis * 1000)
}

#[test]
fn frames_of_a_tenant_keep_their_order_though_preparations_end_in_any() {
    let mut logic = host();
    let first = logic.admit(offer(1, A, 0..1)).unwrap();
    let second = ready(&mut logic, offer(2, A, 1..2));
    assert_eq!(logic.prepared(first, (), &[]), Prepared::Queued);
    assert_eq!(take(&mut logic).work, first);
    assert_eq!(take(&mut logic).work, second);
}

#[test]
fn a_frame_that_is_not_prepared_holds_up_nobody() {
    let mut logic = host();
    logic.admit(offer(1, A, 0..1)).unwrap();
    let second = ready(&mut logic, offer(2, A, 1..2));
    assert_eq!(take(&mut logic).work, second);
}

#[test]
fn cpu_time_is_shared_by_weight() {
    let mut logic = host();
    logic.set_tenant(A, terms(3), NOW, &mut |_| None);
    logic.set_tenant(B, terms(1), NOW, &mut |_| None);
    for frame in 0..400 {
        ready(&mut logic, offer(frame, if frame % 2 == 0 { A } else { B }, 0..1));
    }
    let mut taken = BTreeMap::from([(A, 0), (B, 0)]);
    for _ in 0..200 {
        let job = take(&mut logic);
        *taken.get_mut(&job.tenant).unwrap() += 1;
        logic.give_back(job.work, (), 1, millis(5), None);
    }
    assert!((149..=151).contains(&taken[&A]), "{taken:?}");
}

#[test]
fn a_tenant_that_was_idle_does_not_catch_up_on_the_past() {
    let mut logic = host();
    for frame in 0..100 {
        ready(&mut logic, offer(frame, A, 0..1));
        let job = take(&mut logic);
        logic.give_back(job.work, (), 1, millis(1000), None);
    }
    for frame in 100..120 {
        ready(&mut logic, offer(frame, A, 0..1));
        ready(&mut logic, offer(frame + 100, B, 0..1));
    }
    let mut of_a = 0;
    for _ in 0..20 {
        let job = take(&mut logic);
        of_a += u32::from(job.tenant == A);
        logic.give_back(job.work, (), 1, millis(1000), None);
    }
    assert!((9..=11).contains(&of_a), "{of_a} of 20 went to the tenant that was busy before");
}

#[test]
fn lanes_that_ask_at_once_are_not_all_given_to_one_tenant() {
    let mut logic = host();
    for frame in 0..4 {
        ready(&mut logic, offer(frame, A, 0..1));
    }
    for frame in 4..8 {
        ready(&mut logic, offer(frame, B, 0..1));
    }
    let tenants: Vec<TenantId> = (0..4).map(|_| take(&mut logic).tenant).collect();
    assert_eq!(tenants.iter().filter(|tenant| **tenant == A).count(), 2, "{tenants:?}");
}

#[test]
fn running_frames_never_have_more_memory_than_the_host() {
    let mut logic = Logic::new(8, ByteSize::mib(250));
    for frame in 0..3 {
        ready(&mut logic, offer(frame, A, 0..1));
    }
    let job = take(&mut logic);
    take(&mut logic);
    assert_eq!(nothing(&mut logic, NOW), None);
    assert_eq!(logic.reserved(), ByteSize::mib(200));
    logic.give_back(job.work, (), 1, millis(1), None);
    take(&mut logic);
}

#[test]
fn a_frame_larger_than_the_host_is_refused_and_not_kept_for_ever() {
    let mut logic: Logic<()> = Logic::new(8, ByteSize::mib(50));
    let error = logic.admit(offer(1, A, 0..1)).unwrap_err();
    assert_eq!(error.to_string(), "the task may use 100 MiB of memory, and the host has 50 MiB for guests");
}

#[test]
fn no_more_frames_are_kept_than_the_bound() {
    let mut logic = host();
    for frame in 0..MAX_FRAMES as u64 {
        logic.admit(offer(frame, A, 0..1)).unwrap();
    }
    assert_eq!(logic.admit(offer(9999, A, 0..1)), Err(AdmitError::Full));
}

#[test]
fn the_rest_of_a_frame_goes_on_after_a_lost_executor() {
    let mut logic = host();
    let id = ready(&mut logic, offer(1, A, 0..5));
    assert_eq!(take(&mut logic).positions, [0, 1, 2, 3, 4]);
    let returned = logic.give_back(id, (), 3, millis(1), Some(NOW));
    assert_eq!(returned, Returned::Again { cancelled: Vec::new() });
    assert_eq!(take(&mut logic).positions, [3, 4]);
    let returned = logic.give_back(id, (), 2, millis(1), None);
    assert_eq!(returned, Returned::Finished { frame: Some(FrameId(1)), cancelled: Vec::new() });
    assert_eq!((logic.running(), logic.reserved()), (0, ByteSize::ZERO));
}

#[test]
fn a_tenant_that_loses_executors_in_a_row_has_to_wait_and_others_do_not() {
    let mut logic = host();
    for frame in 0..40 {
        ready(&mut logic, offer(frame, A, 0..100));
    }
    let mut lost = 0;
    let until = loop {
        match logic.take(NOW) {
            Taken::Job(job) => {
                lost += 1;
                logic.give_back(job.work, (), 1, millis(1), Some(NOW));
            }
            Taken::Nothing { until } => break until,
        }
    };
    assert_eq!((lost, until), (RESPAWN_BURST, Some(NOW.after(RESPAWN_REFILL))));
    ready(&mut logic, offer(100, B, 0..1));
    assert_eq!(take(&mut logic).tenant, B);
    assert!(matches!(logic.take(NOW.after(RESPAWN_REFILL)), Taken::Job(job) if job.tenant == A));
}

#[test]
fn cancelled_attempts_of_a_waiting_frame_do_not_start() {
    let mut logic = host();
    ready(&mut logic, offer(1, A, 0..3));
    let cancelled = logic.cancel(&[attempt(A, 1), attempt(A, 77)]);
    assert_eq!(cancelled, Cancelled { attempts: vec![attempt(A, 1)], ..Cancelled::default() });
    assert_eq!(take(&mut logic).positions, [0, 2]);
}

#[test]
fn a_frame_whose_attempts_are_all_cancelled_is_finished_at_once() {
    let mut logic = host();
    ready(&mut logic, offer(1, A, 0..1));
    let preparing = logic.admit(offer(2, A, 1..2)).unwrap();
    let cancelled = logic.cancel(&[attempt(A, 0), attempt(A, 1)]);
    assert_eq!(cancelled.finished, [FrameId(1), FrameId(2)]);
    assert_eq!(cancelled.abandoned, [preparing]);
    assert_eq!(logic.prepared(preparing, (), &[]), Prepared::Gone);
    assert_eq!(nothing(&mut logic, NOW), None);
}

#[test]
fn cancelled_attempts_of_a_running_frame_are_stopped_and_do_not_come_back_with_its_rest() {
    let mut logic = host();
    let id = ready(&mut logic, offer(1, A, 0..4));
    take(&mut logic);
    let cancelled = logic.cancel(&[attempt(A, 0), attempt(A, 3)]);
    assert_eq!(cancelled, Cancelled { running: vec![(id, vec![0, 3])], ..Cancelled::default() });
    let returned = logic.give_back(id, (), 1, millis(1), Some(NOW));
    assert_eq!(returned, Returned::Again { cancelled: vec![attempt(A, 3)] });
    assert_eq!(take(&mut logic).positions, [1, 2]);
}

#[test]
fn positions_that_could_not_be_prepared_do_not_run() {
    let mut logic = host();
    let id = logic.admit(offer(1, A, 0..3)).unwrap();
    assert_eq!(logic.prepared(id, (), &[0, 2]), Prepared::Queued);
    assert_eq!(take(&mut logic).positions, [1]);
    let id = logic.admit(offer(2, A, 0..1)).unwrap();
    assert_eq!(logic.prepared(id, (), &[0]), Prepared::Finished(FrameId(2)));
}

#[test]
fn after_a_clear_nothing_is_left_but_memory_of_what_still_runs() {
    let mut logic = host();
    let running = ready(&mut logic, offer(1, A, 0..2));
    take(&mut logic);
    ready(&mut logic, offer(2, A, 2..3));
    let preparing = logic.admit(offer(3, A, 3..4)).unwrap();
    assert_eq!(logic.clear(), (vec![preparing], vec![running]));
    assert_eq!(nothing(&mut logic, NOW), None);
    assert_eq!(logic.reserved(), ByteSize::mib(100));
    let returned = logic.give_back(running, (), 1, millis(1), Some(NOW));
    assert_eq!(returned, Returned::Finished { frame: None, cancelled: Vec::new() });
    assert_eq!((logic.running(), logic.reserved()), (0, ByteSize::ZERO));
}

#[test]
fn a_host_holds_what_waits_and_what_runs_without_what_ended() {
    let mut logic = host();
    let running = ready(&mut logic, offer(1, A, 0..4));
    logic.admit(offer(2, B, 7..8)).unwrap();
    assert_eq!(take(&mut logic).work, running);
    let held = |logic: &Logic<()>, ended: usize| -> Vec<(u64, Vec<u32>)> {
        let frames = logic.held(|id| if id == running { ended } else { 0 });
        frames.into_iter().map(|frame| (frame.id.0, frame.indexes)).collect()
    };
    assert_eq!(held(&logic, 1), [(1, vec![1, 2, 3]), (2, vec![7])]);
    assert_eq!(held(&logic, 4), [(2, vec![7])]);
    logic.give_back(running, (), 2, millis(1), Some(NOW));
    assert_eq!(held(&logic, 0), [(1, vec![2, 3]), (2, vec![7])], "the rest waits again");
    logic.clear();
    assert_eq!(held(&logic, 0), []);
}

#[test]
fn a_frame_is_given_back_only_before_it_begins_and_only_whole() {
    let mut logic = host();
    let running = ready(&mut logic, offer(1, A, 0..2));
    take(&mut logic);
    ready(&mut logic, offer(2, A, 2..3));
    let preparing = logic.admit(offer(3, A, 3..4)).unwrap();
    assert_eq!(logic.retract(FrameId(1)), Retracted::Kept, "it runs");
    assert_eq!(logic.retract(FrameId(2)), Retracted::Given { abandoned: None });
    assert_eq!(logic.retract(FrameId(3)), Retracted::Given { abandoned: Some(preparing) });
    assert_eq!(logic.prepared(preparing, (), &[]), Prepared::Gone);
    assert_eq!(logic.retract(FrameId(2)), Retracted::Kept, "it is not here any more");
    let returned = logic.give_back(running, (), 1, millis(1), Some(NOW));
    assert_eq!(returned, Returned::Again { cancelled: Vec::new() });
    assert_eq!(logic.retract(FrameId(1)), Retracted::Kept, "a task of it has ended here");
}
