#![allow(clippy::unwrap_used, reason = "a failing expectation is how a test fails")]

use super::*;

const A: HostId = HostId(0);
const B: HostId = HostId(1);
const C: HostId = HostId(2);

fn rates(limit: u64) -> Rates {
    let frames = u32::try_from(limit.div_ceil(FRAME)).unwrap();
    Rates { limit, frames, parts: BTreeMap::new(), next: Timestamp::default(), due: None }
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_micros(1_000_000_000 + millis * 1_000)
}

fn told(rates: &Rates) -> [u64; 3] {
    [A, B, C].map(|host| rates.told(host).0)
}

/// Divides while all hosts hear, and says whether it has to look again.
fn divide(rates: &mut Rates, millis: u64) -> Option<Timestamp> {
    rates.divide(at(millis), |_| true, false).1
}

#[test]
fn a_limit_of_whole_cores_needs_no_rates() {
    let mut policy = partita_testkit::policy("acme");
    assert!(Rates::of(&policy, None).is_none(), "there is none");
    policy.quota.cpu = MilliCpu(3_000);
    assert!(Rates::of(&policy, None).is_none(), "three frames use three cores at most");
    policy.share.borrow.cpu = Some(MilliCpu(1_250));
    assert_eq!(Rates::of(&policy, None).unwrap().limit, 1_250);
}

#[test]
fn the_only_frame_gets_all_of_half_a_core() {
    let mut rates = rates(500);
    rates.add_frame(B);
    assert_eq!(divide(&mut rates, 0), None);
    assert_eq!(told(&rates), [LEAST, 500, LEAST]);
}

#[test]
fn no_host_gets_more_than_its_frames_can_use_and_all_together_get_the_limit() {
    let mut rates = rates(2_500);
    rates.add_frame(A);
    rates.add_frame(B);
    assert_eq!(divide(&mut rates, 0), None);
    assert_eq!(told(&rates), [1_000, 1_000, LEAST]);
    rates.add_frame(B);
    divide(&mut rates, 200);
    divide(&mut rates, 300);
    assert_eq!(told(&rates), [833, 1_667, LEAST]);
}

#[test]
fn a_host_has_heard_that_it_has_less_before_another_has_more() {
    let mut rates = rates(1_500);
    rates.add_frame(A);
    divide(&mut rates, 0);
    rates.add_frame(B);
    let again = divide(&mut rates, 500);
    assert_eq!((told(&rates), again), ([750, 500, LEAST], Some(at(600))), "half a core was free");
    assert_eq!(divide(&mut rates, 600), None);
    assert_eq!(told(&rates), [750, 750, LEAST]);
}

#[test]
fn parts_change_at_most_every_hundred_milliseconds() {
    let mut rates = rates(1_500);
    rates.add_frame(A);
    divide(&mut rates, 0);
    rates.remove_frame(A);
    rates.add_frame(B);
    assert_eq!(divide(&mut rates, 99), Some(at(100)));
    assert_eq!(told(&rates), [1_000, LEAST, LEAST]);
    assert_eq!(divide(&mut rates, 100), None);
    assert_eq!(told(&rates), [1_000, 1_000, LEAST], "who has no frames uses nothing, whatever it was told");
}

/// The limit of a tenant with one frame at a time goes with it, and costs a message for each host only once.
#[test]
fn a_frame_that_comes_back_finds_what_its_host_was_told() {
    let mut rates = rates(500);
    for (round, host) in [A, B, A, B, A].into_iter().enumerate() {
        rates.add_frame(host);
        let (heard, _) = rates.divide(at(200 * round as u64), |_| true, false);
        assert_eq!((heard.is_empty(), rates.told(host).0), (round > 1, 500));
        rates.remove_frame(host);
    }
}

#[test]
fn what_a_host_was_told_long_ago_is_cut_at_once_when_it_would_be_too_much() {
    let mut rates = rates(1_500);
    rates.add_frame(A);
    divide(&mut rates, 0);
    rates.remove_frame(A);
    rates.add_frame(B);
    divide(&mut rates, 200);
    assert_eq!(told(&rates), [1_000, 1_000, LEAST]);
    rates.add_frame(A);
    assert_eq!(divide(&mut rates, 210), Some(at(300)));
    assert_eq!(told(&rates), [500, 1_000, LEAST], "too early for more than what has to be");
    divide(&mut rates, 300);
    divide(&mut rates, 400);
    assert_eq!(told(&rates), [750, 750, LEAST]);
}

#[test]
fn a_host_that_cannot_hear_keeps_what_it_was_told() {
    let mut rates = rates(1_500);
    rates.add_frame(A);
    rates.add_frame(B);
    divide(&mut rates, 0);
    rates.remove_frame(A);
    rates.add_frame(C);
    let hears = |host| host != B;
    rates.divide(at(200), hears, false);
    assert_eq!(told(&rates), [750, 750, 750]);
    rates.add_frame(C);
    rates.divide(at(300), hears, false);
    assert_eq!(told(&rates), [750, 750, 750], "of what the other leaves, whatever would be its share");
}

#[test]
fn while_hosts_are_awaited_each_frame_gets_what_it_would_beside_all_others() {
    let mut rates = rates(2_500);
    rates.add_frame(A);
    rates.divide(at(0), |_| true, true);
    assert_eq!(told(&rates), [833, LEAST, LEAST]);
    rates.divide(at(100), |_| true, false);
    assert_eq!(told(&rates), [1_000, LEAST, LEAST]);
}

#[test]
fn a_lowered_limit_does_not_wait_for_its_turn() {
    let mut policy = partita_testkit::policy("acme");
    policy.quota.cpu = MilliCpu(2_500);
    let mut rates = Rates::of(&policy, None).unwrap();
    rates.add_frame(A);
    rates.add_frame(B);
    divide(&mut rates, 0);
    policy.quota.cpu = MilliCpu(300);
    let mut rates = Rates::of(&policy, Some(rates)).unwrap();
    assert_eq!(divide(&mut rates, 1), None);
    assert_eq!(told(&rates), [150, 150, LEAST]);
}
